"""A few entries of long rows, as reductions: they share a kernel with what makes the rows.

In: Tensors and an op's attributes. Out: the same by maximum, argmax and comparisons with the
column's number. Called by lower.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ... import ops
from ...dtypes import int64
from ...node import Node

X = Any
FEW = 8


def finds_few(node: Node) -> bool:
    if node.op not in SEARCHES or not node.srcs[0].dtype.is_floating_point:
        return False
    last, entries = node.srcs[0].ndim - 1, node.srcs[0].shape[-1:]
    return node.attrs["axis"] == last and 0 < node.shape[-1] <= FEW < entries[0]


def _columns(x: X) -> X:
    return ops.ARANGE(start=0, step=1, count=x.shape[-1], dtype=int64, device=x.device)


def _argtopk(x: X, k: int, axis: int) -> X:
    """The largest entry, k times, each time without those found before. What is taken out becomes
    less than all others: so these are finite at least."""
    lowest = float(np.finfo(x.dtype.np).min)
    left = ops.MAXIMUM(x, lowest)
    found = []
    for _ in range(k):
        found.append(ops.ARGMAX(left, axis=axis))
        left = ops.WHERE(_columns(x) == found[-1], -math.inf, left)
    return ops.CONCAT(*found, axis=axis)


def _take_along(x: X, index: X, axis: int) -> X:
    places = [(0, n, 1) for n in index.shape[:-1]]
    found = []
    for i in range(index.shape[-1]):
        hit = _columns(x) == ops.SLICE(index, ranges=(*places, (i, i + 1, 1)))
        found.append(ops.MAX(ops.WHERE(hit, x, -math.inf), axis=axis, keepdims=True))
    return ops.CONCAT(*found, axis=axis) if len(found) > 1 else found[0]


def take_along_checked(x: X, index: X, axis: int) -> X:
    index = ops.WRAP_INDEX(index, size=x.shape[-1], of="take_along")
    return _take_along(x, index, axis)


SEARCHES: dict[Any, Callable[..., X]] = {ops.ARGTOPK: _argtopk, ops.TAKE_ALONG: _take_along}
