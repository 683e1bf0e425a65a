"""What a first step costs in CPU seconds, phase by phase: python -m benchmarks.first_step --help

Cold: a new process with an empty cache on disk. Warm: one that finds the first one's cache. New
shape: batches of three quarters of the length in the same process. CPU seconds of one process on
one thread, so that others on the machine change little; what a later step takes is taken off.
--before names another checkout, which is measured in turns with this one: the ratio is what counts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parents[1]
PHASES = ("trace", "rewrite", "plan", "machine code", "sum")

# What a process does: it takes steps and says what the first one of each shape took. It asks for
# nothing that an older checkout does not have.
PROGRAM = """
import json, sys, time
import tinygrad_tx as tx
from benchmarks.ours import Training
from benchmarks.works import WORKS
from tinygrad_tx.compiler import compiled

try:
    from tinygrad_tx.backends.cpu import library
except ImportError:  # a checkout in which the processor's room has its old name
    from tinygrad_tx.backends.native import library

try:  # a checkout in which the stages are a list
    from tinygrad_tx.compiler import pipeline
except ImportError:
    pipeline = None
    from tinygrad_tx.compiler import plan

spent = dict.fromkeys(("trace", "rewrite", "plan", "code"), 0.0)

def timed(module, name, phase):
    inner = getattr(module, name)
    def run(*args, **kwargs):
        start = time.process_time()
        try:
            return inner(*args, **kwargs)
        finally:
            spent[phase] += time.process_time() - start
    setattr(module, name, run)

timed(compiled, "trace", "trace")
timed(compiled, "_plan", "plan")
if pipeline is None:
    for name in ("rewritten", "lower", "sums", "share"):  # what REWRITING names
        timed(plan, name, "rewrite")
else:
    def of_rewriting(stage):
        def run(*args):
            start = time.process_time()
            try:
                return stage(*args)
            finally:
                spent["rewrite"] += time.process_time() - start
        return run
    pipeline.STAGES = tuple(
        (name, of_rewriting(stage) if name in pipeline.REWRITING else stage)
        for name, stage in pipeline.STAGES
    )
timed(library, "functions", "code")
work = WORKS[sys.argv[1]]
step, batch, found = Training(work, work.dropout, True), next(work.batches()), {}
for shape in ("first", "new shape"):
    spent.update(dict.fromkeys(spent, 0.0))
    start = time.process_time()
    step(batch)
    total = time.process_time() - start
    later = []
    for _ in range(2):
        start = time.process_time()
        step(batch)
        later.append(time.process_time() - start)
    found[shape] = {
        "trace": spent["trace"],
        "rewrite": spent["rewrite"],
        "plan": spent["plan"] - spent["code"] - spent["rewrite"],
        "machine code": spent["code"],
        "sum": total - min(later),
    }
    batch = tuple(x[:, : work.length * 3 // 4] for x in batch)
print(json.dumps(found))
"""


def main(argv: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--work", default="W2,W3", help="works, with commas between them")
    options.add_argument("--before", type=Path, help="the root of another checkout")
    options.add_argument("--repeat", type=int, default=1, help="processes of each kind")
    args = options.parse_args(argv)
    roots = {"now": HERE} if args.before is None else {"before": args.before.resolve(), "now": HERE}
    for work in args.work.split(","):
        rows: dict[tuple[str, str], list[dict[str, float]]] = {}
        for _ in range(args.repeat):
            with tempfile.TemporaryDirectory() as caches:
                for kind in ("cold", "warm"):
                    for name, root in roots.items():
                        found = measured(root, work, Path(caches, name))
                        rows.setdefault((name, kind), []).append(found["first"])
                        if kind == "warm":
                            rows.setdefault((name, "new shape"), []).append(found["new shape"])
        report(work, rows)
    return 0


def measured(root: Path, work: str, cache: Path) -> dict[str, dict[str, float]]:
    """The phases of a process's first steps, in CPU seconds."""
    one = {"TX_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TX_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, work],
        env={**os.environ, **one, "PYTHONPATH": str(root)},
        cwd=root,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def report(work: str, rows: dict[tuple[str, str], list[dict[str, float]]]) -> None:
    print(f"{work}: CPU seconds".ljust(28), *(f"{phase:>13}" for phase in PHASES))
    for (name, kind), runs in rows.items():
        middle = [median(run[phase] for run in runs) for phase in PHASES]
        print(f"  {kind:10} {name:15}", *(f"{seconds:13.2f}" for seconds in middle), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
