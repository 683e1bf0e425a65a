"""The scalar-expression builder: the `xp` of a map op's forward when a kernel is made of it.

In: an op's forward, called with symbols instead of arrays. Out: instructions (instructions.py)
appended to a program, each distinct one once. So one line of an op record runs on NumPy, on CuPy
and as machine code.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

from ...backends.kernels.instructions import SCALARS, Instr
from ...dtypes import ALL, DType

_LOOSE = "of float32"  # the value of a cast that nobody has asked for


class Program:
    """The instructions of one kernel, in order; equal ones are shared."""

    def __init__(self) -> None:
        self.instrs: list[Instr] = []
        self._number: dict[Any, int] = {}

    def add(self, op: str, args: tuple[int, ...], dtype: str, value: Any = None) -> int:
        key = (
            op,
            args,
            dtype,
            type(value),
            repr(value),
        )  # 0.0 and -0.0 are equal, but not the same
        if key not in self._number:
            self._number[key] = len(self.instrs)
            self.instrs.append(Instr(op, args, dtype, value))
        return self._number[key]

    def const(self, value: Any, dtype: str) -> int:
        if ALL[dtype].is_half:
            return self.narrowed(self.const(float(ALL[dtype].scalar(value)), "float32"), dtype)
        value = ALL[dtype].scalar(value).item()
        if value == 0 and str(value)[0] == "-":  # -0.0 equals 0.0: as a kernel's key it must not
            return self.add("neg", (self.const(0.0, dtype),), dtype)
        return self.add("const", (), dtype, value)

    def cast(self, number: int, dtype: str) -> int:
        if self.instrs[number].dtype == dtype:
            return number
        return self.add("cast", (number,), dtype)

    def widened(self, number: int) -> int:
        """A value as it is computed with: 16 bits as float32. What an op has made in float32 is
        rounded where it is stored or cast, and not before the next op."""
        instr = self.instrs[number]
        if not ALL[instr.dtype].is_half:
            return number
        return instr.args[0] if instr.value == _LOOSE else self.cast(number, "float32")

    def narrowed(self, number: int, dtype: str) -> int:
        """An op's result as a value of its dtype; `widened` gives it back unrounded."""
        instr = self.instrs[number]
        if instr.op == "cast" and self.instrs[instr.args[0]].dtype == dtype:
            return instr.args[0]  # it was of this dtype, and nothing has been done with it
        return self.add("cast", (self.cast(number, "float32"),), dtype, _LOOSE)

    @staticmethod
    def tried(
        forward: Any, dtypes: tuple[str, ...], attrs: dict[str, Any], promised: str | None = None
    ) -> tuple[str, int]:
        """The reason for which a map op's forward cannot be made of instructions, empty where it
        can; and the number of these. promised: the dtype that it must give by itself, where it is
        not trusted to give the one meant."""
        trial = Program()
        inputs = [trial.add("load", (), dtype, i) for i, dtype in enumerate(dtypes)]
        try:
            made = trial._called(forward, inputs, attrs)
            if promised is not None:
                wanted = "float32" if ALL[promised].is_half else promised
                if not isinstance(made, Symbol) or name_of(made.dtype) != wanted:
                    return f"it does not make {promised}, which its rule promises", 0
        except NoValue as reason:
            return str(reason), 0
        return "", len(trial.instrs) - len(inputs)

    def map(self, forward: Any, inputs: list[int], dtype: str, attrs: dict[str, Any]) -> int:
        """Call a map op's forward on the instructions `inputs`; the number of the result."""
        out = self._called(forward, inputs, attrs)
        if not isinstance(out, Symbol):  # a forward may give a constant
            return self.const(out, dtype)
        if ALL[dtype].is_half and self.instrs[out.number].dtype != dtype:
            return self.narrowed(out.number, dtype)
        return self.cast(out.number, dtype)

    def _called(self, forward: Any, inputs: list[int], attrs: dict[str, Any]) -> Any:
        """The result of a forward on Symbols: one, or a number."""
        symbols = [Symbol(self, n) for n in inputs]
        try:
            out = forward(Namespace(self), *symbols, **attrs)
        except NoValue:
            raise
        except Exception as error:  # whatever a forward does with what is no array
            raise NoValue(f"{type(error).__name__}: {error}") from error
        if not isinstance(out, (Symbol, bool, int, float, np.generic)):
            raise NoValue(f"a {type(out).__name__} among scalar expressions")
        return out


