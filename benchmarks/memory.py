"""How much memory training takes: python -m benchmarks.memory --help

Each contender in a process of its own: the growth of the most resident bytes (VmHWM) from before
the model is built, with its libraries loaded, to after some steps. Linux only.
"""

from __future__ import annotations

from collections.abc import Sequence

from .common import add_choice, command, parser, present, show, workers, write
from .works import MEASURED, WORKS

EXAMPLES = """\
  python -m benchmarks.memory
  python -m benchmarks.memory --work W3 --against torch,torch-tuned,jax --steps 10"""


def main(argv: Sequence[str] | None = None) -> int:
    options = parser("MiB of memory that a model and its training take.", EXAMPLES, "torch")
    add_choice(options, "--work", WORKS, MEASURED)
    options.add_argument("--steps", type=int, default=5, metavar="N", help="steps (default: 5)")
    args = options.parse_args(argv)
    names = present(args.against, "training")
    for work in args.work:
        runs = []
        for threads in args.threads:
            found = {name: measure(work, name, threads, args.steps) for name in names}
            show(
                f"{work}: growth of VmHWM, {threads} threads",
                ("", "MiB", "times tx"),
                [(name, round(x, 1), x / found["tx"]) for name, x in found.items()],
            )
            runs.append({"threads": threads, "steps": args.steps, "growth_mib": found})
        print(write("memory", work, names, {"runs": runs}, args.out))
    return 0


def measure(work: str, name: str, threads: int, steps: int) -> float:
    """MiB. The model begins with the library's own weights, so that nothing else is in memory."""
    with workers([name], threads) as (worker,):
        worker.do("load", role="training")
        worker.do("forget_peak")
        before = worker.do("peak")
        worker.do("train", work=work, dropout=WORKS[work].dropout, shared=False)
        worker.do("steps", count=steps)
        grown: int = worker.do("peak") - before
    return grown / 2**20


if __name__ == "__main__":
    command(main)
