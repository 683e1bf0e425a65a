"""Operands of kernels: their addresses, and the row-invariant values of row programs.

In: the numbers of the words of a call's arguments (arguments.py), a row. Out: Values. Called by the
writers of every machine; what a machine reads of a row at once is its own (cpu/rows/operands.py,
gpu/elements.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..kernels.instructions import Instr
from ..kernels.kinds import ColumnReduce, RowProgram
from . import ir
from .ir import Builder, Value
from .scalars import cast, constant, from_memory, memory, scalar


class Words:
    """The arguments of a call, by the numbers of their words."""

    def __init__(
        self, b: Builder, args: Value, pointer: str = "ptr", volatile: bool = False
    ) -> None:
        """pointer: the type of addresses. volatile: words are read wherever they are asked for,
        rather than kept in registers from the first time on."""
        self._b, self._args, self._pointer, self._volatile = b, args, pointer, volatile

    def again(self) -> Words:
        """The same, volatile."""
        return Words(self._b, self._args, self._pointer, volatile=True)

    def number(self, word: int) -> Value:
        place = self._b.at(self._args, ir.integer(word), "i64")
        return self._b.load("i64", place, volatile=self._volatile)

    def numbers(self, *words: int) -> tuple[Value, ...]:
        return tuple(map(self.number, words))

    def origin(self) -> Value:
        """The address of the first word, which no other call's arguments have."""
        return self._b.emit("i64", f"ptrtoint {self._args.type} {self._args.name} to i64")

    def place(self, word: int) -> Value:
        """An address, as a pointer."""
        return address(self._b, self.number(word), self._pointer)


def address(b: Builder, number: Value, pointer: str = "ptr") -> Value:
    return b.emit(pointer, f"inttoptr i64 {number.name} to {pointer}")


def main_dtype(kernel: RowProgram | ColumnReduce) -> str:
    """The dtype that most of the program has and that sets the number of lanes: one vector has as
    many elements of every dtype."""
    dtypes = [instr.dtype for instr in kernel.instrs if instr.op != "const"]
    return max(("float32", "float64"), key=dtypes.count)


# Rows --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operand:
    """An input or output of a call; strides: along the outer axes, then along columns."""

    element: str
    base: Value
    strides: tuple[Value, ...]

    @classmethod
    def of(cls, words: Words, place: int, *strides: int, dtype: str) -> Operand:
        base = words.place(place)
        return cls(memory(dtype), base, words.numbers(*strides))

    def row(self, b: Builder, index: Sequence[Value]) -> Value:
        """The address of column 0 of a row."""
        offset = b.index(ir.integer(0), *zip(index, self.strides[:-1], strict=True))
        return b.at(self.base, offset, self.element)

    def entry(self, b: Builder, number: Value) -> Value:
        """The address of column 0 of the row with that number, of a table."""
        return b.at(self.base, b.mul(number, self.strides[0]), self.element)


def decode(b: Builder, row: Value, extents: Sequence[Value]) -> list[Value]:
    """The index along each outer axis of a row that is counted over all of them."""
    index: list[Value] = []
    for extent in reversed(extents[1:]):
        quotient = b.binary("udiv", row, extent)
        index.append(b.sub(row, b.mul(quotient, extent)))
        row = quotient
    return [row, *reversed(index)] if extents else []


def advance(b: Builder, index: Sequence[Value], extents: Sequence[Value]) -> list[Value]:
    """The index of the row after."""
    found: list[Value] = []
    carry = ir.integer(1)
    for i, extent in reversed(list(zip(index[1:], extents[1:], strict=True))):
        following = b.add(i, carry)
        full = b.compare("eq", following, extent)
        found.append(b.select(full, ir.integer(0), following))
        carry = b.convert("zext", full, "i64")
    return [b.add(index[0], carry), *reversed(found)] if index else []


# Programs ----------------------------------------------------------------------------------------


class RowValues:
    """The row-invariant parts of a program: addresses, and values as scalars. The results of
    reductions are put into `scalars` by the code that computes them."""

    def __init__(
        self,
        b: Builder,
        kernel: RowProgram | ColumnReduce,
        inputs: Sequence[Operand],
        rowwise: Sequence[bool],
    ) -> None:
        self.b, self.kernel, self.inputs, self.rowwise = b, kernel, inputs, rowwise
        self.places: list[Value] = []
        self.scalars: dict[int, Value] = {}

    def begin(self, row: Value, index: Sequence[Value]) -> None:
        """Begin a new row: the addresses of its operands."""
        self.row = row
        self.scalars = {}
        self.places = [operand.row(self.b, index) for operand in self.inputs]

    def compute(self, i: int) -> None:
        """The value of an instruction whose arguments have been computed."""
        instr = self.kernel.instrs[i]
        self.scalars[i] = self._value(instr, [self.scalars[a] for a in instr.args])

    def _value(self, instr: Instr, args: list[Value]) -> Value:
        match instr.op:
            case "const":
                return constant(instr.dtype, instr.value)
            case "row":
                return self.row
            case "load":
                return self._load(self.places[instr.value], instr)
            case "gather":
                index = cast(self.b, args[0], "int64")
                return self._load(self.inputs[instr.value].entry(self.b, index), instr)
        return scalar(self.b, instr, args, [self.kernel.instrs[a].dtype for a in instr.args])

    def _load(self, place: Value, instr: Instr) -> Value:
        return from_memory(self.b, self.b.load(memory(instr.dtype), place), instr.dtype)