class Symbol:
    """An instruction's value, with the operators that a forward uses. One of 16 bits is seen, and
    computed with, as float32."""

    def __init__(self, program: Program, number: int) -> None:
        self.program, self.number = program, number

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype = ALL[self.program.instrs[self.number].dtype]
        return np.dtype(np.float32) if dtype.is_half else dtype.np

    def __add__(self, other: Any) -> Symbol:
        return _binary("add", self, other)

    def __radd__(self, other: Any) -> Symbol:
        return _binary("add", other, self)

    def __sub__(self, other: Any) -> Symbol:
        return _binary("sub", self, other)

    def __rsub__(self, other: Any) -> Symbol:
        return _binary("sub", other, self)

    def __mul__(self, other: Any) -> Symbol:
        return _binary("mul", self, other)

    def __rmul__(self, other: Any) -> Symbol:
        return _binary("mul", other, self)

    def __truediv__(self, other: Any) -> Symbol:
        return _binary("div", self, other)

    def __rtruediv__(self, other: Any) -> Symbol:
        return _binary("div", other, self)

    def __floordiv__(self, other: Any) -> Symbol:
        return _binary("floor_divide", self, other)

    def __rfloordiv__(self, other: Any) -> Symbol:
        return _binary("floor_divide", other, self)

    def __mod__(self, other: Any) -> Symbol:
        return _binary("remainder", self, other)

    def __rmod__(self, other: Any) -> Symbol:
        return _binary("remainder", other, self)

    def __pow__(self, other: Any) -> Symbol:
        return _binary("pow", self, other)

    def __rpow__(self, other: Any) -> Symbol:
        return _binary("pow", other, self)

    def __pos__(self) -> Symbol:
        if name_of(self.dtype) == "bool":
            raise NoValue("+ of bools")
        return self

    def __neg__(self) -> Symbol:
        return _unary("neg", self)

    def __abs__(self) -> Symbol:
        return _unary("abs", self)

    def __lt__(self, other: Any) -> Symbol:
        return _binary("lt", self, other)

    def __le__(self, other: Any) -> Symbol:
        return _binary("le", self, other)

    def __gt__(self, other: Any) -> Symbol:
        return _binary("gt", self, other)

    def __ge__(self, other: Any) -> Symbol:
        return _binary("ge", self, other)

    def __eq__(self, other: Any) -> Symbol:  # type: ignore[override]
        return _binary("eq", self, other)

    def __ne__(self, other: Any) -> Symbol:  # type: ignore[override]
        return _binary("ne", self, other)

    def __and__(self, other: Any) -> Symbol:
        return _bitwise("and", self, other)

    def __rand__(self, other: Any) -> Symbol:
        return _bitwise("and", other, self)

    def __or__(self, other: Any) -> Symbol:
        return _bitwise("or", self, other)

    def __ror__(self, other: Any) -> Symbol:
        return _bitwise("or", other, self)

    def __xor__(self, other: Any) -> Symbol:
        return _bitwise("xor", self, other)

    def __rxor__(self, other: Any) -> Symbol:
        return _bitwise("xor", other, self)

    def __invert__(self) -> Symbol:
        return _bitwise("not", self)

    __hash__ = None  # type: ignore[assignment]

    def _in_place(self, other: Any) -> Any:
        """NumPy changes the array, under all of its names, and refuses to change an input; here
        Python would make another value of one name."""
        raise NoValue("a forward writes in place")

    __iadd__ = __isub__ = __imul__ = __itruediv__ = __ifloordiv__ = __imod__ = _in_place
    __ipow__ = __iand__ = __ior__ = __ixor__ = _in_place

    def __bool__(self) -> bool:
        raise NoValue("a forward asks for the truth of an element")


class NoValue(Exception):  # noqa: N818 - no error: a reason to call the forward as it is
    """A forward did something that has no scalar expression: it is called as it is, opaquely."""


@cache
def name_of(dtype: np.dtype[Any]) -> str:
    """dtype.name, which NumPy makes anew each time."""
    return dtype.name


