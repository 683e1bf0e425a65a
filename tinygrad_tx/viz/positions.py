"""What a model knows of positions, as a picture: sinusoids, learned vectors, rotary angles, or the
numbers that distances add to the scores of attention.

In: a model. Out: a `Positions`, which is saved as .svg, .png or .pdf, or shown by a notebook.
Called by users.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from .. import nn
from ..arguments import shown
from ..creation import arange
from ..dtypes import float32
from ..errors import UserError
from ..models.llama import Llama
from ..models.positions import Distances, LearnedPositions, Sinusoids
from ..models.rotary import frequencies
from ..tensor import no_grad
from .colours import LINES, SIGNED, signed
from .scene import Cells, Line, Rect, Scene, Shape, Text, moved, text_width
from .shown import Shown

Values = np.ndarray[Any, np.dtype[Any]]

_NAMES = ("wpe", "positions", "position_embeddings", "embed_positions")  # of an nn.Embedding
_LENGTH, _MOST = 64, 4096  # positions
_TALL, _WIDE = 240.0, 480.0  # pixels of a part, the most
_CURVES = 6
_FAINT, _FRAME = "#68727d", "#9aa3ad"


class Part(NamedTuple):
    """One picture of a table. values: (rows, columns) of a map; (curves, points) of curves."""

    kind: str  # "map" or "curves"
    title: str
    values: Values
    across: str  # what is along its width
    down: str  # what is along its height, for curves what they say
    names: tuple[str, ...] = ()  # of the curves
    first: int = 0  # the number of the first point or column


class Table(NamedTuple):
    """What some modules of a model know of positions."""

    title: str
    values: Values
    parts: tuple[Part, ...]


class Positions(Shown):
    """What a model knows of positions. tables: by the names of modules, the numbers: sinusoids and
    learned vectors (positions, D), rotary angles (positions, pairs), biases (heads, distances)."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self._tables = tuple(tables)
        self.tables = {table.title: table.values for table in tables}

    def scene(self) -> Scene:
        found: list[Shape] = []
        y = wide = 12.0
        for table in self._tables:
            found.append(Text(12, y + 12, table.title, 12.5, bold=True, anchor="start"))
            wide = max(wide, 24 + text_width(table.title, 12.5, bold=True))
            x, high = 12.0, 0.0
            for part in table.parts:
                width, height, shapes = (_map if part.kind == "map" else _curves)(part)
                found += [moved(shape, x, y + 22) for shape in shapes]
                x, high = x + width + 26, max(high, height)
            y, wide = y + 22 + high + 26, max(wide, x - 14)
        return Scene(wide, y, "Positions: " + ", ".join(self.tables), found)

    def __repr__(self) -> str:
        sizes = (f"{name} {values.shape}" for name, values in self.tables.items())
        return f"Positions({'; '.join(sizes)})"


