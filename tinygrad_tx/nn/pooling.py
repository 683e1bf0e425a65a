"""Pooling and interpolation of F, under PyTorch's names.

In: Tensors, channels first, (N, C, *S); pooling takes (C, *S), too. Out: the same. Called by users
and by the layers. A window is pooled one axis after the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import ops
from ..arguments import explain_functions, shown
from ..creation import tensor
from ..errors import DTypeError, ShapeError, UserError
from ..op import Op
from ..rules import whole
from ..spelling import refuse
from ..tensor import Tensor
from .convolution import batch, bordered, channels_first, channels_last, each

# Pooling -----------------------------------------------------------------------------------------


def max_pool1d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """The largest element of each window of (N, C, L); see max_pool2d."""
    where = (kernel_size, stride, padding, dilation, ceil_mode, return_indices)
    return _max_pooled("max_pool1d", 1, input, *where)


def max_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """The largest element of each window of (N, C, H, W) or (C, H, W) -> (N, C, H', W'); of equal
    ones the first gets the gradient.

    stride: kernel_size by default. padding: places on either side that never are the largest.
    ceil_mode: a last window may begin inside and reach over the end.
    """
    where = (kernel_size, stride, padding, dilation, ceil_mode, return_indices)
    return _max_pooled("max_pool2d", 2, input, *where)


def avg_pool1d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window of (N, C, L); see avg_pool2d."""
    where = (kernel_size, stride, padding, ceil_mode, count_include_pad, None)
    return _mean_pooled("avg_pool1d", 1, input, *where)


