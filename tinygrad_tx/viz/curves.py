"""Curves of runs over their steps. In: rows of metrics.jsonl. Out: panels, each of some curves, as
numbers for a page (report.js); or a picture of one run or of several. Called by the report of a run
and by `tinygrad-tx plot`.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import atomic
from ..errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, Any]
FORMATS = (".svg", ".png", ".pdf")
_LAST = 2**53  # step that a float can tell from the next


class Curve(NamedTuple):
    """A number over the steps. style: "line", "dashed", or "marked" where there are few points."""

    name: str
    style: str
    steps: Sequence[int]
    values: Sequence[float]


class Panel(NamedTuple):
    """Curves that can be compared with each other."""

    title: str
    curves: Sequence[Curve]


# Panels, and of each of their curves the key of a row, its name, and its style.
_PANELS: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    (
        "loss (nats a token)",
        (
            ("loss", "training", "dashed"),
            ("cross_entropy", "training", "line"),
            ("valid_loss", "validation", "marked"),
        ),
    ),
    ("BLEU and chrF", (("bleu", "BLEU", "marked"), ("chrf", "chrF", "marked"))),
    ("perplexity", (("perplexity", "validation", "marked"),)),
    ("bits per byte", (("bits_per_byte", "validation", "marked"),)),
    ("learning rate", (("lr", "learning rate", "line"),)),
    ("tokens/s", (("tokens_per_s", "tokens/s", "line"),)),
    ("gradient norm", (("grad_norm", "gradient norm", "line"),)),
)


def panels(rows: Iterable[Row], smoothing: float = 0.0) -> list[Panel]:
    """The panels of a run, those left out that it has no numbers for. rows: of metrics.jsonl; those
    of the end, which are of chosen weights, are in no curve. smoothing: of labels in the loss that
    is trained on; where there is none, that is the plain one and drawn once."""
    own = [row for row in rows if "of" not in row and 0 <= row["step"] <= _LAST]
    plain = any(_number(row.get("cross_entropy")) is not None for row in own)
    found = []
    for title, curves in _PANELS:
        made = []
        for key, name, style in curves:
            if key == "loss":
                if plain and not smoothing:
                    continue
                name += f", labels smoothed by {smoothing:g}" if smoothing else ""
            points = [(row["step"], _number(row.get(key))) for row in own]
            known = [(step, value) for step, value in points if value is not None]
            if known:
                made.append(Curve(name, style, *map(list, zip(*known, strict=True))))
        if made:
            found.append(Panel(title, made))
    return found


def _number(value: Any) -> float | None:
    """The number, if it is one that can be drawn."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and abs(value) < 1e300 else None


def thinned(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of them, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[i * (len(items) - 1) // (most - 1)] for i in range(most)]


def draw_curves(runs: Mapping[str, Sequence[Panel]], path: str | pathlib.Path) -> pathlib.Path:
    """Draw the panels of runs, by name, into a .svg, .png or .pdf, which is given back; the same
    curves of several runs into one panel. UserError for another suffix, where there is nothing to
    draw, and without matplotlib."""
    path = pathlib.Path(path)
    if path.suffix not in FORMATS:
        raise UserError(f'cannot draw "{path}": its name must end in one of {", ".join(FORMATS)}')
    order = [title for title, _ in _PANELS]
    titles = {panel.title for found in runs.values() for panel in found}
    if not titles:
        raise UserError(f"{', '.join(runs)}: no steps have been written down yet to draw")
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError(
            'curves are drawn by matplotlib: pip install "tinygrad_tx[plots]"; report.html in the '
            "run's directory has them without it"
        ) from None
    shown = sorted(titles, key=order.index)
    lines = -(-len(shown) // 2)
    figure = Figure(figsize=(10, 3.0 * lines + 0.4), layout="constrained")
    axes = figure.subplots(lines, min(2, len(shown)), squeeze=False).ravel()
    for axis, title in zip(axes, shown, strict=False):
        axis.set_title(title, loc="left", fontsize=11, parse_math=False)
        _draw(axis, {name: _of(found, title) for name, found in runs.items()})
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    buffer = BytesIO()
    undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix)
    with rc_context({"svg.hashsalt": "tinygrad_tx"}):  # the same runs give the same bytes
        figure.savefig(buffer, format=path.suffix[1:], dpi=110, metadata=undated)
    atomic.write_bytes(path, buffer.getvalue())
    return path


def _of(found: Sequence[Panel], title: str) -> Sequence[Curve]:
    return next((panel.curves for panel in found if panel.title == title), ())


def _draw(axis: Axes, runs: Mapping[str, Sequence[Curve]]) -> None:
    """One panel. Runs differ by colour; of one run alone, its curves do."""
    styles: dict[str, dict[str, Any]] = {
        "line": {"linestyle": "-"},
        "dashed": {"linestyle": "--", "linewidth": 1.2},
        "marked": {"linestyle": "-", "marker": "o", "markersize": 4},
    }
    for number, (run, curves) in enumerate(runs.items()):
        for place, curve in enumerate(curves):
            options = dict(styles[curve.style])
            if curve.style == "marked" and place and len(runs) > 1:
                options["marker"] = "s"
            alone = len(runs) == 1
            axis.plot(
                curve.steps,
                curve.values,
                label=_label(curve.name if alone else f"{run}: {curve.name}"),
                color=f"C{(place if alone else number) % 10}",
                **options,
            )
    axis.grid(color="0.9")
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_xlabel("step", fontsize=9)
    if sum(map(len, runs.values())) > 1:
        for text in axis.legend(fontsize=8).get_texts():
            text.set_parse_math(False)


def _label(name: str) -> str:
    """As a legend shows it: one that begins with _ would be left out."""
    return name if not name.startswith("_") else f" {name}"
