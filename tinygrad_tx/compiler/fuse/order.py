"""The order in which fuse/fuse.py takes nodes, which is about the order in which they will run.

In: a graph. Out: its nodes, each after its sources. Called by fuse/fuse.py.
"""

from __future__ import annotations

import heapq
from itertools import pairwise
from math import prod

from ... import ops
from ...node import ITEM, REBOUND, Graph, Node
from ...ops.collective import IN_ORDER, STARTS
from . import limits

VIEWS = (
    *(ops.RESHAPE, ops.BROADCAST, ops.PERMUTE, ops.SLICE, ops.FLIP, ops.WINDOWS),
    *(ITEM, REBOUND),
)
REDUCTIONS = (ops.SUM, ops.MAX, ops.MIN, ops.ANY, ops.ALL, ops.ARGMAX, ops.ARGMIN)


def ordered(graph: Graph, users: dict[Node, list[Node]]) -> list[Node]:
    """Topological: small values first, then those that are smaller than what they are made of (a
    weight's gradient, a sum), for they free memory; otherwise as the program has them. Sums of
    numbers come late, so that a long one is one kernel. What is reduced over ranks meanwhile is
    begun at once, and waited for last of all."""
    waiting = {node: len(set(node.srcs)) for node in graph}
    # What all ranks do together, all do in the same order: that of the program.
    together = sorted((n for n in graph if n.op in IN_ORDER), key=lambda node: node.place)
    behind = dict(pairwise(together))
    for node in behind.values():
        waiting[node] += 1
    number = {node: i for i, node in enumerate(graph)}
    sizes = {node: sum([prod(s.shape) for s in node.specs]) for node in graph}
    small = max(limits.SMALL, max(sizes.values(), default=0) // limits.LARGER)

    def key(node: Node) -> tuple[int, int, int]:
        size = sizes[node]
        if node.op in STARTS or node.op is ops.FINISH_REDUCE:
            return -1 if node.op in STARTS else 4, node.place, number[node]
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
        if (other := behind.get(node)) is not None:
            waiting[other] -= 1
            if not waiting[other]:
                heapq.heappush(ready, (*key(other), other))
    return order
