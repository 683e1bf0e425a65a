"""Reading: a group's access to an operand.

In: Values, a group and a node. Out: a Read, a tree whose leaves are loads, numbers and values of
the group itself; a Refusal, with the operand and the reason, where there is none. Nothing is
changed: what a Read needs to be stored, build.py stores when the group takes it. Called by
decide.py, reductions.py and build.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from ... import ops
from ...node import REBOUND, Node
from ..schedule.layout import Shape
from ..schedule.records import Refusal
from .cost import is_cheap, is_kept
from .group import Again, Column, Const, Group, Inside, Load, Read
from .values import Values

# Reasons why a group cannot get at an operand.
LATER = "is made by it in another order, or by a later unit"
UNSTORED = "must be computed, copied or filled by a unit of its own first"
STRIDES = "lies in strides that do not follow its rows and columns"
NO_STRETCH = "is a value of it that cannot be stretched to these elements"


@dataclass
class Reader:
    """An attempt: a group, the number that it has, and the nodes that the operands read so far will
    have stored."""

    values: Values
    group: Group
    unit: int
    assumed: set[Node]

    def read(self, src: Node, shape: Shape, level: str) -> Read | Refusal:
        """src, stretched to `shape`."""
        values, group = self.values, self.group
        while True:
            if src in values.folded and src.op is not ops.ARANGE and prod(src.shape) == 1:
                return Const(np.asarray(values.folded[src]).reshape(()).item(), src.dtype.name)
            if src.op is ops.FULL:
                return Const(src.attrs["value"], src.dtype.name)
            inside = find_inside(group, src)
            if inside is not None:
                fits = _stretches(group, inside[1], src.shape, shape, level)
                return Inside(inside[0]) if fits else Refusal(src, NO_STRETCH)
            if _counts_columns(group, src, level):
                return Column(src.dtype.name)
            if values.ready(src) >= self.unit:
                return Refusal(src, LATER)
            if values.lies(src, self.assumed) or not is_cheap(values, src, self.assumed):
                return self._load(src, shape, level)
            if src.op not in (ops.RESHAPE, REBOUND) or src.shape != shape:
                return self._again(src, shape, level)
            src = src.srcs[0]
            shape = src.shape

    def _again(self, node: Node, shape: Shape, level: str) -> Read | Refusal:
        """A cheap value computed once more; one that lies somewhere is read."""
        if node.op.kind != "map" or is_kept(self.values, node):
            return self._load(node, shape, level)
        operands = []
        for src in node.srcs:
            found = self.read(src, shape, level)
            if isinstance(found, Refusal):
                return found
            operands.append(found)
        return Again(node, tuple(operands))

    def _load(self, node: Node, shape: Shape, level: str) -> Load | Refusal:
        """A stored value."""
        view, new = self.values.layout(node)
        if new:
            return Refusal(node, UNSTORED)
        spread = self.group.spread(view.broadcast(shape), level)
        if spread is None:
            return Refusal(node, STRIDES)
        self.assumed.update(self.values.below(node))
        return Load(node, spread, level == "element" and node.shape == shape)


def reads(
    values: Values, group: Group, unit: int, srcs: tuple[Node, ...], shape: Shape, level: str
) -> tuple[Read, ...] | Refusal:
    """The Reads of some operands by a group, unit number `unit`, or why there are none."""
    reader = Reader(values, group, unit, set())
    found = []
    for src in srcs:
        operand = reader.read(src, shape, level)
        if isinstance(operand, Refusal):
            return operand
        found.append(operand)
    return tuple(found)


def find_inside(group: Group, node: Node) -> tuple[Node, str] | None:
    """The member of a group that a value is, seen through what keeps elements in their row-major
    places, and its level there."""
    while True:
        level = group.members.get(node)
        if level is not None:
            return node, level
        if node.op not in (ops.RESHAPE, REBOUND) and not (
            node.op is ops.BROADCAST and prod(node.shape) == prod(node.srcs[0].shape)
        ):
            break
        node = node.srcs[0]
    if node.op is ops.BROADCAST:
        inner = find_inside(group, node.srcs[0])
        if inner and inner[1] == "row" and _is_per_row(group, node.srcs[0].shape, node.shape):
            return inner[0], "element"
    return None


def _stretches(group: Group, inner: str, old: Shape, shape: Shape, level: str) -> bool:
    """True if a member of level `inner` can be read, stretched from `old` to `shape`."""
    if prod(old) == prod(shape):
        return True
    return inner == "row" and level == "element" and _is_per_row(group, old, shape)


def _counts_columns(group: Group, src: Node, level: str) -> bool:
    attrs = src.attrs
    return (
        src.op is ops.ARANGE
        and level == "element"
        and attrs["start"] == 0
        and attrs["step"] == 1
        and attrs["count"] == group.columns > 64
    )


def _is_per_row(group: Group, old: Shape, shape: Shape) -> bool:
    """True if stretching `old` to `shape` repeats one value for each row along its columns."""
    padded = (1,) * (len(shape) - len(old)) + old
    lead = next((i for i, (a, b) in enumerate(zip(padded, shape, strict=True)) if a != b), 0)
    return (
        prod(padded[:lead]) == group.rows
        and all(n == 1 for n in padded[lead:])
        and prod(shape[lead:]) == group.columns
    )
