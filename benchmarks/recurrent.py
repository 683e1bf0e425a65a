"""A step of training recurrent layers, ours beside PyTorch's: python -m benchmarks.recurrent --help

Two layers of 256, 64 sequences of 32 steps: forward, backward and Adam, ours compiled. Each
contender is a process with the same weights and batches. First all take three steps, and their
losses must agree. Then they take turns, one at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .common import (
    add_choice,
    add_repeats,
    busy,
    command,
    each,
    interleave,
    parser,
    present,
    summary,
    workers,
)
from .train_step import CHECKED_STEPS, compared, report
from .works import RECURRENT

EXAMPLES = """\
  python -m benchmarks.recurrent
  python -m benchmarks.recurrent --work lstm --against torch-tuned --threads 1,2"""
MEASURED = tuple(name for name in RECURRENT if not name.startswith("tiny"))


def main(argv: Sequence[str] | None = None) -> int:
    options = parser(
        "Milliseconds for a training step of recurrent layers.", EXAMPLES, "torch,torch-tuned"
    )
    add_choice(options, "--work", RECURRENT, MEASURED, default=list(MEASURED))
    add_repeats(options, 7)
    args = options.parse_args(argv)
    names = present(args.against, "recurrent")
    return each("recurrent", args.work, names, args, measure, report)


def measure(name: str, names: Sequence[str], threads: int, repeats: int) -> dict[str, Any]:
    """One work at one number of threads: losses, times and ratios of each contender."""
    others = busy()
    with workers(names, threads) as found:
        losses = {}
        for worker in found:
            worker.do("recurrent", work=name)
            losses[worker.name] = worker.do("steps", count=CHECKED_STEPS)["losses"]
        runs = {w.name: (lambda n, w=w: w.do("steps", count=n)["seconds"]) for w in found}
        times = summary(interleave(runs, repeats), "tx")
    return {
        "threads": threads,
        "busy_cores_before": others,
        **compared(losses, times, RECURRENT[name].flops()),
    }


if __name__ == "__main__":
    command(main)
