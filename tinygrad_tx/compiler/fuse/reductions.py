"""Reductions: parts of row programs, or kernels along the rows.

In: Values and a reduction whose turn it is. Out: a Decision, None where its axes are interleaved.
Called by decide.py. One over the last axes joins the row program that makes what it reduces, or one
that reads the same large value; one over the first axes is reduced in chunks, and those once more.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from ... import ops
from ...node import Node
from ..schedule.layout import Shape
from ..schedule.records import Refusal
from . import limits
from .decisions import Begins, Declined, Joins, unfitting
from .group import Group
from .read import reads
from .values import Values


def reduction(values: Values, node: Node) -> Joins | Begins | None:
    """The decision on a reduction."""
    x = node.srcs[0]
    axis = node.attrs["axis"]
    over = set(axis) if isinstance(axis, tuple) else {axis % max(x.ndim, 1)}
    wide = [i for i, n in enumerate(x.shape) if n != 1]
    reduced = [i for i in wide if i in over]
    kept = [i for i in wide if i not in over]
    if not reduced:
        return None
    if not kept or min(reduced) > max(kept):
        return _of_rows(values, node, x, prod(x.shape[i] for i in reduced))
    single = node.op in (ops.SUM, ops.MAX, ops.MIN) and node.dtype.name.startswith("float")
    if max(reduced) < min(kept) and single:
        outer = tuple(x.shape[i] for i in reduced)
        return _along_rows(values, node, x, outer, prod(x.shape[i] for i in kept))
    return None


def _of_rows(values: Values, node: Node, x: Node, columns: int) -> Joins | Begins:
    """One result for each row."""
    unit = values.ready(x)
    group, elements = values.group(unit), prod(x.shape)
    declined: Declined | None = None
    if group and group.columns == columns > 1 and group.level(elements) == "element":
        joins = _joins(values, unit, group, node, "row")
        if isinstance(joins, Joins):
            return joins
        declined = joins
    elif group:
        declined = unfitting(unit, group)
    number, beside = values.newest_reader(values.stored_below(x), unit, elements)
    if beside and beside.columns == columns > 1:
        joins = _joins(values, number, beside, node, "row")
        if isinstance(joins, Joins):
            return replace(joins, declined=declined)
    outer = [n for n in x.shape if n != 1]
    left = columns
    while left > 1:
        left //= outer.pop()
    return Begins("rows", tuple(outer), columns, "row", reduces=True, declined=declined)


def _along_rows(values: Values, node: Node, x: Node, outer: Shape, columns: int) -> Joins | Begins:
    """One result for each column."""
    for unit in values.columns[-limits.RECENT :]:
        group = values.units[unit]
        assert isinstance(group, Group)
        if group.outer == outer and group.columns == columns and values.ready(x) < unit:
            joins = _joins(values, unit, group, node, "element")
            if isinstance(joins, Joins):
                return joins
    return Begins("columns", outer, columns, reduces=True)


def _joins(values: Values, unit: int, group: Group, node: Node, level: str) -> Joins | Declined:
    x = node.srcs[0]
    operands = reads(values, group, unit, (x,), x.shape, "element")
    if isinstance(operands, Refusal):
        return Declined(unit, operands.reason, operands.node)
    return Joins(unit, level, operands)
