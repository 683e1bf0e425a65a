"""Translating, ours beside others: python -m benchmarks.decode --help

Each contender is a process with the same weights and sources; they take turns. All must choose the
same tokens; where they do not, the first place where they part is judged in float64: within
NEAR_TIE nobody is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .common import (
    Worker,
    add_choice,
    add_repeats,
    busy,
    command,
    each,
    interleave,
    parser,
    present,
    show,
    summary,
    workers,
)
from .works import DECODINGS, MEASURED_DECODINGS

EXAMPLES = """\
  python -m benchmarks.decode
  python -m benchmarks.decode --case greedy-1,beam-4 --against torch-tuned,ctranslate2
  python -m benchmarks.decode --against torch --threads 1,2 --repeats 3"""
NEAR_TIE = 1e-4


def main(argv: Sequence[str] | None = None) -> int:
    options = parser(
        "Milliseconds to translate a batch into 64 tokens a sentence (work W5: the model of W2).",
        EXAMPLES,
        "torch,torch-tuned,ctranslate2",
    )
    add_choice(options, "--case", DECODINGS, MEASURED_DECODINGS)
    add_repeats(options, 7)
    args = options.parse_args(argv)
    names = present(args.against, "translator")
    return each("decode", args.case, names, args, measure, report)


def measure(case: str, names: Sequence[str], threads: int, repeats: int) -> dict[str, Any]:
    """One case at one number of threads: times, ratios and disagreements of each contender."""
    others = busy()
    with workers(names, threads) as found:
        for worker in found:
            worker.do("translator", case=case)
        outcomes = {worker.name: worker.do("translate", count=1) for worker in found}
        runs = {w.name: (lambda n, w=w: w.do("translate", count=n)["seconds"]) for w in found}
        times = summary(interleave(runs, repeats), "tx")
        parted = {
            name: differences(case, found[0], outcomes["tx"], outcome)
            for name, outcome in outcomes.items()
            if name != "tx"
        }
    return {
        "threads": threads,
        "busy_cores_before": others,
        "contenders": times,
        "different": parted,
        "agree": all(d["near_tie"] for rows in parted.values() for d in rows),
    }


def differences(
    case: str, judge: Worker, ours: dict[str, Any], theirs: dict[str, Any]
) -> list[dict[str, Any]]:
    """The rows whose tokens differ, with the float64 log-probabilities that decide: of the first
    token that differs (greedy search), or of the whole hypothesis (beam search)."""
    rows = [
        i for i, (a, b) in enumerate(zip(ours["tokens"], theirs["tokens"], strict=True)) if a != b
    ]
    if not rows:
        return []
    a, b = (judge.do("rescore", case=case, tokens=x["tokens"]) for x in (ours, theirs))
    found = []
    for i in rows:
        pairs = zip(ours["tokens"][i], theirs["tokens"][i], strict=True)
        place = next(t for t, (x, y) in enumerate(pairs) if x != y)
        greedy = DECODINGS[case].beam == 1
        gap = a[i][place] - b[i][place] if greedy else sum(a[i]) - sum(b[i])
        found.append({"row": i, "place": place, "gap": gap, "near_tie": abs(gap) < NEAR_TIE})
    return found


def report(case: str, run: dict[str, Any]) -> None:
    work = DECODINGS[case]
    show(
        f"{case}: batch {work.batch}, beam {work.beam}, {work.new_tokens} tokens, "
        f"{run['threads']} threads",
        ("", "median ms", "min ms", "times tx", "rows that differ"),
        [
            (name, x["median_ms"], x["min_ms"], x["ratio"], len(run["different"].get(name, ())))
            for name, x in run["contenders"].items()
        ],
    )
    for name, rows in run["different"].items():
        for row in rows:
            judged = "a near tie" if row["near_tie"] else "NOT a near tie"
            print(
                f"{name}, row {row['row']}: parts at token {row['place']}, ours is better by "
                f"{row['gap']:.1e}: {judged}"
            )


if __name__ == "__main__":
    command(main)
