"""The boxes of a graph's picture, each of one or more nodes, and the frames around each box.

In: a Graph and the number of levels to open. Out: `Boxes` and the edges between them, never in a
circle. Called by graph.py.

A level is a call of a module or, outside of all modules, a line of the user's. Each node belongs to
a side: forward; backward, where it helps to compute a gradient, and then it is drawn as what it is
the gradient of is drawn; or update, which is all that comes of gradients. A step that goes on
forward from what an update made begins another round.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

from ..context import Call
from ..node import CONST, INPUT, ITEM, Graph, Node

FORWARD, BACKWARD, UPDATE = range(3)
SMALL = 3  # ops of a module that stays closed, where nobody says how far to open
SHORT = 8  # ops of a line that is opened with the first modules; longer ones open with the last


def is_data(node: Node) -> bool:
    """True if a node is a value that came from outside, rather than computed."""
    return not node.srcs and (node.op.kind == "leaf" or node.op is CONST)


def whole(node: Node) -> Node:
    """The op that a node is one of several results of; other nodes are whole."""
    while node.op is ITEM and not is_data(node.srcs[0]):
        node = node.srcs[0]
    return node


def calls(node: Node) -> list[str]:
    """The calls of modules in which a node was made, outermost first."""
    found: list[str] = []
    scope = node.scope
    while scope:
        found.append(scope)
        scope = scope.outer if isinstance(scope, Call) else ""
    return found[::-1]


@dataclass(eq=False)
class Level:
    """A call of a module, or a line of the user's, on one side of the picture.

    call: its scope, "" of a line. line: "file:line", of a line alone; of: of a gradient, the line
    it is the gradient of. facing: of a gradient, the level of the forward pass.
    """

    round: int
    side: int
    outer: Level | None
    call: str = ""
    line: str = ""
    of: str = ""
    facing: Level | None = None
    ops: int = 0
    inside: int = 0  # levels directly in it

    @property
    def kind(self) -> str:
        """The class of the module that was called; "" of a part, and of a line."""
        found = self.call.kind if isinstance(self.call, Call) else None
        return found.__name__ if found else ""

    @property
    def module(self) -> Any:
        """The module that was called, if it is still there."""
        return self.call.module() if isinstance(self.call, Call) else None

    @property
    def name(self) -> str:
        """Its path inside the level around it; the class of an outermost module, the line of a
        line."""
        if not self.call:
            return self.line
        outer = self.outer.call if self.outer else ""
        if outer and self.call.startswith(f"{outer}."):
            return str(self.call[len(outer) + 1 :])
        return str(self.call.partition(".")[2] or self.call)


Path = tuple[Level, ...]


@dataclass(eq=False)
class Box:
    """The nodes of a closed level, or those of one op.

    path: the open levels around it. level: the closed one, None of an op. of: of a gradient, the
    boxes it is the gradient of. folded: data that it reads and that is not drawn for itself.
    """

    round: int
    side: int
    path: Path
    level: Level | None
    nodes: list[Node]
    of: dict[Box, None] = field(default_factory=dict)
    folded: dict[Node, None] = field(default_factory=dict)

    @property
    def is_data(self) -> bool:
        return is_data(self.nodes[0])


class Levels:
    """The side and the levels of each node of a graph that is computed."""

    def __init__(self, graph: Graph) -> None:
        self._known: dict[Any, Level] = {}
        self.of: dict[Node, tuple[int, int, Path]] = {}
        self.forward: dict[Node, Node] = {}  # of a node of a gradient, what it is the gradient of
        computed = [node for node in graph if not is_data(node)]
        self.counters = _counters(graph)
        sides = _sides(computed)
        _move_counters(graph, computed, sides)
        self._face(computed, sides)
        for node in computed:  # first, for gradients face them
            if sides[node][1] == FORWARD:
                self._path(node, *sides[node])
        for node in computed:
            round, side = sides[node]
            path = self._path(node, round, side)
            self.of[node] = round, side, path
            if node.op is not ITEM:
                for level in path:
                    level.ops += 1
        self.deepest = max((len(path) for _, _, path in self.of.values()), default=0)
        self.modules = max(
            (len(path) for _, _, path in self.of.values() if path and path[0].call), default=0
        )

    def _face(self, computed: list[Node], sides: dict[Node, tuple[int, int]]) -> None:
        """Find what each node of a gradient is the gradient of, in the forward pass of its round:
        the node of that place, of data what reads it first, otherwise the one before."""
        for round in {round for round, _ in sides.values()}:
            first = [node for node in computed if sides[node] == (round, FORWARD)]
            first.sort(key=lambda node: node.place)
            places = [node.place for node in first]
            readers: dict[int, Node] = {}  # of data, by its place
            for node in first:
                for src in node.srcs:
                    readers.setdefault(src.place, node)
            for node in computed if first else ():
                if sides[node] == (round, BACKWARD):
                    of = -1 if node.gradient_of is None else node.gradient_of
                    i = max(0, bisect_right(places, of) - 1)
                    known = places[i] == of or of not in readers
                    self.forward[node] = first[i] if known else readers[of]

    def _path(self, node: Node, round: int, side: int) -> Path:
        node = whole(node)
        source = self.forward.get(node, node)
        levels: list[Level] = []
        for call in calls(source):
            key: Any = (id(call) if isinstance(call, Call) else call, round, side)
            levels.append(self._level(key, levels, round, side, call=call))
        if not levels and node.line:
            of = source.line if source is not node else ""
            key = (node.line, of, round, side)
            levels.append(self._level(key, levels, round, side, line=node.line, of=of))
        return tuple(levels)

    def _level(self, key: Any, outer: list[Level], round: int, side: int, **what: Any) -> Level:
        if key not in self._known:
            around = outer[-1] if outer else None
            facing = self._known.get((*key[:-1], FORWARD)) if side == BACKWARD else None
            self._known[key] = Level(round, side, around, facing=facing, **what)
            if around is not None:
                around.inside += 1
        return self._known[key]

    def closed(self, path: Path, depth: int | None, limit: int) -> int | None:
        """The place in a path of the level that is closed; None where all are open.

        depth: as the user asks for it, or None; then `limit` is tried, and modules with no others
        inside stay closed unless it is beyond all levels."""
        asked = limit if depth is None else depth
        for i, level in enumerate(path):
            if i >= asked:
                return i
            if level.line:
                short = level.ops <= SHORT and level.side == FORWARD
                if not short and (depth is None or depth < max(1, self.modules)):
                    return i
            elif depth is None and i:
                shown = level.facing or level
                if not shown.inside and (shown.ops <= SMALL or limit <= self.deepest):
                    return i
        return None


def _sides(computed: Iterable[Node]) -> dict[Node, tuple[int, int]]:
    """The round and the side of each node, which come after those of what they read."""
    computed = list(computed)
    differentiated = {node.gradient_of for node in computed}
    by_place: dict[int, tuple[int, int]] = {}
    found: dict[Node, tuple[int, int]] = {}
    for node in computed:
        before = max((found[src] for src in node.srcs if src in found), default=(0, FORWARD))
        if node is not whole(node):
            found[node] = before
        elif node.gradient_of is not None:
            before = max(before, by_place.get(node.gradient_of, before))
            found[node] = before[0], BACKWARD
        elif before[1] == FORWARD:
            found[node] = before
        elif node.requires_grad and node.place in differentiated:
            found[node] = before[0] + 1, FORWARD
        else:
            found[node] = before[0], UPDATE
        by_place[node.place] = found[node]
    return found


def _counters(graph: Graph) -> set[Node]:
    """Numbers that only say which random stream is next, from one drawing to another, and to which
    device they go; attention drops inside."""
    users, found = graph.users(), set[Node]()
    for node in reversed(graph.nodes):
        kind, drawn = node.op.kind, (user.op.kind in ("random", "fused") for user in users[node])
        number = kind in ("map", "transfer") and node.shape == () and node.dtype.kind == "i"
        if number and all(d or user in found for d, user in zip(drawn, users[node], strict=True)):
            found.add(node)
    for node in graph:
        if node in found and not all(is_data(src) or src in found for src in node.srcs):
            found.remove(node)
    return found


def _move_counters(graph: Graph, computed: list[Node], sides: dict[Node, tuple[int, int]]) -> None:
    """Have what is computed after a gradient, and read by updates alone, on their side: counts of
    steps and rates, which no gradient goes into."""
    begun = min((n.place for n in computed if sides[n][1] == BACKWARD), default=None)
    users = graph.users()
    for node in reversed(computed):
        late = begun is not None and node.place > begun and sides[node][1] == FORWARD
        if (
            late
            and not node.requires_grad
            and all(sides[user][1] == UPDATE for user in users[node])
        ):
            sides[node] = sides[node][0], UPDATE


class Boxes:
    """The boxes of a graph, each after those it reads, and the tensors on each edge.

    edges: for each pair of boxes, the nodes that go from one to the other, and how often they are
    read. shared: the parameters that more than one box reads. arguments: data that is drawn for
    itself wherever it is read in a forward pass.
    """

    def __init__(
        self,
        graph: Graph,
        levels: Levels,
        depth: int | None,
        limit: int = 0,
        arguments: Container[Node] = (),
    ) -> None:
        self.boxes: list[Box] = []
        self.edges: dict[tuple[Box, Box], dict[Node, int]] = {}
        self.shared: set[Node] = set()
        self.box: dict[Node, Box] = {}
        self._arguments, self._counters = arguments, levels.counters
        self._data: dict[tuple[Node, Path], Box] = {}
        self._reader: dict[Node, Box] = {}
        groups: dict[Any, list[Node]] = {}
        for node, (round, side, path) in levels.of.items():
            groups.setdefault(_key(node, round, side, path, levels, depth, limit), []).append(node)
        order = sorted(groups.values(), key=lambda nodes: min(node.place for node in nodes))
        for nodes in _without_circles(order, levels.of):
            round, side, path = levels.of[nodes[0]]
            at = levels.closed(path, depth, limit)
            level = None if at is None else path[at]
            box = Box(round, side, path[:at], level, nodes)
            self.box.update(dict.fromkeys(nodes, box))
            for node in nodes:
                for src in node.srcs:
                    self._read(src, box)
            self.boxes.append(box)
        for node, forward in levels.forward.items():
            self.box[node].of[self.box[forward]] = None
        for root in graph.roots:
            if is_data(root):
                self._draw_data(root, 0, ())

    def _read(self, src: Node, box: Box) -> None:
        """Note that a node of `box` reads src: by an edge, or inside the box."""
        learnt = src.requires_grad and is_data(src) and box.side == FORWARD
        if learnt and self._reader.setdefault(src, box) is not box:
            self.shared.add(src)
        if is_data(src) and self._folds(src, box):
            box.folded[src] = None
            return
        source = self._draw_data(src, box.round, box.path) if is_data(src) else self.box[src]
        if source is not box and src not in self._counters:
            nodes = self.edges.setdefault((source, box), {})
            nodes[src] = nodes.get(src, 0) + 1

    def _folds(self, data: Node, box: Box) -> bool:
        """True if data is drawn as a part of the box that reads it: known scalars are, a closed
        box's parameters and what it made or captured by itself, and all that is read after the
        forward pass."""
        if box.side != FORWARD:
            return True
        if data in self._arguments:
            return False
        if data.shape == () and not data.requires_grad:
            return True
        if box.level is None:
            return False
        return data.requires_grad or data.op is INPUT or box.level.call in calls(data)

    def _draw_data(self, node: Node, round: int, path: Path) -> Box:
        """The box of data in a frame: each frame that reads it has its own, near at hand."""
        if (node, path) not in self._data:
            self._data[node, path] = Box(round, FORWARD, path, None, [node])
            self.boxes.append(self._data[node, path])
        return self._data[node, path]


def _key(
    node: Node, round: int, side: int, path: Path, levels: Levels, depth: int | None, limit: int
) -> Any:
    """Nodes of one key share a box."""
    at = levels.closed(path, depth, limit)
    if at is not None:
        return path[at]
    node = whole(node)
    return round, side, whole(levels.forward.get(node, node))


def _without_circles(groups: list[list[Node]], order: Iterable[Node]) -> Iterator[list[Node]]:
    """The groups, each after those it reads. Where groups read each other (lines that are run in
    turns), one is cut: what can be computed by then comes first, the rest later."""
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
