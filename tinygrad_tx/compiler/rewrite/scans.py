"""merge_scans: uses of one loop become one use, which gives all that any of them gives.

In and out: the roots of a graph. A stage of pipeline.py, behind cse. A gradient takes what it needs
of the rounds before from a further SCAN of the same function on the same sources.
"""

from __future__ import annotations

from typing import Any

from ...loops.record import SCAN
from ...node import ITEM, Graph, Node
from .engine import Roots, use


def merge_scans(roots: Roots) -> Roots:
    """The roots with one SCAN for each round and sources."""
    nodes = Graph(roots).nodes
    if not any(node.op is SCAN for node in nodes):
        return roots
    groups: dict[Any, dict[Node, None]] = {}  # of each use: all the values that are kept
    of: dict[Node, Any] = {}  # the use that a SCAN is; of an output of one, also which
    for node in nodes:
        if node.op is SCAN:
            srcs = tuple([of.get(src, src) for src in node.srcs])
            use_ = of[node] = (node.attrs["round"], srcs)
            groups.setdefault(use_, {}).update(dict.fromkeys(node.attrs["keep"]))
        elif node.op is ITEM and node.srcs[0].op is SCAN:
            of[node] = (of[node.srcs[0]], _output(node))
    done: dict[Any, Node] = {}
    for node in nodes:
        key = of.get(node, node)
        if key in done:
            done[node] = done[key]
            continue
        srcs = tuple([done[src] for src in node.srcs])
        if node.op is SCAN:
            made = use(SCAN, srcs, {**node.attrs, "keep": tuple(groups[key])}, like=node)
        elif key is not node:
            i = _number(srcs[0], _output(node))
            made = use(ITEM, srcs, {**node.attrs, "i": i}, like=node)
        else:
            made = node if srcs == node.srcs else node.with_srcs(srcs)
        done[node] = done[key] = made
    return tuple(done[root] for root in roots)


def _output(item: Node) -> Any:
    """What an output of a SCAN is: the number of one of the round's, or the value that is kept."""
    attrs, i = item.srcs[0].attrs, item.attrs["i"]
    own = len(attrs["round"].outs)
    return i if i < own else attrs["keep"][i - own]


def _number(scan: Node, output: Any) -> int:
    """The number of an output of a SCAN."""
    if isinstance(output, int):
        return output
    return len(scan.attrs["round"].outs) + scan.attrs["keep"].index(output)  # type: ignore[no-any-return]
