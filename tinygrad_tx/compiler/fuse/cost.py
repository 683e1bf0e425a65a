"""Costs: the values that a group computes again instead of having them stored (rematerialisation).

In: Values and a node. Out: a number of map instructions. Called by decide.py, read.py and build.py.
The thresholds stand in limits.py.
"""

from __future__ import annotations

from collections.abc import Container
from math import prod

from ... import ops
from ...backends.kernels.instructions import SCALARS
from ...node import CAST, CONST, INPUT, REBOUND, Node
from . import limits
from .group import Group
from .order import VIEWS
from .values import Values

COSTLY = frozenset(op for op, scalar in SCALARS.items() if scalar.stored)


def is_cheap(values: Values, node: Node, assumed: Container[Node] = ()) -> bool:
    """True if a group rather computes a value again than has it stored. assumed: nodes that will
    lie somewhere, as other operands are read there."""
    if node.op is CAST and node.srcs[0].dtype.is_half:  # the half of it is stored instead
        return True
    if node in values.deferred and values.lateness.is_late(node):
        return True
    if node in values.folded:
        return _is_cheap_folded(node)
    return cost(values, node, assumed) <= limits.CHEAP


# Both walks meet a node as often as it is read, so they end as soon as it is too much.


def _is_cheap_folded(node: Node) -> bool:
    """True if computing again what lies there for nothing takes few additions, and reads no more
    than one constant as large as it."""
    size, work, reads, left = prod(node.shape), 0, 0, [node]
    while left:
        node = left.pop()
        scalar = SCALARS.get(node.op.name)
        if node.op in (*VIEWS, REBOUND):
            left.append(node.srcs[0])
        elif node.op in (ops.FULL, ops.ARANGE, CONST):
            continue
        elif scalar is None or node.array is not None:
            reads += int(2 * prod(node.shape) > size)
        else:
            work += scalar.cost
            left += node.srcs
        if work > limits.CHEAP or reads > 1:
            return False
    return True


def cost(values: Values, node: Node, assumed: Container[Node] = ()) -> int:
    """Map instructions that computing a value once more takes, from values that lie somewhere; more
    than limits.CHEAP where it takes or reads too much. A lone reader, which computes it instead of
    storing it, may take more."""
    most, large = (limits.CHAIN, 2) if len(values.users[node]) < 2 else (limits.CHEAP, 1)
    size, work, reads, left = prod(node.shape), 0, 0, [node]
    while left:
        found = _work(values, left.pop(), size, assumed)
        if found is None:
            return limits.CHEAP + 1
        maps, read, operands = found
        work, reads = work + maps, reads + read
        if work > most or reads > large:
            return limits.CHEAP + 1
        left += operands
    return min(work, limits.CHEAP)


def _work(
    values: Values, node: Node, size: int, assumed: Container[Node]
) -> tuple[int, int, tuple[Node, ...]] | None:
    """(map instructions, operands as large as `size` that are read, operands that are computed as
    well) of one node; None: it cannot be computed again."""
    while node.op in (ops.RESHAPE, REBOUND):
        node = node.srcs[0]
    if node.op in (ops.FULL, CONST) or (node in values.folded and node.op is ops.ARANGE):
        return 0, 0, ()
    full = int(2 * prod(node.shape) > size)
    if values.lies(node, assumed) or node in values.folded or node.op is INPUT:
        return 0, full, ()
    if node.op in VIEWS:
        src = node.srcs[0]
        near = values.lies(src, assumed) or src.op is INPUT
        return (0, full, ()) if near or not full else None
    if is_kept(values, node):
        return 0, 0, ()
    costly = node.op.name in COSTLY and len(values.users[node]) > 1
    return None if node.op.kind != "map" or costly else (1, 0, node.srcs)


def is_kept(values: Values, node: Node) -> bool:
    """True if the group that computes a value stores it for next to nothing: it is small, or
    row-invariant."""
    if node not in values.unit_of:
        return False
    group = values.units[values.unit_of[node]]
    if not isinstance(group, Group) or node not in group.members:
        return False
    return prod(node.shape) <= limits.SMALL or group.members[node] == "row"
