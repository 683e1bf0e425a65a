"""The ways of the edges of a graph's picture: along rows and columns, and never across a box.

In: a Layout, the boxes' sizes, and the edges. Out: heights of rows, and a line of points for each
edge. Called by picture.py.

An edge leaves a box below or above it, turns in the gap between two rows, goes through further rows
where no box stands, turns again, and enters. Edges from one box share their way as far as it goes,
and so do the many that lead into one. Neighbours in a row are joined directly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .boxes import Box
from .layout import Layout

CELL, TRACK = 8.0, 7.0  # how far apart ways stand beside each other
MARGIN = 6 * CELL  # room for ways on either side of the picture
LEAST, OPENING, CLOSING = 26.0, 24.0, 10.0  # heights in a gap: by itself, and for ends of frames
MANY = 4  # edges from afar into one box, which then share a way
Point = tuple[float, float]


@dataclass(eq=False)
class Wire:
    """One edge. net: those of one net share their way. kind: its look."""

    source: Box
    target: Box
    kind: str
    hover: str = ""
    net: Any = None
    column: float = 0.0  # where it goes through rows
    points: list[Point] = field(default_factory=list)


@dataclass(eq=False)
class Rows:
    """top, height: of each row; gaps: the height above each row, and below the last."""

    top: list[float]
    height: list[float]
    gaps: list[float]
    bottom: float


def route(layout: Layout, wires: list[Wire], heights: Mapping[Box, float], top: float) -> Rows:
    """Give each wire its points. top: where the picture begins."""
    return _Router(layout, wires, heights).run(top)


class _Router:
    def __init__(self, layout: Layout, wires: list[Wire], heights: Mapping[Box, float]) -> None:
        self.layout, self.wires, self.heights = layout, wires, heights
        self.row = {box: place.first for box, place in layout.boxes.items()}
        self.middle = {box: p.x + p.width / 2 for box, p in layout.boxes.items()}
        self.right = max((p.x + p.width for p in layout.sides.values()), default=0.0)
        cells = int((self.right + 2 * MARGIN) / CELL) + 2
        self.taken = np.zeros((layout.rows, cells), bool)  # by boxes
        self.used = np.zeros((layout.rows, cells), np.int16)  # by ways
        for place in layout.boxes.values():
            first, last = self._cell(place.x - 5), self._cell(place.x + place.width + 5)
            self.taken[place.first, first : last + 1] = True
        self.ports: dict[tuple[Box, bool], dict[Any, float]] = {}  # (box, below) -> x by user

    def _cell(self, x: float) -> int:
        return min(max(round((x + MARGIN) / CELL), 0), self.taken.shape[1] - 1)

    def run(self, top: float) -> Rows:
        beside = [wire for wire in self.wires if self._is_beside(wire)]
        around = [wire for wire in self.wires if wire not in set(beside)]
        self._join(around)
        self._find_columns(around)
        self._find_ports(around)
        tracks, counts = self._find_tracks(around)
        rows = self._heights(counts, top)
        for wire in around:
            self._draw(wire, tracks, rows)
        self._draw_beside(beside, rows)
        return rows

    # Which way
    def _is_beside(self, wire: Wire) -> bool:
        a, b = sorted((wire.source, wire.target), key=self.middle.__getitem__)
        if self.row[a] != self.row[b]:
            return False
        end = self.layout.boxes[a].x + self.layout.boxes[a].width
        first, last = self._cell(end + 5) + 1, self._cell(self.layout.boxes[b].x - 5)
        return not self.taken[self.row[a], first:last].any()

    def _leaves_below(self, wire: Wire) -> bool:
        return self.row[wire.target] >= self.row[wire.source]

    def _enters_below(self, wire: Wire) -> bool:
        return self.row[wire.target] <= self.row[wire.source]

    def _gaps(self, wire: Wire) -> tuple[int, int]:
        """The gaps in which it turns; gap i is above row i."""
        a, b = self.row[wire.source], self.row[wire.target]
        return a + self._leaves_below(wire), b + self._enters_below(wire)

    def _join(self, wires: Iterable[Wire]) -> None:
        """Make nets: of the wires of one kind from one box, or into one."""
        into: dict[Any, int] = {}
        out: dict[Any, int] = {}
        for wire in wires:
            first, last = self._gaps(wire)
            if first != last:
                for counts, end in ((into, wire.target), (out, wire.source)):
                    counts[end, wire.kind] = counts.get((end, wire.kind), 0) + 1
        for wire in wires:
            arriving = into.get((wire.target, wire.kind), 0)
            shared = arriving > MANY and arriving > out.get((wire.source, wire.kind), 0)
            end = wire.target if shared else wire.source
            wire.net = (end, shared, wire.kind)

    def _find_columns(self, wires: Iterable[Wire]) -> None:
        """A column for each net through the rows that it passes, short ones first."""
        nets: dict[Any, list[Wire]] = {}
        for wire in wires:
            first, last = self._gaps(wire)
            if first != last:
                nets.setdefault((wire.net, first < last), []).append(wire)
        spans: list[tuple[int, int, list[Wire]]] = []
        for found in nets.values():
            rows = [gap for wire in found for gap in self._gaps(wire)]
            spans.append((min(rows), max(rows), found))
        cells = np.arange(self.taken.shape[1]) * CELL - MARGIN
        for low, high, found in sorted(spans, key=lambda span: span[1] - span[0]):
            cost = 40.0 * self.used[low:high].max(0)
            for box in {b: None for wire in found for b in (wire.source, wire.target)}:
                cost = cost + np.abs(cells - self.middle[box])
            cost = np.where(self.taken[low:high].any(0), np.inf, cost)
            best = int(cost.argmin())
            self.used[low:high, best] += 1
            for wire in found:
                wire.column = float(cells[best])

    def _find_ports(self, wires: Iterable[Wire]) -> None:
        """Where wires leave and enter the lower or upper side of each box, from left to right as
        they come."""
        users: dict[tuple[Box, bool], dict[Any, float]] = {}
        for i, wire in enumerate(wires):
            first, last = self._gaps(wire)
            through = first != last
            a, b = self._ends(wire, i)
            for (box, below, user), other in ((a, wire.target), (b, wire.source)):
                x = wire.column if through else self.middle[other]
                users.setdefault((box, below), {}).setdefault(user, x)
        for (box, below), found in users.items():
            place = self.layout.boxes[box]
            step = min(16.0, (place.width - 12) / max(1, len(found)))
            x = place.x + place.width / 2 - step * (len(found) - 1) / 2
            order = sorted(found, key=found.__getitem__)
            self.ports[box, below] = {user: x + step * k for k, user in enumerate(order)}
        for i, wire in enumerate(wires):  # straight where one end is free to move
            a, b = self._ends(wire, i)
            first, last = self._gaps(wire)
            for (box, below, user), (other, there, at) in ((a, b), (b, a)):
                goal = wire.column if first != last else self.ports[other, there][at]
                place = self.layout.boxes[box]
                inside = place.x + 6 <= goal <= place.x + place.width - 6
                if inside and len(self.ports[box, below]) == 1:
                    self.ports[box, below][user] = goal
                    if first == last:
                        break

    def _ends(self, wire: Wire, i: int) -> list[tuple[Box, bool, Any]]:
        """The two ends of a wire: box, side, and who uses the place there."""
        joined = wire.net[1]
        return [
            (wire.source, self._leaves_below(wire), ("out", wire.net)),
            (wire.target, self._enters_below(wire), ("in", wire.net if joined else i)),
        ]

    def _xs(self, wire: Wire, i: int) -> tuple[float, float]:
        (a, below, out), (b, there, into) = self._ends(wire, i)
        return self.ports[a, below][out], self.ports[b, there][into]

    def _find_tracks(
        self, wires: Iterable[Wire]
    ) -> tuple[dict[tuple[int, Any], tuple[int, int]], list[int]]:
        """The track of each net in each gap, and how many there are in a gap."""
        spans: dict[int, dict[Any, list[float]]] = {}
        for i, wire in enumerate(wires):
            self._turn(spans, wire, self._xs(wire, i))
        tracks: dict[tuple[int, Any], tuple[int, int]] = {}
        counts = [0] * (self.layout.rows + 1)
        for gap, nets in spans.items():
            ends: list[float] = []
            found: dict[Any, int] = {}
            for net, xs in sorted(nets.items(), key=lambda item: min(item[1])):
                if max(xs) - min(xs) < 1:
                    continue
                track = next((k for k, x in enumerate(ends) if x < min(xs) - 8), len(ends))
                ends[track : track + 1] = [max(xs)]
                found[net] = track
            counts[gap] = len(ends)
            tracks.update(((gap, net), (track, len(ends))) for net, track in found.items())
        return tracks, counts

    def _turn(
        self, spans: dict[int, dict[Any, list[float]]], wire: Wire, xs: tuple[float, float]
    ) -> None:
        """Note where a wire runs along gaps, and keep its ends as its points so far."""
        first, last = self._gaps(wire)
        wire.points = [(xs[0], 0.0), (xs[1], 0.0)]
        if first == last:
            spans.setdefault(first, {}).setdefault(wire.net, []).extend(xs)
            return
        for gap, x in ((first, xs[0]), (last, xs[1])):
            spans.setdefault(gap, {}).setdefault(wire.net, []).extend((x, wire.column))

    # Heights
    def _heights(self, counts: list[int], top: float) -> Rows:
        rows = self.layout.rows
        height, opens, ends = [0.0] * rows, [0] * (rows + 1), [0] * (rows + 1)
        for box, place in self.layout.boxes.items():
            height[place.first] = max(height[place.first], self.heights[box])
            fresh, done = self.layout.begun(box), self.layout.done(box)
            opens[place.first] = max(opens[place.first], len(fresh))
            ends[place.end] = max(ends[place.end], len(done))
        self.opens, self.ends = opens, ends
        gaps = [
            max(LEAST, 14 + TRACK * counts[i]) + OPENING * opens[i] + CLOSING * ends[i]
            for i in range(rows + 1)
        ]
        tops, y = list[float](), top
        for i in range(rows):
            y += gaps[i]
            tops.append(y)
            y += height[i]
        return Rows(tops, height, gaps, y + gaps[rows])

    def _y(self, gap: int, track: tuple[int, int], rows: Rows) -> float:
        """The height of a track: between the frames that end above and those that begin below."""
        above = rows.top[gap] - rows.gaps[gap] if gap < len(rows.top) else (
            rows.bottom - rows.gaps[gap]
        )  # fmt: skip
        begin = above + CLOSING * self.ends[gap]
        room = rows.gaps[gap] - CLOSING * self.ends[gap] - OPENING * self.opens[gap]
        return begin + room / 2 + TRACK * (track[0] - (track[1] - 1) / 2)

    def edge(self, box: Box, below: bool, rows: Rows) -> float:
        """The height of a box's lower or upper side."""
        row = self.row[box]
        middle = rows.top[row] + rows.height[row] / 2
        return middle + (self.heights[box] / 2 if below else -self.heights[box] / 2)

    def _draw(
        self, wire: Wire, tracks: Mapping[tuple[int, Any], tuple[int, int]], rows: Rows
    ) -> None:
        (x, _), (goal, _) = wire.points
        first, last = self._gaps(wire)
        points = [(x, self.edge(wire.source, self._leaves_below(wire), rows))]
        turns = [(first, x, goal)]
        if first != last:
            turns = [(first, x, wire.column), (last, wire.column, goal)]
        for gap, here, there in turns:
            if (gap, wire.net) in tracks and abs(here - there) >= 0.5:
                y = self._y(gap, tracks[gap, wire.net], rows)
                points += [(here, y), (there, y)]
        points.append((goal, self.edge(wire.target, self._enters_below(wire), rows)))
        wire.points = points

    def _draw_beside(self, wires: Iterable[Wire], rows: Rows) -> None:
        pairs: dict[tuple[Box, Box], int] = {}
        for wire in wires:
            a, b = wire.source, wire.target
            k = pairs[a, b] = pairs.get((a, b), -1) + 1
            row = self.row[a]
            y = rows.top[row] + rows.height[row] / 2 + 6 * ((k + 1) // 2) * (-1) ** k
            if self.middle[a] < self.middle[b]:
                here, there = self.layout.boxes[a].x + self.layout.boxes[a].width, (
                    self.layout.boxes[b].x
                )  # fmt: skip
            else:
                here, there = self.layout.boxes[a].x, (
                    self.layout.boxes[b].x + self.layout.boxes[b].width
                )  # fmt: skip
            wire.points = [(here, y), (there, y)]
