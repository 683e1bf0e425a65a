"""sums: a long sum of numbers becomes the sum of a row.

In: the roots of a lowered graph. Out: new roots, in which the terms of `a + b + c + ...`, each one
number, are put side by side and summed as a row. A stage of pipeline.py. The norm of all
gradients is such a sum: one row program reads it whatever the number of parameters, and each term
is written to its place by the very kernel that makes it.
"""

from __future__ import annotations

from math import prod

from ... import ops
from ...node import REBOUND, Graph, Node
from ..fuse.order import REDUCTIONS
from ..rewrite.engine import Roots, use

FEW = 8  # terms that stay an addition each


def sums(roots: Roots) -> Roots:
    """The roots with every such sum made one."""
    graph = Graph(roots)
    users, ends = graph.users(), set(roots)
    done: dict[Node, Node] = {}
    for node in graph:
        srcs = tuple([done[src] for src in node.srcs])
        done[node] = node if srcs == node.srcs else node.with_srcs(srcs)
        if _adds(node) and not (_once(users[node]) and node not in ends):  # no part of another one
            terms = _terms(node, users, ends)
            parts = [done[x] for x in terms if _computed(x)]
            if len(parts) > FEW:
                others = [done[x] for x in terms if not _computed(x)]
                done[node] = _summed(node, parts, others)
    return tuple(done[root] for root in roots)


def _adds(node: Node) -> bool:
    return node.op is ops.ADD and node.dtype.kind == "f" and prod(node.shape) == 1


def _once(users: list[Node]) -> bool:
    """True if a value is read once, by another addition."""
    return len(users) == 1 and _adds(users[0])


def _terms(node: Node, users: dict[Node, list[Node]], ends: set[Node]) -> list[Node]:
    """The terms of a sum, in order."""
    found, left = [], [*node.srcs[::-1]]
    while left:
        node = left.pop()
        if _adds(node) and _once(users[node]) and node not in ends:
            left += node.srcs[::-1]
        else:
            found.append(node)
    return found


def _computed(node: Node) -> bool:
    """True if a row program makes the value: it can write it anywhere."""
    while node.op in (ops.RESHAPE, REBOUND):
        node = node.srcs[0]
    return node.op.kind == "map" or node.op in REDUCTIONS


def _summed(node: Node, parts: list[Node], others: list[Node]) -> Node:
    flat = tuple(use(ops.RESHAPE, (x,), {"shape": (1,)}, like=node) for x in parts)
    row = use(ops.CONCAT, flat, {"axis": 0}, like=node)
    total = use(ops.SUM, (row,), {"axis": (0,)}, like=node)
    total = use(ops.RESHAPE, (total,), {"shape": node.shape}, like=node)
    for other in others:
        total = use(ops.ADD, (total, other), {}, like=node)
    return total
