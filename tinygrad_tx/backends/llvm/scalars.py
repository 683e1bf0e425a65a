"""The functions of SCALARS as LLVM IR, on vectors and on scalars, with NumPy's semantics.

In: a Builder, an Instr and the Values of its arguments, all of one number of lanes. Out: its Value.
Called by llvm/operands.py and cpu/rows/, which deal with loads, reductions and positions
themselves, and by cpu/small.py.

In registers a bool is i1; in memory it is one byte, 0 or 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ...dtypes import ALL
from ..kernels.instructions import Instr
from . import elementary, half, ir, libm
from .elementary import like
from .ir import Builder, Value

HALVES = frozenset(name for name, dtype in ALL.items() if dtype.is_half)
_FLOAT = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}
_SIGNED = {"eq": "eq", "ne": "ne", "lt": "slt", "le": "sle", "gt": "sgt", "ge": "sge"}
_UNSIGNED = {"eq": "eq", "ne": "ne", "lt": "ult", "le": "ule", "gt": "ugt", "ge": "uge"}  # of bools


def register(dtype: str) -> str:
    """The LLVM type of a dtype's element in a register."""
    return ALL[dtype].register


def memory(dtype: str) -> str:
    """The LLVM type of a dtype's element in memory."""
    return ALL[dtype].memory


def from_memory(b: Builder, x: Value, dtype: str) -> Value:
    return b.compare("ne", x, like(x, 0)) if dtype == "bool" else x


def to_memory(b: Builder, x: Value) -> Value:
    return b.convert("zext", x, "i8") if x.element == "i1" else x


def constant(dtype: str, value: float, lanes: int = 1) -> Value:
    """A Python number as a constant; where it is too large for the dtype, an infinity."""
    if ALL[dtype].is_half:
        bits = np.asarray(value).astype(ALL[dtype].np).view(np.uint16)
        return like(Value(ir.vector(lanes, register(dtype)), ""), int(bits))
    place = Value(ir.vector(lanes, register(dtype)), "")
    try:
        return like(place, value)
    except OverflowError:
        return like(place, math.copysign(math.inf, value))


def scalar(b: Builder, instr: Instr, args: list[Value], dtypes: Sequence[str]) -> Value:
    """The value of a cast or of one of SCALARS. dtypes: of the arguments."""
    op = instr.op
    if op == "cast":
        return cast(b, args[0], instr.dtype, dtypes[0])
    if op in _SIGNED:
        return _compare(b, op, *args)
    return _FUNCTIONS[op](b, *args)


def cast(b: Builder, x: Value, dtype: str, source: str = "") -> Value:
    """As Backend.cast. source: the dtype of x, where it has 16 bits."""
    if dtype == source:
        return x
    if source in HALVES:
        return cast(b, half.widened(b, x, source), dtype)
    if dtype in HALVES:
        if x.element == "double" and dtype == "float16":
            return half.narrowed(b, half.to_odd(b, x), dtype)
        return half.narrowed(b, cast(b, x, "float32"), dtype)
    to = register(dtype)
    if x.element == to:
        return x
    goal = Value(ir.vector(x.lanes, to), "")
    if to == "i1":
        return _compare(b, "ne", x, like(x, 0))
    if x.element == "i1":
        return b.select(x, like(goal, 1), like(goal, 0))
    if x.is_float and goal.is_float:
        return b.convert("fpext" if to == "double" else "fptrunc", x, to)
    if x.is_float:  # saturating: a plain fptosi of what does not fit may be anything
        name = f"llvm.fptosi.sat.{ir.suffix(goal.type)}.{ir.suffix(x.type)}"
        return b.call(name, goal.type, x)
    if goal.is_float:
        return b.convert("sitofp", x, to)
    return b.convert("sext" if to == "i64" else "trunc", x, to)


def maximum(b: Builder, x: Value, y: Value) -> Value:
    return _extreme(b, "gt", "or", x, y)


def minimum(b: Builder, x: Value, y: Value) -> Value:
    return _extreme(b, "lt", "and", x, y)


def is_nan(b: Builder, x: Value) -> Value:
    return b.compare("uno", x, x) if x.is_float else _flags(x, False)


