"""Single kernels, ours beside others: python -m benchmarks.kernels --help

Each is a function of one op (ours through tx.compile) on seeded normal float32 inputs. The results
are compared with NumPy's before anything is timed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .common import (
    add_repeats,
    command,
    interleave,
    names_of,
    parser,
    present,
    show,
    summary,
    workers,
    write,
)

EXAMPLES = """\
  python -m benchmarks.kernels
  python -m benchmarks.kernels --only gemm,softmax --against numpy,torch,torch-tuned
  python -m benchmarks.kernels --threads 1,2 --repeats 3"""
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Case:
    """A kernel and its inputs. flops: its multiplications and additions, or else bytes: what it has
    to read and write."""

    kernel: str
    size: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    flops: int = 0
    bytes: int = 0

    @property
    def title(self) -> str:
        return f"{self.kernel} {'x'.join(map(str, self.size))}"


def gemm(m: int, n: int, k: int) -> Case:
    return Case("gemm", (m, n, k), ((m, k), (k, n)), flops=2 * m * n * k)


def gemm_bt(m: int, n: int, k: int) -> Case:
    """The second operand transposed, as a Linear's weight is."""
    return Case("gemm_bt", (m, n, k), ((m, k), (n, k)), flops=2 * m * n * k)


def softmax(rows: int, columns: int) -> Case:
    size = (rows, columns)
    return Case("softmax", size, (size,), bytes=8 * rows * columns)


def layer_norm(rows: int, columns: int) -> Case:
    size = (rows, columns)
    return Case("layer_norm", size, (size, (columns,), (columns,)), bytes=8 * rows * columns)


def attention(batch: int, heads: int, length: int, width: int) -> Case:
    shape = (batch, heads, length, width)
    flops = 4 * batch * heads * length * length * width
    return Case("attention", shape, (shape,) * 3, flops=flops)


def attention_grad(batch: int, heads: int, length: int, width: int) -> Case:
    """Causal, as a training step has it: forward, and the gradients of queries, keys and values."""
    shape = (batch, heads, length, width)
    flops = 14 * batch * heads * length * length * width // 2
    return Case("attention_grad", shape, (shape,) * 4, flops=flops)


CASES = (
    gemm(1024, 1024, 1024),
    gemm_bt(2048, 256, 256),
    gemm_bt(2048, 1024, 256),
    gemm_bt(2048, 8000, 256),
    gemm_bt(1024, 2048, 512),
    gemm_bt(1, 1024, 256),
    softmax(8192, 32),
    softmax(2048, 8000),
    layer_norm(2048, 256),
    layer_norm(1024, 512),
    attention(64, 4, 32, 64),
    attention(16, 8, 64, 64),
    attention(8, 6, 256, 64),
    attention(1, 8, 4096, 64),
    attention_grad(8, 6, 256, 64),
    attention_grad(2, 8, 1024, 64),
    attention_grad(1, 8, 2048, 64),
    attention_grad(1, 4, 4096, 64),
)
KERNELS = tuple(dict.fromkeys(case.kernel for case in CASES))


def main(argv: Sequence[str] | None = None) -> int:
    options = parser("Microseconds for single kernels.", EXAMPLES, "numpy,torch,torch-tuned")
    options.add_argument(
        "--only",
        type=names_of(KERNELS, KERNELS),
        default=list(KERNELS),
        metavar="NAME,...",
        help=f"of {', '.join(KERNELS)} (default: all)",
    )
    add_repeats(options, 5)
    args = options.parse_args(argv)
    names = present(args.against, "kernel")
    runs = []
    for threads in args.threads:
        found = measure([c for c in CASES if c.kernel in args.only], names, threads, args.repeats)
        report(names, threads, found)
        runs.append({"threads": threads, "kernels": found})
    what = "all" if args.only == list(KERNELS) else "-".join(args.only)
    print(write("kernels", what, names, {"runs": runs}, args.out))
    agree = all(x["agree"] for run in runs for x in run["kernels"])
    return 0 if agree else 1


def measure(
    cases: Sequence[Case], names: Sequence[str], threads: int, repeats: int
) -> list[dict[str, Any]]:
    """For each case the times of each contender, and whether all give the same."""
    with workers(names, threads) as found, workers(["numpy"], threads) as (judge,):
        rows = []
        for case in cases:
            for worker in (judge, *found):
                worker.do("kernel", name=case.kernel, shapes=case.shapes)
            right = judge.do("sample")
            apart = {
                w.name: max(abs(a - b) for a, b in zip(w.do("sample"), right, strict=True))
                for w in found
            }
            runs = {w.name: (lambda n, w=w: w.do("calls", count=n)) for w in found}
            rows.append(
                {
                    "kernel": case.title,
                    "flops": case.flops,
                    "bytes": case.bytes,
                    "apart": apart,
                    "agree": max(apart.values()) < TOLERANCE,
                    "contenders": summary(interleave(runs, repeats), "tx"),
                }
            )
    return rows


def report(names: Sequence[str], threads: int, found: Sequence[dict[str, Any]]) -> None:
    rows = []
    for row in found:
        work, unit = (row["flops"], "GFLOP/s") if row["flops"] else (row["bytes"], "GB/s")
        times = [row["contenders"][name]["median_ms"] for name in names]
        rate = f"{work / times[0] / 1e6:.0f} {unit}"
        rows.append((row["kernel"], *(round(1e3 * ms, 1) for ms in times), rate))
        if not row["agree"]:
            print(f"{row['kernel']}: the results differ: {row['apart']}", file=sys.stderr)
    show(f"median microseconds, {threads} threads", ("", *names, "tx reaches"), rows)


if __name__ == "__main__":
    command(main)
