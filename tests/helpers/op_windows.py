"""The op table's rows for windows and convolution (ops/windows.py, ops/convolution.py), with what
NumPy says of them."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from op_case import INTS, Bad, OpCase, apart, ints, normal, small

Array = Any


def windows(x: Array, axis: int, size: int, step: int, dilation: int) -> Array:
    n = (x.shape[axis] - dilation * (size - 1) - 1) // step + 1
    places = np.arange(n)[:, None] * step + np.arange(size) * dilation
    seen = np.take(x, places, axis)
    return np.moveaxis(seen, axis + 1, -1)


def fold(g: Array, axis: int, step: int, dilation: int, length: int) -> Array:
    out = np.zeros((length, *np.delete(g.shape[:-1], axis)), g.dtype)
    for i, k in product(range(g.shape[axis]), range(g.shape[-1])):
        out[i * step + k * dilation] += np.take(g[..., k], i, axis)
    return np.moveaxis(out, 0, axis)


def convolution(x: Array, weight: Array, step: Any, dilation: Any, padding: Any) -> Array:
    x = np.pad(x, ((0, 0), (0, 0), *padding, (0, 0)))
    for i, (s, d) in enumerate(zip(step, dilation, strict=True)):
        x = windows(x, 2 + i, weight.shape[1 + i], s, d)  # (G, N, *T, C, *K)
    places, inside = "tu"[: len(step)], "kl"[: len(step)]
    return np.einsum(f"gn{places}c{inside},g{inside}co->gn{places}o", x, weight)


def _where(axis: int, size: int, step: int, dilation: int) -> dict[str, int]:
    return {"axis": axis, "size": size, "step": step, "dilation": dilation}


_PLACES = (
    ((9,), _where(0, 3, 1, 1)),
    ((2, 9, 3), _where(1, 3, 2, 2)),
    ((2, 10), _where(1, 2, 3, 1)),  # what is left over belongs to no window
    ((0, 4), _where(1, 4, 1, 1)),
)
_FAR = {"axis": 0, "size": 2, "step": 1, "dilation": 3}
_PLAIN = {"step": (1,), "dilation": (1,), "padding": ((0, 0),)}
WINDOWS = [
    *[OpCase(name, (draw(*shape),), f, where, f"{shape}{tuple(where.values())}", scale=scale)
      for name, f, draw, scale in (
        ("windows", windows, normal, 1),
        ("window_sum", lambda x, **where: windows(x, **where).sum(-1), normal, 4),
        ("window_max", lambda x, **where: windows(x, **where).max(-1), apart, 1))
      for shape, where in _PLACES],
    *[OpCase(name, (draw(7),), f, _where(0, 3, 2, 1), "errors", dtypes, grad=False, bad=(
        Bad((normal(3),), ValueError, f"{name}: a window of 2 with dilation 3 is longer than axis "
            r"0 of \(3,\)", _FAR),
        Bad((normal(3),), ValueError, f"{name}: axis 1 of", {**_FAR, "axis": 1})))
      for name, f, draw, dtypes in (
        ("windows", windows, small, INTS),
        ("window_sum", lambda x, **where: windows(x, **where).sum(-1), normal, ("float64",)),
        ("window_max", lambda x, **where: windows(x, **where).max(-1), small, INTS))],
    OpCase("window_sum", (normal(2, 5),), lambda x, **where: windows(x, **where).sum(-1),
           _where(1, 5, 1, 1), "whole", bad=(
        Bad((ints(0, 3, 1, 5),), TypeError, "window_sum needs a floating dtype"),)),
    *[OpCase("fold", (normal(*shape),), fold,
             {"axis": axis, "step": step, "dilation": dilation, "length": length}, scale=4, bad=(
        Bad((normal(2, 3),), ValueError, "fold: 2 windows of 3, step 1, dilation 1, are not those "
            "of an axis of length 5", {"axis": 0, "step": 1, "dilation": 1, "length": 5}),
        Bad((normal(2),), ValueError, r"fold: axis 0 of \(2,\) must stand before the last",
            {"axis": 0, "step": 1, "dilation": 1, "length": 2})))
      for shape, axis, step, dilation, length in (
        ((4, 2, 3), 0, 1, 1, 6), ((2, 3, 2), 1, 2, 1, 7), ((2, 3, 3), 1, 2, 3, 11),
        ((2, 3, 2), 1, 3, 1, 9), ((0, 2, 2), 1, 1, 1, 3))],
    *[OpCase("convolution", (normal(*x), normal(*w)), convolution,
             {"step": step, "dilation": dilation, "padding": padding}, scale=16, bad=(
        Bad((normal(1, 1, 2, 3), normal(1, 3, 3, 1)), ValueError,
            r"convolution: the places \(2,\) of the padded input are fewer",
            _PLAIN),
        Bad((normal(1, 1, 5, 3), normal(1, 3, 2, 1)), ValueError, "1 groups of 3 channels",
            _PLAIN),
        Bad((ints(0, 3, 1, 1, 5, 3), ints(0, 3, 1, 3, 3, 1)), TypeError, "needs a floating dtype",
            _PLAIN))[: 3 if not i else 0])
      for i, (x, w, step, dilation, padding) in enumerate((
        ((1, 2, 7, 3), (1, 3, 3, 2), (1,), (1,), ((1, 0),)),
        ((2, 2, 9, 2), (2, 3, 2, 3), (2,), (2,), ((0, 0),)),
        ((1, 0, 5, 2), (1, 2, 2, 3), (1,), (1,), ((1, 1),)),
        ((1, 2, 4, 5, 16), (1, 2, 2, 16, 2), (1, 1), (1, 2), ((1, 0), (0, 1))),
        ((2, 2, 5, 4, 2), (2, 3, 2, 2, 3), (1, 1), (2, 1), ((0, 0), (2, 2))),
        ((1, 2, 5, 6, 2), (1, 2, 3, 2, 3), (2, 1), (1, 1), ((1, 1), (0, 0)))))],
]  # fmt: skip
