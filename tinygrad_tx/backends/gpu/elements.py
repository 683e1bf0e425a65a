"""Elements of a row for one thread: some columns of it, read, computed and written.

In: the row-invariant values of a program, the first column. Out: Values. Called by rows.py and
columns.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..kernels.instructions import Instr
from ..llvm import ir
from ..llvm.ir import Builder, Value
from ..llvm.operands import RowValues
from ..llvm.scalars import cast, constant, from_memory, memory, scalar, to_memory

Given = Mapping[int, Callable[[Value, int], Value]]
"""For the number of an input that is not read from memory what gives its elements, as they would be
there: those of so many columns, from one (an i64) on."""


class Elements:
    """The values of a program for `lanes` columns, which lie side by side, from `first` on; many
    are read and written at once, in pieces of 16 bytes."""

    def __init__(
        self, row: RowValues, first: Value, lanes: int = 1, given: Given | None = None
    ) -> None:
        self.row, self.first, self.lanes, self.given = row, first, lanes, given or {}
        self.b: Builder = row.b
        self._values: dict[int, Value] = {}
        self._columns: Value | None = None

    def compute(self, i: int) -> None:
        """The values of an instruction whose arguments have been computed."""
        self._values[i] = self._element(self.row.kernel.instrs[i])

    def value(self, i: int) -> Value:
        """A computed value; the same for every column if it is row-invariant."""
        if i not in self._values:
            instr = self.row.kernel.instrs[i]
            if instr.op == "const":
                self._values[i] = constant(instr.dtype, instr.value, self.lanes)
            else:
                self._values[i] = self.b.splat(self.row.scalars[i], self.lanes)
        return self._values[i]

    def columns(self) -> Value:
        """The number of each column."""
        if self._columns is None:
            first = self.b.splat(self.first, self.lanes)
            self._columns = first if self.lanes == 1 else self.b.add(first, self.b.iota(self.lanes))
        return self._columns

    def _element(self, instr: Instr) -> Value:
        match instr.op:
            case "col":
                return self.columns()
            case "load" if instr.value in self.given:
                found = self.given[instr.value](self.first, self.lanes)
                return from_memory(self.b, found, instr.dtype)
            case "load":
                return self._read(self.row.places[instr.value], instr)
            case "gather":
                return self._gather(instr)
        dtypes = [self.row.kernel.instrs[a].dtype for a in instr.args]
        return scalar(self.b, instr, [self.value(a) for a in instr.args], dtypes)

    def _gather(self, instr: Instr) -> Value:
        operand, argument = self.row.inputs[instr.value], instr.args[0]
        if self.row.rowwise[argument]:
            index = cast(self.b, self.row.scalars[argument], "int64")
            return self._read(operand.entry(self.b, index), instr)
        entries = cast(self.b, self.value(argument), "int64")
        return self._each(
            instr, [operand.entry(self.b, self._lane(entries, i)) for i in range(self.lanes)]
        )

    def _read(self, row: Value, instr: Instr) -> Value:
        """Elements of the row that begins at an address."""
        b, element = self.b, memory(instr.dtype)
        if self.row.kernel.inputs[instr.value].column != "unit":
            return self._each(instr, [row] * self.lanes)
        place = b.at(row, self.first, element)
        x = b.load(ir.vector(self.lanes, element), place, alignment(element, self.lanes))
        return from_memory(b, x, instr.dtype)

    def _each(self, instr: Instr, rows: list[Value]) -> Value:
        """An element for each column, of a row of its own."""
        b, operand, element = self.b, self.row.inputs[instr.value], memory(instr.dtype)
        spread = self.row.kernel.inputs[instr.value].column != "same"
        type = ir.vector(self.lanes, element)
        made = Value(type, "poison")
        for i, row in enumerate(rows):
            if spread:
                column = self._lane(self.columns(), i)
                row = b.at(row, b.mul(column, operand.strides[-1]), element)
            x = b.load(element, row)
            if self.lanes == 1:
                made = x
            else:
                made = b.emit(type, f"insertelement {type} {made.name}, {x.type} {x.name}, i64 {i}")
        return from_memory(b, made, instr.dtype)

    def _lane(self, x: Value, i: int) -> Value:
        return x if self.lanes == 1 else self.b.lane(x, i)

    def store(self, i: int, row: Value, column: Value | None) -> None:
        """Write the values of an instruction to a row. column: its stride; None: side by side."""
        b, x = self.b, to_memory(self.b, self.value(i))
        if column is None:
            b.store(x, b.at(row, self.first, x.element), alignment(x.element, self.lanes))
            return
        for lane in range(self.lanes):
            at = b.mul(self._lane(self.columns(), lane), column)
            b.store(self._lane(x, lane), b.at(row, at, x.element))


def alignment(element: str, lanes: int) -> int | None:
    """The alignment of some elements that are read at once, in pieces of 16 bytes at most."""
    return min(16, ir.width(element) * lanes) if lanes > 1 else None
