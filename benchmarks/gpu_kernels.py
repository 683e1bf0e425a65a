"""The kernels of benchmarks.gpu: sizes, inputs, and the bytes and operations of any way to do it.

In: nothing. Out: Cases, and their inputs. Called by gpu.py and gpu_worker.py; NumPy alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from .works import Array

WIDTH = {"fp32": 4, "bf16": 2, "fp16": 2}  # bytes of an element in each precision
# What two results may be apart, of the largest number: rounding of operands, sums and results.
TOLERANCE = {"fp32": 2e-4, "bf16": 2e-2, "fp16": 5e-3}


@dataclass(frozen=True)
class Case:
    """A kernel on inputs of these shapes. bytes: of its inputs and results, each once; flops: of
    its products. quick: measured with --quick, too."""

    kernel: str
    precision: str
    size: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    bytes: int
    flops: int = 0
    quick: bool = False

    @property
    def title(self) -> str:
        return f"{self.kernel} {'x'.join(map(str, self.size))} {self.precision}"


def product(m: int, n: int, k: int, precision: str, quick: bool = False) -> Case:
    """a (m, k) @ b (k, n)."""
    moved = WIDTH[precision] * (m * k + k * n + m * n)
    return Case(
        "matmul", precision, (m, n, k), ((m, k), (k, n)), moved, 2 * m * n * k, quick
    )  # fmt: skip


def linear(m: int, n: int, k: int, precision: str, quick: bool = False) -> Case:
    """x (m, k) @ w.T, as a Linear has its weight (n, k)."""
    case = product(m, n, k, precision, quick)
    return Case(
        "linear", precision, case.size, ((m, k), (n, k)), case.bytes, case.flops, quick
    )  # fmt: skip


def attention(b: int, h: int, t: int, d: int, quick: bool = False) -> Case:
    """Causal, in bf16: forward."""
    shape = (b, h, t, d)
    flops = 4 * b * h * t * t * d // 2
    return Case("attention", "bf16", shape, (shape,) * 3, 4 * 2 * prod(shape), flops, quick)


def attention_grad(b: int, h: int, t: int, d: int, quick: bool = False) -> Case:
    """The same and its gradients: of q, k, v, the output, its gradient and three gradients nothing
    need be moved twice, and seven products of the forward's size be made."""
    shape = (b, h, t, d)
    flops = 14 * b * h * t * t * d // 2
    return Case("attention+grad", "bf16", shape, (shape,) * 4, 8 * 2 * prod(shape), flops, quick)


def rowwise(kernel: str, rows: int, columns: int, precision: str, quick: bool = False) -> Case:
    """softmax, or layer_norm with weight and bias: each number is read and written once."""
    size = (rows, columns)
    more = ((columns,), (columns,)) if kernel == "layer_norm" else ()
    moved = 2 * WIDTH[precision] * rows * columns
    return Case(kernel, precision, size, (size, *more), moved, quick=quick)


def cross_entropy(rows: int, columns: int, precision: str, quick: bool = False) -> Case:
    """The loss and its gradient by the logits, which are read and written once."""
    size = (rows, columns)
    moved = 2 * WIDTH[precision] * rows * columns
    return Case("cross_entropy+grad", precision, size, (size, (rows,)), moved, quick=quick)


def adamw(count: int, *shape: int, quick: bool = False) -> Case:
    """A step for so many parameters of a shape: parameter, gradient and two moments are read, all
    but the gradient written, in float32."""
    moved = 7 * 4 * count * prod(shape)
    return Case("adamw", "fp32", (count, *shape), (shape,) * count, moved, quick=quick)


CASES = (
    product(8192, 8192, 8192, "bf16", quick=True),
    product(4096, 4096, 4096, "bf16"),
    product(8192, 8192, 8192, "fp16"),
    product(4096, 4096, 4096, "fp32", quick=True),
    linear(32768, 3072, 768, "bf16", quick=True),
    linear(32768, 768, 3072, "bf16"),
    linear(8192, 50257, 768, "bf16"),
    attention(32, 12, 1024, 64, quick=True),
    attention(16, 12, 2048, 64),
    attention(8, 12, 4096, 64, quick=True),
    attention_grad(32, 12, 1024, 64, quick=True),
    attention_grad(16, 12, 2048, 64),
    attention_grad(8, 12, 4096, 64, quick=True),
    rowwise("softmax", 65536, 2048, "bf16"),
    rowwise("softmax", 65536, 2048, "fp32", quick=True),
    rowwise("layer_norm", 131072, 768, "bf16", quick=True),
    rowwise("layer_norm", 131072, 768, "fp32"),
    cross_entropy(8192, 50257, "bf16"),
    cross_entropy(8192, 50257, "fp32", quick=True),
    adamw(16, 2048, 4096, quick=True),
)
TINY = (
    product(17, 9, 12, "bf16"),
    linear(17, 9, 12, "fp32"),
    attention(1, 2, 9, 8),
    attention_grad(1, 2, 9, 8),
    rowwise("softmax", 5, 9, "fp32"),
    rowwise("layer_norm", 5, 16, "bf16"),
    cross_entropy(5, 19, "fp32"),
    adamw(3, 4, 5),
)
KERNELS = tuple(dict.fromkeys(case.kernel for case in CASES))


def inputs(kernel: str, shapes: Sequence[Sequence[int]]) -> list[Array]:
    """Seeded float32 inputs, mostly normal; the targets of a loss are classes. Of large arrays the
    same million numbers again and again, for they are made on the host."""
    rng = np.random.default_rng(0)
    numbers = rng.standard_normal(min(1 << 20, max(map(prod, shapes))), np.float32)
    found: list[Array] = [np.resize(np.roll(numbers, 7 * i), s) for i, s in enumerate(shapes)]
    if kernel == "cross_entropy+grad":
        found[1] = rng.integers(0, shapes[0][1], shapes[1])
    return found