def _unary(op: str, x: Symbol) -> Symbol:
    program, name = x.program, _taken(op, name_of(x.dtype))
    number = program.cast(_as_read(program, op, x), name)
    return Symbol(program, program.add(op, (number,), SCALARS[op].dtype or name))


def _binary(op: str, a: Any, b: Any) -> Symbol:
    """Two operands, brought to one dtype."""
    program = (a if isinstance(a, Symbol) else b).program
    name = _taken(op, _common(a, b))
    args = (_number(program, a, name, op), _number(program, b, name, op))
    return Symbol(program, program.add(op, args, SCALARS[op].dtype or name))


def _taken(op: str, dtype: str) -> str:
    """The dtype in which an instruction takes operands of a dtype."""
    if not SCALARS[op].floating or dtype.startswith("float"):
        return dtype
    if dtype == "bool" and op != "div":
        raise NoValue(f"{op} of bools")  # NumPy gives 16 bits
    return "float64"


def _bitwise(op: str, *xs: Any) -> Symbol:
    """Of bools, or of the bits of integers."""
    if _common(*xs).startswith(("float", "bfloat")):
        raise NoValue(f"{op} of floating numbers")
    return _unary(op, *xs) if len(xs) == 1 else _binary(op, *xs)


def _logical(op: str, *xs: Any) -> Symbol:
    """Of numbers as bools: whether they are not 0."""
    return _bitwise(op, *map(_truth, xs))


def _truth(x: Any) -> Any:
    if not isinstance(x, Symbol):
        return bool(x)
    return x if name_of(x.dtype) == "bool" else _binary("ne", x, 0)


def _common(*xs: Any) -> str:
    """The dtype that NumPy brings operands to. A Python number takes that of the others, but for a
    float beside integers, and an integer beside bools."""
    dtypes = [x.dtype for x in xs if isinstance(x, (Symbol, np.generic))]
    common = dtypes[0] if dtypes else np.result_type(*xs)
    for dtype in dtypes[1:]:
        if dtype != common:
            common = np.promote_types(common, dtype)
    for x in xs:
        kind = common.kind
        if type(x) is float and kind in "biu":
            common = np.dtype(np.float64)
        elif type(x) is int and kind == "b":
            common = np.dtype(np.int64)
    return name_of(common)


def _as_read(program: Program, op: str, x: Symbol) -> int:
    """A value as an op computes with it: not rounded to 16 bits, but where that decides."""
    if SCALARS[op].jumps:
        return program.cast(x.number, name_of(x.dtype))
    return program.widened(x.number)


def _number(program: Program, x: Any, dtype: str, op: str) -> int:
    if isinstance(x, Symbol):
        return program.cast(_as_read(program, op, x), dtype)
    if not isinstance(x, (bool, int, float, np.generic)):
        raise NoValue(f"a {type(x).__name__} among scalar expressions")
    return program.const(x, dtype)


class Namespace:
    """The functions of a backend, on Symbols: those below, and what SCALARS has by name."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def __getattr__(self, name: str) -> Any:
        raise NoValue(f"xp.{name} has no scalar expression")

    def where(self, condition: Symbol, a: Any, b: Any) -> Symbol:
        program = self._program
        chosen = _number(program, _truth(condition), "bool", "where")
        common = _common(a, b)
        args = (chosen, *(_number(program, x, common, "where") for x in (a, b)))
        return Symbol(program, program.add("where", args, common))

    def cast(self, x: Symbol, dtype: DType) -> Symbol:
        return Symbol(self._program, self._program.cast(x.number, dtype.name))

    def cast_like(self, value: float, x: Symbol) -> Symbol:
        return Symbol(self._program, self._program.const(value, x.dtype.name))

    def scalar(self, value: float, dtype: DType) -> Symbol:
        return Symbol(self._program, self._program.const(value, dtype.name))


def _function(op: str) -> Callable[..., Symbol]:
    if SCALARS[op].arity == 1:
        return lambda x: _unary(op, x)
    return lambda a, b: _binary(op, a, b)


for _op, _scalar in SCALARS.items():
    if isinstance(_scalar.xp, str) and _scalar.xp not in vars(Namespace):
        setattr(Namespace, _scalar.xp, staticmethod(_function(_op)))
for _op in ("and", "or", "xor", "not"):
    setattr(Namespace, f"logical_{_op}", staticmethod(partial(_logical, _op)))
