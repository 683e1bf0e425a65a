"""Elements of a row: vectors of them read, computed and written.

In: the row-invariant values of a program, a column. Out: Values. Called by rows.py and columns.py,
which share Elements: the values of a program for one vector of columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...kernels.instructions import Instr
from ...kernels.kinds import Input
from ...llvm import ir
from ...llvm.elementary import like
from ...llvm.ir import Builder, Value
from ...llvm.operands import RowValues
from ...llvm.scalars import cast, constant, from_memory, memory, scalar, to_memory
from ..processor import Processor

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
