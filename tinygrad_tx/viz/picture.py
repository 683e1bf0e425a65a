"""The picture of a graph: its boxes, opened as far as it stays readable, as a Scene and as DOT.

In: a Graph, names of its inputs, and how far to open. Out: a `Picture`. Called by graph.py.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

from ..node import ITEM, Graph, Node
from . import labels
from .boxes import BACKWARD, FORWARD, UPDATE, Box, Boxes, Level, Levels, is_data
from .labels import COLOURS, Label, Labels, plural
from .layout import PAD, Layout, arrange
from .routes import CLOSING, MARGIN, OPENING, Rows, Wire, route
from .scene import Line, Rect, Scene, Shape, Text, text_width
from .subject import Subject

READABLE = 64  # so many boxes of a side still make a picture to read rather than to get lost in
TITLE, SMALL = 12.0, 10.0  # sizes of letters
_GREY = "#808080"
_EDGES = {  # colour, in words
    "flow": ("#707070", "value"),
    "data": ("#a0a0a0", "data"),
    "saved": ("#7fa8d8", "kept for the gradient"),
    "gradient": ("#d08a4a", "gradient"),
    "update": ("#8a6fc0", "into an update"),
}
_SIDES = {FORWARD: ("forward", "#f8fbf8"), BACKWARD: ("backward", "#fdf8f3")}


@dataclass(eq=False)
class Picture:
    """boxes: with their edges. labels: of the boxes. note: what is folded, in words."""

    name: str
    graph: Graph
    boxes: Boxes
    labels: dict[Box, Label]
    note: str

    @property
    def summary(self) -> str:
        ops = sum(not is_data(n) and n.op is not ITEM for n in self.graph)
        return f"{plural(ops, 'op')} in {plural(len(self.boxes.boxes), 'box').replace('xs', 'xes')}"


def picture(of: Subject, depth: int | None) -> Picture:
    """depth: how many levels are opened; None: as many as leave it readable."""
    graph = of.graph
    levels = Levels(graph)
    limit = levels.deepest + 1 if depth is None else depth
    deeper: Boxes | None = None
    boxes = Boxes(graph, levels, depth, limit, of.arguments)
    while depth is None and limit and _most(boxes) > READABLE:
        limit, deeper = limit - 1, boxes
        boxes = Boxes(graph, levels, depth, limit, of.arguments)
    if depth is not None and depth < levels.deepest:
        deeper = Boxes(graph, levels, depth + 1, limit + 1, of.arguments)
    outputs: dict[Box, dict[Node, None]] = {}
    for (source, _), nodes in boxes.edges.items():
        outputs.setdefault(source, {}).update(dict.fromkeys(nodes))
    for root in graph.roots:
        if root in boxes.box and root not in levels.counters:
            outputs.setdefault(boxes.box[root], {})[root] = None
    written = Labels(of.names, boxes.shared, outputs)
    note = _folded(boxes, deeper, min(limit + 1, levels.deepest)) if deeper else ""
    return Picture(of.name, graph, boxes, {box: written.box(box) for box in boxes.boxes}, note)


def _most(boxes: Boxes) -> int:
    """The number of boxes on the side that has most."""
    return max(Counter((box.round, box.side) for box in boxes.boxes).values(), default=0)


def _folded(boxes: Boxes, deeper: Boxes, depth: int) -> str:
    """ "12 layers of 31 boxes folded: depth=3 opens them": what one level more would show."""
    inside: Counter[Level] = Counter(
        level
        for box in deeper.boxes
        for level in box.path
        if box.side == FORWARD and not box.is_data
    )
    closed = Counter[tuple[str, int]]()
    for box in boxes.boxes:
        if box.level is not None and box.side == FORWARD and inside[box.level] > 1:
            parts = box.level.name.split(".")
            kind = box.level.name if box.level.call else labels.title(box.level)
            if parts[-1].isdigit():  # one of many
                kind = parts[-2] if len(parts) > 1 else box.level.kind
            closed[kind, inside[box.level]] += 1
    if not closed:
        return ""
    words = [
        f"{n} {kind} of {count} boxes" if n > 1 else f"{kind} of {count} boxes"
        for (kind, count), n in sorted(closed.items(), key=lambda x: -x[1] * x[0][1])[:3]
    ]
    more = len(closed) - len(words)
    listed = ", ".join(words) + (f" and {more} more" if more > 0 else "")
    them = "it" if closed.total() == 1 else "them"
    return f"{listed} folded: depth={depth} opens {them}"


# As shapes ---------------------------------------------------------------------------------------


def scene(picture: Picture) -> Scene:
    """The picture as shapes. Texts stand in boxes and beside frames' edges, never on each other."""
    boxes, written = picture.boxes.boxes, picture.labels
    levels = dict.fromkeys(level for box in boxes for level in box.path)
    frames = {level: labels.frame(level) for level in levels}
    sizes = {box: _size(written[box]) for box in boxes}
    titles = {level: text_width(label.title, SMALL, True) for level, label in frames.items()}
    layout = arrange(
        boxes, picture.boxes.edges, {box: size[0] for box, size in sizes.items()}, titles
    )
    wires = list(_wires(picture))
    head = _head(picture)
    rows = route(
        layout, wires, {box: size[1] for box, size in sizes.items()}, 12.0 + 16 * len(head)
    )
    right = max((p.x + p.width for p in layout.sides.values()), default=0.0) + PAD
    shapes: list[Shape] = []
    shapes += _frames(layout, rows, frames)
    shapes += (_line(wire) for wire in wires)
    shapes += _titles(layout, rows, frames, wires)
    roots = {picture.boxes.box.get(root) for root in picture.graph.roots}
    for box in boxes:
        row, (width, height) = layout.boxes[box], sizes[box]
        y = rows.top[row.first] + (rows.height[row.first] - height) / 2
        shapes += _box(written[box], row.x, y, width, height, box in roots)
    legend = _legend(picture, {wire.kind for wire in wires}, right, rows.bottom)
    shapes = [_moved(shape, MARGIN, 0.0) for shape in (*shapes, *legend)]
    shapes += (
        Text(12.0, 20.0 + 16 * i, line, SMALL + 2 * (not i), _GREY if i else "#202020", not i,
             "start") for i, line in enumerate(head)
    )  # fmt: skip
    low = max((s.y for s in legend if isinstance(s, Text)), default=rows.bottom)
    width = max(right + 2 * MARGIN, *(24 + text_width(line, TITLE, True) for line in head))
    return Scene(width, low + 16, " · ".join(head), shapes)


