"""A step of training, ours beside others': python -m benchmarks.train_step --help

Each contender is a process with the same weights and batches. First all take three steps without
dropout, and their losses must agree. Then they take turns, one at a time.
"""

from __future__ import annotations

import sys
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
    show,
    summary,
    workers,
)
from .works import MEASURED, WORKS

EXAMPLES = """\
  python -m benchmarks.train_step
  python -m benchmarks.train_step --work W1,W4 --against torch-tuned --repeats 5
  python -m benchmarks.train_step --work W2 --against torch,torch-compile,jax --threads 1,2
  python -m benchmarks.train_step --work all --against torch,torch-tuned,jax"""
CHECKED_STEPS, TOLERANCE = 3, 1e-3


def main(argv: Sequence[str] | None = None) -> int:
    options = parser(
        "Milliseconds for a training step: forward, backward, clipping and optimizer.",
        EXAMPLES,
        "torch,torch-tuned",
    )
    add_choice(options, "--work", WORKS, MEASURED, default=["W2"])
    add_repeats(options, 7)
    args = options.parse_args(argv)
    names = present(args.against, "training")
    return each("train_step", args.work, names, args, measure, report)


def measure(name: str, names: Sequence[str], threads: int, repeats: int) -> dict[str, Any]:
    """One work at one number of threads: losses, times and ratios of each contender."""
    work = WORKS[name]
    others = busy()
    with workers(names, threads) as found:
        losses = {}
        for worker in found:
            worker.do("train", work=name, dropout=0.0, shared=True)
            losses[worker.name] = worker.do("steps", count=CHECKED_STEPS)["losses"]
        if work.dropout:
            for worker in found:
                worker.do("train", work=name, dropout=work.dropout, shared=True)
                worker.do("steps", count=1)
        runs = {w.name: (lambda n, w=w: w.do("steps", count=n)["seconds"]) for w in found}
        times = summary(interleave(runs, repeats), "tx")
    return {
        "threads": threads,
        "busy_cores_before": others,
        **compared(losses, times, work.flops()),
    }


def compared(
    losses: dict[str, list[float]], times: dict[str, dict[str, Any]], flops: float
) -> dict[str, Any]:
    """What a result says of contenders' first losses and their times."""
    ours = losses["tx"]
    apart = {
        contender: max(abs(a - b) / abs(b) for a, b in zip(theirs, ours, strict=True))
        for contender, theirs in losses.items()
    }
    for contender, numbers in times.items():
        numbers["gflops"] = round(flops / numbers["median_ms"] / 1e6, 1)
        numbers["loss_apart"] = apart[contender]
    return {
        "gflop_a_step": flops / 1e9,
        "losses_without_dropout": losses,
        "agree": max(apart.values()) < TOLERANCE,
        "contenders": times,
    }


def report(work: str, run: dict[str, Any]) -> None:
    show(
        f"{work}, {run['threads']} threads, {run['gflop_a_step']:.1f} GFLOP a step",
        ("", "median ms", "min ms", "times tx", "GFLOP/s", "loss apart"),
        [
            (name, x["median_ms"], x["min_ms"], x["ratio"], x["gflops"], f"{x['loss_apart']:.1e}")
            for name, x in run["contenders"].items()
        ],
    )
    if not run["agree"]:
        print(f"{work}: the losses do not agree: {run['losses_without_dropout']}", file=sys.stderr)


if __name__ == "__main__":
    command(main)
