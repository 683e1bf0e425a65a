"""Initial values: functions that fill a Parameter in place, under PyTorch's names.

Drawn from Philox, so that tx.manual_seed repeats them, and the same on CPU and GPU. Called by the
layers' and the models' constructors.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..arguments import explain_functions
from ..creation import eye as identity
from ..creation import full_like
from ..drawing import rand, randn
from ..dtypes import float64
from ..errors import DTypeError, ShapeError, UserError
from ..lazy import lazily
from ..spelling import refuse
from ..tensor import Tensor, no_grad


@no_grad()
def constant_(tensor: Tensor, val: float) -> Tensor:
    """val everywhere."""
    return tensor.assign(full_like(tensor, val))


def zeros_(tensor: Tensor) -> Tensor:
    """0 everywhere."""
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """1 everywhere."""
    return constant_(tensor, 1.0)


@no_grad()
def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: None = None) -> Tensor:
    """Uniform in [a, b)."""
    refuse("uniform_", generator=generator)
    drawn = rand(tensor.shape, dtype=tensor.dtype, device=tensor.device)
    return tensor.assign(drawn * (b - a) + a)


@no_grad()
def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: None = None) -> Tensor:
    """Normal with the given mean and standard deviation."""
    refuse("normal_", generator=generator)
    drawn = randn(tensor.shape, dtype=tensor.dtype, device=tensor.device)
    return tensor.assign(drawn * std + mean)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: None = None) -> Tensor:
    """Uniform in +-gain * sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""
    bound = gain * math.sqrt(6 / sum(_fans("xavier_uniform_", tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: None = None) -> Tensor:
    """Normal with std gain * sqrt(2 / (fan_in + fan_out))."""
    std = gain * math.sqrt(2 / sum(_fans("xavier_normal_", tensor)))
    return normal_(tensor, 0.0, std, generator)


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: None = None,
) -> Tensor:
    """Uniform in +-gain * sqrt(3 / fan), the gain that calculate_gain(nonlinearity, a) gives
    (He et al. 2015). mode: "fan_in" keeps variances going forward, "fan_out" going backward."""
    bound = math.sqrt(3) * _deviation("kaiming_uniform_", tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: None = None,
) -> Tensor:
    """Normal with std gain / sqrt(fan): see kaiming_uniform_."""
    std = _deviation("kaiming_normal_", tensor, a, mode, nonlinearity)
    return normal_(tensor, 0.0, std, generator)


@no_grad()
def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: None = None,
) -> Tensor:
    """Normal with the given mean and standard deviation, of which only what is in [a, b] is drawn:
    the distribution's inverse at numbers that are uniform between its values at a and b."""
    refuse("trunc_normal_", generator=generator)
    if not tensor.dtype.is_floating_point:
        raise DTypeError(f"trunc_normal_ needs a floating dtype, not {tensor.dtype.name}")
    if not std > 0 or not a < b:
        raise UserError(f"trunc_normal_: std={std} must be positive and a={a} below b={b}")
    low, high = (math.erf((bound - mean) / (std * math.sqrt(2))) for bound in (a, b))
    drawn = rand(tensor.shape, dtype=float64, device=tensor.device)
    values = mean + std * math.sqrt(2) * _erfinv(drawn * (high - low) + low)
    return tensor.assign(values.clip(a, b))


def _erfinv(y: Tensor) -> Tensor:
    """The inverse of erf in float64: Winitzki's approximation, then Newton's steps."""
    y = y.clip(-1 + 2.0**-53, 1 - 2.0**-53)
    half, k = (1 - y * y).log() / 2, 0.147
    t = 2 / (math.pi * k) + half
    x = y.sign() * ((t * t - 2 * half / k).sqrt() - t).clip(min=0.0).sqrt()
    for _ in range(3):
        x = x - (x.erf() - y) * (x * x).exp() * (math.sqrt(math.pi) / 2)
    return x


@no_grad()
def orthogonal_(tensor: Tensor, gain: float = 1, generator: None = None) -> Tensor:
    """A random matrix with orthonormal rows or columns, whichever are fewer, times gain: the Q of a
    normal matrix (Saxe et al., arXiv 1312.6120). Of more axes than two, those after the first count
    as one. Computed on the host."""
    refuse("orthogonal_", generator=generator)
    if tensor.ndim < 2:
        raise ShapeError(f"orthogonal_ needs two axes or more, not {tensor.shape}")
    rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
    drawn = randn(max(rows, columns), min(rows, columns), dtype=float64, device=tensor.device)
    if not drawn.node.has_values:
        return tensor
    q, r = np.linalg.qr(drawn.numpy())
    q = q * np.where(np.diag(r) < 0, -1.0, 1.0)  # so that all such matrices are as likely
    return tensor.assign((q if rows >= columns else q.T).reshape(tensor.shape) * gain)


@no_grad()
def eye_(tensor: Tensor) -> Tensor:
    """1 on the diagonal of a matrix, 0 elsewhere."""
    if tensor.ndim != 2:
        raise ShapeError(f"eye_ needs a matrix, not {tensor.shape}")
    rows, columns = tensor.shape
    return tensor.assign(identity(rows, columns, device=tensor.device))


_GAINS = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 0.75}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor that keeps variances after an activation; param is leaky_relu's slope, 0.01 by
    default."""
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + (0.01 if param is None else param) ** 2))
    if nonlinearity not in _GAINS:
        known = ", ".join((*_GAINS, "leaky_relu"))
        raise UserError(f"nonlinearity={nonlinearity!r} is unknown: it is one of {known}")
    return _GAINS[nonlinearity]


def _deviation(name: str, tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    fans = dict(zip(("fan_in", "fan_out"), _fans(name, tensor), strict=True))
    if mode not in fans:
        raise UserError(f'{name}: mode={mode!r} must be "fan_in" or "fan_out"')
    return calculate_gain(nonlinearity, a) / math.sqrt(fans[mode])


def _fans(name: str, x: Tensor) -> tuple[int, int]:
    """Inputs and outputs of each unit of a weight (out, in, ...)."""
    if x.ndim < 2:
        raise ShapeError(f"{name} needs a matrix (out, in), not {x.shape}; use uniform_ or normal_")
    field = math.prod(x.shape[2:])
    return x.shape[1] * field, x.shape[0] * field


explain_functions(globals())

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__)
