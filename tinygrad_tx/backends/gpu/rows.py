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
from math import prod
from typing import NamedTuple

from ..kernels.instructions import REDUCTIONS
from ..kernels.kinds import RowProgram
from ..kernels.summation import CHAIN, slots
from ..llvm import folds, ir
from ..llvm.folds import LEVELS, State
from ..llvm.ir import Value
from ..llvm.loops import Loop
from ..llvm.operands import main_dtype
from ..llvm.scalars import memory
from .choice import Choice, limited, require_counted
from .elements import Elements
from .folds import Ordered, across
from .indexing import i32
from .program import EACH, Program, together
from .thread import WARP, Thread

THREADS = 256
_WARPS = THREADS // WARP
_REGISTER = 4  # bytes
_ROOM = 80  # registers of a thread for what is mentioned in each_of()


class Form(NamedTuple):
    """along: threads of a block along the columns of a tile. together: True if the columns of a
    thread lie side by side, aligned to their size, in all operands that are contiguous. warps: of a
    row that is reduced; short: True if it is one block of a sum, whose levels take no registers
    then. each: columns of a thread at a time; one of a program with many results, which would not
    find room in registers."""

    along: int = WARP
    together: bool = False
    warps: int = 0
    each: int = EACH
    short: bool = False


def choose(kernel: RowProgram, words: Sequence[int]) -> Choice:
    """The form of a call's code and its blocks. words: addresses are offsets of what is aligned."""
    at = kernel.layout
    rows, columns = prod(words[i] for i in at.outer), words[at.columns]
    require_counted("a row program", rows=rows, columns=columns)
    if any(instr.op in REDUCTIONS for instr in kernel.instrs):
        block = slots(main_dtype(kernel)) * CHAIN
        warps = _WARPS if columns > 2 * block else 1
        blocks = rows if warps > 1 else -(-rows // _WARPS)
        # Others have one form for all lengths, so that calls of them can be one launch.
        short = columns <= block and each_of(kernel) < EACH
        form = Form(warps=warps, each=each_of(kernel, short), short=short)
        return Choice(form, THREADS, limited(blocks))
    along, each = 1, each_of(kernel)
    while along < THREADS and along * each < columns:
        along *= 2
    tiles = -(-rows // (THREADS // along)) * -(-columns // (along * each))
    require_counted("a row program", tiles=tiles)
    side_by_side = each == EACH and together(kernel, at, words)
    return Choice(Form(along, side_by_side, each=each), THREADS, limited(tiles))


def each_of(kernel: RowProgram, short: bool = False) -> int:
    """So many columns of a thread are computed at a time: EACH, if their results, its parts of sums
    and the addresses of all operands leave half of the registers. short: as in Form."""
    results = sum(_registers(kernel, o.instr) for o in kernel.outputs if o.column != "same")
    sums = sum(
        _registers(kernel, i) for i, instr in enumerate(kernel.instrs) if instr.op in REDUCTIONS
    )
    addresses = 2 * (len(kernel.inputs) + sum(o.column != "same" for o in kernel.outputs))
    return EACH if EACH * results + (1 if short else 1 + LEVELS) * sums + addresses <= _ROOM else 1


def _registers(kernel: RowProgram, i: int) -> int:
    """Of a value."""
    return -(-ir.width(memory(kernel.instrs[i].dtype)) // _REGISTER)


def row_program(kernel: RowProgram, form: Form, t: Thread) -> None:
    """Write the kernel's code."""
    _Writer(kernel, form, t).write()


class _Writer:
    """Writes the code of one kernel."""

    def __init__(self, kernel: RowProgram, form: Form, t: Thread) -> None:
        self.kernel, self.form, self.t, self.b = kernel, form, t, t.b
        self.program = Program(t, kernel, kernel.layout, each=form.each)
        self.parts = slots(main_dtype(kernel))  # threads of a warp that reduce; others do the same

    def write(self) -> None:
        if self.form.warps:
            self._by_rows()
        else:
            self._by_tiles()
        self.t.end()

    # Tiles ---------------------------------------------------------------------------------------
    def _by_tiles(self) -> None:
        b, t, along, program = self.b, self.t, self.form.along, self.program
        wide_tile = i32(along * self.form.each)
        down = i32(THREADS // along)
        tiles = ir.ceil_div(b, program.columns, wide_tile)
        total = b.mul(tiles, ir.ceil_div(b, program.rows, down))
        mine_down = b.binary("lshr", t.thread, i32(along.bit_length() - 1))
        mine_along = b.binary("and", t.thread, i32(along - 1))
        step = i32(1 if self.form.together else along)
        if self.form.together:
            mine_along = b.mul(mine_along, i32(self.form.each))
        with b.loop(t.block, total, t.blocks) as loop:
            across = b.binary("udiv", loop.i, tiles)
            tile = b.sub(loop.i, b.mul(across, tiles))
            row = b.add(b.mul(across, down), mine_down)
            first = b.add(b.mul(tile, wide_tile), mine_along)
            inside = b.compare("slt", row, program.rows), b.compare("slt", first, program.columns)
            with b.when(b.binary("and", *inside)):
                program.begin(row)
                program.tile(first, step, self.form.together)

    # Whole rows ----------------------------------------------------------------------------------
    def _by_rows(self) -> None:
        b, t, warps, program = self.b, self.t, self.form.warps, self.program
        if warps == 1:
            each = i32(_WARPS)
            first, stride = b.add(b.mul(t.block, each), t.warp), b.mul(t.blocks, each)
            mine = t.lane
        else:
            first, stride, mine = t.block, t.blocks, t.thread
        with b.loop(first, program.rows, stride) as loop:
            program.begin(loop.i)
            for each_loop in program.how.loops:
                program.scalars(each_loop.level)
                if each_loop.reductions:
                    self._reduce(each_loop)
                if each_loop.outputs and not (each_loop.reductions and self.parts == WARP):
                    self._write(each_loop, mine)
            program.scalars(max(program.how.levels))
            program.store_scalars(b.compare("eq", mine, i32(0)))

    def _write(self, loop: Loop, mine: Value) -> None:
        """The columns of a row, by all threads that have it."""
        b, threads = self.b, self.form.warps * WARP
        step, tile = i32(threads), i32(threads * self.form.each)
        with b.loop(mine, self.program.columns, tile) as each:
            stop = b.smin(self.program.columns, b.add(b.sub(each.i, mine), tile))
            self.program.some(loop, each.i, step, stop)

    def _reduce(self, loop: Loop) -> None:
        """The reductions of one loop become scalars of the row."""
        b, t, warps = self.b, self.t, self.form.warps
        instrs = [self.kernel.instrs[i] for i in loop.reductions]
        arguments = [self.kernel.instrs[i.args[0]].dtype for i in instrs]
        parts = self.parts
        lane = b.binary("and", t.lane, i32(parts - 1))
        size = i32(parts * CHAIN)
        blocks = ir.ceil_div(b, self.program.columns, size)
        ordered = Ordered(t, instrs, arguments, warps)
        if self.form.short:
            found = self._chain(loop, lane, self.program.columns, parts, ordered.starts)
            self._finish(loop, ordered.single(found))
            return
        turn = i32(warps)
        with b.loop(i32(0), blocks, turn, ordered.carried()) as each:
            mine = each.i if warps == 1 else b.add(each.i, t.warp)
            start = b.mul(mine, size)
            stop = b.smin(self.program.columns, b.add(start, size))
            found = self._chain(loop, b.add(start, lane), stop, parts, ordered.starts)
            each.next = ordered.fold(each.carried, found, each.i, blocks)
        self._finish(loop, ordered.totals(each.carried))

    def _finish(self, loop: Loop, states: Sequence[State]) -> None:
        """Accumulators of a warp's threads become scalars of the row."""
        for i, state in zip(loop.reductions, states, strict=True):
            made = across(self.t, self.kernel.instrs[i], state, self.parts)
            self.program.row.scalars[i] = made

    def _chain(
        self, loop: Loop, first: Value, stop: Value, parts: int, starts: Sequence[State]
    ) -> list[State]:
        """The accumulators of columns `first`, `first` + parts, ... before `stop`."""
        b, together = self.b, self.form.each
        flat = [x for state in starts for x in state]
        most = b.sub(stop, i32(parts * (together - 1)))
        if together == 1:
            with b.loop(first, stop, i32(parts), flat) as one:
                states = _shaped(one.carried, starts)
                one.next = [x for state in self._one(loop, states, one.i) for x in state]
            return _shaped(one.carried, starts)
        with b.loop(first, most, i32(parts * together), flat) as many:
            states = _shaped(many.carried, starts)
            columns = [b.add(many.i, i32(parts * u)) for u in range(together)]
            for elements in [self.program.elements(loop, column) for column in columns]:
                states = self._taken(loop, states, elements)
            many.next = [x for state in states for x in state]
        with b.loop(many.i, stop, i32(parts), many.carried) as one:
            states = self._taken(
                loop, _shaped(one.carried, starts), self.program.elements(loop, one.i)
            )
            one.next = [x for state in states for x in state]
        return _shaped(one.carried, starts)

    def _one(self, loop: Loop, states: Sequence[State], column: Value) -> list[State]:
        """The accumulators after one more column, which is written in the same breath."""
        if self.parts == WARP:
            elements = self.program.stored(loop, column)
        else:
            elements = self.program.elements(loop, column)
        return self._folded(loop, states, elements)

    def _taken(self, loop: Loop, states: Sequence[State], elements: Elements) -> list[State]:
        found = self._folded(loop, states, elements)
        if self.parts == WARP:  # elements are nobody else's
            self.program.store(loop, elements)
        return found

    def _folded(self, loop: Loop, states: Sequence[State], elements: Elements) -> list[State]:
        found = []
        for i, state in zip(loop.reductions, states, strict=True):
            instr = self.kernel.instrs[i]
            x = elements.value(instr.args[0])
            found.append(folds.step(self.b, instr, state, x, elements.columns, None))
        return found


def _shaped(flat: Sequence[Value], like: Sequence[State]) -> list[State]:
    rest = iter(flat)
    return [tuple(next(rest) for _ in state) for state in like]
