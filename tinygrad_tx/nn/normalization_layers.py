"""The layers of normalization over batches and groups: PyTorch's, with its names.

In: Tensors (N, C, *S). Out: the same. Called by models.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ..creation import ones, tensor, zeros
from ..dtypes import int64
from ..errors import ShapeError
from ..tensor import Tensor, no_grad
from . import functional as F  # noqa: N812
from .module import Module, Parameter


class _BatchNorm(Module):
    """What BatchNorm1d and BatchNorm2d have in common. weight starts as ones, bias as zeros; the
    buffers running_mean as zeros, running_var as ones, num_batches_tracked as 0."""

    dims: ClassVar[tuple[int, ...]]  # of an input
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: str | None = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self.weight = self.bias = None
        if affine:
            self.weight = Parameter(ones(num_features, dtype=dtype, device=device))
            if bias:
                self.bias = Parameter(zeros(num_features, dtype=dtype, device=device))
        mean = var = count = None
        if track_running_stats:
            mean, var = (f(num_features, dtype=dtype, device=device) for f in (zeros, ones))
            count = tensor(0, dtype=int64, device=device)
        self.register_buffer("running_mean", mean)
        self.register_buffer("running_var", var)
        self.register_buffer("num_batches_tracked", count)

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim not in self.dims or input.shape[1] != self.num_features:
            dims = " or ".join(map(str, self.dims))
            raise ShapeError(
                f"{type(self).__name__}: an input must have {dims} dimensions, axis 1 of "
                f"{self.num_features} channels, not {input.shape}"
            )
        momentum: Any = self.momentum
        mean, var = self.running_mean, self.running_var
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            with no_grad():
                self.num_batches_tracked += 1
                if momentum is None:  # the mean of all batches so far
                    momentum = 1 / self.num_batches_tracked.to(input.dtype)
        by_batch = self.training or mean is None
        if self.training and not self.track_running_stats:
            mean = var = None
        share = 0.0 if momentum is None else momentum
        return F.batch_norm(input, mean, var, self.weight, self.bias, by_batch, share, self.eps)

    @no_grad()
    def reset_running_stats(self) -> None:
        """The buffers as they started."""
        for buffer, value in ((self.running_mean, 0), (self.running_var, 1)):
            if buffer is not None:
                buffer.assign(buffer * 0 + value)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.assign(self.num_batches_tracked * 0)

    def describe(self) -> str:
        text = f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"
        text += f", affine={self.affine}, bias={self.bias is not None}"
        return f"{text}, track_running_stats={self.track_running_stats}"


class BatchNorm1d(_BatchNorm):
    """input (N, C) or (N, C, L), each of the C = num_features channels with mean 0 and variance 1;
    see F.batch_norm. In training mode by the batch, which moves the running statistics by the share
    `momentum` (None: they are the means over all batches); else by those, if they are tracked."""

    dims = (2, 3)


class BatchNorm2d(_BatchNorm):
    """As BatchNorm1d, of input (N, C, H, W)."""

    dims = (4,)


class GroupNorm(Module):
    """input (N, C, *S), groups of the C = num_channels channels with mean 0 and variance 1; see
    F.group_norm. weight starts as ones, bias as zeros; affine=False: neither."""

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: str | None = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        if num_groups < 1 or num_channels % num_groups:
            raise ShapeError(
                f"GroupNorm: num_channels={num_channels} must be a multiple of "
                f"num_groups={num_groups}"
            )
        self.num_groups, self.num_channels = num_groups, num_channels
        self.eps, self.affine = eps, affine
        self.weight = self.bias = None
        if affine:
            self.weight = Parameter(ones(num_channels, dtype=dtype, device=device))
            if bias:
                self.bias = Parameter(zeros(num_channels, dtype=dtype, device=device))

    def forward(self, input: Tensor) -> Tensor:
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def describe(self) -> str:
        text = f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"
        return f"{text}, bias={self.bias is not None}"
