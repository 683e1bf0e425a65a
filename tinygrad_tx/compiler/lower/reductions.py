"""Reductions, one axis at a time: the last one, or all of the first ones.

In: a reduction and its attributes. Out: the same by reductions that kernels do. Called by lower.py.
"""

from __future__ import annotations

from typing import Any

from ... import ops
from ...node import Node
from ...op import Op
from ...rules import reduced

X = Any

AXES = (ops.SUM, ops.MAX, ops.MIN, ops.ANY, ops.ALL)


def axes_fit(node: Node) -> bool:
    wide = [i for i, n in enumerate(node.srcs[0].shape) if n != 1]
    over = [i for i in wide if i in node.attrs["axis"]]
    if len(over) == 1:
        return over[0] in (wide[0], wide[-1])
    return len(over) > 1 and over[-1] != wide[-1] and over == wide[: len(over)]


def by_axes(op: Op, x: X, axis: tuple[int, ...]) -> X:
    """A reduction as a chain of those that kernels have."""
    wide = [i for i, n in enumerate(x.shape) if n != 1]
    over = [i for i in wide if i in axis]
    shape = reduced(x.shape, axis)
    if not over:
        return ops.COPY(x if op is not ops.SUM or x.dtype.is_floating_point else x.long())
    if over[-1] == wide[-1]:  # along rows first: that joins the kernel which makes them
        return op(op(x, axis=over[-1], keepdims=True), axis=tuple(over[:-1]), keepdims=True)
    kept = [i for i in range(x.ndim) if i not in over]
    turned = x.permute(*over, *kept)
    return op(turned, axis=tuple(range(len(over))), keepdims=True).reshape(shape)
