"""Elementwise ops: inputs broadcast against each other, as in NumPy.

Their forwards use operators and `xp` functions only: the compiler calls the same functions with an
expression builder as `xp`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from ..dtypes import bool_, require_fit
from ..errors import DTypeError
from ..node import Node
from ..op import Op
from ..rules import Spec, broadcast_shape, numeric, require_floating
from .create import zeros_like


def _compares(op: Op, *nodes: Node) -> Spec:
    return Spec(broadcast_shape(op.name, *(n.shape for n in nodes)), bool_)


def _logical(op: Op, *nodes: Node) -> Spec:
    """Of bools, or of the bits of integers."""
    dtype = nodes[-1].dtype
    if dtype.kind == "f":
        raise DTypeError(f"{op.name} needs bools or integers, not {dtype.name}: compare first")
    return numeric(op, *nodes)


def _arithmetic(op: Op, *nodes: Node, **attrs: object) -> Spec:
    if nodes[-1].dtype == bool_:
        raise DTypeError(f"{op.name} needs numbers, not bool: use .float() or .int() first")
    return numeric(op, *nodes)


def _chooses(op: Op, condition: Node, x: Node, other: Node) -> Spec:
    if condition.dtype != bool_:
        raise DTypeError(
            f"where: the condition must be bool, not {condition.dtype.name}: compare it first"
        )
    return numeric(op, condition, x, other)


def _tests(op: Op, x: Node) -> Spec:
    require_floating(op, x)
    return Spec(x.shape, bool_)


# Arithmetic ----------------------------------------------------------------------------------
# An expensive gradient is given as a function: autograd calls it only where it is wanted.

ADD = Op("add", kind="map", rule=_arithmetic, forward=lambda xp, a, b: a + b,
         vjp=lambda g, y, a, b: (g, g))  # fmt: skip
SUB = Op("sub", kind="map", rule=_arithmetic, forward=lambda xp, a, b: a - b,
         vjp=lambda g, y, a, b: (g, lambda: -g))  # fmt: skip
MUL = Op("mul", kind="map", rule=_arithmetic, forward=lambda xp, a, b: a * b,
         vjp=lambda g, y, a, b: (lambda: g * b, lambda: g * a))  # fmt: skip
DIV = Op("div", kind="map", forward=lambda xp, a, b: a / b,
         vjp=lambda g, y, a, b: (lambda: g / b, lambda: -g * y / b))  # fmt: skip
NEG = Op("neg", kind="map", rule=_arithmetic, forward=lambda xp, x: -x,
         vjp=lambda g, y, x: (-g,))  # fmt: skip


def _at_zero(x: Any, p: Any) -> Any:
    return AND(x == 0, p >= 0)


POW: Op = Op(
    "pow",
    kind="map",
    rule=_arithmetic,
    forward=lambda xp, x, p: xp.power(x, p),
    # At x = 0 the derivative by p >= 0 is 0 (the limit for p > 0), not 0 * log 0.
    vjp=lambda g, y, x, p: (
        lambda: g * WHERE(p == 0, 0, p * POW(x, p - 1)),
        lambda: g * WHERE(_at_zero(x, p), 0, y * LOG(WHERE(_at_zero(x, p), 1, x))),
    ),
    autocast="float32",
)
FLOOR_DIV = Op("floor_divide", kind="map", rule=_arithmetic,
               forward=lambda xp, a, b: xp.floor_divide(a, b),
               vjp=lambda g, y, a, b: (lambda: zeros_like(a), lambda: zeros_like(b)))  # fmt: skip
REMAINDER = Op("remainder", kind="map", rule=_arithmetic,
               forward=lambda xp, a, b: xp.remainder(a, b),
               vjp=lambda g, y, a, b: (g, lambda: -g * FLOOR_DIV(a, b)))  # fmt: skip
COPY = Op("copy", kind="map", rule=numeric, forward=lambda xp, x: x,
          vjp=lambda g, y, x: (g,))  # fmt: skip

# Exponentials and roots ------------------------------------------------------------------------

EXP = Op(
    "exp",
    kind="map",
    forward=lambda xp, x: xp.exp(x),
    vjp=lambda g, y, x: (g * y,),
    autocast="float32",
)
LOG: Op = Op(
    "log",
    kind="map",
    forward=lambda xp, x: xp.log(x),
    vjp=lambda g, y, x: (g / x,),
    autocast="float32",
)
LOG2 = Op("log2", kind="map", forward=lambda xp, x: xp.log2(x),
          vjp=lambda g, y, x: (g / (x * math.log(2)),), autocast="float32")  # fmt: skip
LOG10 = Op("log10", kind="map", forward=lambda xp, x: xp.log10(x),
           vjp=lambda g, y, x: (g / (x * math.log(10)),), autocast="float32")  # fmt: skip
LOG1P = Op("log1p", kind="map", forward=lambda xp, x: xp.log1p(x),
           vjp=lambda g, y, x: (g / (1 + x),), autocast="float32")  # fmt: skip
EXPM1 = Op("expm1", kind="map", forward=lambda xp, x: xp.expm1(x),
           vjp=lambda g, y, x: (g * (y + 1),), autocast="float32")  # fmt: skip
SQRT = Op("sqrt", kind="map", forward=lambda xp, x: xp.sqrt(x),
          vjp=lambda g, y, x: (g * 0.5 / y,))  # fmt: skip
RSQRT = Op("rsqrt", kind="map", forward=lambda xp, x: 1 / xp.sqrt(x),
           vjp=lambda g, y, x: (g * -0.5 * y / x,), autocast="float32")  # fmt: skip
SIN = Op("sin", kind="map", forward=lambda xp, x: xp.sin(x), vjp=lambda g, y, x: (g * COS(x),))
COS: Op = Op("cos", kind="map", forward=lambda xp, x: xp.cos(x), vjp=lambda g, y, x: (-g * SIN(x),))
TAN = Op("tan", kind="map", forward=lambda xp, x: xp.tan(x),
         vjp=lambda g, y, x: (g * (1 + y * y),), autocast="float32")  # fmt: skip
SINH = Op("sinh", kind="map", forward=lambda xp, x: xp.sinh(x),
          vjp=lambda g, y, x: (g * COSH(x),), autocast="float32")  # fmt: skip
COSH: Op = Op("cosh", kind="map", forward=lambda xp, x: xp.cosh(x),
              vjp=lambda g, y, x: (g * SINH(x),), autocast="float32")  # fmt: skip
TANH = Op("tanh", kind="map", forward=lambda xp, x: xp.tanh(x),
          vjp=lambda g, y, x: (g * (1 - y * y),))  # fmt: skip
ERF = Op("erf", kind="map", forward=lambda xp, x: xp.erf(x),
         vjp=lambda g, y, x: (g * (2 / math.sqrt(math.pi)) * EXP(-x * x),))  # fmt: skip


def _atan2_vjp(g: Any, y: Any, a: Any, b: Any) -> tuple[Any, ...]:
    square = a * a + b * b
    share = g / WHERE(square == 0, 1, square)  # at the origin, which has no angle, 0
    return (lambda: share * b, lambda: -share * a)


ATAN2 = Op("atan2", kind="map", forward=lambda xp, a, b: xp.arctan2(a, b), vjp=_atan2_vjp)


def _sigmoid(xp: Any, x: Any) -> Any:
    e = xp.exp(-xp.abs(x))  # at most 1: no overflow, and no cancellation for negative x
    return xp.where(x >= 0, 1, e) / (1 + e)


SIGMOID = Op("sigmoid", kind="map", forward=_sigmoid, vjp=lambda g, y, x: (g * y * (1 - y),))

# Whole, because the derivatives of its parts are wrong at 0.
LOG_SIGMOID = Op("log_sigmoid", kind="map",
                 forward=lambda xp, x: xp.minimum(x, 0) - xp.log1p(xp.exp(-xp.abs(x))),
                 vjp=lambda g, y, x: (g * SIGMOID(-x),))  # fmt: skip

# Activations -----------------------------------------------------------------------------------

# Its gradient reads the result, so that a compiled step need not keep the input.
RELU = Op("relu", kind="map", rule=_arithmetic, forward=lambda xp, x: xp.maximum(x, 0),
          vjp=lambda g, y, x: (WHERE(y <= 0, 0, g),))  # fmt: skip


def _silu_vjp(g: Any, y: Any, x: Any) -> tuple[Any]:
    s = SIGMOID(x)
    return (g * s * (1 + x * (1 - s)),)


SILU = Op("silu", kind="map", forward=lambda xp, x: x * _sigmoid(xp, x), vjp=_silu_vjp)

_SQRT_HALF = math.sqrt(0.5)
_SQRT_2_PI = math.sqrt(2 / math.pi)
_CUBIC = 0.044715


def _gelu_vjp(g: Any, y: Any, x: Any) -> tuple[Any]:
    density = EXP(-0.5 * x * x) * (_SQRT_2_PI / 2)
    return (g * (0.5 * (1 + ERF(x * _SQRT_HALF)) + x * density),)


def _gelu_tanh_vjp(g: Any, y: Any, x: Any) -> tuple[Any]:
    t = TANH(_SQRT_2_PI * (x + _CUBIC * x * x * x))
    slope = _SQRT_2_PI * (1 + 3 * _CUBIC * x * x)
    return (g * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * slope),)


GELU = Op(
    "gelu",
    kind="map",
    forward=lambda xp, x: 0.5 * x * (1 + xp.erf(x * _SQRT_HALF)),
    vjp=_gelu_vjp,
)
GELU_TANH = Op(
    "gelu_tanh",
    kind="map",
    forward=lambda xp, x: 0.5 * x * (1 + xp.tanh(_SQRT_2_PI * (x + _CUBIC * x * x * x))),
    vjp=_gelu_tanh_vjp,
)

LEAKY_RELU = Op(
    "leaky_relu",
    kind="map",
    forward=lambda xp, x, slope: xp.where(x > 0, x, x * slope),
    vjp=lambda g, y, x, slope: (WHERE(x > 0, g, g * slope),),
)
ELU = Op(
    "elu",
    kind="map",
    forward=lambda xp, x, alpha: xp.where(x > 0, x, alpha * xp.expm1(xp.minimum(x, 0))),
    vjp=lambda g, y, x, alpha: (WHERE(x > 0, g, g * alpha * EXP(WHERE(x > 0, 0, x))),),
)


def _softplus(xp: Any, x: Any, beta: float, threshold: float) -> Any:
    z = x * beta
    soft = (xp.maximum(z, 0) + xp.log1p(xp.exp(-xp.abs(z)))) / beta
    return xp.where(z > threshold, x, soft)


def _softplus_vjp(g: Any, y: Any, x: Any, beta: float, threshold: float) -> tuple[Any]:
    z = x * beta
    return (WHERE(z > threshold, g, g * SIGMOID(z)),)


SOFTPLUS = Op("softplus", kind="map", forward=_softplus, vjp=_softplus_vjp, autocast="float32")

# Choice and order ------------------------------------------------------------------------------

WHERE: Op = Op("where", kind="map", rule=_chooses, promote=(1, 2),
           forward=lambda xp, c, x, o: xp.where(c, x, o),
           vjp=lambda g, y, c, x, o: (
               None, lambda: WHERE(c, g, 0), lambda: WHERE(c, 0, g)))  # fmt: skip
ABS = Op("abs", kind="map", rule=_arithmetic, forward=lambda xp, x: xp.abs(x),
         vjp=lambda g, y, x: (g * SIGN(x),))  # fmt: skip
SIGN: Op = Op("sign", kind="map", rule=_arithmetic, forward=lambda xp, x: xp.sign(x),
          vjp=lambda g, y, x: (lambda: zeros_like(x),))  # fmt: skip
FLOOR = Op("floor", kind="map", forward=lambda xp, x: xp.floor(x),
           vjp=lambda g, y, x: (lambda: zeros_like(x),))  # fmt: skip
CEIL = Op("ceil", kind="map", forward=lambda xp, x: xp.ceil(x),
          vjp=lambda g, y, x: (lambda: zeros_like(x),))  # fmt: skip
TRUNC = Op("trunc", kind="map", forward=lambda xp, x: xp.trunc(x),
           vjp=lambda g, y, x: (lambda: zeros_like(x),))  # fmt: skip
ROUND = Op("round", kind="map", forward=lambda xp, x: xp.rint(x),
           vjp=lambda g, y, x: (lambda: zeros_like(x),))  # fmt: skip


def _wins(a: Any, b: Any) -> Any:
    """1 where a is larger, a half where both are equal: a tie shares the gradient. Where one is NaN
    each has it all, as in PyTorch: the result depends on both, and a 0 would hide that."""
    return WHERE(a < b, 0.0, WHERE(a == b, 0.5, 1.0)).to(a.dtype)


MAXIMUM = Op("maximum", kind="map", rule=numeric, forward=lambda xp, a, b: xp.maximum(a, b),
             vjp=lambda g, y, a, b: (lambda: g * _wins(a, b), lambda: g * _wins(b, a)))  # fmt: skip
MINIMUM: Op = Op("minimum", kind="map", rule=numeric, forward=lambda xp, a, b: xp.minimum(a, b),
             vjp=lambda g, y, a, b: (lambda: g * _wins(b, a), lambda: g * _wins(a, b)))  # fmt: skip


def _clips(op: Op, x: Node, low: Any, high: Any) -> Spec:
    spec = _arithmetic(op, x)
    for bound in (low, high):
        if isinstance(bound, float) and x.dtype.kind != "f":
            raise DTypeError(f"clip: the bound {bound} for a Tensor of {x.dtype.name}; use an int")
        if bound is not None and x.dtype.kind == "i":
            require_fit(bound, x.dtype)
    return spec


def _clip(xp: Any, x: Any, low: Any, high: Any) -> Any:
    x = x if low is None else xp.maximum(x, low)
    return x if high is None else xp.minimum(x, high)


def _clip_vjp(g: Any, y: Any, x: Any, low: Any, high: Any) -> tuple[Any]:
    if low is not None:
        g = WHERE(x >= low, g, 0)
    return (g if high is None else WHERE(x <= high, g, 0),)


CLIP = Op("clip", kind="map", rule=_clips, forward=_clip, vjp=_clip_vjp)

# Comparisons and logic -------------------------------------------------------------------------


def _comparison(
    name: str, holds: Callable[[Any, Any], Any], turned: Callable[[Any, Any], Any]
) -> Op:
    """holds(a, b), which is turned(b, a). A constant is NumPy's on every device, and NumPy's
    comparisons, where it is on their left, take no array of CuPy's: it goes to the right."""

    def forward(xp: Any, a: Any, b: Any) -> Any:
        return turned(b, a) if isinstance(a, np.generic) else holds(a, b)

    return Op(name, kind="map", rule=_compares, forward=forward)


EQ = _comparison("eq", operator.eq, operator.eq)
NE = _comparison("ne", operator.ne, operator.ne)
LT = _comparison("lt", operator.lt, operator.gt)
LE = _comparison("le", operator.le, operator.ge)
GT = _comparison("gt", operator.gt, operator.lt)
GE = _comparison("ge", operator.ge, operator.le)
AND = Op("and", kind="map", rule=_logical, forward=lambda xp, a, b: a & b)
OR = Op("or", kind="map", rule=_logical, forward=lambda xp, a, b: a | b)
XOR = Op("xor", kind="map", rule=_logical, forward=lambda xp, a, b: a ^ b)
NOT = Op("not", kind="map", rule=_logical, forward=lambda xp, x: ~x)
ISNAN = Op("isnan", kind="map", rule=_tests, forward=lambda xp, x: xp.isnan(x))
ISINF = Op("isinf", kind="map", rule=_tests, forward=lambda xp, x: xp.isinf(x))
ISFINITE = Op("isfinite", kind="map", rule=_tests, forward=lambda xp, x: xp.isfinite(x))
