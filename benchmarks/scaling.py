"""A step of training by several ranks: python -m benchmarks.scaling --help

Each number of ranks is a run of mpiexec on this machine, with the cores shared out. All take the
same steps on the same batches, each rank on its rows of them; after a few, their losses must agree.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from .common import RESULTS, ROOT, WorkerError, add_choice, busy, command, counts, show, write
from .works import WORKS, TransformerWork

EXAMPLES = """\
  python -m benchmarks.scaling
  python -m benchmarks.scaling --work W2,W3 --ranks 1,2 --steps 20"""
WARM, TOLERANCE = 3, 1e-3


def main(argv: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(
        description="Milliseconds for a training step by several ranks, and what they exchange.",
        epilog=f"examples:\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [name for name, work in WORKS.items() if isinstance(work, TransformerWork)]
    add_choice(options, "--work", names, names, default=["W2"])
    options.add_argument(
        "--ranks", type=counts, default=[1, 2], metavar="N,...", help="(default: 1,2)"
    )
    options.add_argument("--steps", type=int, default=10, metavar="N", help="(default: 10)")
    options.add_argument(
        "--out", type=Path, default=RESULTS, metavar="DIR", help="where results are written"
    )
    args = options.parse_args(argv)
    agree = True
    for name in args.work:
        others = busy()
        runs = [measured(name, ranks, args.steps) for ranks in args.ranks]
        agree = agree and all(
            abs(a - b) <= TOLERANCE * abs(a)
            for run in runs
            for a, b in zip(runs[0]["losses"], run["losses"], strict=True)
        )
        report(name, runs)
        found = {"busy_cores": others, "agree": agree, "runs": runs}
        print(write("scaling", name, ["tx"], found, args.out))
    return 0 if agree else 1


def measured(name: str, ranks: int, steps: int) -> dict[str, Any]:
    """The steps of so many ranks, as the first of them has seen them."""
    own = Path(sys.executable).parent / "mpiexec"
    launcher = str(own) if own.exists() else shutil.which("mpiexec")
    if launcher is None:
        raise WorkerError('mpiexec is missing: pip install "tinygrad_tx[mpi]"')
    program = [sys.executable, "-m", "benchmarks.scaling", "rank", name, str(steps)]
    done = subprocess.run(
        [launcher, "-n", str(ranks), *program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise WorkerError(done.stderr or done.stdout)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def report(name: str, runs: Sequence[dict[str, Any]]) -> None:
    first = runs[0]
    rows = [
        (
            run["ranks"],
            run["threads"],
            run["step_ms"],
            first["step_ms"] / run["step_ms"],
            run["sent_mb"],
            run["between_ms"],
        )
        for run in runs
    ]
    columns = ("ranks", "threads each", "ms a step", "times as fast", "MB a rank", "ms between")
    show(f"{name}: a step by several ranks", columns, rows)


# One rank --------------------------------------------------------------------------------------


def rank(name: str, steps: int) -> None:
    """Take the steps; the first rank says what they took."""
    import tinygrad_tx as tx
    from tinygrad_tx.distributed import world
    from tinygrad_tx.training import works

    tx.distributed.init_process_group()
    ranks, work = world.current(), WORKS[name]
    assert isinstance(work, TransformerWork)
    tx.manual_seed(0)
    _, once = works.begin({**works.work(name), "dropout": 0.0})
    step = tx.compile(lambda weight, *batch: once(*batch, weight=weight))
    first, end = (work.batch * (ranks.rank + i) // ranks.size for i in (0, 1))
    batches, losses, seconds = work.batches(), [], []
    for number in range(WARM + steps):
        batch = next(batches)
        tokens = [(wanted != 0).sum() for wanted in (batch[2][first:end], batch[2])]
        share = tx.tensor(tokens[0] / tokens[1], dtype=tx.float32)
        given = [tx.tensor(part[first:end]) for part in batch]
        ranks.barrier()
        if number == WARM:
            ranks.spans.clear()
        begun = time.perf_counter()
        loss = step(share, *given).item() * share.item()
        seconds.append(time.perf_counter() - begun)
        losses.append(float(ranks.all_reduce(np.array([loss]))[0]))
    spans = [x for x in ranks.spans if x.bytes > 8]
    found = {
        "ranks": ranks.size,
        "threads": tx.get_num_threads(),
        "step_ms": round(1e3 * median(seconds[WARM:]), 3),
        "min_ms": round(1e3 * min(seconds[WARM:]), 3),
        "sent_mb": round(sum(x.bytes for x in spans) / steps / 1e6, 3),
        "between_ms": round(1e3 * sum(x.end - x.begin for x in spans) / steps, 3),
        "losses": losses[:WARM],
    }
    if ranks.rank == 0:
        print(json.dumps(found))


if __name__ == "__main__":
    if sys.argv[1:2] == ["rank"]:
        rank(sys.argv[2], int(sys.argv[3]))
    else:
        command(main)