def _extreme(b: Builder, wins: str, of_bools: str, x: Value, y: Value) -> Value:
    """Compare and select: NaN wins."""
    if x.element == "i1":
        return b.binary(of_bools, x, y)
    found = b.select(_compare(b, wins, x, y), x, y)  # y where either is NaN
    return b.select(is_nan(b, x), x, found) if x.is_float else found


def _compare(b: Builder, op: str, x: Value, y: Value) -> Value:
    kinds = _FLOAT if x.is_float else _UNSIGNED if x.element == "i1" else _SIGNED
    return b.compare(kinds[op], x, y)


def _flags(x: Value, value: bool) -> Value:
    return like(Value(ir.vector(x.lanes, "i1"), ""), value)


def _arithmetic(
    of_numbers: Callable[[Builder, Value, Value], Value], of_bools: str
) -> Callable[[Builder, Value, Value], Value]:
    def apply(b: Builder, x: Value, y: Value) -> Value:
        return b.binary(of_bools, x, y) if x.element == "i1" else of_numbers(b, x, y)

    return apply


def _divide(b: Builder, x: Value, y: Value) -> Value:
    return b.binary("fdiv", x, y) if x.is_float else _floor_divide(b, x, y)


def _negative(b: Builder, x: Value) -> Value:
    return b.emit(x.type, f"fneg {x.type} {x.name}") if x.is_float else b.sub(like(x, 0), x)


def _absolute(b: Builder, x: Value) -> Value:
    if x.is_float:
        return b.intrinsic("fabs", x.type, x)
    if x.element == "i1":
        return x
    return b.select(b.compare("slt", x, like(x, 0)), _negative(b, x), x)


def _sign(b: Builder, x: Value) -> Value:
    zero, one, minus = like(x, 0), like(x, 1), like(x, -1)
    rest = b.select(is_nan(b, x), x, zero) if x.is_float else zero
    rest = b.select(_compare(b, "lt", x, zero), minus, rest)
    return b.select(_compare(b, "gt", x, zero), one, rest)


def _whole(name: str) -> Callable[[Builder, Value], Value]:
    """floor, ceil, trunc and rint, which leave integers as they are."""
    return lambda b, x: b.intrinsic(name, x.type, x) if x.is_float else x


def _libm(name: str) -> Callable[..., Value]:
    return lambda b, *xs: libm.call(b, name, *xs)


def _floor_divide(b: Builder, x: Value, y: Value) -> Value:
    return _float_divmod(b, x, y)[0] if x.is_float else _int_divmod(b, x, y)[0]


def _remainder(b: Builder, x: Value, y: Value) -> Value:
    return _float_divmod(b, x, y)[1] if x.is_float else _int_divmod(b, x, y)[1]


def _float_divmod(b: Builder, x: Value, y: Value) -> tuple[Value, Value]:
    """NumPy's npy_divmod: the exact remainder first, so that both fit together."""
    zero, one = like(x, 0), like(x, 1)
    exact = libm.frem(b, x, y)
    quotient = b.binary("fdiv", b.sub(x, exact), y)
    apart = b.binary("xor", b.compare("olt", y, zero), b.compare("olt", exact, zero))
    inexact = b.compare("une", exact, zero)
    adjust = b.binary("and", inexact, apart)
    rest = b.select(adjust, b.add(exact, y), exact)
    rest = b.select(inexact, rest, b.intrinsic("copysign", x.type, zero, y))
    quotient = b.select(adjust, b.sub(quotient, one), quotient)
    floor = b.intrinsic("floor", x.type, quotient)
    high = b.compare("ogt", b.sub(quotient, floor), like(x, 0.5))
    whole = b.select(high, b.add(floor, one), floor)
    plain = b.binary("fdiv", x, y)
    nothing = b.intrinsic("copysign", x.type, zero, plain)
    whole = b.select(b.compare("une", quotient, zero), whole, nothing)
    by_zero = b.compare("oeq", y, zero)
    return b.select(by_zero, plain, whole), b.select(by_zero, exact, rest)


