"""Heads of attention drawn as maps and as arcs.

In: the weights of layers with their tokens. Out: a Scene. Called by attention.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .colours import LINES, SHARES, STEPS, mixed, shares
from .scene import Cells, Line, Rect, Scene, Shape, Text, moved, text_width

Weights = np.ndarray[Any, np.dtype[Any]]

WIDE = 1600.0  # pixels that a line of heads may take; one head may take more
SHOWN = 0.02  # the least weight that has an arc
_MOST, _SIZE = 110.0, 9.5  # pixels of a token, and the size of its letters
_CELL, _ROW, _ARC, _GAP = 13.0, 17.0, 90.0, 22.0
_NARROW = 9.0  # pixels below which a row of a map has no room for its token
_FAINT, _FRAME = "#68727d", "#9aa3ad"
# Marks of direction that would turn around what stands beside them.
_TURNING = dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)))


class Heads(NamedTuple):
    """What the heads of one layer look at."""

    name: str  # of the module
    weights: Weights  # (heads, queries, keys)
    queries: tuple[str, ...]  # the tokens that look
    keys: tuple[str, ...]  # those that are looked at
    titles: tuple[str, ...]  # of the heads
    role: str = "self"  # or "encoder", the source at itself, or "cross", the target at the source


def maps(layers: Sequence[Heads], title: str) -> Scene:
    """A square for each pair of tokens: queries downwards, keys to the right."""
    return _pages(layers, title, _map)


def arcs(layers: Sequence[Heads], title: str) -> Scene:
    """A line for each pair of tokens, as dark and thick as its weight: queries on the left, keys on
    the right."""
    return _pages(layers, title, _arcs)


class _Panel(NamedTuple):
    width: float
    height: float
    shapes: list[Shape]  # as if its corner were at 0, 0


def _pages(layers: Sequence[Heads], title: str, draw: Any) -> Scene:
    """The heads of a layer beside each other, in as many lines as they need."""
    found: list[Shape] = []
    x = y = wide = 12.0
    for layer in layers:
        found.append(Text(12, y + 12, layer.name, 12.5, bold=True, anchor="start"))
        y, x, high = y + 26, 12.0, 0.0
        for head in range(len(layer.weights)):
            panel = draw(layer, head, head == 0)
            if head and x + panel.width > WIDE:
                x, y, high = 12.0, y + high + 12, 0.0
                panel = draw(layer, head, True)
            found += [moved(shape, x, y) for shape in panel.shapes]
            x, high = x + panel.width + _GAP, max(high, panel.height)
            wide = max(wide, x - _GAP + 12)
        y += high + 22
    found += _legend(y, draw is _map)
    return Scene(max(wide, 352.0), y + 22, title, found)


def _legend(y: float, is_map: bool) -> Iterator[Shape]:
    words = "rows look, columns are looked at; weight 0" if is_map else (
        "left: the token that looks; right: what it looks at"
    )  # fmt: skip
    yield Text(12, y + 10, words, 10, _FAINT, anchor="start")
    if is_map:
        x = 18 + text_width(words, 10)
        scale = np.arange(STEPS).reshape(1, -1)
        yield Cells(x, y, 3, 12, scale, SHARES)
        yield Rect(x, y, 3.0 * STEPS, 12, "none", _FRAME, 0.6, 0)
        yield Text(x + 3.0 * STEPS + 6, y + 10, "1", 10, _FAINT, anchor="start")


def _map(layer: Heads, head: int, first: bool) -> _Panel:
    """first: it begins a line, and names the queries."""
    n_queries, n_keys = layer.weights.shape[1:]
    cell = max(2.0, min(_CELL, WIDE * 0.9 / max(n_queries, n_keys)))
    queries, keys = (layer.queries, layer.keys) if cell >= _NARROW else ((), ())
    left = _widest(queries) + 6 if first else 0.0
    top, width, height = 18.0, n_keys * cell, n_queries * cell
    shapes: list[Shape] = [
        Text(left + width / 2, 11, layer.titles[head], 10),
        Cells(left, top, cell, cell, shares(layer.weights[head]), SHARES),
        Rect(left, top, width, height, "none", _FRAME, 0.8, 0),
    ]
    for i, token in enumerate(queries if first else ()):
        shapes.append(_token(token, left - 4, top + (i + 0.5) * cell + 3.3, "end"))
    for i, token in enumerate(keys):
        x = left + (i + 0.5) * cell + 3.3
        shapes.append(_token(token, x, top + height + 4, "end", turned=True))
    return _Panel(left + width, top + height + _widest(keys) + 6, shapes)


def _arcs(layer: Heads, head: int, first: bool) -> _Panel:
    left, right = _widest(layer.queries) + 5, _widest(layer.keys) + 5
    colour = LINES[head % len(LINES)]
    weights = layer.weights[head]
    shapes: list[Shape] = [Text(left + _ARC / 2, 11, layer.titles[head], 10)]
    pairs = np.argwhere(weights >= SHOWN)
    order = np.argsort(weights[tuple(pairs.T)], kind="stable")  # the heavy ones above
    for i, j in pairs[order].tolist():
        weight = float(weights[i, j])
        ends = (left, 26 + i * _ROW), (left + _ARC, 26 + j * _ROW)
        shade = mixed("#ffffff", colour, min(1.0, 0.12 + 0.88 * weight))
        says = f"{layer.queries[i]} → {layer.keys[j]}: {weight:.2f}"
        shapes.append(Line(ends, shade, 0.6 + 2 * weight, arrow=False, hover=says))
    for i, token in enumerate(layer.queries):
        shapes.append(_token(token, left - 4, 26 + i * _ROW + 3.3, "end"))
    for j, token in enumerate(layer.keys):
        shapes.append(_token(token, left + _ARC + 4, 26 + j * _ROW + 3.3, "start"))
    return _Panel(left + _ARC + right, 26 + max(weights.shape) * _ROW, shapes)


def _token(token: str, x: float, y: float, anchor: str, turned: bool = False) -> Text:
    shown = fitted(token)
    special = is_special(token)
    says = token if shown != token else ""
    return Text(
        x, y, shown, _SIZE, _FAINT if special else "#202020", anchor=anchor, hover=says,
        turned=turned,
    )  # fmt: skip


def is_special(token: str) -> bool:
    """True for <s>, </s>, [CLS] and the like, which are drawn fainter."""
    return len(token) > 2 and token[0] + token[-1] in ("<>", "[]")


def fitted(token: str) -> str:
    """A token as it is drawn: on one line, and cut where it is too long."""
    shown = "".join(c if c >= " " and c != "\x7f" else "·" for c in token.translate(_TURNING))
    if text_width(shown, _SIZE) <= _MOST:
        return shown
    while shown and text_width(shown + "…", _SIZE) > _MOST:
        shown = shown[:-1]
    return shown + "…"


def _widest(tokens: Sequence[str]) -> float:
    return max((text_width(fitted(token), _SIZE) for token in tokens), default=0.0)
