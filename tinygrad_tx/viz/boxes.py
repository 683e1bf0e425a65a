"""Which nodes of a graph share a box of its picture, and which frames stand around each box.

What comes in: a Graph and how many levels of modules to open. What goes out: a `Layout` of boxes
and the edges between them, never in a circle. Called by graph.py, which draws it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush

from ..node import CONST, ITEM, Graph, Node

Path = tuple[str, ...]


def module_path(node: Node) -> Path:
    """The modules in whose calls a node was made, outermost first; `layers.0` counts as one."""
    parts: list[str] = []
    for part in filter(None, node.scope.split(".")):
        if part.isdigit() and parts:
            parts[-1] += "." + part
        else:
            parts.append(part)
    return tuple(parts)


def is_data(node: Node) -> bool:
    """Whether a node is a value that came from outside, rather than computed."""
    return not node.srcs and (node.op.kind == "leaf" or node.op is CONST)


@dataclass(eq=False)
class Box:
    """A collapsed module's nodes, or a single one.

    path: the open modules around it. title: the collapsed module's name, "" for a single node.
    folded: parameters and constants that it reads and that are not drawn for themselves.
    """

    path: Path
    title: str
    nodes: list[Node]
    folded: dict[Node, None] = field(default_factory=dict)

    @property
    def is_data(self) -> bool:
        return is_data(self.nodes[0])


class Layout:
    """The boxes of a graph, each after those it reads, and for each edge the nodes it carries."""

    def __init__(self, graph: Graph, depth: int) -> None:
        self.boxes: list[Box] = []
        self.edges: dict[tuple[Box, Box], dict[Node, None]] = {}
        self._data: dict[Node, Box] = {}
        homes = {n: _home(n, depth) for n in graph if not is_data(n)}
        self._box: dict[Node, Box] = {}
        for nodes in _without_circles(_connected(homes)):
            path = module_path(nodes[0])
            title = path[depth] if len(path) > depth else ""
            box = Box(path[:depth], title, nodes)
            self._box.update(dict.fromkeys(nodes, box))
            self._read(box)
            self.boxes.append(box)
        for root in graph.roots:
            if is_data(root):
                self._draw_data(root, ())

    def _read(self, box: Box) -> None:
        """The edges into a box."""
        for node in box.nodes:
            for src in node.srcs:
                source = self._box.get(src)
                if source is box:
                    continue
                if source is None:
                    if _folds(src, box):
                        box.folded[src] = None
                        continue
                    source = self._draw_data(src, box.path)
                self.edges.setdefault((source, box), {})[src] = None

    def _draw_data(self, node: Node, path: Path) -> Box:
        """The box of a parameter or other data, inside the frames that all its readers share."""
        box = self._data.get(node)
        if box is None:
            box = self._data[node] = Box(path, "", [node])
            self.boxes.append(box)
        shared = 0
        while shared < min(len(box.path), len(path)) and box.path[shared] == path[shared]:
            shared += 1
        box.path = box.path[:shared]
        return box


def _folds(data: Node, box: Box) -> bool:
    """Whether data is part of the box that reads it: constants are, and what a collapsed module
    owns (its parameters) or has made (its masks)."""
    if not data.shape and not data.requires_grad:
        return True
    inside = module_path(data)[: len(box.path) + 1] == (*box.path, box.title)
    return bool(box.title) and (data.requires_grad or inside)


def _home(node: Node, depth: int) -> Path | None:
    """The collapsed module that a node belongs to; None where it stands for itself."""
    path = module_path(node)
    return path[: depth + 1] if len(path) > depth else None


def _connected(homes: dict[Node, Path | None]) -> list[list[Node]]:
    """The nodes of one module that hang together: two calls of a module are two groups."""
    leader: dict[Node, Node] = {node: node for node in homes}

    def find(node: Node) -> Node:
        while leader[node] is not node:
            leader[node] = node = leader[leader[node]]
        return node

    for node, home in homes.items():
        for src in node.srcs:
            if src in homes and (node.op is ITEM or home is not None and homes[src] == home):
                leader[find(node)] = find(src)
    groups: dict[Node, list[Node]] = {}
    for node in homes:
        groups.setdefault(find(node), []).append(node)
    return list(groups.values())


def _without_circles(groups: list[list[Node]]) -> Iterable[list[Node]]:
    """The groups in an order in which each follows those it reads. Where groups read each other,
    one of them is cut: what can be computed by then comes first, the rest later."""
    owner = {node: i for i, nodes in enumerate(groups) for node in nodes}
    done: set[Node] = set()

    def missing(i: int) -> set[int]:
        srcs = {s for n in groups[i] for s in n.srcs if s in owner and s not in done}
        return {owner[s] for s in srcs} - {i}

    needs = [missing(i) for i in range(len(groups))]
    users: list[set[int]] = [set() for _ in groups]
    for i, need in enumerate(needs):
        for j in need:
            users[j].add(i)
    ready = [i for i, need in enumerate(needs) if not need]  # sorted: a heap
    left = set(range(len(groups)))
    while left:
        if ready:
            i = heappop(ready)
            part = groups[i]
            left.discard(i)
        else:
            ...
        yield part