def _head(picture: Picture) -> list[str]:
    return [line for line in (picture.name, picture.summary, picture.note) if line]


def _size(label: Label) -> tuple[float, float]:
    """Width and height of a box."""
    size = TITLE if label.kind == "level" else SMALL + 1
    width = text_width(label.title, size, label.kind == "level")
    width = max([width, *(text_width(line, SMALL - 1) for line in label.lines)])
    return max(width + 18, 26.0), 22.0 + 12 * len(label.lines)


def _box(label: Label, x: float, y: float, width: float, height: float, root: bool) -> list[Shape]:
    """A box with its texts. root: one that the picture is of."""
    data = label.kind == "data"
    stroke = "#303030" if root else "#b8b8b8" if data else "#909090"
    radius = 11.0 if data else 5.0
    found: list[Shape] = [
        Rect(x, y, width, height, label.colour, stroke, 2.0 if root else 1.0, radius, label.hover,
             data)
    ]  # fmt: skip
    bold = label.kind == "level"
    middle = x + width / 2
    size = TITLE if bold else SMALL + 1
    found.append(Text(middle, y + 15, label.title, size, "#202020", bold, hover=label.hover))
    for i, line in enumerate(label.lines):
        text = Text(middle, y + 27 + 12 * i, line, SMALL - 1, "#505050", hover=label.hover)
        found.append(text)
    return found


def _wires(picture: Picture) -> list[Wire]:
    found: list[Wire] = []
    for (source, target), nodes in picture.boxes.edges.items():
        several = target.level is None and target.side == FORWARD
        kind = _kind(source, target)
        shapes = ", ".join(dict.fromkeys(f"{n.shape}" for n in nodes if len(n.specs) == 1))
        ends = " → ".join(picture.labels[box].title for box in (source, target))
        times = min(4, sum(nodes.values())) if several else 1
        found += (Wire(source, target, kind, f"{ends}\n{shapes}".strip()) for _ in range(times))
    return found


def _kind(source: Box, target: Box) -> str:
    if source.is_data:
        return "data"
    if UPDATE in (source.side, target.side):
        return "update"
    if source.side == BACKWARD:
        return "gradient"
    return "saved" if target.side == BACKWARD else "flow"


def _line(wire: Wire) -> Line:
    colour = _EDGES[wire.kind][0]
    data = wire.kind == "data"
    return Line(tuple(wire.points), colour, 1.0, data, not data, wire.hover)


