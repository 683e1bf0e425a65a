"""Convolutions of F, under PyTorch's names.

In: Tensors, channels first, (N, C, *S) or (C, *S). Out: the same. Called by users and by the
layers. Inside, channels are last (ops/convolution.py), so that what leads from one convolution to
the next copies nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from .. import ops
from ..arguments import explain_functions, shown
from ..autocast import computed_in
from ..errors import DTypeError, ShapeError, UserError
from ..ops.convolution import transposed
from ..rules import whole
from ..tensor import Tensor

Ints = int | Sequence[int]


@computed_in("half")
def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """input (N, C, L) or (C, L), weight (O, C / groups, K), bias (O,) -> (N, O, L').

    stride: places from one window to the next; dilation: from one of its elements to the next.
    padding: zeros on either side, or "valid" (none), or "same" (L' is L; stride must be 1).
    groups: output channels are in so many groups, each of which sees its share of the input's.
    """
    return _convolved("conv1d", 1, input, weight, bias, stride, padding, dilation, groups)


@computed_in("half")
def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """input (N, C, H, W) or (C, H, W), weight (O, C / groups, K, K'), bias (O,) -> (N, O, H', W').
    The other arguments: one number for both axes or one for each; see conv1d."""
    return _convolved("conv2d", 2, input, weight, bias, stride, padding, dilation, groups)


@computed_in("half")
def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """input (N, C, L) or (C, L), weight (C, O / groups, K), bias (O,) -> (N, O, L'): the gradient
    of conv1d by its input. padding: cut off on either side; output_padding: added at the end."""
    args = (stride, padding, output_padding, groups, dilation)
    return _transposed("conv_transpose1d", 1, input, weight, bias, *args)


@computed_in("half")
def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """input (N, C, H, W) or (C, H, W), weight (C, O / groups, K, K'), bias (O,) ->
    (N, O, H', W'); see conv_transpose1d."""
    args = (stride, padding, output_padding, groups, dilation)
    return _transposed("conv_transpose2d", 2, input, weight, bias, *args)


def unfold(
    input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor:
    """All windows of images (N, C, H, W) or (C, H, W) as columns: (N, C * K * K', windows)."""
    x, batched = batch("unfold", 2, input)
    window = each("unfold: kernel_size", kernel_size, 2, least=1)
    step, apart = (each(f"unfold: {n}", v, 2, least=1) for n, v in _named(stride, dilation))
    width = each("unfold: padding", padding, 2)
    _check_window("unfold", x.shape[2:], window, apart, [(w, w) for w in width])
    x = bordered(x, [(0, 0), (0, 0), *((w, w) for w in width)])
    for axis in range(2):
        x = ops.WINDOWS(x, axis=2 + axis, size=window[axis], step=step[axis], dilation=apart[axis])
    n, channels, high, wide = x.shape[:4]
    y = x.permute(0, 1, 4, 5, 2, 3).reshape(n, channels * prod(window), high * wide)
    return y if batched else y.squeeze(0)


def fold(
    input: Tensor,
    output_size: Any,
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
) -> Tensor:
    """The sum of windows (N, C * K * K', windows) at their places in images (N, C, *output_size):
    the gradient of unfold."""
    size = each("fold: output_size", output_size, 2, least=1)
    window = each("fold: kernel_size", kernel_size, 2, least=1)
    step, apart = (each(f"fold: {n}", v, 2, least=1) for n, v in _named(stride, dilation))
    width = each("fold: padding", padding, 2)
    x = input if input.ndim == 3 else input.unsqueeze(0)
    _check_window("fold", size, window, apart, [(w, w) for w in width])
    counts = [
        (n + 2 * w - d * (k - 1) - 1) // s + 1
        for n, w, d, k, s in zip(size, width, apart, window, step, strict=True)
    ]
    if x.ndim != 3 or x.shape[1] % prod(window) or x.shape[2] != prod(counts):
        raise ShapeError(
            f"fold: an input {input.shape} is not (N, C * {prod(window)}, {prod(counts)}), the "
            f"windows {window} of images {size}"
        )
    y = x.reshape(x.shape[0], -1, *window, *counts).permute(0, 1, 4, 5, 2, 3)
    for axis in (1, 0):
        length = size[axis] + 2 * width[axis]
        y = ops.FOLD(y, axis=2 + axis, step=step[axis], dilation=apart[axis], length=length)
    y = bordered(y, [(0, 0), (0, 0), *((-w, -w) for w in width)])
    return y if input.ndim == 3 else y.squeeze(0)


# Both kinds ------------------------------------------------------------------------------------


def _convolved(
    name: str,
    n: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Tensor:
    x, batched = batch(name, n, input)
    groups = _checked(name, n, x, weight, groups)
    if x.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        raise ShapeError(
            f"{name}: an input {input.shape} of {x.shape[1]} channels does not fit a weight "
            f"{weight.shape} in {groups} groups: it is (out, channels / groups, window), and out a "
            "multiple of groups"
        )
    window = weight.shape[2:]
    step, apart = (each(f"{name}: {m}", v, n, least=1) for m, v in _named(stride, dilation))
    widths = padding_widths(name, padding, window, step, apart)
    _check_window(name, x.shape[2:], window, apart, widths)
    x = _channels_last(x, groups)
    w = weight.reshape(groups, -1, *weight.shape[1:])  # (G, O / G, C / G, *K)
    w = w.permute(0, *range(3, 3 + n), 2, 1)
    y: Tensor = ops.CONVOLUTION(x, w, step=step, dilation=apart, padding=tuple(widths))
    return _channels_first(name, y, bias, weight.shape[0], batched)


def _transposed(
    name: str,
    n: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
) -> Tensor:
    x, batched = batch(name, n, input)
    groups = _checked(name, n, x, weight, groups)
    if x.shape[1] != weight.shape[0] or weight.shape[0] % groups:
        raise ShapeError(
            f"{name}: an input {input.shape} of {x.shape[1]} channels does not fit a weight "
            f"{weight.shape} in {groups} groups: it is (channels, out / groups, window), and "
            "channels a multiple of groups"
        )
    step, apart = (each(f"{name}: {m}", v, n, least=1) for m, v in _named(stride, dilation))
    cut, more = (
        each(f"{name}: padding", padding, n),
        each(f"{name}: output_padding", output_padding, n),
    )
    if any(m >= max(s, d) for m, s, d in zip(more, step, apart, strict=True)):
        raise UserError(
            f"{name}: output_padding={more} must be less than stride={step} or dilation={apart}"
        )
    widths = tuple((c, c - m) for c, m in zip(cut, more, strict=True))
    sizes = tuple(
        (size - 1) * s + d * (k - 1) + 1 - a - b
        for size, s, d, k, (a, b) in zip(
            x.shape[2:], step, apart, weight.shape[2:], widths, strict=True
        )
    )
    if min(sizes) < 1:
        raise ShapeError(f"{name}: padding={cut} leaves nothing of an input {input.shape}")
    w = weight.reshape(groups, -1, *weight.shape[1:])  # (G, C / G, O / G, *K)
    w = w.permute(0, *range(3, 3 + n), 2, 1)
    y = transposed(_channels_last(x, groups), w, step, apart, widths, sizes)
    return _channels_first(name, y, bias, weight.shape[1] * groups, batched)


def _checked(name: str, n: int, x: Tensor, weight: Tensor, groups: int) -> int:
    """groups; an error for operands that no convolution takes."""
    groups = whole(f"{name}: groups", groups)
    if groups < 1:
        raise ShapeError(f"{name}: groups={groups} must be 1 or more")
    if weight.ndim != n + 2 or 0 in weight.shape:
        raise ShapeError(
            f"{name}: a weight {weight.shape} must have {n + 2} dimensions, none of them empty"
        )
    if x.dtype != weight.dtype or not x.dtype.is_floating_point:
        raise DTypeError(
            f"{name}: the input is {x.dtype.name}, the weight {weight.dtype.name}: both must be of "
            "one floating dtype; convert with .to(dtype)"
        )
    return groups


def _channels_last(x: Tensor, groups: int) -> Tensor:
    """(N, C, *S) -> (G, N, *S, C / G)."""
    n = x.ndim - 2
    if groups == 1:
        return channels_last(x).unsqueeze(0)
    x = x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])
    return x.permute(1, 0, *range(3, 3 + n), 2)


def _channels_first(name: str, y: Tensor, bias: Tensor | None, out: int, batched: bool) -> Tensor:
    """(G, N, *S, O / G), plus bias (O,) -> (N, O, *S), or without its batch axis."""
    n = y.ndim - 3
    if bias is not None:
        if bias.shape != (out,):
            raise ShapeError(f"{name}: a bias {bias.shape} must be {(out,)}, one for each channel")
        if bias.dtype != y.dtype:
            raise DTypeError(f"{name}: the bias is {bias.dtype.name}, the input {y.dtype.name}")
    if len(y) == 1:
        y = y.squeeze(0)
        y = channels_first(y if bias is None else y + bias)
    else:
        if bias is not None:
            y = y + bias.reshape(y.shape[0], *(1,) * (n + 1), -1)
        y = y.permute(1, 0, n + 2, *range(2, 2 + n))
        y = y.reshape(y.shape[0], out, *y.shape[3:])
    return y if batched else y.squeeze(0)


def channels_last(x: Tensor) -> Tensor:
    """(N, C, *S) -> (N, *S, C)."""
    return x.permute(0, *range(2, x.ndim), 1)


def channels_first(x: Tensor) -> Tensor:
    """(N, *S, C) -> (N, C, *S)."""
    return x.permute(0, x.ndim - 1, *range(1, x.ndim - 1))


# Arguments ---------------------------------------------------------------------------------------


def _named(stride: Any, dilation: Any) -> tuple[tuple[str, Any], tuple[str, Any]]:
    return ("stride", stride), ("dilation", dilation)


def each(what: str, value: Any, n: int, least: int = 0) -> tuple[int, ...]:
    """A number for each of n axes, given as one or as n of them (or as a sequence of one)."""
    given = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    found = tuple(whole(what, v) for v in given)
    if len(found) not in (1, n) or min(found) < least:
        several = f", or {n} of them" if n > 1 else ""
        raise ShapeError(f"{what}={shown(value)} must be {least} or more, one number{several}")
    return found * n if len(found) == 1 else found


def batch(name: str, n: int, x: Tensor) -> tuple[Tensor, bool]:
    """(N, C, *S) of an input with n places axes, and whether it had the batch axis."""
    if x.ndim not in (n + 1, n + 2):
        places = ", ".join(("L",) if n == 1 else ("H", "W"))
        raise ShapeError(
            f"{name}: an input must be (N, C, {places}) or (C, {places}), not {x.shape}"
        )
    return (x, True) if x.ndim == n + 2 else (x.unsqueeze(0), False)


def padding_widths(
    name: str, padding: Any, window: Sequence[int], step: Sequence[int], apart: Sequence[int]
) -> list[tuple[int, int]]:
    """The places that are added on either side of each axis."""
    if padding == "valid":
        return [(0, 0)] * len(window)
    if padding == "same":
        if any(s != 1 for s in step):
            raise UserError(f'{name}: padding="same" needs stride=1, not {tuple(step)}')
        reach = [d * (k - 1) for k, d in zip(window, apart, strict=True)]
        return [(r // 2, r - r // 2) for r in reach]
    if isinstance(padding, str):
        raise UserError(f'{name}: padding={padding!r} is unknown: "valid", "same" or numbers')
    return [(w, w) for w in each(f"{name}: padding", padding, len(window))]


def bordered(x: Tensor, widths: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    """x with a border of value along each axis, or cut off where a width is negative."""
    if any(min(w) < 0 for w in widths):
        ranges = (
            (max(-a, 0), n - max(-b, 0), 1) for n, (a, b) in zip(x.shape, widths, strict=True)
        )
        x = ops.SLICE(x, ranges=tuple(ranges))
    if any(max(w) > 0 for w in widths):
        x = ops.PAD(x, widths=tuple((max(a, 0), max(b, 0)) for a, b in widths), value=value)
    return x


def _check_window(
    name: str,
    sizes: Sequence[int],
    window: Sequence[int],
    apart: Sequence[int],
    widths: Sequence[tuple[int, int]],
) -> None:
    padded = tuple(n + a + b for n, (a, b) in zip(sizes, widths, strict=True))
    spans = tuple(d * (k - 1) + 1 for k, d in zip(window, apart, strict=True))
    if any(n < span for n, span in zip(padded, spans, strict=True)):
        raise ShapeError(
            f"{name}: the {padded} places of the padded input are fewer than the {spans} that a "
            f"window of {tuple(window)} with dilation {tuple(apart)} spans"
        )


explain_functions(globals())
