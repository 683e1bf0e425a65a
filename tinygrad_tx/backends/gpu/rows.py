"""Row programs for a GPU.

In: a RowProgram kernel. Out: its code for one thread, and how many of them a call takes. Called by
writers.py.

Where nothing is reduced, a block has a tile of rows and columns, and a thread some columns of a row
in it. Where a row is reduced, a warp has it, or all warps of a block have a long one; every loop
over its columns reads its operands again, for they are in a cache, and the memory behind that is
what takes time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import NamedTuple

from ..kernels.arguments import RowOperand
from ..kernels.instructions import REDUCTIONS
from ..kernels.kinds import Output, RowProgram
from ..kernels.summation import CHAIN, slots
from ..llvm import folds, ir
from ..llvm.folds import State
from ..llvm.ir import Value
from ..llvm.loops import Loop, plan
from ..llvm.operands import Operand, RowValues, main_dtype
from ..llvm.scalars import memory, to_memory
from .choice import Choice, limited
from .elements import Elements
from .folds import Ordered, across
from .indexing import decode, i32, number, wide
from .thread import WARP, Thread

THREADS = 256
_EACH = 4  # columns of a thread at a time
_WARPS = THREADS // WARP


class Form(NamedTuple):
    """along: threads of a block along the columns of a tile. together: True if the columns of a
    thread lie side by side, aligned to their size, in all operands that are contiguous. warps: of a
    row that is reduced."""

    along: int = WARP
    together: bool = False
    warps: int = 0


def choose(kernel: RowProgram, words: Sequence[int]) -> Choice:
    """The form of a call's code and its blocks. words: addresses are offsets of what is aligned."""
    at = kernel.layout
    rows, columns = prod(words[i] for i in at.outer), words[at.columns]
    if any(instr.op in REDUCTIONS for instr in kernel.instrs):
        block = slots(main_dtype(kernel)) * CHAIN
        warps = _WARPS if columns > 2 * block else 1
        return Choice(
            Form(warps=warps), THREADS, limited(rows if warps > 1 else -(-rows // _WARPS))
        )
    along = 1
    while along < THREADS and along * _EACH < columns:
        along *= 2
    tiles = -(-rows // (THREADS // along)) * -(-columns // (along * _EACH))
    return Choice(Form(along, _together(kernel, words)), THREADS, limited(tiles))


def _together(kernel: RowProgram, words: Sequence[int]) -> bool:
    at, found = kernel.layout, words[kernel.layout.columns] % _EACH == 0
    dtypes = [i.dtype for i in kernel.inputs] + [
        kernel.instrs[o.instr].dtype for o in kernel.outputs
    ]
    columns = [x.column for x in kernel.inputs] + [x.column for x in kernel.outputs]
    for column, dtype, x in zip(columns, dtypes, (*at.inputs, *at.outputs), strict=True):
        if column == "unit":
            size = ir.width(memory(dtype))
            steps = [words[x.place], *(words[i] * size for i in x.outer)]
            found &= x.at is None and all(n % min(16, _EACH * size) == 0 for n in steps)
    return found


def row_program(kernel: RowProgram, form: Form, t: Thread) -> None:
    """Write the kernel's code."""
    _Writer(kernel, form, t).write()


class _Writer:
    """Writes the code of one kernel."""

    def __init__(self, kernel: RowProgram, form: Form, t: Thread) -> None:
        self.kernel, self.form, self.t, self.b = kernel, form, t, t.b
        self.how = plan(kernel, keeps=False)
        self.parts = slots(main_dtype(kernel))  # threads of a warp that reduce; others do the same
        words, at = t.words, kernel.layout
        self.extents = [number(t, i) for i in at.outer]
        self.columns = number(t, at.columns)
        inputs = [
            Operand.of(words, x.place, *x.outer, x.column, dtype=i.dtype)
            for i, x in zip(kernel.inputs, at.inputs, strict=True)
        ]
        self.outputs = [
            self._output(output, x, inputs)
            for output, x in zip(kernel.outputs, at.outputs, strict=True)
        ]
        self.row = RowValues(t.b, kernel, inputs, self.how.rowwise)
        self.rows = i32(1)
        for extent in self.extents:
            self.rows = t.b.mul(self.rows, extent)

    def _output(self, output: Output, at: RowOperand[int], inputs: Sequence[Operand]) -> Operand:
        b, words, dtype = self.b, self.t.words, self.kernel.instrs[output.instr].dtype
        found = Operand.of(words, at.place, *at.outer, at.column, dtype=dtype)
        if at.at is None:
            return found
        moved = b.mul(b.load("i64", inputs[output.at].base), words.number(at.at))
        return replace(found, base=b.at(found.base, moved, found.element))

    def write(self) -> None:
        if self.form.warps:
            self._by_rows()
        else:
            self._by_tiles()
        self.t.end()

    def _begin(self, row: Value) -> None:
        """Begin a row, an i32: the addresses of its operands."""
        b = self.b
        index = decode(b, row, self.extents)
        self.row.begin(wide(b, row), index)
        self.places = [operand.row(b, index) for operand in self.outputs]

    def _scalars(self, level: int) -> None:
        """Compute the row-invariant values, as far as the reductions so far allow."""
        for i, instr in enumerate(self.kernel.instrs):
            ready = self.how.rowwise[i] and self.how.levels[i] <= level
            if ready and instr.op not in REDUCTIONS and i not in self.row.scalars:
                self.row.compute(i)

    def _store_scalars(self, first: Value) -> None:
        """Write the values that there is one of for a row. first: True for the thread that does."""
        b = self.b
        once = [k for k, output in enumerate(self.kernel.outputs) if output.column == "same"]
        if not once:
            return
        with b.when(first):
            for k in once:
                b.store(
                    to_memory(b, self.row.scalars[self.kernel.outputs[k].instr]), self.places[k]
                )

    def _elements(self, loop: Loop, first: Value, lanes: int = 1) -> Elements:
        """What a loop computes for some columns."""
        made = Elements(self.row, wide(self.b, first), lanes)
        for i in loop.elements:
            made.compute(i)
        return made

    def _store(self, loop: Loop, elements: Elements) -> None:
        for k in loop.outputs:
            output, operand = self.kernel.outputs[k], self.outputs[k]
            stride = None if output.column == "unit" else operand.strides[-1]
            elements.store(output.instr, self.places[k], stride)

    # Tiles ---------------------------------------------------------------------------------------
    def _by_tiles(self) -> None:
        b, t, along = self.b, self.t, self.form.along
        wide_tile = i32(along * _EACH)
        down = i32(THREADS // along)
        tiles = ir.ceil_div(b, self.columns, wide_tile)
        total = b.mul(tiles, ir.ceil_div(b, self.rows, down))
        mine_down = b.binary("lshr", t.thread, i32(along.bit_length() - 1))
        mine_along = b.binary("and", t.thread, i32(along - 1))
        step = i32(1 if self.form.together else along)
        if self.form.together:
            mine_along = b.mul(mine_along, i32(_EACH))
        with b.loop(t.block, total, t.blocks) as loop:
            across = b.binary("udiv", loop.i, tiles)
            tile = b.sub(loop.i, b.mul(across, tiles))
            row = b.add(b.mul(across, down), mine_down)
            first = b.add(b.mul(tile, wide_tile), mine_along)
            there = b.binary(
                "and", b.compare("slt", row, self.rows), b.compare("slt", first, self.columns)
            )
            with b.when(there):
                self._begin(row)
                self._scalars(0)
                self._store_scalars(b.compare("eq", first, i32(0)))
                for each in self.how.loops:
                    if self.form.together:
                        self._store(each, self._elements(each, first, _EACH))
                    else:
                        self._some(each, first, step, self.columns)

    def _some(self, loop: Loop, first: Value, step: Value, stop: Value) -> None:
        """_EACH columns from `first` on, those before `stop`: all at once, if they are."""
        b = self.b
        last = b.add(first, b.mul(step, i32(_EACH - 1)))
        whole = b.compare("slt", last, stop)
        with b.when(whole):
            columns = [b.add(first, b.mul(step, i32(i))) for i in range(_EACH)]
            made = [self._elements(loop, column) for column in columns]
            for elements in made:
                self._store(loop, elements)
        with b.loop(b.select(whole, stop, first), stop, step) as rest:
            self._store(loop, self._elements(loop, rest.i))

    # Whole rows ----------------------------------------------------------------------------------
    def _by_rows(self) -> None:
        b, t, warps = self.b, self.t, self.form.warps
        if warps == 1:
            each = i32(_WARPS)
            first, stride = b.add(b.mul(t.block, each), t.warp), b.mul(t.blocks, each)
            mine = t.lane
        else:
            first, stride, mine = t.block, t.blocks, t.thread
        with b.loop(first, self.rows, stride) as loop:
            self._begin(loop.i)
            for each_loop in self.how.loops:
                self._scalars(each_loop.level)
                if each_loop.reductions:
                    self._reduce(each_loop)
                if each_loop.outputs and not (each_loop.reductions and self.parts == WARP):
                    self._write(each_loop, mine)
            self._scalars(max(self.how.levels))
            self._store_scalars(b.compare("eq", mine, i32(0)))

    def _write(self, loop: Loop, mine: Value) -> None:
        """The columns of a row, by all threads that have it."""
        b, threads = self.b, self.form.warps * WARP
        step = i32(threads)
        with b.loop(mine, self.columns, i32(threads * _EACH)) as each:
            stop = b.smin(self.columns, b.add(b.sub(each.i, mine), i32(threads * _EACH)))
            self._some(loop, each.i, step, stop)

    def _reduce(self, loop: Loop) -> None:
        """The reductions of one loop become scalars of the row."""
        b, t, warps = self.b, self.t, self.form.warps
        instrs = [self.kernel.instrs[i] for i in loop.reductions]
        arguments = [self.kernel.instrs[i.args[0]].dtype for i in instrs]
        parts = self.parts
        lane = b.binary("and", t.lane, i32(parts - 1))
        size = i32(parts * CHAIN)
        blocks = ir.ceil_div(b, self.columns, size)
        ordered = Ordered(t, instrs, arguments, warps)
        turn = i32(warps)
        with b.loop(i32(0), blocks, turn, ordered.carried()) as each:
            mine = each.i if warps == 1 else b.add(each.i, t.warp)
            start = b.mul(mine, size)
            stop = b.smin(self.columns, b.add(start, size))
            found = self._chain(loop, b.add(start, lane), stop, parts, ordered.starts)
            each.next = ordered.fold(each.carried, found, each.i, blocks)
        for i, instr, state in zip(
            loop.reductions, instrs, ordered.totals(each.carried), strict=True
        ):
            self.row.scalars[i] = across(t, instr, state, parts)

    def _chain(
        self, loop: Loop, first: Value, stop: Value, parts: int, starts: Sequence[State]
    ) -> list[State]:
        """The accumulators of columns `first`, `first` + parts, ... before `stop`."""
        b, step = self.b, i32(parts * _EACH)
        flat = [x for state in starts for x in state]
        most = b.sub(stop, i32(parts * (_EACH - 1)))
        with b.loop(first, most, step, flat) as many:
            states = _shaped(many.carried, starts)
            columns = [b.add(many.i, i32(parts * u)) for u in range(_EACH)]
            for elements in [self._elements(loop, column) for column in columns]:
                states = self._taken(loop, states, elements)
            many.next = [x for state in states for x in state]
        with b.loop(many.i, stop, i32(parts), many.carried) as one:
            states = self._taken(loop, _shaped(one.carried, starts), self._elements(loop, one.i))
            one.next = [x for state in states for x in state]
        return _shaped(one.carried, starts)

    def _taken(self, loop: Loop, states: Sequence[State], elements: Elements) -> list[State]:
        found = []
        for i, state in zip(loop.reductions, states, strict=True):
            instr = self.kernel.instrs[i]
            x = elements.value(instr.args[0])
            found.append(folds.step(self.b, instr, state, x, elements.columns, None))
        if self.parts == WARP:  # elements are nobody else's
            self._store(loop, elements)
        return found


def _shaped(flat: Sequence[Value], like: Sequence[State]) -> list[State]:
    rest = iter(flat)
    return [tuple(next(rest) for _ in state) for state in like]
