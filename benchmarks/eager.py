"""What Python costs around small operations of eager code: python -m benchmarks.eager --help

Ours and PyTorch's operations on Tensors of 4 x 4, where the arithmetic itself is nothing. All
contenders are processes of their own that take turns; another checkout of this library may be one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from .common import ROOT, add_repeats, busy, command, interleave, parser, show, summary, write
from .eager_worker import CASES

EXAMPLES = """\
  python -m benchmarks.eager
  python -m benchmarks.eager --before ../before --against '' --repeats 9"""


def main(argv: Sequence[str] | None = None) -> int:
    options = parser("Microseconds for single operations of eager code.", EXAMPLES, "torch")
    options.add_argument("--before", type=Path, metavar="DIR", help="root of another checkout")
    add_repeats(options, 7)
    args = options.parse_args(argv)
    roots = {"tx": ("tx", ROOT)}
    if args.before is not None:
        roots["before"] = ("tx", args.before.resolve())
    if "torch" in args.against and find_spec("torch"):
        roots["torch"] = ("torch", ROOT)
    others, rows = busy(), {}
    children = {name: _child(kind, root) for name, (kind, root) in roots.items()}
    try:
        for case in CASES:
            runs = {name: _asking(child, case) for name, child in children.items()}
            rows[case] = summary(interleave(runs, args.repeats), "tx")
    finally:
        for child in children.values():
            child.kill()
            child.wait()
    table = [
        (case, *(round(1e3 * row[n]["min_ms"], 1) for n in roots)) for case, row in rows.items()
    ]
    show("least microseconds, one thread", ("", *roots), table)
    names = [name for name in roots if name != "before"]
    print(write("eager", "all", names, {"busy": others, "cases": rows}, args.out))
    return 0


def _child(kind: str, root: Path) -> subprocess.Popen[str]:
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve().with_name("eager_worker.py")), kind],
        env={**os.environ, **threads, "PYTHONPATH": str(root)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _asking(child: subprocess.Popen[str], case: str) -> Callable[[int], list[float]]:
    def run(count: int) -> list[float]:
        assert child.stdin is not None and child.stdout is not None
        print(json.dumps([case, count]), file=child.stdin, flush=True)
        found: list[float] = json.loads(child.stdout.readline())
        return found

    return run


if __name__ == "__main__":
    command(main)
