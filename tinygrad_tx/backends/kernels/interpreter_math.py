"""The instructions of a kernel, computed on NumPy arrays.

In: the arrays that an instruction takes. Out: an array of its dtype. Called by interpreter.py. The
dtype rules are those of Instr, whose arguments have been cast already.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...dtypes import ALL
from ..arrays.numpy_backend import NumpyBackend
from .instructions import SCALARS
from .summation import CHAIN, slots

Array = NDArray[Any]

_XP = NumpyBackend()


def apply(op: str, dtype: str, *args: Array) -> Array:
    """One of SCALARS or a cast, on arrays that broadcast against each other."""
    if op == "cast":
        return np.asarray(_XP.cast(args[0], ALL[dtype]))
    return np.asarray(_FUNCTIONS[op](*args)).astype(ALL[dtype].np, copy=False)


def tf32(x: Array) -> Array:
    """float32 rounded to the 10 bits of mantissa that tensor cores multiply: to the nearest, of two
    to the larger one in size."""
    bits = (x.astype(np.float32, copy=False).view(np.uint32) + 0x1000) & 0xFFFFE000
    return np.where(np.isnan(x), x, bits.astype(np.uint32).view(np.float32))


def reduce_columns(op: str, dtype: str, x: Array) -> Array:
    """One of REDUCTIONS along the last axis, which stays, with one column.

    Where there are no columns, a sum is 0, any is False, all is True, the maximum is the least
    number of the dtype and the minimum the greatest, and argmax and argmin are 0.
    """
    if op == "sum":
        return _sum_in_lanes(x.astype(dtype, copy=False))
    if op == "max":
        return np.asarray(np.max(x, axis=-1, keepdims=True, initial=_limits(x.dtype)[0]))
    if op == "min":
        return np.asarray(np.min(x, axis=-1, keepdims=True, initial=_limits(x.dtype)[1]))
    if x.shape[-1] == 0 and op in ("argmax", "argmin"):
        return np.zeros((*x.shape[:-1], 1), dtype)
    return np.asarray(_REDUCTIONS[op](x, axis=-1, keepdims=True)).astype(dtype, copy=False)


def reduce_rows(op: str, dtype: str, x: Array) -> Array:
    """Sum, max or min of a matrix (at least one row, columns) along its rows, in the order of
    native code: sums of floats by blocks."""
    rows = np.ascontiguousarray(x.astype(dtype, copy=False))
    if op == "sum" and rows.dtype.kind == "f":
        return _sum_of_chains(_cut(rows, 2 * CHAIN))
    function = {"sum": np.add, "max": np.maximum, "min": np.minimum}[op]
    return np.asarray(function.reduce(rows, axis=0, dtype=dtype))


def _sum_in_lanes(x: Array) -> Array:
    """The sum along the last axis, which stays, in a tree that zeros at its end do not change: that
    of native code."""
    lanes = slots(x.dtype.name)
    *outer, columns = x.shape
    rows = np.moveaxis(x, -1, 0).reshape(columns, prod(outer))
    dealt = _cut(rows, lanes).transpose(0, 2, 1)
    dealt = dealt.reshape(len(dealt), prod(outer) * lanes)
    found = _sum_of_chains(_cut(dealt, CHAIN)).reshape(prod(outer), lanes)
    while found.shape[-1] > 1:
        half = found.shape[-1] // 2
        found = found[..., :half] + found[..., half:]
    return found.reshape(*outer, 1)


def _cut(rows: Array, size: int) -> Array:
    """(rows, columns) as (blocks, size, columns), zeros behind; at least one block."""
    count = max(1, -(-len(rows) // size))
    padded = np.zeros((count * size, rows.shape[1]), rows.dtype)
    padded[: len(rows)] = rows
    return padded.reshape(count, size, rows.shape[1])


def _sum_of_chains(blocks: Array) -> Array:
    """The rows of each block added in a chain, then the sums of CHAIN blocks, and so on."""
    sums = np.add.reduce(blocks, axis=1, dtype=blocks.dtype)
    while len(sums) > 1:
        sums = np.add.reduce(_cut(sums, CHAIN), axis=1, dtype=blocks.dtype)
    return np.asarray(sums[0])


def _limits(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """The least and the greatest number of a dtype."""
    if dtype.kind == "b":
        return False, True
    if dtype.kind == "f":
        return -np.inf, np.inf
    return np.iinfo(dtype).min, np.iinfo(dtype).max


_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "any": np.any,
    "all": np.all,
    "argmax": np.argmax,
    "argmin": np.argmin,
}

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    op: getattr(_XP, scalar.xp) if isinstance(scalar.xp, str) else scalar.xp
    for op, scalar in SCALARS.items()
}
