"""Where the boxes of a graph's picture stand: in which row, and how far to the right.

In: boxes with their edges and widths. Out: a `Layout`. Called by picture.py.

Rows are ranks in time: a box stands below all that it reads, and a frame has its rows for itself
or shares them with frames beside it. A gradient stands in the row of what it is the gradient of, in
frames of the same rows: so forward reads downwards, and backward, to the right of it, upwards.
Updates stand below. Within a frame, boxes are drawn towards their neighbours in a fixed number of
sweeps, so the work is in proportion to boxes, rows and edges.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .boxes import BACKWARD, FORWARD, UPDATE, Box, Level

GAP, PAD, AISLE = 22.0, 12.0, 70.0
SWEEPS = 8

Edges = Iterable[tuple[Box, Box]]
Item = Box | Level | None  # None: one side of a round, around all of it


@dataclass(eq=False)
class Place:
    """A box or a frame: rows first to end - 1, from x on."""

    first: int = 0
    end: int = 0
    x: float = 0.0
    width: float = 0.0


@dataclass(eq=False)
class Layout:
    """sides: the frame around each side of each round, (round, side) -> its place. framed: the
    sides that are drawn with a frame."""

    framed: tuple[int, ...] = ()
    boxes: dict[Box, Place] = field(default_factory=dict)
    frames: dict[Level, Place] = field(default_factory=dict)
    sides: dict[tuple[int, int], Place] = field(default_factory=dict)
    rows: int = 0

    def around(self, box: Box) -> list[Place]:
        """The frames around a box that are drawn, outermost first."""
        side = [self.sides[box.round, box.side]] if box.side in self.framed else []
        return side + [self.frames[level] for level in box.path]

    def begun(self, box: Box) -> list[Place]:
        """Those that begin in its row."""
        first = self.boxes[box].first
        return [place for place in self.around(box) if place.first == first]

    def done(self, box: Box) -> list[Place]:
        """Those that end with its row."""
        end = self.boxes[box].end
        return [place for place in self.around(box) if place.end == end]


def arrange(
    boxes: list[Box], edges: Edges, widths: Mapping[Box, float], titles: Mapping[Level, float]
) -> Layout:
    """boxes: each after those it reads, data anywhere. titles: the widths of frames' titles."""
    layout, edges = Layout(), list(edges)
    if any(box.side == BACKWARD for box in boxes):
        layout.framed = FORWARD, BACKWARD
    for round in sorted({box.round for box in boxes}):
        right = 0.0
        sides = {
            side: _Side(layout, [b for b in boxes if (b.round, b.side) == (round, side)], edges)
            for side in (FORWARD, BACKWARD, UPDATE)
        }
        base = layout.rows
        sides[FORWARD].rank(base)
        layout.rows = max(layout.rows, sides[FORWARD].root.end)
        sides[BACKWARD].face(base)
        layout.rows = max(layout.rows, sides[BACKWARD].root.end)
        sides[UPDATE].rank(layout.rows)
        layout.rows = max(layout.rows, sides[UPDATE].root.end)
        for side in (FORWARD, BACKWARD):
            if sides[side].boxes:
                sides[side].spread(widths, titles)
                sides[side].move(right + PAD)
                layout.sides[round, side] = sides[side].root
                right += sides[side].root.width + AISLE + 2 * PAD
        if sides[UPDATE].boxes:
            sides[UPDATE].spread(widths, titles)
            sides[UPDATE].move(max(0.0, (right - AISLE - sides[UPDATE].root.width) / 2))
            layout.sides[round, UPDATE] = sides[UPDATE].root
    return layout


