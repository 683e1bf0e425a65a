"""The rows of the op table for elementwise ops; op_table.py puts them with the others."""

from __future__ import annotations

import math

import numpy as np
import op_reference as ref
from op_case import (
    INTS,
    Bad,
    OpCase,
    apart,
    bools,
    ints,
    nonzero,
    normal,
    positive,
    ratio,
    share,
    small,
)
from op_rows import binary, float_only, no_bools, unary, whole

import tinygrad_tx as tx


def small_angle(*shape: int) -> np.ndarray:
    return normal(*shape) * 0.4  # away from the poles of tan


MAPS = [
    *binary("add", np.add, bad=(no_bools("add"),)),
    *whole("add", np.add, small, small),
    *binary("sub", np.subtract, bad=(no_bools("sub"),)),
    *whole("sub", np.subtract, small, small),
    *binary("mul", np.multiply, bad=(no_bools("mul"),)),
    *whole("mul", np.multiply, small, small),
    *binary("div", np.divide, (normal, positive), bad=(float_only("div"),)),
    *binary("pow", np.power, (positive, normal), bad=(no_bools("pow"),), scale=4),
    *whole("pow", np.power, small, lambda *s: ints(0, 4, *s)),
    *binary("floor_divide", np.floor_divide, (apart, ratio)),
    *whole("floor_divide", np.floor_divide, small, nonzero),
    *binary("remainder", np.remainder, (apart, ratio), scale=20),
    *whole("remainder", np.remainder, small, nonzero),
    *binary("binary_cross_entropy", ref.binary_cross_entropy, (share, share), scale=4),
    *unary("neg", np.negative, bad=(no_bools("neg", 1),)),
    *unary("copy", lambda x: x, bad=()),
    *whole("copy", lambda x: x, small),
    *unary("exp", np.exp),
    *unary("log", np.log, positive),
    *unary("log2", np.log2, positive),
    *unary("log10", np.log10, positive),
    *unary("log1p", np.log1p, positive),
    *unary("expm1", np.expm1),
    *unary("sqrt", np.sqrt, positive),
    *unary("rsqrt", lambda x: 1 / np.sqrt(x), positive),
    *unary("sin", np.sin),
    *unary("cos", np.cos),
    *unary("tan", np.tan, small_angle, scale=4),
    *unary("sinh", np.sinh, scale=4),
    *unary("cosh", np.cosh, scale=4),
    *binary("atan2", np.arctan2, (apart, apart), bad=(float_only("atan2"),)),
    *unary("tanh", np.tanh),
    *unary("erf", ref.erf),
    *unary("sigmoid", ref.sigmoid),
    *unary("log_sigmoid", lambda x: -np.logaddexp(0, -x)),
    *unary("relu", lambda x: np.maximum(x, 0), apart, bad=(no_bools("relu", 1),)),
    *unary("silu", lambda x: x * ref.sigmoid(x)),
    *unary("gelu", lambda x: 0.5 * x * (1 + ref.erf(x / math.sqrt(2)))),
    *unary("gelu_tanh", ref.gelu_tanh),
    *unary("leaky_relu", ref.leaky_relu, apart, attrs={"slope": 0.2}),
    *unary("elu", ref.elu, apart, attrs={"alpha": 1.5}),
    *unary("softplus", ref.softplus, apart, attrs={"beta": 2.0, "threshold": 3.0}),
    *unary("abs", np.abs, apart, bad=(no_bools("abs", 1),)),
    *whole("abs", np.abs, small),
    *unary("sign", np.sign, apart, bad=(no_bools("sign", 1),)),
    *whole("sign", np.sign, small),
    *unary("floor", np.floor, apart),
    *unary("ceil", np.ceil, apart),
    *unary("trunc", np.trunc, apart),
    *unary("round", np.round, apart),
    *binary("maximum", np.maximum, (apart, lambda *s: apart(*s) + 0.1)),
    *whole("maximum", np.maximum, small, small),
    *binary("minimum", np.minimum, (apart, lambda *s: apart(*s) + 0.1)),
    *whole("minimum", np.minimum, small, small),
    *unary("clip", ref.clip, apart, attrs={"low": -1.0, "high": 2}, bad=(
        Bad((ints(0, 3, 2),), TypeError, "clip: the bound -1.0 for a Tensor of int64"),)),
    *unary("clip", ref.clip, apart, attrs={"low": None, "high": 0.5}, bad=(no_bools("clip", 1),)),
    *whole("clip", ref.clip, small, attrs={"low": -2, "high": None}),
    OpCase("where", (bools(3, 1), normal(4), normal(3, 4)), np.where, bad=(
        Bad((normal(2), normal(2), normal(2)), TypeError, "where: the condition must be bool"),
        Bad((bools(3), normal(2), normal(2)), ValueError, r"where: shapes \(3,\) and \(2,\)"))),
    OpCase("where", (bools(0, 2), normal(2), normal()), np.where),
    OpCase("where", (bools(2, 3), small(2, 3), small(3)), np.where, dtypes=INTS, grad=False),
    OpCase("cast", (normal(2, 3) * 9,), lambda x, dtype: x.astype(np.int64),
           {"dtype": tx.int64}, "to int", result="int64", grad=False),
    OpCase("cast", (normal(2, 3),), lambda x, dtype: x, {"dtype": tx.float64}, "to double",
           result="float64"),
    OpCase("cast", (small(2, 3),), lambda x, dtype: x != 0, {"dtype": tx.bool_}, "to bool",
           dtypes=INTS, result="bool", grad=False),
]  # fmt: skip

for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    _numpy = {"eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal",
              "gt": "greater", "ge": "greater_equal"}[_name]  # fmt: skip
    MAPS += binary(_name, getattr(np, _numpy), result="bool", grad=False)
    MAPS += whole(_name, getattr(np, _numpy), small, small, result="bool")
for _name in ("and", "or", "xor"):
    MAPS += binary(_name, getattr(np, f"logical_{_name}"), (bools, bools), dtypes=("float64",),
                   result="bool", grad=False, bad=(
        Bad((normal(2), normal(2)), TypeError, f"{_name} needs bools or integers"),))  # fmt: skip
    MAPS += whole(_name, getattr(np, f"bitwise_{_name}"), small, small)
MAPS.append(OpCase("not", (bools(2, 3),), np.logical_not, dtypes=("float64",), result="bool",
    grad=False, bad=(Bad((normal(2),), TypeError, "not needs bools or integers"),)))  # fmt: skip
MAPS += whole("not", np.bitwise_not, small)
for _name in ("isnan", "isinf", "isfinite"):
    MAPS += unary(_name, getattr(np, _name), result="bool", grad=False)
