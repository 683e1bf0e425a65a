"""Activations as modules, under PyTorch's names, and what only changes shapes: for Sequential.

In: a Tensor. Out: the function of F that the docstring names, of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import ShapeError
from ..rules import whole
from ..tensor import Tensor
from . import functional as F  # noqa: N812
from .module import Module


def _joined(*options: str) -> str:
    return ", ".join(option for option in options if option)


class _InPlace(Module):
    """The base of those that can put the result in the input's place."""

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = inplace

    def describe(self) -> str:
        return "inplace=True" if self.inplace else ""


class ReLU(_InPlace):
    """max(x, 0); see F.relu."""

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(input, self.inplace)


class SiLU(_InPlace):
    """x * sigmoid(x); see F.silu."""

    def forward(self, input: Tensor) -> Tensor:
        return F.silu(input, self.inplace)


class LeakyReLU(_InPlace):
    """See F.leaky_relu."""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.negative_slope = negative_slope

    def forward(self, input: Tensor) -> Tensor:
        return F.leaky_relu(input, self.negative_slope, self.inplace)

    def describe(self) -> str:
        return ", ".join(
            x for x in (f"negative_slope={self.negative_slope}", super().describe()) if x
        )


class ELU(_InPlace):
    """See F.elu."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.alpha = alpha

    def forward(self, input: Tensor) -> Tensor:
        return F.elu(input, self.alpha, self.inplace)

    def describe(self) -> str:
        return _joined(f"alpha={self.alpha}", super().describe())


class GELU(Module):
    """See F.gelu."""

    def __init__(self, approximate: str = "none") -> None:
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        return F.gelu(input, self.approximate)

    def describe(self) -> str:
        return f"approximate={self.approximate!r}"


class Tanh(Module):
    """See F.tanh."""

    def forward(self, input: Tensor) -> Tensor:
        return F.tanh(input)


class Sigmoid(Module):
    """See F.sigmoid."""

    def forward(self, input: Tensor) -> Tensor:
        return F.sigmoid(input)


class LogSigmoid(Module):
    """See F.logsigmoid."""

    def forward(self, input: Tensor) -> Tensor:
        return F.logsigmoid(input)


class Softplus(Module):
    """See F.softplus."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        self.beta, self.threshold = beta, threshold

    def forward(self, input: Tensor) -> Tensor:
        return F.softplus(input, self.beta, self.threshold)

    def describe(self) -> str:
        return f"beta={self.beta}, threshold={self.threshold}"


class _AlongDim(Module):
    """The base of those along an axis."""

    def __init__(self, dim: int | None = None) -> None:
        self.dim = dim

    def describe(self) -> str:
        return f"dim={self.dim}"


class Softmax(_AlongDim):
    """See F.softmax."""

    def forward(self, input: Tensor) -> Tensor:
        return F.softmax(input, self.dim)


class LogSoftmax(_AlongDim):
    """See F.log_softmax."""

    def forward(self, input: Tensor) -> Tensor:
        return F.log_softmax(input, self.dim)


class GLU(Module):
    """See F.glu."""

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return F.glu(input, self.dim)

    def describe(self) -> str:
        return f"dim={self.dim}"


# Shapes ----------------------------------------------------------------------------------------


class Identity(Module):
    """What goes in comes out; whatever it is made with."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def forward(self, input: Any) -> Any:
        return input


class Flatten(Module):
    """The axes from start_dim to end_dim as one; see Tensor.flatten."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:
        return input.flatten(self.start_dim, self.end_dim)

    def describe(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """The axis dim as several, of the sizes unflattened_size, of which one may be -1."""

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        self.dim = whole("Unflatten: dim", dim)
        self.unflattened_size = tuple(whole("Unflatten: a size", n) for n in unflattened_size)

    def forward(self, input: Tensor) -> Tensor:
        if not -input.ndim <= self.dim < input.ndim:
            raise ShapeError(f"Unflatten: dim {self.dim} is outside {input.shape}")
        at = self.dim % input.ndim
        return input.reshape(*input.shape[:at], *self.unflattened_size, *input.shape[at + 1 :])

    def describe(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"
