"""Instructions of row programs: one table.

In: nothing. Out: Instr; SCALARS, the properties of each scalar function. Its readers are the
namespace in which forwards become instructions (compiler/fuse/symbolic.py), the interpreter, the
decisions whether a value is computed again (compiler/fuse/cost.py, llvm/loops.py), and the
tests, which hold the writers' functions to it (llvm/scalars.py).
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Instr:
    """One scalar operation. args: numbers of earlier instructions of the same program.

    op: "load" (value: number of the input), "gather" (value: number of the input; its argument is
    the row that is read), "const" (value: a Python number), "col" and "row" (int64: the column, the
    row counted over all outer axes), "cast" (as Backend.cast; value: a note of the compiler's, or
    None), a name from REDUCTIONS, or one from SCALARS. dtype: of the result. Arguments of
    arithmetic have the result's dtype (the first one of "where" is a bool), those of a comparison
    one common dtype.
    """

    op: str
    args: tuple[int, ...]
    dtype: str
    value: Any = None


REDUCTIONS = ("sum", "max", "min", "any", "all", "argmax", "argmin")


class Scalar(NamedTuple):
    """A scalar function.

    arity: the number of its arguments. xp: the same on arrays, with NumPy's meaning: an operator,
    or the name of a function of Backend, as forwards call it. dtype: of the result, where it is not
    that of the (last) arguments. jumps: True if a rounding error of its arguments may change it by
    much. cost: of computing it in a loop over columns, where an addition costs 1. stored: True if
    its result is rather stored for several readers than computed again by each. That is not `cost`
    beyond a limit: a square root costs a loop little, and to read a value is not much more.
    floating: True if it takes floating numbers alone; of integers, NumPy makes float64.
    """

    arity: int
    xp: Callable[..., Any] | str
    dtype: str = ""
    jumps: bool = False
    cost: int = 1
    stored: bool = False
    floating: bool = False


def _costly(arity: int, xp: str, floating: bool = True) -> Scalar:
    return Scalar(arity, xp, cost=20, stored=True, floating=floating)


def _asks(arity: int, xp: Callable[..., Any] | str) -> Scalar:
    return Scalar(arity, xp, dtype="bool", jumps=True)


SCALARS = {
    "copy": Scalar(1, lambda x: x),
    "add": Scalar(2, operator.add),
    "sub": Scalar(2, operator.sub),
    "mul": Scalar(2, operator.mul),
    "div": Scalar(2, operator.truediv, cost=4, floating=True),
    "neg": Scalar(1, operator.neg),
    "abs": Scalar(1, "abs"),
    "sign": Scalar(1, "sign", jumps=True),
    "floor": Scalar(1, "floor", jumps=True),
    "ceil": Scalar(1, "ceil", jumps=True),
    "trunc": Scalar(1, "trunc", jumps=True),
    "round": Scalar(1, "rint", jumps=True, floating=True),
    "sqrt": Scalar(1, "sqrt", cost=4, stored=True, floating=True),
    "exp": _costly(1, "exp"),
    "log": _costly(1, "log"),
    "log2": _costly(1, "log2"),
    "log10": _costly(1, "log10"),
    "log1p": _costly(1, "log1p"),
    "expm1": _costly(1, "expm1"),
    "tanh": _costly(1, "tanh"),
    "sin": _costly(1, "sin"),
    "cos": _costly(1, "cos"),
    "tan": _costly(1, "tan"),
    "sinh": _costly(1, "sinh"),
    "cosh": _costly(1, "cosh"),
    "atan2": _costly(2, "arctan2"),
    "erf": _costly(1, "erf"),
    "pow": _costly(2, "power", floating=False),
    "floor_divide": Scalar(2, "floor_divide", jumps=True, cost=20),
    "remainder": Scalar(2, "remainder", jumps=True, cost=20),
    "minimum": Scalar(2, "minimum"),  # NaN wins, as in NumPy
    "maximum": Scalar(2, "maximum"),
    "eq": _asks(2, operator.eq),
    "ne": _asks(2, operator.ne),
    "lt": _asks(2, operator.lt),
    "le": _asks(2, operator.le),
    "gt": _asks(2, operator.gt),
    "ge": _asks(2, operator.ge),
    "and": Scalar(2, operator.and_),  # of bools, and of the bits of integers
    "or": Scalar(2, operator.or_),
    "xor": Scalar(2, operator.xor),
    "not": Scalar(1, operator.invert, jumps=True),
    "where": Scalar(3, "where"),
    "isnan": _asks(1, "isnan")._replace(floating=True),
    "isinf": _asks(1, "isinf")._replace(floating=True),
    "isfinite": _asks(1, "isfinite")._replace(floating=True),
}

_READS = {"gather": 20, "const": 0}


def cost(op: str) -> int:
    """The cost of an instruction in a loop over columns; of an addition or a load: 1."""
    return SCALARS[op].cost if op in SCALARS else _READS.get(op, 1)
