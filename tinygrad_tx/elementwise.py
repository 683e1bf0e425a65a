"""The functions of a Tensor element by element: one typed line each, PyTorch's names.

The second part of what methods.py puts together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import indexing, ops
from .arguments import shown
from .autocast import computed_in
from .dtypes import bool_
from .errors import DTypeError, UserError
from .node import Handle
from .operators import Operators, _t
from .rules import require_floating, whole

if TYPE_CHECKING:  # Tensor derives from what is here
    from .tensor import Tensor


class Elementwise(Operators):
    """Functions of a Tensor element by element."""

    __slots__ = ()

    # Operators under their names -----------------------------------------------------------------
    def add(self, other: Any, *, alpha: float = 1) -> Tensor:
        """self + alpha * other."""
        return _t(self + _scaled("add", self, other, alpha))

    def sub(self, other: Any, *, alpha: float = 1) -> Tensor:
        """self - alpha * other."""
        return _t(self - _scaled("sub", self, other, alpha))

    def mul(self, other: Any) -> Tensor:
        """self * other."""
        return _t(self * other)

    def div(self, other: Any, *, rounding_mode: str | None = None) -> Tensor:
        """self / other; rounding_mode "floor" rounds down, as //, "trunc" towards 0. Integers
        stay integers where there is one, and become float32 where there is none."""
        if rounding_mode is None:
            return _t(self / other)
        if rounding_mode == "floor":
            return _t(self // other)
        if rounding_mode == "trunc":
            return _truncated(_t(self), other)
        raise UserError(
            f'div: rounding_mode must be None, "trunc" or "floor", not {shown(rounding_mode)}'
        )

    def floor_divide(self, other: Any) -> Tensor:
        """self // other, rounded down; integers stay integers."""
        return _t(self // other)

    def remainder(self, other: Any) -> Tensor:
        """What self // other leaves, with the sign of other."""
        return _t(self % other)

    def neg(self) -> Tensor:
        """-self."""
        return _t(-self)

    def bitwise_and(self, other: Any) -> Tensor:
        """self & other: bit by bit, of integers and bools."""
        return _t(self & other)

    def bitwise_or(self, other: Any) -> Tensor:
        """self | other: bit by bit, of integers and bools."""
        return _t(self | other)

    def bitwise_xor(self, other: Any) -> Tensor:
        """self ^ other: bit by bit, of integers and bools."""
        return _t(self ^ other)

    def bitwise_not(self) -> Tensor:
        """~self: every bit the other one, of integers and bools."""
        return _t(~self)

    def logical_and(self, other: Any) -> Tensor:
        """True where both are not 0."""
        return _t(_truth(self) & _truth(other))

    def logical_or(self, other: Any) -> Tensor:
        """True where one of them is not 0."""
        return _t(_truth(self) | _truth(other))

    def logical_xor(self, other: Any) -> Tensor:
        """True where exactly one of them is not 0."""
        return _t(_truth(self) ^ _truth(other))

    def logical_not(self) -> Tensor:
        """True where self is 0."""
        return _t(~_truth(self))

    # Functions -----------------------------------------------------------------------------------
    def exp(self) -> Tensor:
        """e to the power of self."""
        return _t(ops.EXP(self))

    def log(self) -> Tensor:
        """The natural logarithm; NaN below 0, -inf at 0."""
        return _t(ops.LOG(self))

    def log2(self) -> Tensor:
        """The logarithm to base 2."""
        return _t(ops.LOG2(self))

    def log10(self) -> Tensor:
        """The logarithm to base 10."""
        return _t(ops.LOG10(self))

    def log1p(self) -> Tensor:
        """log(1 + self), exact near 0."""
        return _t(ops.LOG1P(self))

    def expm1(self) -> Tensor:
        """exp(self) - 1, exact near 0."""
        return _t(ops.EXPM1(self))

    def sqrt(self) -> Tensor:
        """The square root; NaN below 0."""
        return _t(ops.SQRT(self))

    def rsqrt(self) -> Tensor:
        """1 / sqrt(self)."""
        return _t(ops.RSQRT(self))

    def square(self) -> Tensor:
        """self * self."""
        return _t(self**2)

    @computed_in("float32")
    def reciprocal(self) -> Tensor:
        """1 / self."""
        return 1 / self

    def pow(self, exponent: Any) -> Tensor:
        """self ** exponent, a Tensor or a number."""
        return _t(self**exponent)

    def sin(self) -> Tensor:
        """The sine of an angle in radians."""
        return _t(ops.SIN(self))

    def cos(self) -> Tensor:
        """The cosine of an angle in radians."""
        return _t(ops.COS(self))

    def tan(self) -> Tensor:
        """The tangent of an angle in radians."""
        return _t(ops.TAN(self))

    def atan2(self, other: Any) -> Tensor:
        """The angle of the point (other, self) from the first axis, between -pi and pi."""
        return _t(ops.ATAN2(self, other))

    def sinh(self) -> Tensor:
        """The hyperbolic sine."""
        return _t(ops.SINH(self))

    def cosh(self) -> Tensor:
        """The hyperbolic cosine."""
        return _t(ops.COSH(self))

    def tanh(self) -> Tensor:
        """The hyperbolic tangent."""
        return _t(ops.TANH(self))

    def sigmoid(self) -> Tensor:
        """1 / (1 + exp(-self))."""
        return _t(ops.SIGMOID(self))

    def erf(self) -> Tensor:
        """The error function, 2 / sqrt(pi) times the integral of exp(-t * t) from 0 to self."""
        return _t(ops.ERF(self))

    def relu(self) -> Tensor:
        """max(self, 0)."""
        return _t(ops.RELU(self))

    def abs(self) -> Tensor:
        """Without its sign."""
        return _t(ops.ABS(self))

    def sign(self) -> Tensor:
        """-1, 0 or 1, as self is below, at or above 0."""
        return _t(ops.SIGN(self))

    def floor(self) -> Tensor:
        """The nearest whole number that is not above."""
        return _t(ops.FLOOR(self))

    def ceil(self) -> Tensor:
        """The nearest whole number that is not below."""
        return _t(ops.CEIL(self))

    def trunc(self) -> Tensor:
        """Without what is behind the point: rounded towards 0."""
        return _t(ops.TRUNC(self))

    def round(self, decimals: int = 0) -> Tensor:
        """To the nearest number of so many decimals; halves to the even one."""
        if not decimals:
            return _t(ops.ROUND(self))
        require_floating(ops.ROUND, _t(self).node)
        if abs(whole("round: decimals", decimals)) > 300:
            raise UserError(f"round: no dtype has {decimals} decimals")
        scale = 10.0 ** abs(decimals)
        if decimals > 0:
            return _t(ops.ROUND(self * scale) / scale)
        return _t(ops.ROUND(self / scale) * scale)

    def clip(self, min: Tensor | float | None = None, max: Tensor | float | None = None) -> Tensor:
        """Values outside [min, max] become the nearer bound; None is no bound. Bounds may be
        Tensors, which broadcast; a lower one above the upper one does not count."""
        if isinstance(min, Handle) or isinstance(max, Handle):
            return _between(_t(self), min, max)
        return _t(ops.CLIP(self, low=_number(min), high=_number(max)))

    clamp = clip

    def minimum(self, other: Any) -> Tensor:
        """The smaller of the two, element by element; NaN wins."""
        return _t(ops.MINIMUM(self, other))

    def maximum(self, other: Any) -> Tensor:
        """The larger of the two, element by element; NaN wins."""
        return _t(ops.MAXIMUM(self, other))

    def where(self, condition: Any, other: Any) -> Tensor:
        """self where condition is True, other elsewhere."""
        return _t(ops.WHERE(condition, self, other))

    def masked_fill(self, mask: Any, value: Any) -> Tensor:
        """value where mask is True, self elsewhere."""
        return _t(ops.WHERE(mask, indexing.converted(value, self), self))

    def isnan(self) -> Tensor:
        """True where it is NaN."""
        return _t(ops.ISNAN(self))

    def isinf(self) -> Tensor:
        """True where it is inf or -inf."""
        return _t(ops.ISINF(self))

    def isfinite(self) -> Tensor:
        """True where it is neither NaN nor infinite."""
        return _t(ops.ISFINITE(self))


def _number(value: Any) -> Any:
    """A limit of clip() as a Python number."""
    return value.item() if isinstance(value, np.generic) else value


def _between(x: Tensor, low: Any, high: Any) -> Tensor:
    """x within bounds of which one is a Tensor. A bound has the gradient where it is what counts,
    x where it is within them or on them; NaN wins."""
    if low is not None:
        x = x.where(_stays(ops.LT(x, low), low), low)
    return x if high is None else x.where(_stays(ops.GT(x, high), high), high)


def _stays(outside: Tensor, bound: Any) -> Tensor:
    """Where what is not outside stays, but for a bound that is NaN."""
    none = isinstance(bound, Operators) and bound.dtype.is_floating_point
    return ~(outside | bound.isnan()) if none else ~outside


def _truth(x: Any) -> Any:
    """True where x, a Tensor or a number, is not 0."""
    if not isinstance(x, Operators):
        return bool(x)
    return x if x.dtype == bool_ else x != 0


def _scaled(name: str, x: Operators, other: Any, alpha: float) -> Any:
    """alpha * other, for a sum with x."""
    if type(alpha) is int and alpha == 1:
        return other
    if isinstance(alpha, float):
        whole_numbers = all(
            t.dtype.kind != "f" if isinstance(t, Operators) else not isinstance(t, float)
            for t in (x, other)
        )
        if whole_numbers:
            raise DTypeError(f"{name}: alpha={alpha} of integers; use an int, or .float() first")
    return other * alpha


def _truncated(x: Tensor, other: Any) -> Tensor:
    """x / other rounded towards 0."""
    y, kind = other, x.dtype.kind
    if kind == "f" or (y.dtype.kind == "f" if isinstance(y, Operators) else isinstance(y, float)):
        return _t((x / y).trunc())
    quotient = x // y  # rounded down: one too few where the signs differ and something is left
    short = ((x % y) != 0) & ((x < 0) ^ (ops.LT(y, 0) if isinstance(y, Operators) else y < 0))
    return _t(quotient + short)
