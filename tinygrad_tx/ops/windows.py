"""Windows: the runs of an axis that pooling and convolution look at, as a view; and their sums.

Window i of an axis has its elements i * step + k * dilation, k < size. Windows overlap in memory,
and none is copied. Several axes are taken one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import ShapeError
from ..node import Node
from ..op import Op
from ..rules import Spec, require_floating
from .create import zeros_like
from .map import ADD, ISNAN, MAXIMUM
from .movement import BROADCAST, CONCAT, PAD, RESHAPE, SLICE

X = Any


def count(length: int, size: int, step: int, dilation: int) -> int:
    """Windows that fit an axis; below 1 where none does."""
    return (length - dilation * (size - 1) - 1) // step + 1


def _windows_rule(op: Op, x: Node, *, axis: int, size: int, step: int, dilation: int) -> Spec:
    if not 0 <= axis < x.ndim or min(size, step, dilation) < 1:
        raise ShapeError(
            f"{op.name}: axis {axis} of {x.shape}, size {size}, step {step}, dilation {dilation}: "
            "the axis must be one of the Tensor's, the others 1 or more"
        )
    n = count(x.shape[axis], size, step, dilation)
    if n < 1:
        raise ShapeError(
            f"{op.name}: a window of {size} with dilation {dilation} is longer than axis {axis} of "
            f"{x.shape}"
        )
    return Spec((*x.shape[:axis], n, *x.shape[axis + 1 :], size), x.dtype)


def _fold_rule(op: Op, g: Node, *, axis: int, step: int, dilation: int, length: int) -> Spec:
    if g.ndim < 2 or not 0 <= axis < g.ndim - 1 or min(step, dilation) < 1:
        raise ShapeError(
            f"{op.name}: axis {axis} of {g.shape} must stand before the last, that of the windows; "
            f"step {step} and dilation {dilation} are 1 or more"
        )
    if count(length, g.shape[-1], step, dilation) != g.shape[axis]:
        raise ShapeError(
            f"{op.name}: {g.shape[axis]} windows of {g.shape[-1]}, step {step}, dilation "
            f"{dilation}, are not those of an axis of length {length}"
        )
    return Spec((*g.shape[:axis], length, *g.shape[axis + 1 : -1]), g.dtype)


def _windows_vjp(g: X, y: X, x: X, axis: int, size: int, step: int, dilation: int) -> tuple[X, ...]:
    return (FOLD(g, axis=axis, step=step, dilation=dilation, length=x.shape[axis]),)


def _fold_vjp(g: X, y: X, x: X, axis: int, step: int, dilation: int, length: int) -> tuple[X, ...]:
    return (WINDOWS(g, axis=axis, size=x.shape[-1], step=step, dilation=dilation),)


def _fold(xp: X, g: X, axis: int, step: int, dilation: int, length: int) -> X:
    """In order of the places of a window."""
    out = xp.module.zeros((*g.shape[:axis], length, *g.shape[axis + 1 : -1]), g.dtype)
    for k in range(g.shape[-1]):
        first, last = k * dilation, k * dilation + (g.shape[axis] - 1) * step
        out[(slice(None),) * axis + (slice(first, last + 1, step),)] += g[..., k]
    return out


def _fold_plain(g: X, axis: int, step: int, dilation: int, length: int) -> X:
    """Element q * step + r of the result is a sum of entries q - i of the windows, those whose
    place i * step + r is r beyond a multiple of step: one sum of slices for each r."""
    n, size = g.shape[axis], g.shape[-1]
    places = [divmod(k * dilation, step) for k in range(size)]
    reach = places[-1][0]
    if reach:
        g = _padded(g, axis, reach, reach)
    phases: list[X] = []
    for r in range(step):
        parts = [
            _cut(g, (axis, reach - i, n + 2 * reach - i), (g.ndim - 1, k, k + 1))
            for k, (i, at) in enumerate(places)
            if at == r
        ]
        phases.append(_total(ADD, parts) if parts else zeros_like(phases[0]))
    kept = (*g.shape[:axis], n + reach, *g.shape[axis + 1 : -1])
    if step == 1:
        return RESHAPE(phases[0], shape=kept)
    beside = (*kept[: axis + 1], 1, *kept[axis + 1 :])
    woven = CONCAT(*(RESHAPE(p, shape=beside) for p in phases), axis=axis + 1)
    woven = RESHAPE(woven, shape=(*kept[:axis], kept[axis] * step, *kept[axis + 1 :]))
    if kept[axis] * step < length:
        return _padded(woven, axis, 0, length - kept[axis] * step)
    return _cut(woven, (axis, 0, length))


def _padded(x: X, axis: int, before: int, after: int) -> X:
    widths = tuple((before, after) if i == axis else (0, 0) for i in range(x.ndim))
    return PAD(x, widths=widths, value=0.0 if x.dtype.kind == "f" else 0)


def _cut(x: X, *cuts: tuple[int, int, int]) -> X:
    """x from start to stop along some axes: (axis, start, stop)."""
    ranges = [(0, n, 1) for n in x.shape]
    for axis, start, stop in cuts:
        ranges[axis] = (start, stop, 1)
    return SLICE(x, ranges=tuple(ranges))


def _total(op: Op, parts: list[X]) -> X:
    total = parts[0]
    for part in parts[1:]:
        total = op(total, part)
    return total


# Over the windows of an axis ---------------------------------------------------------------------


def _places(x: X, axis: int, size: int, step: int, dilation: int) -> list[X]:
    """For each place of a window, the elements there: slices that copy nothing."""
    n = count(x.shape[axis], size, step, dilation)
    found = []
    for k in range(size):
        ranges = [(0, m, 1) for m in x.shape]
        ranges[axis] = (k * dilation, k * dilation + (n - 1) * step + 1, step)
        found.append(SLICE(x, ranges=tuple(ranges)))
    return found


def _over_rule(op: Op, x: Node, **where: int) -> Spec:
    if op is WINDOW_SUM:
        require_floating(op, x)
    shape, dtype = _windows_rule(op, x, **where)
    return Spec(shape[:-1], dtype)


def _over(reduce: str) -> Callable[..., X]:
    def forward(xp: X, x: X, axis: int, size: int, step: int, dilation: int) -> X:
        seen = xp.windows(x, axis, size, step, dilation)
        return xp.reshape(getattr(xp, reduce)(seen, (seen.ndim - 1,)), seen.shape[:-1])

    return forward


def _window_sum_vjp(g: X, y: X, x: X, axis: int, size: int, step: int, dilation: int) -> X:
    spread = BROADCAST(RESHAPE(g, shape=(*g.shape, 1)), shape=(*g.shape, size))
    return (FOLD(spread, axis=axis, step=step, dilation=dilation, length=x.shape[axis]),)


def _window_max_vjp(g: X, y: X, x: X, axis: int, size: int, step: int, dilation: int) -> X:
    """Of equal elements the first gets the gradient, a NaN counting as the largest."""
    parts: list[X] = []
    free: X = None
    for seen in _places(x, axis, size, step, dilation):
        hit = (seen == y) | ISNAN(seen) if x.dtype.kind == "f" else seen == y
        parts.append(g.where(hit if free is None else hit & free, 0))
        free = ~hit if free is None else free & ~hit
    spread = CONCAT(*(RESHAPE(p, shape=(*p.shape, 1)) for p in parts), axis=g.ndim)
    return (FOLD(spread, axis=axis, step=step, dilation=dilation, length=x.shape[axis]),)


WINDOWS = (
    Op(  # (..., n, ...) -> (..., windows, ..., size): the windows of an axis, their places last
        "windows",
        kind="move",
        rule=_windows_rule,
        forward=lambda xp, x, axis, size, step, dilation: xp.windows(x, axis, size, step, dilation),
        vjp=_windows_vjp,
    )
)
FOLD = Op(  # the transpose of WINDOWS: each element is the sum of what stands at its places
    "fold",
    kind="fused",
    rule=_fold_rule,
    forward=_fold,
    decompose=_fold_plain,
    vjp=_fold_vjp,
)
WINDOW_SUM = Op(
    "window_sum",
    kind="fused",
    rule=_over_rule,
    forward=_over("sum"),
    decompose=lambda x, **where: _total(ADD, _places(x, **where)),
    vjp=_window_sum_vjp,
)
WINDOW_MAX = Op(
    "window_max",
    kind="fused",
    rule=_over_rule,
    forward=_over("max"),
    decompose=lambda x, **where: _total(MAXIMUM, _places(x, **where)),
    vjp=_window_max_vjp,
)
