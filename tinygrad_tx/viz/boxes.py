"""The boxes of a graph's picture, each of one or more nodes, and the frames around each box.

In: a Graph and the number of levels of modules to open. Out: a `Layout` of boxes and the edges
between them, never in a circle. Called by graph.py, which draws it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush

from ..node import CONST, INPUT, ITEM, Graph, Node

Path = tuple[str, ...]


def module_path(node: Node) -> Path:
    """The modules in whose calls a node was made, outermost first; `layers.0` in a model is one,
    for a list of modules is not called itself."""
    parts: list[str] = []
    for part in filter(None, node.scope.split(".")):
        if part.isdigit() and len(parts) > 1 and "." not in parts[-1]:
            parts[-1] += "." + part
        else:
            parts.append(part)
    return tuple(parts)


def is_data(node: Node) -> bool:
    """True if a node is a value that came from outside, rather than computed."""
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
    """The boxes of a graph, each after those it reads, and the tensors on each edge.

    depth: how many levels of modules are opened. closed: further modules that are not.
    shared: the parameters that more than one box reads.
    """

    def __init__(self, graph: Graph, depth: int, closed: Container[Path] = ()) -> None:
        self.boxes: list[Box] = []
        self.edges: dict[tuple[Box, Box], dict[Node, None]] = {}
        self.shared: set[Node] = set()
        self._box: dict[Node, Box] = {}
        self._data: dict[tuple[Node, Path], Box] = {}
        self._reader: dict[Node, Box] = {}
        homes: dict[Node, Path] = {}
        for node in graph:
            if not is_data(node):
                path = module_path(node)
                homes[node] = path[: depth + 1] if len(path) > depth or path in closed else ()
        for nodes in _without_circles(_connected(homes), homes):
            home = homes[nodes[0]]
            box = Box(home[:-1] if home else module_path(nodes[0]), home[-1] if home else "", nodes)
            self._box.update(dict.fromkeys(nodes, box))
            for node in nodes:
                for src in node.srcs:
                    self._read(src, box)
            self.boxes.append(box)
        for root in graph.roots:
            if is_data(root):
                self._draw_data(root, ())

    def _read(self, src: Node, box: Box) -> None:
        """Note that a node of `box` reads src: by an edge, or inside the box."""
        if src.requires_grad and is_data(src) and self._reader.setdefault(src, box) is not box:
            self.shared.add(src)
        if is_data(src) and _folds(src, box):
            box.folded[src] = None
            return
        source = self._draw_data(src, box.path) if is_data(src) else self._box[src]
        if source is not box:
            self.edges.setdefault((source, box), {})[src] = None

    def _draw_data(self, node: Node, path: Path) -> Box:
        """The box of data in a frame: each frame that reads it has its own, near at hand."""
        if (node, path) not in self._data:
            self._data[node, path] = Box(path, "", [node])
            self.boxes.append(self._data[node, path])
        return self._data[node, path]


def small_modules(graph: Graph, ops: int = 3) -> set[Path]:
    """The modules inside others that hold no module themselves, and few ops in each call."""
    paths = {node: module_path(node) for node in graph if not is_data(node)}
    outer = {path[:i] for path in set(paths.values()) for i in range(len(path))}
    groups = _connected({n: () if p in outer else p for n, p in paths.items()})
    large = {paths[nodes[0]] for nodes in groups if len(nodes) > ops}
    return {path for path in set(paths.values()) - outer - large if len(path) > 1}


def _folds(data: Node, box: Box) -> bool:
    """True if data is drawn as a part of the box that reads it: known scalars are, and a collapsed
    module's parameters and masks of its own making."""
    if data.shape == () and not data.requires_grad and data.op is not INPUT:
        return True
    home = (*box.path, box.title)
    return bool(box.title) and (data.requires_grad or module_path(data)[: len(home)] == home)


def _connected(homes: dict[Node, Path]) -> list[list[Node]]:
    """The nodes of one module that hang together: two calls of a module are two groups."""
    leader: dict[Node, Node] = {node: node for node in homes}

    def find(node: Node) -> Node:
        while leader[node] is not node:
            leader[node] = node = leader[leader[node]]
        return node

    for node, home in homes.items():
        for src in node.srcs:
            if src in homes and (node.op is ITEM or (home and homes[src] == home)):
                leader[find(node)] = find(src)
    groups: dict[Node, list[Node]] = {}
    for node in homes:
        groups.setdefault(find(node), []).append(node)
    return list(groups.values())


def _without_circles(groups: list[list[Node]], order: Iterable[Node]) -> Iterator[list[Node]]:
    """The groups, each after those it reads. Where groups read each other (a module called twice
    in a row, a forward pass with its backward), one is cut: what can be computed by then comes
    first, the rest later."""
    owner = {node: i for i, nodes in enumerate(groups) for node in nodes}
    users: dict[Node, list[Node]] = {node: [] for node in owner}
    waiting: dict[Node, int] = {}  # how many of its inputs are to come
    awaited = [0] * len(groups)  # the same of a group, of those from other groups
    for node in owner:
        srcs = {src for src in node.srcs if src in owner}
        waiting[node] = len(srcs)
        awaited[owner[node]] += sum(owner[src] != owner[node] for src in srcs)
        for src in srcs:
            users[src].append(node)
    computable = [[node for node in nodes if not waiting[node]] for nodes in groups]
    ready = [i for i, count in enumerate(awaited) if not count]  # a heap, for it is sorted
    later = iter(order)
    done: set[Node] = set()
    while len(done) < len(owner):
        i = heappop(ready) if ready else owner[next(node for node in later if node not in done)]
        part, computable[i] = computable[i], []
        for node in part:  # which grows meanwhile
            for user in users[node]:
                j = owner[user]
                waiting[user] -= 1
                if not waiting[user]:
                    (part if j == i else computable[j]).append(user)
                if j != i:
                    awaited[j] -= 1
                    if not awaited[j]:
                        heappush(ready, j)
        done.update(part)
        yield part