def avg_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window of (N, C, H, W) or (C, H, W) -> (N, C, H', W').

    stride, ceil_mode: as of max_pool2d. count_include_pad: the zeros of the padding count.
    divisor_override: what sums are divided by, in the place of the number of elements.
    """
    where = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    return _mean_pooled("avg_pool2d", 2, input, *where)


def _max_pooled(
    name: str,
    n: int,
    input: Tensor,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    return_indices: bool,
) -> Tensor:
    refuse(name, "compare the input with the result", return_indices=return_indices)
    x, batched = batch(name, n, input)
    apart = each(f"{name}: dilation", dilation, n, least=1)
    window, step, width = _windows(name, n, kernel_size, stride, padding)
    least = -math.inf if x.dtype.kind == "f" else np.iinfo(x.dtype.np).min
    counts = _counts(name, x.shape[2:], window, step, width, apart, ceil_mode)
    y = _pooled(ops.WINDOW_MAX, x, window, step, width, apart, counts, least)
    return y if batched else y.squeeze(0)


def _mean_pooled(
    name: str,
    n: int,
    input: Tensor,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    x, batched = batch(name, n, input)
    if not x.dtype.is_floating_point:
        raise DTypeError(f"{name} needs a floating dtype, not {x.dtype.name}: use .float() first")
    if x.dtype.is_half:  # the sum may be too large for 16 bits
        where = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
        return _mean_pooled(name, n, input.float(), *where).to(x.dtype)
    window, step, width = _windows(name, n, kernel_size, stride, padding)
    apart = (1,) * n
    counts = _counts(name, x.shape[2:], window, step, width, apart, ceil_mode)
    y = _pooled(ops.WINDOW_SUM, x, window, step, width, apart, counts, 0.0)
    if divisor_override is not None:
        if not whole(f"{name}: divisor_override", divisor_override):
            raise UserError(f"{name}: divisor_override must not be 0")
        y = y / divisor_override
    else:
        places = zip(x.shape[2:], window, step, width, counts, strict=True)
        y = _divided(y, [_elements(*of, count_include_pad) for of in places])
    return y if batched else y.squeeze(0)


def _windows(name: str, n: int, kernel_size: Any, stride: Any, padding: Any) -> Any:
    window = each(f"{name}: kernel_size", kernel_size, n, least=1)
    step = window if stride is None else each(f"{name}: stride", stride, n, least=1)
    width = each(f"{name}: padding", padding, n)
    if any(w > k // 2 for w, k in zip(width, window, strict=True)):
        raise ShapeError(f"{name}: padding={width} must be at most half of kernel_size={window}")
    return window, step, width


def _counts(
    name: str,
    sizes: Sequence[int],
    window: Sequence[int],
    step: Sequence[int],
    width: Sequence[int],
    apart: Sequence[int],
    ceil_mode: bool,
) -> list[int]:
    """The windows along each axis."""
    found = []
    for size, k, s, w, d in zip(sizes, window, step, width, apart, strict=True):
        rest = size + 2 * w - d * (k - 1) - 1
        count = (rest + s - 1 if ceil_mode else rest) // s + 1
        if ceil_mode and (count - 1) * s >= size + w:  # it would begin in the padding
            count -= 1
        if rest < 0 and count < 1:
            raise ShapeError(
                f"{name}: no window of {tuple(window)} fits {tuple(sizes)} places with padding "
                f"{tuple(width)}"
            )
        found.append(count)
    return found


def _pooled(
    op: Op,
    x: Tensor,
    window: Sequence[int],
    step: Sequence[int],
    width: Sequence[int],
    apart: Sequence[int],
    counts: Sequence[int],
    value: float,
) -> Tensor:
    reach = [
        (c - 1) * s + d * (k - 1) + 1
        for c, s, d, k in zip(counts, step, apart, window, strict=True)
    ]
    after = (max(r - n - w, 0) for r, n, w in zip(reach, x.shape[2:], width, strict=True))
    x = channels_last(x)  # as convolutions leave them
    x = bordered(x, [(0, 0), *zip(width, after, strict=True), (0, 0)], value)
    for i in reversed(range(len(window))):
        x = op(x, axis=1 + i, size=window[i], step=step[i], dilation=apart[i])
    return channels_first(x)


def _elements(size: int, k: int, s: int, w: int, count: int, padding_counts: bool) -> Any:
    """How many elements of an axis are in each window."""
    starts = np.arange(count) * s - w
    stops = np.minimum(starts + k, size + w)
    if padding_counts:
        return stops - starts
    return np.minimum(stops, size) - np.maximum(starts, 0)


def _divided(y: Tensor, counts: list[Any]) -> Tensor:
    every = counts[0] if len(counts) == 1 else np.multiply.outer(*counts)
    if every.size and (every == every.flat[0]).all():
        return y / int(every.flat[0])
    return y / tensor(every, dtype=y.dtype, device=y.device)


# Interpolation -----------------------------------------------------------------------------------

_MODES = {"nearest": (1, 2), "nearest-exact": (1, 2), "linear": (1,), "bilinear": (2,)}


def interpolate(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """input (N, C, L) or (N, C, H, W) with other sizes: `size`, or scale_factor times as many
    places; one number, or one for each axis.

    mode: "nearest", "nearest-exact" (of the places' centres), "linear" (of L), "bilinear".
    align_corners: the outermost places stay where they are, for linear and bilinear.
    recompute_scale_factor: places are scaled by the quotient of the sizes, not by scale_factor.
    """
    refuse("interpolate", antialias=antialias)
    n = input.ndim - 2
    if mode not in _MODES:
        raise UserError(f"interpolate: mode={mode!r} is not supported; it is one of {list(_MODES)}")
    if n not in _MODES[mode]:
        dims = " or ".join(str(2 + m) for m in _MODES[mode])
        raise ShapeError(f"interpolate: mode={mode!r} takes {dims} dimensions, not {input.shape}")
    linear = not mode.startswith("nearest")
    if align_corners is not None and not linear:
        raise UserError(f'interpolate: align_corners goes with "linear" and "bilinear", not {mode}')
    if linear and not input.dtype.is_floating_point:
        raise DTypeError(f"interpolate: mode={mode!r} needs a floating dtype: use .float() first")
    old = input.shape[2:]
    new, scales = _new_sizes(old, size, scale_factor, bool(recompute_scale_factor))
    if linear and input.dtype.is_half:
        return _interpolated(input.float(), new, scales, mode, align_corners).to(input.dtype)
    return _interpolated(input, new, scales, mode, align_corners)


def _interpolated(
    x: Tensor, new: Sequence[int], scales: Sequence[float], mode: str, align_corners: bool | None
) -> Tensor:
    for axis, (count, scale) in enumerate(zip(new, scales, strict=True), 2):
        if mode.startswith("nearest"):
            x = _nearest(x, axis, count, scale, 0.5 if mode == "nearest-exact" else 0.0)
        else:
            x = _linear(x, axis, count, scale, bool(align_corners))
    return x


def _new_sizes(
    old: Sequence[int], size: Any, scale_factor: Any, recompute: bool
) -> tuple[tuple[int, ...], list[float]]:
    """The sizes, and places of the input from one place of the result to the next."""
    if (size is None) == (scale_factor is None):
        raise UserError("interpolate: give either size or scale_factor")
    if scale_factor is None:
        if recompute:
            raise UserError("interpolate: recompute_scale_factor goes with scale_factor")
        new = each("interpolate: size", size, len(old), least=1)
        return new, [n / m for n, m in zip(old, new, strict=True)]
    given = tuple(scale_factor) if isinstance(scale_factor, (tuple, list)) else (scale_factor,)
    if len(given) not in (1, len(old)) or not all(isinstance(f, (int, float)) for f in given):
        raise ShapeError(
            f"interpolate: scale_factor={shown(scale_factor)} must be one number, or one for each "
            f"of {len(old)} axes"
        )
    factors = given * len(old) if len(given) == 1 else given
    new = tuple(math.floor(n * f) for n, f in zip(old, factors, strict=True))
    if min(new) < 1 or 0 in old:
        raise ShapeError(f"interpolate: the sizes {tuple(old)} would become {new}")
    if recompute:
        return new, [n / m for n, m in zip(old, new, strict=True)]
    return new, [1 / f for f in factors]


def _nearest(x: Tensor, axis: int, count: int, scale: float, centre: float) -> Tensor:
    size = x.shape[axis]
    # In float32, as PyTorch: at a place between two of the input, it decides which one is nearer.
    places = (np.arange(count, dtype=np.float32) + np.float32(centre)) * np.float32(scale)
    chosen = np.minimum(np.floor(places).astype(np.int64), size - 1)
    if count % size == 0 and (chosen == np.arange(count) // (count // size)).all():
        times = count // size  # each place so many times: a view
        lead, rest = x.shape[: axis + 1], x.shape[axis + 1 :]
        wide = x.reshape(*lead, 1, *rest).expand(*lead, times, *rest)
        return wide.reshape(*x.shape[:axis], count, *rest)
    return _taken(x, axis, chosen)


def _taken(x: Tensor, axis: int, places: Any) -> Tensor:
    """The places along an axis, which is brought to the front, where the compiler takes rows."""
    order = (axis, *(i for i in range(x.ndim) if i != axis))
    rows = x.permute(order).index_select(0, tensor(places, device=x.device))
    return rows.permute(*(order.index(i) for i in range(x.ndim)))


def _linear(x: Tensor, axis: int, count: int, scale: float, align_corners: bool) -> Tensor:
    size = x.shape[axis]
    at = np.arange(count, dtype=np.float64)
    if align_corners:
        places = at * ((size - 1) / (count - 1) if count > 1 else 0.0)
    else:
        places = np.maximum((at + 0.5) * scale - 0.5, 0)
    first = np.minimum(np.floor(places).astype(np.int64), size - 1)
    share = np.clip(places - first, 0, 1).reshape(-1, *(1,) * (x.ndim - 1 - axis))
    weight = tensor(share, dtype=x.dtype, device=x.device)
    low, high = _taken(x, axis, first), _taken(x, axis, np.minimum(first + 1, size - 1))
    return low * (1 - weight) + high * weight


explain_functions(globals())