def positions(model: nn.Module, length: int | None = None) -> Positions:
    """Draw what a model knows of positions: sinusoids as curves and as a map, learned vectors with
    how alike they are, the angles by which rotary positions turn, T5's biases by distance.

    length: how many positions, by default 64, or as many as are learned where these are fewer.
    TypeError for no model; UserError where there is nothing of the kind.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"viz.positions: {shown(model)} is no Module")
    if length is not None and (type(length) is not int or not 2 <= length <= _MOST):
        raise UserError(
            f"viz.positions: length = {shown(length)} must be a whole number from 2 to {_MOST}"
        )
    with no_grad():
        found = [*_tables(model, length or _LENGTH)]
    if not found:
        raise UserError(
            f"{type(model).__name__} has no positions that are known here: sinusoids, learned or "
            f"rotary ones, distances, or an nn.Embedding called {', '.join(_NAMES)}"
        )
    return Positions(found)


# What there is -----------------------------------------------------------------------------------


def _tables(model: nn.Module, length: int) -> Iterator[Table]:
    added: dict[bytes, tuple[list[str], str, Values]] = {}  # what is the same is drawn once
    for name, module in model.named_modules():
        if isinstance(module, Sinusoids):
            table = module.table(length, float32, "cpu").numpy()
            kind = "sinusoids"
        elif isinstance(module, nn.Embedding) and (
            isinstance(module, LearnedPositions) or name.rpartition(".")[2] in _NAMES
        ):
            table, kind = _float(module.weight)[:length], "learned positions"
        elif isinstance(module, Distances):
            yield _distances(name, module, length)
            continue
        else:
            continue
        added.setdefault(kind.encode() + table.tobytes(), ([], kind, table))[0].append(name)
    for names, kind, table in added.values():
        yield _added(f"{kind} of {' and '.join(names) or 'the model'}", kind, table)
    if isinstance(model, Llama):
        yield _rotary(model, length)


def _float(x: Any) -> Values:
    found: Values = x.detach().to(float32).numpy()
    return found


def _added(title: str, kind: str, table: Values) -> Table:
    """Vectors (positions, D) that are added to those of words."""
    norms = np.linalg.norm(table, axis=1, keepdims=True)
    unit = table / np.maximum(norms, 1e-12)
    width = table.shape[1]
    if kind == "sinusoids":  # from fast ones to slow ones; the last turn hardly at all
        columns = np.unique((np.linspace(0.06, 0.45, _CURVES) * width).astype(int))
    else:  # those that say most
        columns = np.sort(np.argsort(-table.var(0), kind="stable")[:_CURVES])
    names = tuple(f"dimension {i}" for i in columns.tolist())
    return Table(
        title,
        table,
        (
            Part("map", "each position's vector", table, "dimension", "position"),
            Part("map", "likeness of positions (cosine)", unit @ unit.T, "position", "position"),
            Part("curves", "some dimensions", table[:, columns].T, "position", "value", names),
        ),
    )


def _rotary(model: Llama, length: int) -> Table:
    config = model.config
    speeds = frequencies(config.width, config.rope_theta, config.rope_scaling, config.max_len)
    angles = np.arange(length)[:, None] * speeds.each.astype(np.float64)  # (T, d / 2)
    pairs = np.unique(np.geomspace(1, angles.shape[1], _CURVES).astype(int) - 1)
    names = tuple(f"pair {i}" for i in pairs.tolist())
    near = np.cos(angles).mean(1)[None]
    return Table(
        f"rotary angles of {angles.shape[1]} pairs of coordinates",
        angles,
        (
            Part("map", "cosine of each pair's angle", np.cos(angles), "pair", "position"),
            Part("curves", "some pairs", np.cos(angles[:, pairs]).T, "position", "cosine", names),
            Part("curves", "a vector and itself turned", near, "distance", "cosine", ("mean",)),
        ),
    )


def _distances(name: str, module: Distances, length: int) -> Table:
    """The bias of each head by how far a key is ahead of its query."""
    first = 1 - length
    last = length if module.directed else 1  # decoders see nothing ahead
    groups = module.group(arange(first, last, device=module.groups.weight.device)).numpy()
    bias = _float(module.groups.weight)[groups].T  # (H, distances)
    heads = tuple(f"head {i}" for i in range(1, len(bias) + 1))
    across = "how far the key is ahead of the query"
    return Table(
        f"biases by distance of {name}",
        bias,
        (
            Part("map", "added to the scores", bias, across, "head", first=first),
            Part("curves", "the same as curves", bias, across, "bias", heads, first),
        ),
    )


# Drawing -----------------------------------------------------------------------------------------


def _map(part: Part) -> tuple[float, float, list[Shape]]:
    rows, columns = part.values.shape
    wide = max(1.0, min(14.0, _WIDE / columns))
    cell = (wide, max(1.0, min(14.0, _TALL / rows)))
    if part.across == part.down:  # a square
        cell = (cell[1], cell[1])
    width, height, left, top = columns * cell[0], rows * cell[1], 34.0, 18.0
    colours = signed(part.values)
    most = float(np.abs(_finite(part.values)).max(initial=0))
    shapes: list[Shape] = [
        Text(left + width / 2, 12, f"{part.title}, to ±{most:.2g}", 10),
        Cells(left, top, *cell, colours, SIGNED),
        Rect(left, top, width, height, "none", _FRAME, 0.8, 0),
        *_ticks(columns, part.first, lambda i: (left + (i + 0.5) * cell[0], top + height + 12)),
        Text(left + width / 2, top + height + 26, part.across, 10, _FAINT),
        Text(10, top + height / 2, part.down, 10, _FAINT, turned=True),
    ]
    begin = 1 if part.down == "head" else 0
    for at in _round(rows, begin):
        y = top + (at - begin + 0.5) * cell[1] + 3
        shapes.append(Text(left - 4, y, str(at), 8.5, _FAINT, anchor="end"))
    return left + width, top + height + 30, shapes


def _finite(values: Any) -> Any:
    return values[np.isfinite(values)]


def _curves(part: Part) -> tuple[float, float, list[Shape]]:
    count = part.values.shape[1]
    width, height, left, top = 360.0, _TALL, 44.0, 18.0
    known = _finite(part.values)
    low, high = float(known.min(initial=np.inf)), float(known.max(initial=-np.inf))
    low, high = (
        (0.0, 1.0) if not known.size else (low - 1, high + 1) if low == high else (low, high)
    )

    def place(i: float, value: float) -> tuple[float, float]:
        x = left + width * i / max(count - 1, 1)
        return x, top + height * (high - value) / (high - low)

    shapes: list[Shape] = [
        Text(left + width / 2, 12, part.title, 10),
        Rect(left, top, width, height, "none", _FRAME, 0.8, 0),
        *_ticks(count, part.first, lambda i: (place(i, low)[0], top + height + 12)),
        Text(left + width / 2, top + height + 26, part.across, 10, _FAINT),
        Text(10, top + height / 2, part.down, 10, _FAINT, turned=True),
    ]
    for value in (low, high):
        y = place(0, value)[1] + 3
        shapes.append(Text(left - 4, y, f"{value:.2g}", 8.5, _FAINT, anchor="end"))
    beside = 0.0
    for number, (curve, name) in enumerate(zip(part.values, part.names, strict=True)):
        colour = LINES[number % len(LINES)]
        for known, run in groupby(enumerate(curve.tolist()), lambda at: math.isfinite(at[1])):
            points = tuple(place(i, value) for i, value in run)
            if known:  # there is a gap where a value is infinite or none
                shapes.append(Line(points, colour, 1.4, arrow=False, hover=name, rounded=False))
        if len(part.names) > 1:
            y = top + 8 + number * 14
            shapes.append(Text(left + width + 8, y, name, 9, colour, anchor="start"))
            beside = max(beside, 8 + text_width(name, 9))
    bottom = max(top + height + 30, top + 14 * len(part.names))
    return left + width + beside, bottom, shapes


def _round(count: int, first: int) -> Iterator[int]:
    """Some round numbers of those from `first` on."""
    if count <= 12:
        yield from range(first, first + count)
        return
    step = next(s for s in (5, 10, 20, 50, 100, 200, 500, 10**3, 10**4, 10**9) if count / s <= 9)
    yield from (n for n in range(first, first + count) if n % step == 0)


def _ticks(count: int, first: int, place: Callable[[int], tuple[float, float]]) -> Iterator[Shape]:
    for number in _round(count, first):
        x, y = place(number - first)
        yield Text(x, y, str(number), 8.5, _FAINT)
