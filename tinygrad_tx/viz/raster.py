"""PNG and PDF of a Scene, by matplotlib, which brings the font along.

In: a Scene and "png" or "pdf". Out: bytes. Called by graph.py.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

from ..errors import UserError
from .scene import Line, Rect, Scene
from .svg import head, steps

_DASHES: Any = (0, (4, 3))
_DPI = 144.0  # of a PNG; the picture is laid out at 72
_MOST = 30_000.0  # pixels of a side


def raster(scene: Scene, form: str) -> bytes:
    """The picture in a form; UserError without matplotlib."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
        from matplotlib.path import Path
    except ImportError:
        raise UserError(
            f'a .{form} of a graph needs matplotlib: pip install "tinygrad_tx[plots]"; .svg and '
            ".dot are written without it"
        ) from None
    codes = {"M": [Path.MOVETO], "L": [Path.LINETO], "Q": [Path.CURVE3, Path.CURVE3]}
    figure = Figure(figsize=(scene.width / 72, scene.height / 72), facecolor="white")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0, scene.width)
    axes.set_ylim(scene.height, 0)
    axes.axis("off")
    for order, shape in enumerate(scene.shapes):
        if isinstance(shape, Rect):
            style = f"round,pad=0,rounding_size={shape.radius}" if shape.radius else "square,pad=0"
            axes.add_patch(
                FancyBboxPatch(
                    (shape.x, shape.y),
                    shape.width,
                    shape.height,
                    boxstyle=style,
                    facecolor=shape.fill,
                    edgecolor=shape.stroke,
                    linewidth=shape.stroke_width,
                    linestyle=_DASHES if shape.dashed else "solid",
                    zorder=order,
                )
            )
        elif isinstance(shape, Line):
            way = [*steps(shape)]
            path = Path(
                [point for _, points in way for point in points],
                [code for letter, _ in way for code in codes[letter]],
            )
            look: dict[str, Any] = {
                "edgecolor": shape.stroke,
                "linewidth": shape.width,
                "zorder": order,
            }
            if shape.dashed:
                look["linestyle"] = _DASHES
            axes.add_patch(PathPatch(path, facecolor="none", **look))
            if shape.arrow:
                axes.add_patch(Polygon(head(shape), facecolor=shape.stroke, zorder=order))
        else:
            axes.text(
                shape.x,
                shape.y,
                shape.text,
                fontsize=shape.size,
                fontfamily="DejaVu Sans",
                color=shape.colour,
                fontweight="bold" if shape.bold else "normal",
                ha="left" if shape.anchor == "start" else "center",
                va="baseline",
                parse_math=False,
                zorder=order,
            )
    buffer = BytesIO()
    dpi = min(_DPI, 72 * _MOST / max(scene.width, scene.height))
    figure.savefig(buffer, format=form, dpi=dpi)
    return buffer.getvalue()
