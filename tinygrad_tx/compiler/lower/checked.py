"""Ops that take indices, on indices that a node of its own has checked.

In: Tensors and an op's attributes. Out: the op on checked indices. Called by lower.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ... import ops
from ...dtypes import float32, float64

X = Any


def _take(x: X, index: X, axis: int, wrap: bool = True) -> X:
    safe = ops.WRAP_INDEX(index, size=x.shape[axis], wrap=wrap, of="take")
    return ops.TAKE(x, safe, axis=axis, wrap=False)


MANY = 2**16  # rows that may all be added to one, in one chain of float32


def _index_add(x: X, index: X, value: X, axis: int) -> X:
    safe = ops.WRAP_INDEX(index, size=x.shape[axis], of="index_add")
    if index.shape[0] > MANY and x.dtype is float32:
        return ops.INDEX_ADD(x.to(float64), safe, value.to(float64), axis=axis).to(float32)
    return ops.INDEX_ADD(x, safe, value, axis=axis)


def _update(x: X, value: X, position: X, axis: int) -> X:
    room = x.shape[axis]
    start = ops.WHERE(position < 0, position + room, position)
    safe = ops.WRAP_INDEX(start, size=room - value.shape[axis] + 1, wrap=False, of="update")
    return ops.UPDATE(x, value, safe, axis=axis)


CHECKED: dict[Any, Callable[..., X]] = {
    ops.TAKE: _take,
    ops.INDEX_ADD: _index_add,
    ops.UPDATE: _update,
}