def _frames(layout: Layout, rows: Rows, frames: Mapping[Level, Label]) -> list[Shape]:
    """The rectangles around open levels and sides, outer ones first."""
    found: list[Shape] = []
    for (_, side), place in layout.sides.items():
        if side in layout.framed:
            x, y, width, height = _extent(layout, rows)[id(place)]
            colour = _SIDES[side][1]
            found.append(Rect(x - PAD, y, width + 2 * PAD, height, colour, "#c8c8c8", 1.0, 9.0))
    extents = _extent(layout, rows)
    for level in sorted(frames, key=lambda level: _nesting(level)):
        x, y, width, height = extents[id(layout.frames[level])]
        found.append(Rect(x, y, width, height, "#ffffff", "#b0b0b0", 1.0, 6.0, frames[level].hover))
    return found


def _nesting(level: Level) -> int:
    count, outer = 0, level.outer
    while outer is not None:
        count, outer = count + 1, outer.outer
    return count


def _extent(layout: Layout, rows: Rows) -> dict[int, tuple[float, float, float, float]]:
    """x, y, width and height of each frame, by the id of its place."""
    above: dict[int, int] = {}
    below: dict[int, int] = {}
    known = {id(p): p for p in (*layout.frames.values(), *layout.sides.values())}
    for box in layout.boxes:
        for counts, places in ((above, layout.begun(box)), (below, layout.done(box))):
            for i, place in enumerate(places[::-1]):
                counts[id(place)] = max(counts.get(id(place), 0), i + 1)
    found: dict[int, tuple[float, float, float, float]] = {}
    for key, place in known.items():
        y = rows.top[place.first] - OPENING * above.get(key, 0) + 2
        last = place.end - 1
        low = rows.top[last] + rows.height[last] + CLOSING * below.get(key, 0) - 2
        found[key] = place.x, y, place.width, low - y
    return found


def _titles(
    layout: Layout, rows: Rows, frames: Mapping[Level, Label], wires: Iterable[Wire]
) -> list[Shape]:
    """The titles of frames, on the left, on the right where lines cross them on the left alone, and
    each on a plate of its own in front of lines."""
    crossing = [
        (x, min(y, z), max(y, z))
        for wire in wires
        for (x, y), (u, z) in pairwise(wire.points)
        if x == u
    ]
    crossing.sort()
    extents = _extent(layout, rows)
    found: list[Shape] = []
    named = [(layout.frames[level], label, SMALL, "#404040") for level, label in frames.items()]
    for (_, side), place in layout.sides.items():
        if side in layout.framed:
            label = Label("frame", _SIDES[side][0], (), "", "#ffffff")
            named.append((place, label, TITLE, "#202020"))
    for place, label, size, colour in named:
        x, y, whole, _ = extents[id(place)]
        width = text_width(label.title, size, True) + 6
        if size == TITLE:
            x -= PAD
        elif _crossed(crossing, x + 5, width, y) and not _crossed(
            crossing, x + whole - width - 5, width, y
        ):
            x += whole - width - 10
        plate = "#ffffff" if size == SMALL else _SIDES[FORWARD][1]
        found.append(Rect(x + 5, y + 3, width, 15, plate, radius=2.0))
        found.append(Text(x + 8, y + 14, label.title, size, colour, True, "start", label.hover))
    return found


def _crossed(crossing: list[tuple[float, float, float]], x: float, width: float, y: float) -> bool:
    """True if a vertical line goes through a title; crossing: by x, with both ends."""
    first, last = bisect_left(crossing, (x,)), bisect_right(crossing, (x + width,))
    return any(low < y + 18 and high > y + 3 for _, low, high in crossing[first:last])


def _legend(picture: Picture, kinds: set[str], right: float, top: float) -> list[Shape]:
    """What the colours mean, of those that are there."""
    used = {(label.colour, label.meaning) for label in picture.labels.values() if label.meaning}
    entries: list[tuple[str, str, bool]] = [
        (*entry, False) for entry in dict.fromkeys(COLOURS.values()) if entry in used
    ]
    if kinds - {"flow", "data"}:
        entries += [(*_EDGES[kind], True) for kind in _EDGES if kind in kinds]
    found: list[Shape] = []
    x, y = 0.0, top + 14
    for colour, meaning, line in entries:
        width = 24 + text_width(meaning, SMALL - 1)
        if x and x + width > max(right, 300.0):
            x, y = 0.0, y + 16
        if line:
            found.append(Line(((x, y - 3), (x + 15, y - 3)), colour, 1.6))
        else:
            found.append(Rect(x, y - 9, 12, 11, colour, "#909090", 1.0, 2.0))
        found.append(Text(x + 18, y, meaning, SMALL - 1, "#505050", anchor="start"))
        x += width + 14
    return found


def _moved(shape: Shape, x: float, y: float) -> Shape:
    if isinstance(shape, Line):
        return replace(shape, points=tuple((a + x, b + y) for a, b in shape.points))
    return replace(shape, x=shape.x + x, y=shape.y + y)
