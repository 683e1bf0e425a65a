"""A row program as one thread computes it: rows are begun, columns of a row computed and written.

In: a RowProgram kernel, the words of its arguments. Out: a Program, whose calls write code. Called
by rows.py, and by tile.py for a program that follows a product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from ..kernels.arguments import RowOperand, RowProgramArgs
from ..kernels.instructions import REDUCTIONS
from ..kernels.kinds import Output, RowProgram
from ..llvm import ir
from ..llvm.ir import Builder, Value
from ..llvm.loops import Loop, plan
from ..llvm.operands import Operand, RowValues, Words
from ..llvm.scalars import memory, to_memory
from .elements import Elements, Given
from .indexing import decode, i32, number, wide
from .thread import Thread

EACH = 4  # columns of a thread at a time
_KEPT = 16  # operands whose words are kept in registers from row to row
T = TypeVar("T")


def together(
    kernel: RowProgram, at: RowProgramArgs[int], words: Sequence[int], known: int = -1
) -> bool:
    """True if EACH columns lie side by side, aligned to their size (16 bytes at most), in all
    operands that are contiguous. at: the program's words among all. known: an input that is not
    read. words: addresses are offsets of what is aligned."""
    found = words[at.columns] % EACH == 0
    read = [(i.column, i.dtype, x) for i, x in zip(kernel.inputs, at.inputs, strict=True)]
    if known >= 0:
        del read[known]
    written = [
        (o.column, kernel.instrs[o.instr].dtype, x)
        for o, x in zip(kernel.outputs, at.outputs, strict=True)
    ]
    for column, dtype, x in read + written:
        if column == "unit":
            steps = [words[i] for i in x.outer]
            found &= x.at is None and aligned(dtype, words[x.place], steps)
    return found


def aligned(dtype: str, place: int, steps: Sequence[int]) -> bool:
    """True if EACH elements side by side are aligned, at an address and any steps from there."""
    size = ir.width(memory(dtype))
    return all(n % min(16, EACH * size) == 0 for n in (place, *(step * size for step in steps)))


def some(
    b: Builder,
    first: Value,
    step: Value,
    stop: Value,
    make: Callable[[Value], T],
    store: Callable[[T], None],
) -> None:
    """Make and store what is at EACH columns (i32) from `first` on, those before `stop`; if all of
    them are, all is made before anything is stored."""
    last = b.add(first, b.mul(step, i32(EACH - 1)))
    whole = b.compare("slt", last, stop)
    with b.when(whole):
        made = [make(b.add(first, b.mul(step, i32(i)))) for i in range(EACH)]
        for x in made:
            store(x)
    with b.loop(b.select(whole, stop, first), stop, step) as rest:
        store(make(rest.i))


class Program:
    """at: the program's words among those of the call. given: values of inputs that are not read.
    each: columns of a thread at a time, where they do not lie together.

    extents, rows, columns: of its domain, i32. row: the row-invariant values.
    """

    def __init__(
        self,
        t: Thread,
        kernel: RowProgram,
        at: RowProgramArgs[int],
        given: Given | None = None,
        each: int = EACH,
    ) -> None:
        self.kernel, self.b, self.words, self.given = kernel, t.b, t.words, given
        self.each = each
        self.how, self._at = plan(kernel, keeps=False), at
        self.extents = [number(t, i) for i in at.outer]
        self.columns = number(t, at.columns)
        self.rows = i32(1)
        for extent in self.extents:
            self.rows = t.b.mul(self.rows, extent)
        # Words of many operands would take the registers from what is computed.
        self._crowded = each == 1 and len(kernel.inputs) + len(kernel.outputs) > _KEPT
        self._read(self.words)

    def _read(self, words: Words) -> None:
        """The operands, as the words have them."""
        kernel = self.kernel
        inputs = [
            Operand.of(words, x.place, *x.outer, x.column, dtype=i.dtype)
            for i, x in zip(kernel.inputs, self._at.inputs, strict=True)
        ]
        self.outputs = [
            self._output(output, x, inputs, words)
            for output, x in zip(kernel.outputs, self._at.outputs, strict=True)
        ]
        self.row = RowValues(self.b, kernel, inputs, self.how.rowwise)

    def _output(
        self, output: Output, at: RowOperand[int], inputs: Sequence[Operand], words: Words
    ) -> Operand:
        b, dtype = self.b, self.kernel.instrs[output.instr].dtype
        found = Operand.of(words, at.place, *at.outer, at.column, dtype=dtype)
        if at.at is None:
            return found
        moved = b.mul(b.load("i64", inputs[output.at].base), words.number(at.at))
        return replace(found, base=b.at(found.base, moved, found.element))

    def begin(self, row: Value) -> None:
        """Begin a row, an i32: the addresses of its operands."""
        b = self.b
        if self._crowded:
            self._read(self.words.again())
        index = decode(b, row, self.extents)
        self.row.begin(wide(b, row), index)
        self._index = index
        self.places = {
            k: operand.row(b, index)
            for k, operand in enumerate(self.outputs)
            if self.kernel.outputs[k].column != "same"
        }

    def scalars(self, level: int) -> None:
        """Compute the row-invariant values, as far as the reductions so far allow."""
        for i, instr in enumerate(self.kernel.instrs):
            ready = self.how.rowwise[i] and self.how.levels[i] <= level
            if ready and instr.op not in REDUCTIONS and i not in self.row.scalars:
                self.row.compute(i)

    def store_scalars(self, first: Value) -> None:
        """Write the values that there is one of for a row. first: True for the thread that does."""
        b = self.b
        once = [k for k, output in enumerate(self.kernel.outputs) if output.column == "same"]
        if not once:
            return
        with b.when(first):
            for k in once:
                # Found here: an address that is known before takes registers in all loops.
                place = self.outputs[k].row(b, self._index)
                b.store(to_memory(b, self.row.scalars[self.kernel.outputs[k].instr]), place)

    def elements(self, loop: Loop, first: Value, lanes: int = 1) -> Elements:
        """What a loop computes for some columns."""
        made = Elements(self.row, wide(self.b, first), lanes, self.given)
        for i in loop.elements:
            made.compute(i)
        return made

    def store(self, loop: Loop, elements: Elements) -> None:
        for k in loop.outputs:
            self._store(k, elements)

    def _store(self, k: int, elements: Elements) -> None:
        output, operand = self.kernel.outputs[k], self.outputs[k]
        stride = None if output.column == "unit" else operand.strides[-1]
        elements.store(output.instr, self.places[k], stride)

    def some(self, loop: Loop, first: Value, step: Value, stop: Value) -> None:
        """`each` columns from `first` on, as far as they are before `stop`."""
        if self.each == 1:
            with self.b.loop(first, stop, step) as one:
                self.stored(loop, one.i)
            return
        some(
            self.b,
            first,
            step,
            stop,
            lambda column: self.elements(loop, column),
            lambda made: self.store(loop, made),
        )

    def stored(self, loop: Loop, column: Value) -> Elements:
        """What a loop computes for a column, each result written as soon as nothing more is read:
        results may lie where operands do."""
        made = Elements(self.row, wide(self.b, column), given=self.given)
        reading = [self.kernel.instrs[i].op in ("load", "gather") for i in loop.elements]
        left, waiting = sum(reading), list(loop.outputs)
        for i, reads in zip(loop.elements, reading, strict=True):
            made.compute(i)
            left -= reads
            for k in waiting.copy() if not left else ():
                if self.kernel.outputs[k].instr == i:
                    self._store(k, made)
                    waiting.remove(k)
        for k in waiting:
            self._store(k, made)
        return made

    def tile(self, first: Value, step: Value, together: bool) -> None:
        """All of a row without reductions, EACH columns from `first` on. together: as in Form."""
        self.scalars(0)
        self.store_scalars(self.b.compare("eq", first, i32(0)))
        for loop in self.how.loops:
            if together:
                self.store(loop, self.elements(loop, first, EACH))
            else:
                self.some(loop, first, step, self.columns)
