"""Convolution: the product of windows with a weight, channels last.

x (G, N, *S, C), weight (G, *K, C, O) -> (G, N, *T, O): G groups, N examples, S places along one
axis or more, T windows of K places. padding: zeros before and after the places of each axis.

The kernel form copies no window. With step 1 the places of an example are rows of one matrix, those
of a window stand at fixed distances, and so all windows are a strided view, which the product reads
as it lies. Its rows are all from the first window to the last, those among them that run over the
end of a line into the next one: a few per cent too many, which nobody reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from ..errors import DTypeError, ShapeError
from ..node import Node
from ..op import Op
from ..rules import Spec, require_floating
from .matmul import product
from .movement import FLIP, PAD, PERMUTE, RESHAPE, SLICE
from .windows import FOLD, WINDOWS, count

X = Any
Sizes = tuple[int, ...]
Widths = tuple[tuple[int, int], ...]

_WASTE = 2  # rows computed for each one that is wanted, at most


def _rule(
    op: Op,
    x: Node,
    weight: Node,
    *,
    step: Sizes,
    dilation: Sizes,
    padding: Widths,
    tf32: bool = False,
) -> Spec:
    n = len(step)
    require_floating(op, x, weight)
    if x.dtype != weight.dtype:
        raise DTypeError(
            f"{op.name}: the input is {x.dtype.name}, the weight {weight.dtype.name}; convert one "
            "with .to(dtype)"
        )
    if x.ndim != n + 3 or weight.ndim != n + 3 or not len(dilation) == len(padding) == n:
        raise ShapeError(
            f"{op.name}: with {n} steps, x must be (groups, batch, *places, channels) and weight "
            f"(groups, *places, channels, out), not {x.shape} and {weight.shape}"
        )
    if (x.shape[0], x.shape[-1]) != (weight.shape[0], weight.shape[-2]):
        raise ShapeError(
            f"{op.name}: x {x.shape} has {x.shape[0]} groups of {x.shape[-1]} channels, weight "
            f"{weight.shape} {weight.shape[0]} of {weight.shape[-2]}"
        )
    sizes = _padded_sizes(x.shape[2:-1], padding)
    places = _counts(sizes, weight.shape[1:-2], step, dilation)
    if min(places) < 1:
        raise ShapeError(
            f"{op.name}: the places {sizes} of the padded input are fewer than those of a "
            f"window: {weight.shape[1:-2]} with dilation {dilation}"
        )
    return Spec((*x.shape[:2], *places, weight.shape[-1]), x.dtype)


def _padded_sizes(sizes: Sizes, padding: Widths) -> Sizes:
    return tuple(a + n + b for n, (a, b) in zip(sizes, padding, strict=True))


def _counts(sizes: Sizes, window: Sizes, step: Sizes, dilation: Sizes) -> Sizes:
    return tuple(count(*of) for of in zip(sizes, window, step, dilation, strict=True))


def _forward(
    xp: X, x: X, weight: X, step: Sizes, dilation: Sizes, padding: Widths, tf32: bool = False
) -> X:
    n, window = len(step), weight.shape[1:-2]
    if any(map(any, padding)):
        x = xp.pad(x, _widths(padding), 0.0)
    for i in range(n):
        x = xp.windows(x, 2 + i, window[i], step[i], dilation[i])
    places, depth = x.shape[: 2 + n], prod(weight.shape[1:-1])
    rows = xp.transpose(x, _window_order(2 + n, n))
    rows = xp.reshape(rows, (places[0], prod(places[1:]), depth))
    flat = xp.reshape(weight, (weight.shape[0], depth, weight.shape[-1]))
    if len(flat) == 1:
        return xp.reshape(xp.matmul(rows[0], flat[0]), (*places, weight.shape[-1]))
    return xp.reshape(xp.matmul(rows, flat), (*places, weight.shape[-1]))


def _widths(padding: Widths) -> Widths:
    """The padding of all axes."""
    return ((0, 0), (0, 0), *padding, (0, 0))


def _padded(x: X, padding: Widths) -> X:
    return PAD(x, widths=_widths(padding), value=0.0) if any(map(any, padding)) else x


def _window_order(lead: int, n: int) -> Sizes:
    """(*lead, C, *K), as WINDOWS makes it, as (*lead, *K, C)."""
    return (*range(lead), *range(lead + 1, lead + 1 + n), lead)


def _rows(x: X, axis: int, window: Sizes, step: Sizes, dilation: Sizes) -> X:
    """The windows of the axes from `axis` on, (..., *T, C) -> (..., *T, *K, C)."""
    for i, size in enumerate(window):
        x = WINDOWS(x, axis=axis + i, size=size, step=step[i], dilation=dilation[i])
    return PERMUTE(x, order=_window_order(axis + len(window), len(window)))


def _plain(x: X, weight: X, step: Sizes, dilation: Sizes, padding: Widths, tf32: bool = False) -> X:
    """By a matrix of all windows."""
    x = _padded(x, padding)
    window, depth = weight.shape[1:-2], prod(weight.shape[1:-1])
    rows = _rows(x, 2, window, step, dilation)
    places = rows.shape[: 2 + len(step)]
    out = weight.shape[-1]
    if len(step) == 1:
        rows = RESHAPE(rows, shape=(*places, depth))
        return product(tf32)(rows, _as_matrix(weight, 1))
    rows = RESHAPE(rows, shape=(places[0], prod(places[1:]), depth))
    return RESHAPE(product(tf32)(rows, _as_matrix(weight, 0)), shape=(*places, out))


def _as_matrix(weight: X, batch: int) -> X:
    """(G, *K, C, O) as (G, ..., K * C, O), with so many further batch axes; without groups as a
    matrix, which all examples share."""
    matrix = (prod(weight.shape[1:-1]), weight.shape[-1])
    groups = weight.shape[0]
    return RESHAPE(weight, shape=matrix if groups == 1 else (groups, *(1,) * batch, *matrix))


# As rows of one matrix ---------------------------------------------------------------------------


def _is_flat(sizes: Sizes, window: Sizes, step: Sizes, dilation: Sizes) -> bool:
    """True if the windows are worth being read as rows of one matrix."""
    if len(step) > 2 or any(s != 1 for s in step):
        return False
    places = _counts(sizes, window, step, dilation)
    return _reach(sizes, places) < _WASTE * prod(places)


def _reach(sizes: Sizes, places: Sizes) -> int:
    """Rows from the first window to the last."""
    return 1 + sum((n - 1) * p for n, p in zip(places, _pitch(sizes), strict=True))


def _pitch(sizes: Sizes) -> Sizes:
    """Rows from one place to the next, along each axis."""
    return tuple(prod(sizes[i + 1 :]) for i in range(len(sizes)))


def _flat_rows(x: X, axis: int, sizes: Sizes, window: Sizes, dilation: Sizes) -> X:
    """x (..., rows, C), the places at `axis` -> the windows (..., reach, *K, C)."""
    n = len(window)
    for size, apart, pitch in zip(window, dilation, _pitch(sizes), strict=True):
        x = WINDOWS(x, axis=axis, size=size, step=1, dilation=apart * pitch)
    return PERMUTE(x, order=_window_order(axis + 1, n))


def _kernel_form(
    x: X, weight: X, step: Sizes, dilation: Sizes, padding: Widths, tf32: bool = False
) -> X:
    sizes, window = _padded_sizes(x.shape[2:-1], padding), weight.shape[1:-2]
    n = len(step)
    if n == 1 or not _is_flat(sizes, window, step, dilation):
        return _plain(x, weight, step, dilation, padding, tf32)
    x = _padded(x, padding)
    places = _counts(sizes, window, step, dilation)
    flat = RESHAPE(x, shape=(*x.shape[:2], prod(sizes), x.shape[-1]))
    rows = _flat_rows(flat, 2, sizes, window, dilation)
    rows = RESHAPE(rows, shape=(*rows.shape[:3], prod(rows.shape[3:])))
    y = product(tf32)(rows, _as_matrix(weight, 1))
    for size, pitch in zip(places[:-1], _pitch(sizes)[:-1], strict=True):
        y = WINDOWS(y, axis=2, size=size, step=1, dilation=pitch)
    return PERMUTE(y, order=(0, 1, *range(4, 3 + n), 2, 3))


# Gradients ---------------------------------------------------------------------------------------


def _vjp(
    g: X,
    y: X,
    x: X,
    weight: X,
    step: Sizes,
    dilation: Sizes,
    padding: Widths,
    tf32: bool = False,
) -> tuple[X, ...]:
    sizes, window = x.shape[2:-1], weight.shape[1:-2]
    return (
        lambda: transposed(g, weight, step, dilation, padding, sizes, tf32),
        lambda: _weight_gradient(g, _padded(x, padding), window, step, dilation, tf32),
    )


def transposed(
    g: X,
    weight: X,
    step: Sizes,
    dilation: Sizes,
    padding: Widths,
    sizes: Sizes,
    tf32: bool = False,
) -> X:
    """The gradient of the input, of so many places: g (G, N, *T, O) -> (G, N, *sizes, C). Padding
    below 0 at an end: places beyond the last window."""
    window, n = weight.shape[1:-2], len(step)
    reach = [d * (k - 1) for d, k in zip(dilation, window, strict=True)]
    if all(s == 1 for s in step) and prod(sizes) < 2 * _WASTE * prod(g.shape[2:-1]):
        ends = [(r - a, r - b) for r, (a, b) in zip(reach, padding, strict=True)]
        turned = FLIP(weight, axis=tuple(range(1, 1 + n)))
        turned = PERMUTE(turned, order=(*range(1 + n), n + 2, n + 1))
        wider = tuple((max(a, 0), max(b, 0)) for a, b in ends)
        g = _cut(g, [(min(a, 0), min(b, 0)) for a, b in ends])
        more = {"tf32": True} if tf32 else {}
        return CONVOLUTION(g, turned, step=step, dilation=dilation, padding=wider, **more)
    rows = RESHAPE(g, shape=(g.shape[0], prod(g.shape[1:-1]), g.shape[-1]))
    matrix = _as_matrix(weight, 0)
    order = (*range(matrix.ndim - 2), matrix.ndim - 1, matrix.ndim - 2)
    spread = product(tf32)(rows, PERMUTE(matrix, order=order))
    spread = RESHAPE(spread, shape=(*g.shape[:-1], *weight.shape[1:-1]))
    lead = 2 + n
    spread = PERMUTE(spread, order=(*range(lead), lead + n, *range(lead, lead + n)))
    for i in reversed(range(n)):
        # What no window reached, at the end, is there, too.
        length = max(sum(padding[i]) + sizes[i], (g.shape[2 + i] - 1) * step[i] + reach[i] + 1)
        spread = FOLD(spread, axis=2 + i, step=step[i], dilation=dilation[i], length=length)
    return _cut(
        _padded(spread, tuple((0, max(-b, 0)) for _, b in padding)),
        [(-a, -max(b, 0)) for a, b in padding],
    )


def _cut(x: X, widths: Sequence[tuple[int, int]]) -> X:
    """Without the places at both ends of each axis that the widths, 0 or negative, name."""
    if not any(map(any, widths)):
        return x
    pairs = zip(x.shape, _widths(tuple(widths)), strict=True)
    return SLICE(x, ranges=tuple((-a, n + b, 1) for n, (a, b) in pairs))


def _weight_gradient(g: X, x: X, window: Sizes, step: Sizes, dilation: Sizes, tf32: bool) -> X:
    """The gradient of the weight: the windows of the padded x, transposed, times g."""
    sizes, places = x.shape[2:-1], g.shape[2:-1]
    groups, batch, *_, channels = x.shape
    out = g.shape[-1]
    shape = (groups, *window, channels, out)
    if not batch or not _is_flat(sizes, window, step, dilation):
        rows = _rows(x, 2, window, step, dilation)
        rows = RESHAPE(rows, shape=(groups, batch * prod(places), prod(shape[1:-1])))
        g = RESHAPE(g, shape=(groups, batch * prod(places), out))
        return RESHAPE(product(tf32)(PERMUTE(rows, order=(0, 2, 1)), g), shape=shape)
    # The rows where no window begins are multiplied by zeros.
    g = _padded(g, tuple((0, n - m) for n, m in zip(sizes, places, strict=True)))
    total = batch * prod(sizes)
    rows = _flat_rows(RESHAPE(x, shape=(groups, total, channels)), 1, sizes, window, dilation)
    g = RESHAPE(g, shape=(groups, total, out))
    reach, n = rows.shape[1], len(window)
    g = SLICE(g, ranges=((0, groups, 1), (0, reach, 1), (0, out, 1)))
    rows = PERMUTE(rows, order=(0, *range(2, 3 + n), 1))  # (G, *K, C, rows)
    # Places of a line lie side by side; where they do not, each is a product of its own.
    apart = n if dilation[-1] > 1 and channels > 1 else n - 1
    lead = prod(window[:apart])
    rows = RESHAPE(rows, shape=(groups, lead, prod(shape[1:-1]) // lead, reach))
    g = RESHAPE(g, shape=(groups, 1, reach, out))
    return RESHAPE(product(tf32)(rows, g), shape=shape)


CONVOLUTION = Op(
    "convolution",
    kind="fused",
    rule=_rule,
    forward=_forward,
    decompose=_plain,
    kernel_form=_kernel_form,
    vjp=_vjp,
    autocast="half",
)
