"""Functions of Values on arrays of floats, and how far off they are: what the tests of elementary
functions share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from kernel_case import Array
from native_case import function

from tinygrad_tx.backends.cpu.processor import Processor
from tinygrad_tx.backends.llvm import ir
from tinygrad_tx.backends.llvm.ir import Value
from tinygrad_tx.backends.llvm.operands import Words

BITS = {"float32": np.int32, "float64": np.int64}


def apply(
    write: Callable[..., Value],
    args: list[Array],
    lanes: int,
    target: Processor,
    *,
    libm: bool = True,
) -> Array:
    """The results of a function `write(b, *values)` for arrays of one dtype, whose size is a
    multiple of the lanes."""
    x = args[0]
    element = "float" if x.dtype == np.float32 else "double"

    def body(module: ir.Module, title: str) -> None:
        b = module.function(title, [("ptr", "args"), ("i64", "task"), ("ptr", "scratch")])
        words = Words(b, b.params[0])
        count, to, *sources = words.number(0), *(words.place(1 + i) for i in range(1 + len(args)))
        with b.loop(ir.integer(0), count, ir.integer(lanes)) as loop:
            given = [
                b.load(ir.vector(lanes, element), b.at(source, loop.i, element))
                for source in sources
            ]
            b.store(write(b, *given), b.at(to, loop.i, element))
        b.end()

    y = np.empty_like(x)
    function(target, body, libm=libm)([x.size, y.ctypes.data, *(a.ctypes.data for a in args)])
    return y


def any_bits(rng: np.random.Generator, dtype: str, count: int) -> Array:
    """Numbers of every size and kind, NaNs of every kind among them."""
    bits = np.iinfo(BITS[dtype])
    return rng.integers(bits.min, bits.max, count, BITS[dtype], endpoint=True).view(dtype)


def worst(found: Array, wanted: Array) -> float:
    """The largest error in units in the last place, where the true result is finite; the special
    results must be the same."""
    with np.errstate(all="ignore"):
        rounded = wanted.astype(found.dtype)
        finite = np.isfinite(rounded) & np.isfinite(found)
        np.testing.assert_array_equal(found[~finite], rounded[~finite])
        unit = np.spacing(np.abs(rounded[finite])).astype(np.longdouble)
        return float(np.max(np.abs(found[finite] - wanted[finite]) / unit))
