"""The layers of convolution: PyTorch's, with its parameter names and initial values.

In: Tensors (N, C, *S), or (C, *S). Out: the same. Called by models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from ..creation import zeros
from ..errors import ShapeError, UserError
from ..rules import whole
from ..tensor import Tensor
from . import functional as F  # noqa: N812
from . import init
from .convolution import each, padding_widths
from .module import Module, Parameter

_MODES = ("zeros", "reflect", "replicate", "circular")


class _Convolution(Module):
    """What the four have in common: weight and bias, which start uniform in +-1/sqrt(fan in)."""

    places: ClassVar[int]  # axes that windows move along
    backwards: ClassVar[bool] = False
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]
    output_padding: tuple[int, ...]

    def _set_up(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        output_padding: Any,
        groups: int,
        bias: bool,
        dilation: Any,
        padding_mode: str,
        device: str | None,
        dtype: Any,
    ) -> None:
        name, n = type(self).__name__, self.places
        self.in_channels, self.out_channels = in_channels, out_channels
        self.groups = whole(f"{name}: groups", groups)
        if groups < 1 or in_channels % groups or out_channels % groups or out_channels < 1:
            raise ShapeError(
                f"{name}: in_channels={in_channels} and out_channels={out_channels} must be "
                f"multiples of groups={groups}"
            )
        if padding_mode not in _MODES or (self.backwards and padding_mode != "zeros"):
            known = "zeros" if self.backwards else ", ".join(_MODES)
            raise UserError(f"{name}: padding_mode={padding_mode!r} is not supported: {known}")
        self.padding_mode = padding_mode
        self.kernel_size = each(f"{name}: kernel_size", kernel_size, n, least=1)
        self.stride = each(f"{name}: stride", stride, n, least=1)
        self.dilation = each(f"{name}: dilation", dilation, n, least=1)
        self.output_padding = each(f"{name}: output_padding", output_padding, n)
        if isinstance(padding, str) and not self.backwards:
            padding_widths(name, padding, self.kernel_size, self.stride, self.dilation)
            self.padding = padding
        else:
            self.padding = each(f"{name}: padding", padding, n)
        first, second = in_channels, out_channels
        if not self.backwards:
            first, second = second, first
        shape = (first, second // groups, *self.kernel_size)
        self.weight = Parameter(zeros(*shape, dtype=dtype, device=device))
        fan_in = math.prod(shape[1:])
        bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
        init.uniform_(self.weight, -bound, bound)
        self.bias: Parameter | None = None
        if bias:
            self.bias = Parameter(zeros(out_channels, dtype=dtype, device=device))
            init.uniform_(self.bias, -bound, bound)

    def describe(self) -> str:
        n = self.places
        text = f"{self.in_channels}, {self.out_channels}"
        text += f", kernel_size={self.kernel_size}, stride={self.stride}"
        for name, plain in (("padding", 0), ("dilation", 1), ("output_padding", 0)):
            value = getattr(self, name)
            text += "" if value == (plain,) * n else f", {name}={value!r}"
        text += "" if self.groups == 1 else f", groups={self.groups}"
        text += "" if self.bias is not None else ", bias=False"
        mode = self.padding_mode
        return text if mode == "zeros" else f"{text}, padding_mode={mode!r}"


class _Forwards(_Convolution):
    _function: ClassVar[Callable[..., Tensor]]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        moves = (kernel_size, stride, padding, 0, groups, bias, dilation)
        self._set_up(in_channels, out_channels, *moves, padding_mode, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            sizes = (self.kernel_size, self.stride, self.dilation)
            widths = padding_widths(type(self).__name__, padding, *sizes)
            border = [w for pair in reversed(widths) for w in pair]
            input, padding = F.pad(input, border, self.padding_mode), 0
        run = type(self)._function
        return run(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class Conv1d(_Forwards):
    """input (N, C, L) -> (N, out_channels, L'); see F.conv1d. weight (out_channels, C / groups,
    kernel_size), bias (out_channels,). padding_mode: what stands in the border, as of F.pad."""

    places = 1
    _function = staticmethod(F.conv1d)


class Conv2d(_Forwards):
    """input (N, C, H, W) -> (N, out_channels, H', W'); see F.conv2d. weight (out_channels,
    C / groups, *kernel_size), bias (out_channels,). padding_mode: what stands in the border, as of
    F.pad."""

    places = 2
    _function = staticmethod(F.conv2d)


class _Backwards(_Convolution):
    backwards = True
    _function: ClassVar[Callable[..., Tensor]]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        moves = (kernel_size, stride, padding, output_padding, groups, bias, dilation)
        self._set_up(in_channels, out_channels, *moves, padding_mode, device, dtype)

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        more = self.output_padding if output_size is None else self._missing(input, output_size)
        moves = (self.stride, self.padding, more, self.groups, self.dilation)
        return type(self)._function(input, self.weight, self.bias, *moves)

    def _missing(self, input: Tensor, output_size: Sequence[int]) -> tuple[int, ...]:
        """The output padding that gives a size."""
        name, n = type(self).__name__, self.places
        sizes, wanted = input.shape[-n:], tuple(output_size)[-n:]
        assert not isinstance(self.padding, str)
        least = tuple(
            (m - 1) * s - 2 * p + d * (k - 1) + 1
            for m, s, p, d, k in zip(
                sizes, self.stride, self.padding, self.dilation, self.kernel_size, strict=True
            )
        )
        found = tuple(w - m for w, m in zip(wanted, least, strict=False))
        if len(output_size) not in (n, input.ndim) or any(
            not 0 <= f < s for f, s in zip(found, self.stride, strict=True)
        ):
            most = tuple(m + s - 1 for m, s in zip(least, self.stride, strict=True))
            raise ShapeError(
                f"{name}: output_size={tuple(output_size)} must end in {n} sizes from {least} to "
                f"{most}"
            )
        return found


class ConvTranspose1d(_Backwards):
    """input (N, C, L) -> (N, out_channels, L'); see F.conv_transpose1d. weight (C,
    out_channels / groups, kernel_size), bias (out_channels,). output_size of a call: the L' that is
    wanted, of those that differ by output_padding."""

    places = 1
    _function = staticmethod(F.conv_transpose1d)


class ConvTranspose2d(_Backwards):
    """input (N, C, H, W) -> (N, out_channels, H', W'); see F.conv_transpose2d. weight (C,
    out_channels / groups, *kernel_size), bias (out_channels,). output_size: as of
    ConvTranspose1d."""

    places = 2
    _function = staticmethod(F.conv_transpose2d)
