"""A picture as shapes: rectangles, lines, texts and tables of colours, in pixels, each with what a
hover says.

In: shapes from picture.py, heads.py, positions.py and reach.py. Out: the same for svg.py and
raster.py, which draw them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

# Advance widths of DejaVu Sans in hundredths of the size, from the space to "~"; other letters are
# taken to be wide. Verdana is as wide, Helvetica and Arial are narrower.
_WIDTHS = (
    *(32, 40, 46, 84, 64, 95, 78, 27, 39, 39, 50, 84, 32, 36, 32, 34, 64, 64, 64, 64, 64, 64, 64),
    *(64, 64, 64, 34, 34, 84, 84, 84, 53, 100, 68, 69, 70, 77, 63, 58, 77, 75, 29, 29, 66, 56, 86),
    *(75, 79, 60, 79, 69, 63, 61, 73, 68, 99, 69, 61, 69, 39, 34, 39, 84, 50, 50, 61, 63, 55, 63),
    *(62, 35, 63, 63, 28, 28, 58, 28, 97, 63, 61, 63, 63, 41, 52, 39, 63, 59, 82, 59, 59, 52, 64),
    *(34, 64, 84),
)
FONT = "'DejaVu Sans',Verdana,Helvetica,Arial,sans-serif"


def text_width(text: str, size: float, bold: bool = False) -> float:
    """An upper bound of the width of a text in pixels."""
    hundredths = 0
    for letter in text:
        code = ord(letter)
        if 32 <= code < 127:
            hundredths += _WIDTHS[code - 32]
        else:
            hundredths += 88 if code < 0x2E80 else 104
    return hundredths / 100 * size * (1.14 if bold else 1.0)


@dataclass(frozen=True)
class Rect:
    x: float
    y: float
    width: float
    height: float
    fill: str
    stroke: str = "none"
    stroke_width: float = 1.0
    radius: float = 5.0
    hover: str = ""
    dashed: bool = False


@dataclass(frozen=True)
class Line:
    """A line through points. arrow: at its end. rounded: its corners are."""

    points: tuple[tuple[float, float], ...]
    stroke: str
    width: float = 1.1
    dashed: bool = False
    arrow: bool = True
    hover: str = ""
    rounded: bool = True


@dataclass(frozen=True)
class Text:
    """y: of its base line. anchor: "start", "middle" or "end". turned: it reads upwards."""

    x: float
    y: float
    text: str
    size: float
    colour: str = "#202020"
    bold: bool = False
    anchor: str = "middle"
    hover: str = ""
    turned: bool = False


@dataclass(frozen=True)
class Cells:
    """A table of cells, as wide and high as is said. levels: int (rows, columns), each the number
    of one of the colours; -1 is drawn not at all."""

    x: float
    y: float
    width: float
    height: float
    levels: np.ndarray[Any, np.dtype[np.integer[Any]]]
    colours: tuple[str, ...]
    hover: str = ""


Shape = Rect | Line | Text | Cells


def moved(shape: Shape, x: float, y: float) -> Shape:
    """The same so far to the right and down."""
    if isinstance(shape, Line):
        return replace(shape, points=tuple((px + x, py + y) for px, py in shape.points))
    return replace(shape, x=shape.x + x, y=shape.y + y)


@dataclass
class Scene:
    """Shapes, the ones behind first. title: what the picture is of, for who cannot see it."""

    width: float
    height: float
    title: str
    shapes: list[Shape] = field(default_factory=list)
