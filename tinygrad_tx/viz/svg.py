"""SVG of a Scene, written by hand: no library and no program is needed.

In: a Scene. Out: text, which browsers, notebooks and editors of drawings show.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from .scene import FONT, Cells, Line, Rect, Scene, Shape, Text

CORNER, HEAD = 6.0, 5.0


def svg(scene: Scene) -> str:
    """The picture as an <svg> element that stands by itself."""
    width, height = round(scene.width), round(scene.height)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" role="img" aria-label={_quoted(scene.title)} '
            f'font-family="{FONT}">',
            f"<title>{_text(scene.title)}</title>",
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            *(_shape(shape) for shape in scene.shapes),
            "</svg>",
            "",
        ]
    )


def _shape(shape: Shape) -> str:
    if isinstance(shape, Rect):
        written = _rect(shape)
    elif isinstance(shape, Line):
        written = _line(shape)
    else:
        written = _words(shape) if isinstance(shape, Text) else _cells(shape)
    return f"<g><title>{_text(shape.hover)}</title>{written}</g>" if shape.hover else written


def _rect(rect: Rect) -> str:
    stroke = f' stroke="{rect.stroke}" stroke-width="{rect.stroke_width:g}"'
    dashed = ' stroke-dasharray="4 3"' if rect.dashed else ""
    return (
        f'<rect x="{rect.x:.1f}" y="{rect.y:.1f}" width="{rect.width:.1f}" '
        f'height="{rect.height:.1f}" rx="{rect.radius:g}" fill="{rect.fill}"'
        f"{stroke if rect.stroke != 'none' else ''}{dashed}/>"
    )


def _line(line: Line) -> str:
    dashed = ' stroke-dasharray="4 3"' if line.dashed else ""
    path = f'<path d="{path_of(line)}" fill="none" stroke="{line.stroke}" '
    path += f'stroke-width="{line.width:g}"{dashed}/>'
    if line.arrow:
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in head(line))
        path += f'<polygon points="{corners}" fill="{line.stroke}"/>'
    return path


def _words(text: Text) -> str:
    bold = ' font-weight="bold"' if text.bold else ""
    turned = f' transform="rotate(-90 {text.x:.1f} {text.y:.1f})"' if text.turned else ""
    return (
        f'<text x="{text.x:.1f}" y="{text.y:.1f}" font-size="{text.size:g}" fill="{text.colour}" '
        f'text-anchor="{text.anchor}"{bold}{turned}>{_text(text.text)}</text>'
    )


def _cells(cells: Cells) -> str:
    """A path for each colour, of runs of cells that lie beside each other."""
    runs: dict[int, list[str]] = {}
    n_rows, n_columns = cells.levels.shape
    edge = np.ones((n_rows, 1), bool)
    begins = np.concatenate([edge, cells.levels[:, 1:] != cells.levels[:, :-1]], 1)
    for row in range(n_rows):
        starts = [*np.flatnonzero(begins[row]).tolist(), n_columns]
        for start, end in pairwise(starts):
            level = int(cells.levels[row, start])
            if level >= 0:
                x, y = cells.x + start * cells.width, cells.y + row * cells.height
                wide = f"{(end - start) * cells.width:g}"
                run = f"M{x:g} {y:g}h{wide}v{cells.height:g}h-{wide}z"
                runs.setdefault(level, []).append(run)
    return "".join(
        f'<path fill="{cells.colours[level]}" shape-rendering="crispEdges" d="{"".join(found)}"/>'
        for level, found in sorted(runs.items())
    )


def steps(line: Line) -> Iterator[tuple[str, tuple[tuple[float, float], ...]]]:
    """A line as ("M", point), ("L", point) and, around corners, ("Q", (corner, end))."""
    points = [*line.points]
    if line.arrow:
        points[-1] = _before(points[-1], points[-2], HEAD)
    yield "M", (points[0],)
    if not line.rounded:
        yield from (("L", (point,)) for point in points[1:])
        return
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        radius = min(CORNER, _length(before, corner) / 2, _length(corner, after) / 2)
        yield "L", (_before(corner, before, radius),)
        yield "Q", (corner, _before(corner, after, radius))
    yield "L", (points[-1],)


def path_of(line: Line) -> str:
    return " ".join(
        letter + " ".join(f"{x:.1f} {y:.1f}" for x, y in points) for letter, points in steps(line)
    )


def head(line: Line) -> list[tuple[float, float]]:
    """The corners of an arrow's head."""
    (x, y), before = line.points[-1], line.points[-2]
    length = _length((x, y), before) or 1.0
    dx, dy = (before[0] - x) / length, (before[1] - y) / length
    size, half = HEAD + 1, HEAD / 2
    back = x + dx * size, y + dy * size
    return [(x, y), (back[0] - dy * half, back[1] + dx * half),
            (back[0] + dy * half, back[1] - dx * half)]  # fmt: skip


def _length(a: tuple[float, float], b: tuple[float, float]) -> float:
    return float(((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) ** 0.5)


def _before(end: tuple[float, float], start: tuple[float, float], by: float) -> tuple[float, float]:
    """The point so far before the end of a way."""
    length = _length(end, start) or 1.0
    return end[0] + (start[0] - end[0]) * by / length, end[1] + (start[1] - end[1]) * by / length


def _text(text: str) -> str:
    return escape("".join(c for c in text if c >= " " or c in "\n\t"))


def _quoted(text: str) -> str:
    return quoteattr("".join(c for c in text if c >= " "))
