"""What the instructions of a kernel mean, on NumPy arrays.

In: the arrays that an instruction takes. Out: an array of its dtype. Called by interpreter.py. The
dtype rules are those of kernel.Instr, whose arguments have been cast already.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dtypes import ALL
from .numpy_backend import NumpyBackend

Array = NDArray[Any]

_LANES = 16
_XP = NumpyBackend()


def apply(op: str, dtype: str, *args: Array) -> Array:
    """A scalar function of kernel.Instr, on arrays that broadcast against each other."""
    if op == "cast":
        return np.asarray(_XP.cast(args[0], ALL[dtype]))
    return np.asarray(_FUNCTIONS[op](*args)).astype(ALL[dtype].np, copy=False)


def reduce_columns(op: str, dtype: str, x: Array) -> Array:
    """One of kernel.REDUCTIONS along the last axis, which stays, with one column.

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
    """Sum, max or min of a matrix (at least one row, columns) along its rows, added in order."""
    rows = np.ascontiguousarray(x.astype(dtype, copy=False))
    function = {"sum": np.add, "max": np.maximum, "min": np.minimum}[op]
    return np.asarray(function.reduce(rows, axis=0, dtype=dtype))


def _sum_in_lanes(x: Array) -> Array:
    """The sum along the last axis in a tree that zeros at its end do not change."""
    columns = x.shape[-1]
    whole = columns - columns % _LANES
    blocks = np.ascontiguousarray(x[..., :whole]).reshape(*x.shape[:-1], whole // _LANES, _LANES)
    lanes: Array = np.add.reduce(blocks, axis=-2, dtype=x.dtype)
    lanes[..., : columns - whole] += x[..., whole:]
    while lanes.shape[-1] > 1:
        half = lanes.shape[-1] // 2
        lanes = lanes[..., :half] + lanes[..., half:]
    return lanes


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
    "copy": lambda x: x,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "floor": np.floor,
    "sqrt": np.sqrt,
    "exp": np.exp,
    "log": np.log,
    "log1p": np.log1p,
    "expm1": np.expm1,
    "tanh": np.tanh,
    "sin": np.sin,
    "cos": np.cos,
    "erf": _XP.erf,
    "pow": _XP.power,
    "floor_divide": np.floor_divide,
    "remainder": np.remainder,
    "minimum": np.minimum,
    "maximum": np.maximum,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "and": np.logical_and,
    "or": np.logical_or,
    "xor": np.logical_xor,
    "not": np.logical_not,
    "where": np.where,
    "isnan": np.isnan,
    "isinf": np.isinf,
    "isfinite": np.isfinite,
}
