"""Reductions become parts of row programs, or kernels along the rows.

In: a Fuser and a reduction whose turn it is. Out: whether it has found a place. Called by
fuse/fuser.py. One over the last axes joins the row program that makes what it reduces, or one that
reads the same large value; one over the first axes is reduced in chunks, and those once more.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from ... import ops
from ...node import Node
from ..schedule.layout import Shape
from ..schedule.records import View, whole
from .group import Group, Member, Store, fresh

if TYPE_CHECKING:
    from .fuser import Fuser


def reduce(fuser: Fuser, node: Node) -> bool:
    """Let a reduction join a group, or begin one; False where its axes lie apart."""
    x = node.srcs[0]
    axis = node.attrs["axis"]
    over = set(axis) if isinstance(axis, tuple) else {axis % max(x.ndim, 1)}
    wide = [i for i, n in enumerate(x.shape) if n != 1]
    reduced = [i for i in wide if i in over]
    kept = [i for i in wide if i not in over]
    if not reduced:
        return False
    if not kept or min(reduced) > max(kept):
        return _row_reduce(fuser, node, x, prod(x.shape[i] for i in reduced))
    single = node.op in (ops.SUM, ops.MAX, ops.MIN) and node.dtype.name.startswith("float")
    if max(reduced) < min(kept) and single:
        outer = tuple(x.shape[i] for i in reduced)
        return _column_reduce(fuser, node, x, outer, prod(x.shape[i] for i in kept))
    return False


def _row_reduce(fuser: Fuser, node: Node, x: Node, columns: int) -> bool:
    unit = fuser.ready(x)
    group = fuser.units[unit] if unit >= 0 else None
    if (
        isinstance(group, Group)
        and group.kind == "rows"
        and group.columns == columns > 1
        and group.level(prod(x.shape)) == "element"
    ):
        if _along(fuser, group, unit, node, x):
            return True
        fuser.refuse(node, "what it reduces is not at hand in the kernel before it")
    number, beside = fuser.reader(fuser.stored_below(x), unit, prod(x.shape))
    fits = beside is not None and beside.columns == columns > 1
    if beside is not None and fits and _along(fuser, beside, number, node, x):
        return True
    outer = [n for n in x.shape if n != 1]
    left = columns
    while left > 1:
        left //= outer.pop()
    for every in (False, True):
        if every or not fuser.cheap(x):
            fuser.materialise(x)
        group = Group("rows", tuple(outer), columns)
        fuser.emit(group)
        if _along(fuser, group, len(fuser.units) - 1, node, x):
            return True
    return False


def _along(fuser: Fuser, group: Group, unit: int, node: Node, x: Node) -> bool:
    number = fuser.operand(group, unit, x, x.shape, "element")
    if number is None:
        return False
    program = group.program
    if node.op is ops.SUM:
        number = program.cast(number, node.dtype.name)
    result = program.add(node.op.name, (number,), node.dtype.name)
    group.reduces = True
    fuser.take(group, unit, node, Member(result, "row"))
    return True


def _column_reduce(fuser: Fuser, node: Node, x: Node, outer: Shape, columns: int) -> bool:
    for unit in fuser.columns[-4:]:
        group = fuser.units[unit]
        assert isinstance(group, Group)
        if group.outer == outer and group.columns == columns and fuser.ready(x) < unit:
            number = fuser.operand(group, unit, x, x.shape, "element")
            if number is not None:
                return _down(fuser, group, unit, node, number)
    for every in (False, True):
        if every or not fuser.cheap(x):
            fuser.materialise(x)
        if every and not fuser.places[x].contiguous:
            fuser.dense(x)
        group = Group("columns", outer, columns)
        fuser.emit(group)
        number = fuser.operand(group, len(fuser.units) - 1, x, x.shape, "element")
        if number is not None:
            fuser.columns.append(len(fuser.units) - 1)
            return _down(fuser, group, len(fuser.units) - 1, node, number)
    return False


def _down(fuser: Fuser, group: Group, unit: int, node: Node, number: int) -> bool:
    fuser.known(group, unit)
    result = group.program.add(node.op.name, (number,), node.dtype.name)
    group.nodes.append(node)
    chunks = group.chunks
    if chunks == 1:
        target = fresh(node.dtype.name, node.shape, node)
        _chunked(group, result, whole(target.buffer, (1, group.columns)))
        fuser.unit_of[node], fuser.places[node] = unit, target
        return True
    partial = fresh(node.dtype.name, (chunks, group.columns))
    _chunked(group, result, partial)
    last = Group("columns", (chunks,), group.columns)
    loaded = last.load(partial, "element")
    assert loaded is not None and last.chunks == 1
    total = last.program.add(node.op.name, (loaded,), node.dtype.name)
    target = fresh(node.dtype.name, node.shape, node)
    _chunked(last, total, whole(target.buffer, (1, group.columns)))
    last.nodes.append(node)
    fuser.emit(last)
    fuser.unit_of[node], fuser.places[node] = len(fuser.units) - 1, target
    return True


def _chunked(group: Group, instr: int, view: View) -> None:
    group.stores.append(Store(instr, view, -1, 0))
