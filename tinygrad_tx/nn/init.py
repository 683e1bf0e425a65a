"""Initial values: functions that fill a Parameter in place, under PyTorch's names.

Drawn from Philox, so that tx.manual_seed repeats them, and the same on CPU and GPU. Called by the
layers' and the models' constructors.
"""

from __future__ import annotations

import math

from ..creation import full_like, rand, randn
from ..errors import ShapeError
from ..tensor import Tensor, no_grad


@no_grad()
def constant_(x: Tensor, value: float) -> Tensor:
    """value everywhere."""
    return x.assign(full_like(x, value))


def zeros_(x: Tensor) -> Tensor:
    return constant_(x, 0.0)


def ones_(x: Tensor) -> Tensor:
    return constant_(x, 1.0)


@no_grad()
def uniform_(x: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Uniform in [low, high)."""
    return x.assign(rand(x.shape, dtype=x.dtype, device=x.device) * (high - low) + low)


@no_grad()
def normal_(x: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Normal with the given mean and standard deviation."""
    return x.assign(randn(x.shape, dtype=x.dtype, device=x.device) * std + mean)


def xavier_uniform_(x: Tensor, gain: float = 1.0) -> Tensor:
    """Uniform in +-gain * sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""
    bound = gain * math.sqrt(6 / sum(_fans("xavier_uniform_", x)))
    return uniform_(x, -bound, bound)


def xavier_normal_(x: Tensor, gain: float = 1.0) -> Tensor:
    """Normal with std gain * sqrt(2 / (fan_in + fan_out))."""
    return normal_(x, 0.0, gain * math.sqrt(2 / sum(_fans("xavier_normal_", x))))


def kaiming_uniform_(x: Tensor, gain: float = math.sqrt(2)) -> Tensor:
    """Uniform in +-gain * sqrt(3 / fan_in); the default gain is ReLU's (He et al. 2015)."""
    bound = gain * math.sqrt(3 / _fans("kaiming_uniform_", x)[0])
    return uniform_(x, -bound, bound)


def _fans(name: str, x: Tensor) -> tuple[int, int]:
    """Inputs and outputs of each unit of a weight (out, in, ...)."""
    if x.ndim < 2:
        raise ShapeError(f"{name} needs a matrix (out, in), not {x.shape}; use uniform_ or normal_")
    field = math.prod(x.shape[2:])
    return x.shape[1] * field, x.shape[0] * field
