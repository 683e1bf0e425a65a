"""Costs: the values that a group computes again instead of having them stored (rematerialisation).

In: Values and a node. Out: a number of map instructions. Called by decide.py, read.py and build.py.
The thresholds stand in limits.py.
"""

from __future__ import annotations

from collections.abc import Container
from math import prod

from ... import ops
from ...backends.kernels.instructions import SCALARS
from ...node import CONST, INPUT, REBOUND, Node
from . import limits
from .group import Group
from .order import VIEWS
from .values import Values

COSTLY = frozenset(op for op, scalar in SCALARS.items() if scalar.stored)


def is_cheap(values: Values, node: Node, assumed: Container[Node] = ()) -> bool:
    """True if a group rather computes a value again than has it stored. assumed: nodes that will
    lie somewhere, as other operands are read there."""
    if node in values.folded:
        work, reads = _folded_work(node, prod(node.shape))
        return work <= limits.CHEAP and reads <= 1
    return cost(values, node, assumed) <= limits.CHEAP


def _folded_work(node: Node, size: int) -> tuple[int, int]:
    """What it takes to compute again what lies there for nothing, in additions, and the constants
    as large as `size` that it reads."""
    if node.op in (*VIEWS, REBOUND):
        return _folded_work(node.srcs[0], size)
    if node.op in (ops.FULL, ops.ARANGE, CONST):
        return 0, 0
    scalar = SCALARS.get(node.op.name)
    if scalar is None or node.array is not None:
        return 0, int(2 * prod(node.shape) > size)
    below = [_folded_work(src, size) for src in node.srcs]
    return scalar.cost + sum(work for work, _ in below), sum(reads for _, reads in below)


def cost(values: Values, node: Node, assumed: Container[Node] = ()) -> int:
    """Map instructions that computing a value once more takes, from values that lie somewhere; more
    than limits.CHEAP where it reads too much."""
    found = _work(values, node, prod(node.shape), assumed)
    if found is None:
        return limits.CHEAP + 1
    work, reads = found
    if len(values.users[node]) < 2:
        return min(work, limits.CHEAP) if work <= limits.CHAIN and reads <= 2 else limits.CHEAP + 1
    return work if reads <= 1 else limits.CHEAP + 1


def _work(
    values: Values, node: Node, size: int, assumed: Container[Node], depth: int = 0
) -> tuple[int, int] | None:
    """(map instructions, operands as large as `size` that they read); None: too much."""
    while node.op in (ops.RESHAPE, REBOUND):
        node = node.srcs[0]
    if node.op in (ops.FULL, CONST) or (node in values.folded and node.op is ops.ARANGE):
        return 0, 0
    full = int(2 * prod(node.shape) > size)
    if values.lies(node, assumed) or node in values.folded or node.op is INPUT:
        return 0, full
    if node.op in VIEWS:
        src = node.srcs[0]
        near = values.lies(src, assumed) or src.op is INPUT
        return (0, full) if near or not full else None
    if is_kept(values, node):
        return 0, 0
    costly = node.op.name in COSTLY and len(values.users[node]) > 1
    if node.op.kind != "map" or costly or depth > limits.CHAIN:
        return None
    work, reads = 1, 0
    for src in node.srcs:
        found = _work(values, src, size, assumed, depth + 1)
        if found is None:
            return None
        work, reads = work + found[0], reads + found[1]
    return work, reads


def is_kept(values: Values, node: Node) -> bool:
    """True if the group that computes a value stores it for next to nothing: it is small, or
    row-invariant."""
    if node not in values.unit_of:
        return False
    group = values.units[values.unit_of[node]]
    if not isinstance(group, Group) or node not in group.members:
        return False
    return prod(node.shape) <= limits.SMALL or group.members[node] == "row"
