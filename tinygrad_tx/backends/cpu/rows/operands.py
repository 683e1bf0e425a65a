"""Operands of a row program: their addresses, and vectors of them read and written.

In: the numbers of the words of a call's arguments (arguments.py), a row, a column. Out: Values.
Called by rows.py and columns.py, which share Elements: the values of a program for one vector of
columns. Words also serves the other writers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...kernels.instructions import Instr
from ...kernels.kinds import ColumnReduce, Input, RowProgram
from ...llvm import ir
from ...llvm.elementary import like
from ...llvm.ir import Builder, Value
from ...llvm.scalars import cast, constant, from_memory, memory, scalar, to_memory
from ..processor import Processor


class Words:
    """The arguments of a call, by the numbers of their words."""

    def __init__(self, b: Builder, args: Value) -> None:
        self._b, self._args = b, args

    def number(self, word: int) -> Value:
        return self._b.load("i64", self._b.at(self._args, ir.integer(word), "i64"))

    def numbers(self, *words: int) -> tuple[Value, ...]:
        return tuple(map(self.number, words))

    def place(self, word: int) -> Value:
        """An address, as a pointer."""
        return address(self._b, self.number(word))


def address(b: Builder, number: Value) -> Value:
    return b.emit("ptr", f"inttoptr i64 {number.name} to ptr")


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


# Vectors -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tail:
    """The lanes of a vector that exist: the first `count`, as a mask."""

    mask: Value
    count: Value


def tail(b: Builder, columns: Value, first: Value, lanes: int) -> Tail:
    """The lanes of the vector from column `first` on that are before `columns`; maybe none."""
    left = b.smin(b.sub(columns, first), ir.integer(lanes))
    left = b.intrinsic("smax", "i64", left, ir.integer(0))
    short = b.convert("trunc", left, "i32")
    return Tail(b.compare("slt", b.iota(lanes, "i32"), b.splat(short, lanes)), left)


def load_vector(
    b: Builder, target: Processor, element: str, lanes: int, place: Value, tail: Tail | None
) -> Value:
    """Consecutive elements of memory; zeros where there are none."""
    type = ir.vector(lanes, element)
    if tail is None:
        return b.load(type, place)
    nothing = Value(type, "zeroinitializer")
    if _has_masks(target, element):
        return b.masked_load(type, place, tail.mask, nothing)
    copy = b.alloca(type)
    b.store(nothing, copy)
    _copy(b, copy, place, tail.count, element)
    return b.load(type, copy)


def store_vector(b: Builder, target: Processor, x: Value, place: Value, tail: Tail | None) -> None:
    """Elements to consecutive memory, those that are there."""
    if tail is None:
        b.store(x, place)
    elif _has_masks(target, x.element):
        b.masked_store(x, place, tail.mask)
    else:
        copy = b.alloca(x.type)
        b.store(x, copy)
        _copy(b, place, copy, tail.count, x.element)


def _has_masks(target: Processor, element: str) -> bool:
    """True if the processor has masked loads and stores of these elements."""
    return target.name == "avx512" or (target.name == "avx2" and ir.width(element) >= 4)


def _copy(b: Builder, to: Value, source: Value, count: Value, element: str) -> None:
    size = b.mul(count, ir.integer(ir.width(element)))
    b.call("llvm.memcpy.p0.p0.i64", "void", to, source, size, ir.boolean(False))


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


class Elements:
    """The values of a program for the vector of columns from `first` on.

    kept: for some instructions, where a whole row of their values lies in scratch memory, whose
    size is such that it can be read by whole vectors.
    """

    def __init__(
        self,
        target: Processor,
        row: RowValues,
        lanes: int,
        first: Value,
        tail: Tail | None,
        kept: Mapping[int, Value],
    ) -> None:
        self.target, self.row, self.lanes = target, row, lanes
        self.first, self.tail, self.kept = first, tail, kept
        self.b = row.b
        self._values: dict[int, Value] = {}
        self._columns: Value | None = None

    def compute(self, i: int) -> None:
        """The values of an instruction whose arguments have been computed."""
        self._values[i] = self._element(i, self.row.kernel.instrs[i])

    def value(self, i: int) -> Value:
        """A computed value; the same in every lane if it is row-invariant."""
        if i not in self._values:
            instr = self.row.kernel.instrs[i]
            if instr.op == "const":
                self._values[i] = constant(instr.dtype, instr.value, self.lanes)
            else:
                self._values[i] = self.b.splat(self.row.scalars[i], self.lanes)
        return self._values[i]

    def columns(self) -> Value:
        """The number of each lane's column."""
        if self._columns is None:
            first = self.b.splat(self.first, self.lanes)
            self._columns = self.b.add(first, self.b.iota(self.lanes))
        return self._columns

    def _element(self, i: int, instr: Instr) -> Value:
        if i in self.kept:
            return self._load(self.kept[i], instr.dtype, None)
        match instr.op:
            case "col":
                return self.columns()
            case "load":
                if self._input(instr).column == "any":
                    return self._spread(self.row.places[instr.value], instr, None)
                return self._load(self.row.places[instr.value], instr.dtype, self.tail)
            case "gather":
                return self._gather(instr)
        dtypes = [self.row.kernel.instrs[a].dtype for a in instr.args]
        return scalar(self.b, instr, [self.value(a) for a in instr.args], dtypes)

    def _input(self, instr: Instr) -> Input:
        return self.row.kernel.inputs[int(instr.value)]

    def _load(self, place: Value, dtype: str, tail: Tail | None) -> Value:
        element = memory(dtype)
        place = self.b.at(place, self.first, element)
        x = load_vector(self.b, self.target, element, self.lanes, place, tail)
        return from_memory(self.b, x, dtype)

    def _gather(self, instr: Instr) -> Value:
        b, operand = self.b, self.row.inputs[instr.value]
        if not self.row.rowwise[instr.args[0]]:
            return self._spread(operand.base, instr, cast(b, self.value(instr.args[0]), "int64"))
        entry = operand.entry(b, cast(b, self.row.scalars[instr.args[0]], "int64"))
        if self._input(instr).column == "unit":
            return self._load(entry, instr.dtype, self.tail)
        return self._spread(entry, instr, None)

    def _spread(self, base: Value, instr: Instr, entries: Value | None) -> Value:
        """Strided elements: of the lanes' columns, and of rows of a table."""
        b, operand, element = self.b, self.row.inputs[instr.value], memory(instr.dtype)
        offset: Value | None = None
        if self._input(instr).column != "same":
            offset = b.mul(self.columns(), b.splat(operand.strides[-1], self.lanes))
        if entries is not None:
            start = b.mul(entries, b.splat(operand.strides[0], self.lanes))
            offset = start if offset is None else b.add(offset, start)
        assert offset is not None, "an element's place depends on its column or its row"
        places = b.emit(
            ir.vector(self.lanes, "ptr"),
            f"getelementptr {element}, ptr {base.name}, {offset.type} {offset.name}",
        )
        type = ir.vector(self.lanes, element)
        all_lanes = like(Value(ir.vector(self.lanes, "i1"), ""), True)
        x = b.call(
            f"llvm.masked.gather.{ir.suffix(type)}.{ir.suffix(places.type)}",
            type,
            places,
            ir.integer(ir.width(element), "i32"),
            all_lanes if self.tail is None else self.tail.mask,
            Value(type, "zeroinitializer"),
        )
        return from_memory(b, x, instr.dtype)

    def store(self, i: int, place: Value, tail: Tail | None) -> None:
        """Write the values of an instruction to a row that begins at `place`."""
        x = to_memory(self.b, self.value(i))
        place = self.b.at(place, self.first, x.element)
        store_vector(self.b, self.target, x, place, tail)


def width(dtype: str) -> int:
    """Bytes of an element in memory."""
    return ir.width(memory(dtype))
