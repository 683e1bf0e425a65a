"""PNG and PDF of a Scene, by matplotlib, which brings the font along.

In: a Scene and "png" or "pdf". Out: bytes. Called by whatever saves a picture. Lines and texts that
follow one another are drawn together: as an object each, a thousand take seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, lru_cache
from io import BytesIO
from itertools import groupby
from typing import Any

import numpy as np

from ..errors import UserError
from .scene import Cells, Line, Rect, Scene, Shape, Text
from .svg import head, steps

_DASHES: Any = (0, (4, 3))
_DPI = 144.0  # of a PNG; the picture is laid out at 72
_MOST, _LARGEST = 30_000.0, 8e6  # pixels of a side, and of all
_FONT = "DejaVu Sans"
# Where one of these is installed, it has the letters that the first one has not.
_ALSO = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "WenQuanYi Zen Hei", "Hiragino Sans", "PingFang SC"),
    *("Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Nirmala UI", "Arial Unicode MS"),
)


def raster(scene: Scene, form: str) -> bytes:
    """The picture in a form; UserError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError(
            f'a .{form} needs matplotlib: pip install "tinygrad_tx[plots]"; a .svg is written '
            "without it"
        ) from None
    figure = Figure(figsize=(scene.width / 72, scene.height / 72), facecolor="white")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0, scene.width)
    axes.set_ylim(scene.height, 0)
    axes.axis("off")
    for order, ((kind, _), run) in enumerate(groupby(scene.shapes, _alike)):
        for artist in _DRAWN[kind]([*run], axes):
            artist.set_zorder(order)
            axes.add_artist(artist)
    buffer = BytesIO()
    sides = scene.width, scene.height
    dpi = min(_DPI, 72 * _MOST / max(sides), 72 * math.sqrt(_LARGEST / (sides[0] * sides[1])))
    options: dict[str, Any] = {"pil_kwargs": {"compress_level": 1}}  # quick
    if form == "pdf":
        options = {"metadata": {"CreationDate": None}}  # the same each time
    figure.savefig(buffer, format=form, dpi=dpi, **options)
    return buffer.getvalue()


def _alike(shape: Shape) -> tuple[type[Shape], bool]:
    """Shapes that may be drawn together where they follow one another."""
    return type(shape), isinstance(shape, Line) and shape.dashed


def _rects(rects: Sequence[Rect], axes: Any) -> list[Any]:
    from matplotlib.patches import FancyBboxPatch

    return [
        FancyBboxPatch(
            (rect.x, rect.y),
            rect.width,
            rect.height,
            boxstyle=f"round,pad=0,rounding_size={rect.radius}" if rect.radius else "square,pad=0",
            facecolor=rect.fill,
            edgecolor=rect.stroke,
            linewidth=rect.stroke_width,
            linestyle=_DASHES if rect.dashed else "solid",
        )
        for rect in rects
    ]


def _lines(lines: Sequence[Line], axes: Any) -> list[Any]:
    from matplotlib.collections import PathCollection, PolyCollection
    from matplotlib.path import Path

    codes = {"M": [Path.MOVETO], "L": [Path.LINETO], "Q": [Path.CURVE3, Path.CURVE3]}
    paths = []
    for line in lines:
        way = [*steps(line)]
        paths.append(
            Path(
                [point for _, points in way for point in points],
                [code for letter, _ in way for code in codes[letter]],
            )
        )
    found: list[Any] = [
        PathCollection(
            paths,
            facecolors="none",
            edgecolors=[line.stroke for line in lines],
            linewidths=[line.width for line in lines],
            linestyles=[_DASHES if lines[0].dashed else "solid"],
            transform=axes.transData,
        )
    ]
    if pointed := [line for line in lines if line.arrow]:
        heads = [head(line) for line in pointed]
        colours = [line.stroke for line in pointed]
        found.append(PolyCollection(heads, facecolors=colours, transform=axes.transData))
    return found


def _texts(texts: Sequence[Text], axes: Any) -> list[Any]:
    """Letters as outlines."""
    from matplotlib.collections import PathCollection
    from matplotlib.transforms import Affine2D

    paths, places, colours = [], [], []
    for text in texts:
        path = _outline(text.text, text.bold)
        if path is None:
            continue
        share = {"start": 0.0, "middle": 0.5, "end": 1.0}[text.anchor]
        turn = Affine2D().translate(-share * path.vertices[:, 0].max(), 0)
        turn.scale(text.size / 72).rotate_deg(90 if text.turned else 0)
        paths.append(turn.transform_path(path))
        places.append((text.x, text.y))
        colours.append(text.colour)
    if not paths:
        return []
    found = PathCollection(
        paths, offsets=places, offset_transform=axes.transData, facecolors=colours, linewidths=0
    )
    found.set_transform(axes.figure.dpi_scale_trans)
    return [found]


@cache
def _fonts() -> tuple[str, ...]:
    from matplotlib.font_manager import get_font_names

    known = {*get_font_names()}
    return (_FONT, *(name for name in _ALSO if name in known))


@lru_cache(1024)
def _outline(text: str, bold: bool) -> Any:
    """A text as a Path whose letters are 1 high; None where there is nothing to see."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.path import Path
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=[*_fonts()], weight="bold" if bold else "normal")
    points, codes = text_to_path.get_text_path(font, text, ismath=False)
    return Path(np.asarray(points) / text_to_path.FONT_SCALE, codes) if len(points) else None


def _cells(tables: Sequence[Cells], axes: Any) -> list[Any]:
    from matplotlib.colors import to_rgba_array
    from matplotlib.image import AxesImage

    found = []
    for cells in tables:
        n_rows, n_columns = cells.levels.shape
        right, bottom = cells.x + n_columns * cells.width, cells.y + n_rows * cells.height
        extent = (cells.x, right, bottom, cells.y)
        image = AxesImage(axes, extent=extent, interpolation="nearest")
        colours = np.append(to_rgba_array(cells.colours), np.zeros((1, 4)), 0)
        image.set_data(colours[cells.levels])  # -1 is the last one
        found.append(image)
    return found


_DRAWN: dict[type[Shape], Any] = {Rect: _rects, Line: _lines, Text: _texts, Cells: _cells}