def _int_divmod(b: Builder, x: Value, y: Value) -> tuple[Value, Value]:
    """Rounded down; 0 and 0 where y is 0. sdiv itself may see neither 0 nor (least number) / -1."""
    zero = like(x, 0)
    by_zero, by_minus = b.compare("eq", y, zero), b.compare("eq", y, like(x, -1))
    safe = b.select(b.binary("or", by_zero, by_minus), like(x, 1), y)
    quotient = b.binary("sdiv", x, safe)
    rest = b.sub(x, b.mul(quotient, safe))
    apart = b.binary("xor", b.compare("slt", rest, zero), b.compare("slt", y, zero))
    adjust = b.binary("and", b.compare("ne", rest, zero), apart)
    quotient = b.select(adjust, b.sub(quotient, like(x, 1)), quotient)
    quotient = b.select(by_minus, b.sub(zero, x), quotient)
    return b.select(by_zero, zero, quotient), b.select(adjust, b.add(rest, y), rest)


def _power(b: Builder, x: Value, y: Value) -> Value:
    if not x.is_float:
        return _int_power(b, x, y)
    if y == like(x, 2):
        return b.mul(x, x)
    if y == like(x, 3):
        return b.mul(b.mul(x, x), x)
    return libm.call(b, "pow", x, y)


def _int_power(b: Builder, x: Value, y: Value) -> Value:
    """By squaring. For negative y, 1 / x^-y cut to an integer: 0 but for 1 and -1."""
    bits = ir.width(x.element) * 8 - 1
    one = like(x, 1)
    with b.loop(ir.integer(0), ir.integer(bits), ir.integer(1), [one, x, y]) as loop:
        result, square, left = loop.carried
        odd = b.compare("ne", b.binary("and", left, one), like(x, 0))
        result = b.select(odd, b.mul(result, square), result)
        loop.next = [result, b.mul(square, square), b.binary("lshr", left, one)]
    unit = b.binary("or", b.compare("eq", x, one), b.compare("eq", x, like(x, -1)))
    odd = b.compare("ne", b.binary("and", y, one), like(x, 0))
    cut = b.select(unit, b.select(odd, x, one), like(x, 0))
    return b.select(b.compare("slt", y, like(x, 0)), cut, loop.carried[0])


def _is_infinite(b: Builder, x: Value) -> Value:
    if not x.is_float:
        return _flags(x, False)
    return b.compare("oeq", _absolute(b, x), like(x, math.inf))


def _is_finite(b: Builder, x: Value) -> Value:
    if not x.is_float:
        return _flags(x, True)
    return b.compare("olt", _absolute(b, x), like(x, math.inf))


_FUNCTIONS: dict[str, Callable[..., Value]] = {
    "add": _arithmetic(Builder.add, "or"),
    "sub": _arithmetic(Builder.sub, "xor"),
    "mul": _arithmetic(Builder.mul, "and"),
    "div": _divide,
    "neg": _negative,
    "abs": _absolute,
    "sign": _sign,
    **{op: _whole(op) for op in ("floor", "ceil", "trunc")},
    "round": _whole("rint"),
    "sqrt": lambda b, x: b.intrinsic("sqrt", x.type, x),
    "exp": elementary.exp,
    "log": elementary.log,
    "log1p": elementary.log1p,
    "expm1": elementary.expm1,
    "tanh": elementary.tanh,
    "erf": elementary.erf,
    **{op: _libm(op) for op in ("sin", "cos", "tan", "sinh", "cosh", "atan2", "log2", "log10")},
    "pow": _power,
    "floor_divide": _floor_divide,
    "remainder": _remainder,
    "minimum": minimum,
    "maximum": maximum,
    "and": lambda b, x, y: b.binary("and", x, y),
    "or": lambda b, x, y: b.binary("or", x, y),
    "xor": lambda b, x, y: b.binary("xor", x, y),
    "not": lambda b, x: b.binary("xor", x, like(x, True if x.element == "i1" else -1)),
    "where": lambda b, condition, x, y: b.select(condition, x, y),
    "isnan": is_nan,
    "isinf": _is_infinite,
    "isfinite": _is_finite,
    "copy": lambda b, x: x,
}
