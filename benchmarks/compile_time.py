"""How long the first step takes: python -m benchmarks.compile_time --help

Cold: a new process whose cache on disk is empty. Warm: another one that finds the first one's
cache. New shape: batches of another length, in a process that has compiled one. Each is the wall
time of the step minus that of a later one like it, so that what is left is tracing and compiling.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from statistics import median
from typing import Any

from .common import Worker, add_choice, command, parser, present, show, workers, write
from .works import MEASURED, WORKS

EXAMPLES = """\
  python -m benchmarks.compile_time
  python -m benchmarks.compile_time --work W1,W2 --against torch-compile,jax"""
NEW_SHAPE = 0.75  # of the length


def main(argv: Sequence[str] | None = None) -> int:
    options = parser("Seconds that a first step costs beyond a later one.", EXAMPLES, "")
    add_choice(options, "--work", WORKS, MEASURED, default=["W2"])
    args = options.parse_args(argv)
    names = present(args.against, "training")
    for work in args.work:
        runs = []
        for threads in args.threads:
            found = {name: measure(work, name, threads) for name in names}
            report(work, threads, found)
            runs.append({"threads": threads, "contenders": found})
        print(write("compile_time", work, names, {"runs": runs}, args.out))
    return 0


def measure(work: str, name: str, threads: int) -> dict[str, Any]:
    """Cold, warm and new-shape seconds of one contender, with what it says of its own work."""
    with tempfile.TemporaryDirectory() as cache:
        variables = ("TX_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "JAX_COMPILATION_CACHE_DIR")
        extra = dict.fromkeys(variables, cache)
        with workers([name], threads, extra) as (worker,):
            cold = first_step(worker, work)
            stats = worker.do("stats")
            worker.do("narrow", share=NEW_SHAPE)
            new_shape = beyond_later(worker)
            again = worker.do("stats")
        with workers([name], threads, extra) as (worker,):
            warm = first_step(worker, work)
            warm_stats = worker.do("stats")
    return {
        "cold_s": cold,
        "warm_s": warm,
        "new_shape_s": new_shape,
        "stats_cold": stats,
        "stats_new_shape": again,
        "stats_warm": warm_stats,
    }


def first_step(worker: Worker, work: str) -> float:
    worker.do("train", work=work, dropout=WORKS[work].dropout, shared=True)
    return beyond_later(worker)


def beyond_later(worker: Worker) -> float:
    """The seconds of the next step beyond those of the ones after it."""
    first, *later = worker.do("steps", count=4)["seconds"]
    beyond: float = round(first - median(later), 3)
    return beyond


def report(work: str, threads: int, found: dict[str, dict[str, Any]]) -> None:
    show(
        f"{work}: seconds a first step takes longer, {threads} threads",
        ("", "cold", "cache on disk", "new shape", "trace", "rewrite", "compile"),
        [
            (
                name,
                x["cold_s"],
                x["warm_s"],
                x["new_shape_s"],
                *(x["stats_cold"].get(part, "") for part in ("trace_s", "rewrite_s", "compile_s")),
            )
            for name, x in found.items()
        ],
    )


if __name__ == "__main__":
    command(main)
