"""Products of matrices that lie in any way: what the tests of a GPU's products share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from kernel_case import Array, operand
from simulator import guarded

from tinygrad_tx.backends.kernels.interpreter_math import tf32
from tinygrad_tx.backends.kernels.kinds import Gemm, GemmEpilogue
from tinygrad_tx.dtypes import ALL

EPS = {"float64": 2.0**-53, "float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}


def numbers(rng: np.random.Generator, dtype: str, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(ALL[dtype].np)


def lying(x: Array, *, turned: bool = False, pad: int = 0, shift: int = 0, step: int = 1) -> Array:
    """The values of x between pages without access, in memory that begins aligned to 16 bytes.
    turned: columns first. pad: elements between rows, shift: before the first one, step: from one
    to the next."""
    if turned:
        x = x.swapaxes(-1, -2)
    *outer, rows, columns = x.shape
    size = int(np.prod(outer, dtype=int)) * rows * (columns * step + pad) + shift
    memory = np.empty(size * x.itemsize + 16, np.uint8)
    memory.fill(0xFF)
    start = -memory.ctypes.data % 16 + shift * x.itemsize
    flat = memory[start : start + (size - shift) * x.itemsize].view(x.dtype)
    found = flat.reshape(*outer, rows, columns * step + pad)[..., : columns * step : step]
    found[...] = x
    found = guarded.moved(found)
    return found.swapaxes(-1, -2) if turned else found


@dataclass
class Product:
    """A call of a Gemm: a (b0, b1, m, k), b (b0, b1, k, n) and c (b0, b1, m, n)."""

    kernel: Gemm
    a: Array
    b: Array
    c: Array
    follows: GemmEpilogue | None = None  # the product with its epilogue
    more: list[int] = field(default_factory=list)  # the words of that

    @classmethod
    def of(
        cls,
        kernel: Gemm,
        sizes: Sequence[int],
        seed: int = 0,
        a: Any = (),
        b: Any = (),
        c: Any = (),
    ) -> Product:
        """Of random numbers. sizes: b0, b1, m, n, k. a, b, c: how each lies."""
        rng = np.random.default_rng(seed)
        b0, b1, m, n, k = sizes
        return cls(
            kernel,
            lying(numbers(rng, kernel.dtype, b0, b1, m, k), **dict(a)),
            lying(numbers(rng, kernel.dtype, b0, b1, k, n), **dict(b)),
            lying(numbers(rng, kernel.out, b0, b1, m, n), **dict(c)),
        )

    def again(self) -> Product:
        """The same, with a c of its own."""
        c = np.empty_like(self.c)
        flat = lying(c)
        if self.c.strides[-1] == c.itemsize and self.c.strides == flat.strides:
            flat[...] = self.c
            return replace(self, c=flat)
        padded = self.c.strides[-2] // c.itemsize - c.shape[-1]
        return replace(self, c=lying(np.array(self.c), pad=padded))

    @property
    def whole(self) -> Gemm | GemmEpilogue:
        return self.follows or self.kernel

    @property
    def words(self) -> list[int]:
        b0, b1, m, k = self.a.shape
        sizes = [b0, b1, m, self.b.shape[-1], k]
        return [*sizes, *operand(self.a), *operand(self.b), *operand(self.c, 3), *self.more]

    def require_close(self, before: Array) -> None:
        """c is the product within what rounding may do. before: what stood in it."""
        kernel, (x, y) = self.kernel, (v.astype(np.float64) for v in (self.a, self.b))
        if kernel.tf32:
            x, y = (tf32(v.astype(np.float32)).astype(np.float64) for v in (self.a, self.b))
        exact, size = x @ y, abs(x) @ abs(y)
        if kernel.accumulate:
            exact, size = exact + before.astype(np.float64), size + abs(before.astype(np.float64))
        sums, out = EPS[kernel.sums], EPS[kernel.out]
        bound = (x.shape[-1] + 2) * sums * size
        bound = bound + (out * (abs(exact) + bound) if out > sums else 0)
        wrong = ~(abs(self.c.astype(np.float64) - exact) <= bound)  # NaN, too
        assert not wrong.any(), f"{wrong.sum()} of {wrong.size}, first {np.argwhere(wrong)[0]}"
