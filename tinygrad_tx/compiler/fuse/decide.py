"""Deciding: what becomes of a node, given what has been decided of the nodes before it.

In: Values and the node whose turn it is. Out: a Decision; nothing is changed. Called by fuse.py.

A map or a reduction joins the group that made its latest operand where the domain is the same and
every other operand was ready before it; else it begins a group. A value is stored only when a later
unit asks for it, and where it is cheap (cost.py) it is computed again instead. Movement is strides.
An op without a kernel is called as it is.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ... import backends, ops
from ...node import CONST, INPUT, ITEM, REBOUND, Node, Spec, execute
from ..schedule.records import Refusal
from . import limits
from .cost import cost
from .decisions import (
    Begins,
    Decision,
    Declined,
    Deferred,
    Emits,
    Folded,
    Given,
    Joins,
    Opaque,
    Viewed,
    unfitting,
)
from .emit import KERNELS
from .expressions import expression
from .group import Group
from .order import REDUCTIONS, VIEWS
from .read import find_inside, reads
from .reductions import reduction
from .values import Values

_HOST = "cpu"


def decide(values: Values, node: Node) -> Decision:
    """In the order in which it is tried, calling the op as it is last."""
    if node.op is INPUT:
        return Given()
    array = _folded(values, node)
    if array is not None:
        return Folded(array)
    if node.op in VIEWS or node.op is ops.FULL:
        return Viewed()
    if _is_empty(node):
        return _opaque(node, "it is empty")
    if node.op.kind == "map" and isinstance(node.spec, Spec):
        why = expression(values, node).refused
        if why:
            return _opaque(node, f"its forward has no scalar expression: {why}", why)
        return _map(values, node)
    if node.op in REDUCTIONS and node.srcs[0].dtype.is_half:
        return _opaque(node, "it is a reduction of 16 bits")
    if node.op in REDUCTIONS:
        return reduction(values, node) or _opaque(node, "these axes lie apart")
    kernel = KERNELS.get(node.op)
    if kernel is not None and kernel.fits(values, node):
        return Emits(kernel.kernel)
    loop = values.rounds.get(node)
    return _opaque(node, loop if isinstance(loop, str) else "no kernel does this")


def _opaque(node: Node, why: str, untraceable: str = "") -> Opaque:
    return Opaque(Refusal(node, f"called as it is: {why}"), untraceable)


def _is_empty(node: Node) -> bool:
    """True if a result or an operand has no elements."""
    return any(0 in spec.shape for n in (node, *node.srcs) for spec in n.specs)


def _folded(values: Values, node: Node) -> Any:
    """The array of a value that depends on nothing, if it is not too large; else None. Whatever the
    device, it is the host that computes it."""
    if node.array is not None:
        there = isinstance(node.array, (np.ndarray, np.generic))
        return node.array if there else backends.get(node.device).to_host(node.array)
    if node.op is CONST:
        return backends.get(_HOST).scalar(node.attrs["value"], node.dtype)
    if (
        node.op.kind in ("random", "leaf", "opaque")
        or node.op in (ops.FULL, ITEM, REBOUND)
        or not isinstance(node.spec, Spec)
        or prod(node.shape) > limits.FOLDED
        or not all(src in values.folded for src in node.srcs)
    ):
        return None
    arrays = [values.folded[src] for src in node.srcs]
    return execute(node.op, _HOST, arrays, node.attrs, node.spec)


def _map(values: Values, node: Node) -> Decision:
    size = prod(node.shape)
    if values.lateness.is_late(node):
        return Deferred(cost(values, node))
    unit = max((values.ready(src) for src in node.srcs), default=-1)
    joins = _at_latest(values, unit, node)
    if isinstance(joins, Joins):
        return joins
    alone = len(values.users[node]) == 1 and size > 1
    if (size > limits.SMALL or alone) and node not in values.final:  # these are stored anyway
        work = cost(values, node)
        if work <= limits.CHEAP:
            return Deferred(work, joins)
    return _beside(values, unit, node) or Begins.map(node, joins)


def _at_latest(values: Values, unit: int, node: Node) -> Joins | Declined | None:
    """In the group that makes the latest operand; None where nothing makes it."""
    group = values.group(unit)
    if group is None:
        return None if unit < 0 else Declined(unit, "it is no row program")
    level = group.level(prod(node.shape))
    if level is None:
        return unfitting(unit, group)
    if _waits(values, group, node):
        return Declined(unit, "it would have to wait for other values")
    return _joins(values, unit, group, node, level)


def _beside(values: Values, unit: int, node: Node) -> Joins | None:
    """In the group that reads the same large value, where all else was ready before it."""
    below = values.stored_below(*node.srcs)
    number, group = values.newest_reader(below, unit, prod(node.shape))
    joins = None if group is None else _joins(values, number, group, node, "element")
    return joins if isinstance(joins, Joins) else None


def _joins(values: Values, unit: int, group: Group, node: Node, level: str) -> Joins | Declined:
    """In a group, unless it is too long or cannot get at an operand."""
    if group.size > limits.LONGEST:
        return Declined(unit, f"it has more than {limits.LONGEST} instructions")
    operands = reads(values, group, unit, node.srcs, node.shape, level)
    if isinstance(operands, Refusal):
        return Declined(unit, operands.reason, operands.node)
    return Joins(unit, level, operands)


def _waits(values: Values, group: Group, node: Node) -> bool:
    """True if a scalar depends on values other than the group's: joining would delay the group
    until these are ready."""
    own = (values.ready(src) < 0 or find_inside(group, src) for src in node.srcs)
    return prod(node.shape) == 1 and group.columns > 1 and not all(own)
