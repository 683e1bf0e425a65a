"""cse: common subexpression elimination, equal nodes merged into one.

In and out: the roots of a graph. A stage of pipeline.py; lift/idioms.py calls it first, for a rule
compares nodes.
"""

from __future__ import annotations

from typing import Any

from ...node import INPUT, LEAF, Node
from ...op import Attrs
from ..keys import itself
from ..keys import key as key_of
from .engine import Roots, graph, is_boundary


def cse(roots: Roots, *, differentiable: bool = False) -> Roots:
    """The roots with nodes of equal op, sources and attributes made one: the first of them.

    Data is never compared. Random ops with the same key and stream nodes draw the same numbers. An
    opaque op may do anything, so only copies of one call (of the same attrs object) are made one.
    Module and line are those of the one that came first in the program.
    """
    kept: dict[Any, Node] = {}
    done: dict[Node, Node] = {}
    told: dict[Node, int] = {}  # the place of the node that each of those kept is told as
    for node in graph(roots, differentiable):
        if node.op is LEAF or node.op is INPUT or (differentiable and is_boundary(node)):
            done[node] = node
            continue
        srcs = tuple(done[src] for src in node.srcs)
        opaque = node.op.kind == "opaque"
        attrs = id(node.attrs) if opaque else (node.attrs and _key(node.attrs)) or None
        key = (node.op, srcs, attrs, differentiable and node.requires_grad)
        found = kept.get(key)
        if found is None:
            found = kept[key] = node if srcs == node.srcs else node.with_srcs(srcs)
            told[found] = node.place
        elif node.place < told[found]:
            found.tell_as(node)
            told[found] = node.place
        done[node] = found
    return tuple(done[root] for root in roots)


def _key(attrs: Attrs) -> Any:
    return key_of(dict(sorted(attrs.items())) if len(attrs) > 1 else attrs, itself)
