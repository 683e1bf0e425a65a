"""Late values: in float32, made of numbers of 16 bits, and read only much later.

In: Values and a node. Out: whether it is rather computed again by what reads it than kept, which
would take twice the memory of what it is made of: so does the slope of an activation, where forward
and backward pass are one graph. Called by decide.py and cost.py.
"""

from __future__ import annotations

from math import prod

from ... import ops
from ...dtypes import float32
from ...loops.record import SCAN
from ...node import CONST, Graph, Node, Spec
from . import limits
from .order import VIEWS

_APART = (ops.MATMUL, ops.ATTENTION, ops.ATTENTION_GRAD, SCAN)  # later: behind one of these


class Lateness:
    """What is known of a graph: depth, the number of products on the way to each node."""

    def __init__(self, graph: Graph, users: dict[Node, list[Node]], final: set[Node]) -> None:
        self._users, self._final = users, final
        self._depth: dict[Node, int] = {}
        self._known: dict[Node, bool] = {}
        if any(spec.dtype.is_half for node in graph for spec in node.specs):
            for node in graph:
                below = max((self._depth[src] for src in node.srcs), default=0)
                self._depth[node] = below + (node.op in _APART)

    def is_late(self, node: Node) -> bool:
        """True if all that reads the value also reads what later products make."""
        found = self._known.get(node)
        if found is None:
            self._known[node] = False
            found = self._known[node] = self._is_late(node)
        return found

    def _is_late(self, node: Node) -> bool:
        if not self._depth or not _computes(node) or node in self._final:
            return False
        if prod(node.shape) <= limits.SMALL or not self._of_halves(node):
            return False
        return all(self._reads_late(user, node) for user in self._users[node])

    def _reads_late(self, user: Node, node: Node) -> bool:
        if user.op.kind != "map" or not isinstance(user.spec, Spec):
            return False
        depth = self._depth[node]
        return any(self._depth[src] > depth for src in user.srcs) or self.is_late(user)

    def _of_halves(self, node: Node) -> bool:
        """True if all that it is made of, of its size, are numbers of 16 bits."""
        left, seen = [node], set[Node]()
        while left:
            for src in left.pop().srcs:
                if not isinstance(src.spec, Spec):
                    return False
                if src in seen or 2 * prod(src.shape) <= prod(node.shape):
                    continue
                seen.add(src)
                if src.op in (CONST, ops.FULL) or src.dtype.is_half:
                    continue
                if len(seen) > limits.LATE or not (_computes(src) or src.op in VIEWS):
                    return False
                left.append(src)
        return bool(seen)


def _computes(node: Node) -> bool:
    return node.op.kind == "map" and isinstance(node.spec, Spec) and node.dtype is float32
