"""push_slices: parts of an elementwise result become elementwise results of parts.

In and out: the roots of a graph. A stage of pipeline.py. The gates of a recurrent cell are slices
of one sum: so the sum is not stored, and the gates' program reads what it is made of.
"""

from __future__ import annotations

from math import prod

from ... import ops
from ...node import Graph, Node
from ...rules import Spec
from .engine import Roots, use


def push_slices(roots: Roots) -> Roots:
    """The roots, with each map that only slices read, and maps them, computed slice by slice."""
    while True:
        graph = Graph(roots)
        if not any(n.op is ops.SLICE and n.srcs[0].op.kind == "map" for n in graph):
            return roots
        users, ends = graph.users(), set(roots)
        done: dict[Node, Node] = {}
        changed = False
        for node in graph:
            srcs = tuple([done[src] for src in node.srcs])
            if node.op is ops.SLICE and _is_read_in_parts(node.srcs[0], users, ends):
                done[node], changed = _of_parts(node, srcs[0]), True
            else:
                done[node] = node if srcs == node.srcs else node.with_srcs(srcs)
        if not changed:
            return roots
        roots = tuple(done[root] for root in roots)


def _is_read_in_parts(node: Node, users: dict[Node, list[Node]], ends: set[Node]) -> bool:
    """True of a map of which only slices are read, no element twice, and these by maps."""
    if node.op.kind != "map" or not isinstance(node.spec, Spec) or node in ends:
        return False
    readers = users[node]
    return (
        all(reader.op is ops.SLICE for reader in readers)
        and all(user.op.kind == "map" for reader in readers for user in users[reader])
        and sum(prod(reader.shape) for reader in readers) <= prod(node.shape)
    )


def _of_parts(node: Node, whole: Node) -> Node:
    """A slice of a map as the map of slices."""
    ranges = node.attrs["ranges"]
    parts = []
    for src in whole.srcs:
        own = [
            r if n == m else (0, 1, 1)
            for n, m, r in zip(
                src.shape,
                whole.shape[len(whole.shape) - src.ndim :],
                ranges[len(ranges) - src.ndim :],
                strict=True,
            )
        ]
        full = all(r == (0, n, 1) for r, n in zip(own, src.shape, strict=True))
        parts.append(src if full else use(ops.SLICE, (src,), {"ranges": tuple(own)}, like=node))
    return use(whole.op, tuple(parts), whole.attrs, like=node)
