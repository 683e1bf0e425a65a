"""The order in which fuse/fuse.py takes nodes, which is about the order in which they will run.

In: a graph. Out: its nodes, each after its sources. Called by fuse/fuse.py.
"""

from __future__ import annotations

import heapq
from math import prod

from ... import ops
from ...node import ITEM, REBOUND, Graph, Node
from . import limits

VIEWS = (
    *(ops.RESHAPE, ops.BROADCAST, ops.PERMUTE, ops.SLICE, ops.FLIP, ops.WINDOWS),
    *(ITEM, REBOUND),
)
REDUCTIONS = (ops.SUM, ops.MAX, ops.MIN, ops.ANY, ops.ALL, ops.ARGMAX, ops.ARGMIN)


def ordered(graph: Graph, users: dict[Node, list[Node]]) -> list[Node]:
    """Topological: small values first, then those that are smaller than what they are made of (a
    weight's gradient, a sum), for they free memory; otherwise as the program has them. Sums of
    numbers come last, so that a long one is one kernel."""
    waiting = {node: len(set(node.srcs)) for node in graph}
    number = {node: i for i, node in enumerate(graph)}
    sizes = {node: sum([prod(s.shape) for s in node.specs]) for node in graph}
    small = max(limits.SMALL, max(sizes.values(), default=0) // limits.LARGER)

    def key(node: Node) -> tuple[int, int, int]:
        size = sizes[node]
        if size == 1 and node.op is ops.ADD and node.dtype.is_floating_point:
            return 3, node.place, number[node]
        readers = users[node]
        shrinks = bool(node.srcs) and 2 * size <= max([sizes[src] for src in node.srcs])
        summed = bool(readers) and all(user.op in REDUCTIONS for user in readers)
        free = size <= small or node.op in VIEWS
        return 0 if free else 1 if shrinks or summed else 2, node.place, number[node]

    ready = [(*key(n), n) for n, count in waiting.items() if not count]
    heapq.heapify(ready)
    order: list[Node] = []
    while ready:
        *_, node = heapq.heappop(ready)
        order.append(node)
        for user in set(users[node]):
            waiting[user] -= 1
            if not waiting[user]:
                heapq.heappush(ready, (*key(user), user))
    return order
