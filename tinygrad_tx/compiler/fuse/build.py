"""Building: decisions are added to the Values. Through these functions units are added, and groups
asked to store a value.

In: Values and a node, or a group that takes it. Out: the Values, changed. Called by fuse.py and
emit/.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import ops
from ...node import REBOUND, Node, Spec
from ..schedule.layout import Shape
from ..schedule.records import Buffer, Call, Refusal, View, whole
from . import limits
from .body import copying, filling
from .cost import is_cheap
from .decisions import Begins
from .expressions import size_of
from .group import Again, Const, Fetch, Group, Load, Read, Step, fresh, moved
from .read import reads
from .values import Values


def add(values: Values, unit: Call | Group) -> int:
    """A further unit; its number."""
    values.units.append(unit)
    return len(values.units) - 1


def note_made(values: Values, node: Node, *views: View) -> None:
    """The newest unit makes this value; one view for each output of its op."""
    unit = len(values.units) - 1
    values.unit_of[node] = unit
    if isinstance(node.spec, Spec):
        values.places[node] = views[0]
        return
    for user in values.users[node]:
        values.unit_of[user] = unit
        values.places[user] = views[user.attrs["i"]]


# Storing ---------------------------------------------------------------------------------------


def materialise(values: Values, node: Node) -> View:
    """The view of a value; if it is not stored yet, its group is made to store it."""
    *movements, below = values.below(node)
    view = values.places.get(below)
    if view is None:
        view = values.places[below] = _store(values, below)
    for step in reversed(movements):
        there = moved(step, view)
        view = values.places[step] = _copy(values, step, view) if there is None else there
    return view


def _store(values: Values, node: Node) -> View:
    """The view of a value that was not stored before: uploaded, filled, or written by its group."""
    if node in values.folded:
        return _upload(values, node, values.folded[node])
    if node.op is ops.FULL:
        value = np.full(node.attrs["shape"], node.attrs["value"], node.dtype.np)
        if value.size <= limits.SMALL:
            return _upload(values, node, value)
        target = fresh(node.dtype.name, node.shape, node)
        values.unit_of[node] = add(values, filling(target, node.attrs["value"]))
        return target
    if node in values.deferred:
        values.deferred.remove(node)
        begin(values, node, Begins.map(node))
    group = values.units[values.unit_of[node]]
    assert isinstance(group, Group)
    target = fresh(node.dtype.name, node.shape, node)
    group.stores.append((node, target))
    return target


def _copy(values: Values, node: Node, src: View) -> View:
    """A copy in row-major order, which every reshape can look at."""
    target = fresh(src.dtype, src.shape, node)
    values.unit_of[node] = add(values, copying(src, target))
    return whole(target.buffer, node.shape)


def _upload(values: Values, node: Node, array: Any) -> View:
    value = np.ascontiguousarray(array)
    buffer = Buffer("constant", value.dtype.name, value.size, node)
    values.constants[buffer] = value
    return whole(buffer, node.shape)


def copy_dense(values: Values, node: Node) -> View:
    """A value in row-major order: copied."""
    values.places[node] = _copy(values, node, materialise(values, node))
    return values.places[node]


def store_flat(values: Values, node: Node, shape: Shape) -> View:
    """A stored value seen as another shape, copied where strides cannot say it."""
    view = materialise(values, node).reshape(shape)
    if view is None:
        view = copy_dense(values, node).reshape(shape)
        assert view is not None, "row-major order can be seen as any shape"
    return view


def store_in(values: Values, node: Node, target: View) -> int:
    """Have the group that makes a value write it to `target`, where nobody else has asked for it
    yet and strides allow it; the group's number, or -1."""
    while node.op in (ops.RESHAPE, REBOUND) and node not in values.places:
        node = node.srcs[0]
    place = target.reshape(node.shape)
    if node in values.places or node not in values.unit_of or place is None:
        return -1
    unit = values.unit_of[node]
    group = values.units[unit]
    assert isinstance(group, Group)
    if group.fit(target, group.members[node]) is None:
        return -1
    group.stores.append((node, place))
    values.places[node] = place
    return unit


# Groups ----------------------------------------------------------------------------------------


def join(values: Values, unit: int, node: Node, level: str, operands: tuple[Read, ...]) -> None:
    """Unit number `unit`, a group, makes this value from now on."""
    group = values.units[unit]
    assert isinstance(group, Group)
    operands = tuple([_store_read(values, unit, group, read) for read in operands])
    group.size += size_of(values, node)
    if group.kind == "columns":
        _join_columns(values, unit, group, Step(node, operands))
        return
    group.steps.append(Step(node, operands))
    group.members[node] = level
    values.unit_of[node] = unit


def _store_read(values: Values, unit: int, group: Group, read: Read) -> Read:
    """A read whose values are stored. Others that read what a unit reads may join it."""
    if isinstance(read, Load):
        node, view, shared = read
        if shared:
            values.last_reader[values.below(node)[-1]] = unit
        _count(group, node)
        buffer = materialise(values, node).buffer
        if view.buffer is not buffer:
            view = View(buffer, view.shape, view.strides, view.offset)
        return Fetch(view)
    if isinstance(read, Again):
        group.size += size_of(values, read.node)
        operands = [_store_read(values, unit, group, operand) for operand in read.operands]
        return Again(read.node, tuple(operands))
    if isinstance(read, Const):
        _count(group, (repr(read.value), read.dtype))
    return read


def _count(group: Group, what: object) -> None:
    """An instruction that reads a value or a number, unless there is one."""
    if what not in group.known:
        group.known.add(what)
        group.size += 1


def _join_columns(values: Values, unit: int, group: Group, step: Step) -> None:
    """A reduction along rows: by chunks, and those once more."""
    node, chunks = step.node, group.chunks
    target = fresh(node.dtype.name, node.shape, node)
    result = whole(target.buffer, (1, group.columns))
    group.steps.append(step)
    if chunks > 1:
        partial = fresh(node.dtype.name, (chunks, group.columns))
        group.stores.append((node, partial))
        group = Group("columns", (chunks,), group.columns)
        assert group.chunks == 1, "chunks are added up at once"
        group.steps.append(Step(node, (Fetch(partial),)))
        unit = add(values, group)
    group.stores.append((node, result))
    values.unit_of[node], values.places[node] = unit, target


def begin(values: Values, node: Node, how: Begins) -> int:
    """A group of its own for a map or a reduction; its number. Cheap operands stay unstored where
    the group can compute them; else all are stored, in row-major order if need be."""
    shape = node.srcs[0].shape if how.reduces else node.shape
    for store_all in (False, True):
        for src in node.srcs:
            if src not in values.folded and (store_all or not is_cheap(values, src)):
                materialise(values, src)
                if store_all and how.reduces and not values.places[src].contiguous:
                    copy_dense(values, src)
        group = Group(how.kind, how.outer, how.columns)
        unit = len(values.units)
        operands = reads(values, group, unit, node.srcs, shape, "element")
        if not isinstance(operands, Refusal):
            add(values, group)
            if how.kind == "columns":
                values.columns.append(unit)
            join(values, unit, node, how.level, operands)
            return unit
    raise AssertionError("what is stored can be read")
