"""Normalization over a batch and over groups of channels: functions of F, under PyTorch's names.

In: Tensors, channels first, (N, C, *S). Out: the same. Called by users and by the layers.
"""

from __future__ import annotations

from typing import Any

from .. import ops
from ..arguments import explain_functions
from ..autocast import computed_in
from ..dtypes import float32
from ..errors import DTypeError, ShapeError, UserError
from ..rules import whole
from ..tensor import Tensor, no_grad
from .convolution import channels_first, channels_last


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: Any = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Mean 0 and variance 1 of each channel over a batch (N, C, *S), then * weight + bias, both
    (C,) (Ioffe and Szegedy, arXiv 1502.03167).

    training: the mean and variance are the batch's, and those of running_mean and running_var, if
        given, move by the share `momentum` towards them, in place (the variance with n - 1 in the
        denominator). Otherwise they are the running ones.
    """
    if input.ndim < 2 or not input.dtype.is_floating_point:
        raise ShapeError(
            f"batch_norm: an input must be of floats, (N, C) or (N, C, ...), not "
            f"{input.dtype.name} {input.shape}"
        )
    channels = input.shape[1]
    _check("batch_norm", channels, running_mean, running_var, weight, bias)
    x = input.float() if input.dtype.is_half else input
    x = channels_last(x)  # as convolutions leave them
    if training:
        y, scale = _by_batch(x, running_mean, running_var, momentum, eps, input.shape)
    elif running_mean is None or running_var is None:
        raise UserError("batch_norm: training=False needs running_mean and running_var")
    else:
        y, scale = x - running_mean, (running_var + eps).rsqrt()
    y = y * (scale if weight is None else scale * weight)
    y = y if bias is None else y + bias
    return channels_first(y.to(input.dtype))


def _by_batch(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: Any,
    eps: float,
    shape: tuple[int, ...],
) -> tuple[Tensor, Tensor]:
    """x (..., C) less its mean, and 1 over its standard deviation; the running ones moved."""
    n = x.numel() // max(x.shape[-1], 1)
    if n < 2:
        raise ShapeError(f"batch_norm: in training a channel needs 2 values or more, not {shape}")
    over = tuple(range(x.ndim - 1))
    mean = x.mean(over)
    centred = x - mean
    var = (centred * centred).mean(over)
    with no_grad():
        for kept, new in ((running_mean, mean), (running_var, var * (n / (n - 1)))):
            if kept is not None:
                kept.assign(((1 - momentum) * kept + momentum * new).to(kept.dtype))
    return centred, (var + eps).rsqrt()


@computed_in("float32")
def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Mean 0 and variance 1 over each of num_groups groups of channels of each example of
    (N, C, *S), then * weight + bias, both (C,) (Wu and He, arXiv 1803.08494)."""
    num_groups = whole("group_norm: num_groups", num_groups)
    if input.ndim < 2 or num_groups < 1 or input.shape[1] % num_groups:
        raise ShapeError(
            f"group_norm: the channels of an input {input.shape}, axis 1, must be a multiple of "
            f"num_groups={num_groups}"
        )
    if not input.dtype.is_floating_point:
        raise DTypeError(f"group_norm needs a floating dtype, not {input.dtype.name}")
    channels = input.shape[1]
    _check("group_norm", channels, weight, bias)
    x = input.to(float32) if input.dtype.is_half else input
    rest = x.numel() // max(x.shape[0] * num_groups, 1)
    y: Tensor = ops.LAYER_NORM(x.reshape(x.shape[0], num_groups, rest), eps=eps)
    y = y.reshape(x.shape)
    one_each = (channels, *(1,) * (x.ndim - 2))
    y = y if weight is None else y * weight.reshape(one_each)
    y = y if bias is None else y + bias.reshape(one_each)
    return y.to(input.dtype)


def _check(name: str, channels: int, *given: Tensor | None) -> None:
    for x in given:
        if x is not None and x.shape != (channels,):
            raise ShapeError(
                f"{name}: weight, bias and running statistics must be {(channels,)}, one for each "
                f"channel, not {x.shape}"
            )


explain_functions(globals())