class _Side:
    """One side of a round: a tree of frames with boxes in them."""

    def __init__(self, layout: Layout, boxes: list[Box], edges: list[tuple[Box, Box]]) -> None:
        self.layout, self.boxes, self.root = layout, boxes, Place()
        self.inside: dict[Item, list[Box | Level]] = {None: []}
        self.links: dict[Item, list[tuple[Box | Level, Box | Level, Box, Box]]] = {}
        mine, times = set(boxes), dict[Box, int]()
        firsts = {box: min(node.place for node in box.nodes) for box in boxes}
        for a, b in edges:  # data has its time just before its first reader
            if a.is_data and a in mine and b in mine:
                firsts[a] = min(firsts[b], times.get(a, firsts[b]))
                times[a] = firsts[a]
        for box in sorted(boxes, key=lambda box: (firsts[box], not box.is_data)):
            layout.boxes[box] = Place()
            around: Item = None
            for level in box.path:
                if level not in layout.frames:
                    layout.frames[level] = Place()
                    self.inside.setdefault(around, []).append(level)
                around = level
            self.inside.setdefault(around, []).append(box)
        for a, b in edges:
            if a in mine and b in mine:
                common, x, y = _siblings(a, b)
                self.links.setdefault(common, []).append((x, y, a, b))

    def place(self, item: Item) -> Place:
        if item is None:
            return self.root
        return self.layout.boxes[item] if isinstance(item, Box) else self.layout.frames[item]

    # Rows
    def rank(self, base: int) -> None:
        """Give every box its row, from base on."""
        self.root.end = self._rank(None)
        self._lower(None, base)

    def _rank(self, frame: Item) -> int:
        """Rows inside a frame, counted from its first one; how many there are."""
        items, time = self.inside[frame], {item: i for i, item in enumerate(self.inside[frame])}
        reads: dict[Box | Level, set[Box | Level]] = {}
        readers: dict[Box | Level, set[Box | Level]] = {}
        for x, y, _, _ in self.links.get(frame, ()):
            if time[x] < time[y]:
                reads.setdefault(y, set()).add(x)
                readers.setdefault(x, set()).add(y)
        end = 0
        for item in items:
            place = self.place(item)
            place.first = max((self.place(x).end for x in reads.get(item, ())), default=0)
            place.end = place.first + (self._rank(item) if isinstance(item, Level) else 1)
            end = max(end, place.end)
        for item in reversed(items):  # what reads nothing stands next to what reads it
            place = self.place(item)
            if not reads.get(item) and readers.get(item) and isinstance(item, Box):
                place.first = min(self.place(y).first for y in readers[item]) - 1
                place.end = place.first + 1
        return end

    def _lower(self, frame: Item, by: int) -> None:
        place = self.place(frame)
        place.first, place.end = place.first + by, place.end + by
        for item in self.inside.get(frame, ()) if not isinstance(frame, Box) else ():
            self._lower(item, place.first)

    def face(self, base: int) -> None:
        """Give every box of a gradient the row of what it is the gradient of; where the forward
        pass is not there, for nothing of it is read, rows as any others."""
        if not any(box.of for box in self.boxes):
            self.rank(base)
            return
        for box in self.boxes:
            rows = [self.layout.boxes[of].first for of in box.of] or [base]
            row = round(sum(rows) / len(rows))
            place = self.layout.boxes[box]
            place.first, place.end = row, row + 1
            for around in (*(self.layout.frames[level] for level in box.path), self.root):
                fresh = around.end == 0
                around.first = row if fresh else min(around.first, row)
                around.end = max(around.end, row + 1)

    # Columns
    def spread(self, widths: Mapping[Box, float], titles: Mapping[Level, float]) -> None:
        self._spread(None, widths, titles)

    def _spread(
        self, frame: Item, widths: Mapping[Box, float], titles: Mapping[Level, float]
    ) -> None:
        """Place what is in a frame, from the frame's own left edge on."""
        items = self.inside[frame]
        for item in items:
            if isinstance(item, Level):
                self._spread(item, widths, titles)
            else:
                self.place(item).width = widths[item]
        pulls: dict[Box | Level, list[tuple[Box | Level, float, float]]]
        pulls = {item: [] for item in items}
        for x, y, a, b in self.links.get(frame, ()):
            offset = self._middle(b, y) - self._middle(a, x)
            weight = 0.1 if a.is_data else 1.0
            pulls[x].append((y, offset, 1.0 if a.is_data else weight))
            pulls[y].append((x, -offset, weight))
        at = self._packed(items, dict.fromkeys(items, 0.0))
        downwards = sorted(items, key=lambda item: self.place(item).first)
        for sweep in range(SWEEPS):  # by what stands above, then by what stands below
            down, wanted = sweep % 2 == 1, dict(at)
            for item in downwards if down else downwards[::-1]:
                first = self.place(item).first
                near = [p for p in pulls[item] if (self.place(p[0]).first < first) == down]
                wanted[item] = _pulled(wanted, near, wanted[item])
            middle = {item: wanted[item] + self.place(item).width / 2 for item in items}
            at = self._packed(sorted(items, key=middle.__getitem__), wanted)
        left = min(at.values(), default=0.0)
        pad = 0.0 if frame is None else PAD
        for item in items:
            self.place(item).x = at[item] - left + pad
        place = self.place(frame)
        place.width = max((self.place(i).x + self.place(i).width for i in items), default=0.0) + pad
        if isinstance(frame, Level) and titles[frame] + 2 * PAD > place.width:
            more = titles[frame] + 2 * PAD - place.width
            for item in items:
                self.place(item).x += more / 2
            place.width += more

    def _middle(self, box: Box, inside: Box | Level) -> float:
        """The middle of a box, from the left edge of a frame around it."""
        x = self.place(box).width / 2
        if box is not inside:
            x += self.place(box).x
            for level in box.path[::-1]:
                if level is inside:
                    break
                x += self.place(level).x
        return x

    def _packed(
        self, order: list[Box | Level], wanted: Mapping[Box | Level, float]
    ) -> dict[Box | Level, float]:
        """Places in this order near the wanted ones, without overlap in any row: between those that
        are moved to the right as needed, and those that are moved to the left."""
        right: dict[Box | Level, float] = {}
        edge: dict[int, float] = {}
        for item in order:
            place = self.place(item)
            rows = range(place.first, place.end)
            x = max([wanted[item], *(edge[row] for row in rows if row in edge)])
            right[item] = x
            edge.update(dict.fromkeys(rows, x + place.width + GAP))
        left: dict[Box | Level, float] = {}
        edge = {}
        for item in reversed(order):
            place = self.place(item)
            rows = range(place.first, place.end)
            most = [edge[row] - place.width - GAP for row in rows if row in edge]
            x = min([wanted[item], *most])
            left[item] = x
            edge.update(dict.fromkeys(rows, x))
        return {item: (left[item] + right[item]) / 2 for item in order}

    def move(self, by: float) -> None:
        """Count every x from the picture's left edge."""
        self._move(None, by)

    def _move(self, frame: Item, by: float) -> None:
        place = self.place(frame)
        place.x += by
        for item in self.inside.get(frame, ()) if not isinstance(frame, Box) else ():
            self._move(item, place.x)


def _siblings(a: Box, b: Box) -> tuple[Item, Box | Level, Box | Level]:
    """The innermost frame around two boxes, and what in it each of them is or stands in."""
    i = 0
    while i < min(len(a.path), len(b.path)) and a.path[i] is b.path[i]:
        i += 1
    common = a.path[i - 1] if i else None
    return (
        common,
        a.path[i] if i < len(a.path) else a,
        b.path[i] if i < len(b.path) else b,
    )


def _pulled(
    at: Mapping[Box | Level, float],
    pulls: list[tuple[Box | Level, float, float]],
    otherwise: float,
) -> float:
    """Where its neighbours draw a box; weights tell how strongly."""
    total = sum(weight for _, _, weight in pulls)
    if not total:
        return otherwise
    return sum(weight * (at[other] + offset) for other, offset, weight in pulls) / total
