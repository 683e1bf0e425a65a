"""Two checkouts beside each other: python -m benchmarks.paired --help

Whether a change made anything slower: the same works, the same processes' environment, the same
weights and batches, once from another checkout (the commit before, say) and once from this one, in
turns. The ratio is the median over the rounds of other / this, so above 1 this one is faster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from .common import (
    ROOT,
    Worker,
    add_choice,
    add_repeats,
    busy,
    command,
    commit,
    interleave,
    parser,
    show,
    summary,
    write,
)
from .works import DECODINGS, MEASURED, MEASURED_DECODINGS, WORKS

EXAMPLES = """\
  git worktree add ../before HEAD~1
  python -m benchmarks.paired --before ../before
  python -m benchmarks.paired --before ../before --work W1 --case '' --repeats 20"""


def main(argv: Sequence[str] | None = None) -> int:
    options = parser("Milliseconds in two checkouts, interleaved.", EXAMPLES, "")
    options.add_argument(
        "--before", type=Path, required=True, metavar="DIR", help="root of the other checkout"
    )
    add_choice(options, "--work", WORKS, MEASURED, default=["W1", "W2", "W4"])
    add_choice(options, "--case", DECODINGS, MEASURED_DECODINGS, default=["greedy-1"])
    add_repeats(options, 10)
    args = options.parse_args(argv)
    if not (args.before / "benchmarks" / "worker.py").exists():
        options.error(f"--before {args.before}: no benchmarks/worker.py in it")
    agree = True
    for what in (*args.work, *args.case):
        runs = []
        for threads in args.threads:
            run = measure(what, args.before.resolve(), threads, args.repeats)
            report(what, run)
            runs.append(run)
            agree = agree and run["agree"]
        commits = {"before": commit(args.before), "now": commit(ROOT)}
        print(write("paired", what, ["tx"], {"commits": commits, "runs": runs}, args.out))
    return 0 if agree else 1


def measure(what: str, before: Path, threads: int, repeats: int) -> dict[str, Any]:
    """A training step or a translation in both checkouts."""
    others = busy()
    with (
        closing(Worker("tx", threads, before, root=before)) as old,
        closing(Worker("tx", threads, ROOT)) as new,
    ):
        agree = close(first(old, what), first(new, what))
        runs = {"before": timed(old, what), "now": timed(new, what)}
        times = summary(interleave(runs, repeats), "now")
    return {
        "threads": threads,
        "busy_cores_before": others,
        "agree": agree,
        "contenders": times,
    }


def close(before: Any, now: Any) -> bool:
    """True if both checkouts compute the same: losses to rounding, tokens exactly."""
    a, b = np.asarray(before), np.asarray(now)
    if a.shape != b.shape or a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    return bool(np.allclose(a, b, rtol=1e-4, atol=0))


def first(worker: Worker, what: str) -> Any:
    """The losses of a work's first steps without dropout, or the tokens of a case."""
    if what in WORKS:
        worker.do("train", work=what, dropout=0.0, shared=True)
        return worker.do("steps", count=2)["losses"]
    worker.do("translator", case=what)
    return worker.do("translate", count=1)["tokens"]


def timed(worker: Worker, what: str) -> Callable[[int], list[float]]:
    """The worker's runs of a work or a case: count -> the seconds of each."""
    request = "translate"
    if what in WORKS:
        request = "steps"
        worker.do("train", work=what, dropout=WORKS[what].dropout, shared=True)
    worker.do(request, count=2)

    def run(count: int) -> list[float]:
        seconds: list[float] = worker.do(request, count=count)["seconds"]
        return seconds

    return run


def report(what: str, run: dict[str, Any]) -> None:
    show(
        f"{what}, {run['threads']} threads",
        ("", "median ms", "min ms", "times now"),
        [(name, x["median_ms"], x["min_ms"], x["ratio"]) for name, x in run["contenders"].items()],
    )


if __name__ == "__main__":
    command(main)
