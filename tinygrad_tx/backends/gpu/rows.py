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
from ..llvm.folds import State
from ..llvm.ir import Value
from ..llvm.loops import Loop
from ..llvm.operands import main_dtype
from .choice import Choice, limited, require_counted
from .elements import Elements
from .folds import Ordered, across
from .indexing import i32
from .program import EACH, Program, together
from .thread import WARP, Thread

THREADS = 256
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
    require_counted("a row program", rows=rows, columns=columns)
    if any(instr.op in REDUCTIONS for instr in kernel.instrs):
        block = slots(main_dtype(kernel)) * CHAIN
        warps = _WARPS if columns > 2 * block else 1
        return Choice(
            Form(warps=warps), THREADS, limited(rows if warps > 1 else -(-rows // _WARPS))
        )
    along = 1
    while along < THREADS and along * EACH < columns:
        along *= 2
    tiles = -(-rows // (THREADS // along)) * -(-columns // (along * EACH))
    require_counted("a row program", tiles=tiles)
    return Choice(Form(along, together(kernel, at, words)), THREADS, limited(tiles))


def row_program(kernel: RowProgram, form: Form, t: Thread) -> None:
    """Write the kernel's code."""
    _Writer(kernel, form, t).write()


class _Writer:
    """Writes the code of one kernel."""

    def __init__(self, kernel: RowProgram, form: Form, t: Thread) -> None:
        self.kernel, self.form, self.t, self.b = kernel, form, t, t.b
        self.program = Program(t, kernel, kernel.layout)
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
        wide_tile = i32(along * EACH)
        down = i32(THREADS // along)
        tiles = ir.ceil_div(b, program.columns, wide_tile)
        total = b.mul(tiles, ir.ceil_div(b, program.rows, down))
        mine_down = b.binary("lshr", t.thread, i32(along.bit_length() - 1))
        mine_along = b.binary("and", t.thread, i32(along - 1))
        step = i32(1 if self.form.together else along)
        if self.form.together:
            mine_along = b.mul(mine_along, i32(EACH))
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
        step = i32(threads)
        with b.loop(mine, self.program.columns, i32(threads * EACH)) as each:
            stop = b.smin(self.program.columns, b.add(b.sub(each.i, mine), i32(threads * EACH)))
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
        turn = i32(warps)
        with b.loop(i32(0), blocks, turn, ordered.carried()) as each:
            mine = each.i if warps == 1 else b.add(each.i, t.warp)
            start = b.mul(mine, size)
            stop = b.smin(self.program.columns, b.add(start, size))
            found = self._chain(loop, b.add(start, lane), stop, parts, ordered.starts)
            each.next = ordered.fold(each.carried, found, each.i, blocks)
        for i, instr, state in zip(
            loop.reductions, instrs, ordered.totals(each.carried), strict=True
        ):
            self.program.row.scalars[i] = across(t, instr, state, parts)

    def _chain(
        self, loop: Loop, first: Value, stop: Value, parts: int, starts: Sequence[State]
    ) -> list[State]:
        """The accumulators of columns `first`, `first` + parts, ... before `stop`."""
        b, step = self.b, i32(parts * EACH)
        flat = [x for state in starts for x in state]
        most = b.sub(stop, i32(parts * (EACH - 1)))
        with b.loop(first, most, step, flat) as many:
            states = _shaped(many.carried, starts)
            columns = [b.add(many.i, i32(parts * u)) for u in range(EACH)]
            for elements in [self.program.elements(loop, column) for column in columns]:
                states = self._taken(loop, states, elements)
            many.next = [x for state in states for x in state]
        with b.loop(many.i, stop, i32(parts), many.carried) as one:
            states = self._taken(
                loop, _shaped(one.carried, starts), self.program.elements(loop, one.i)
            )
            one.next = [x for state in states for x in state]
        return _shaped(one.carried, starts)

    def _taken(self, loop: Loop, states: Sequence[State], elements: Elements) -> list[State]:
        found = []
        for i, state in zip(loop.reductions, states, strict=True):
            instr = self.kernel.instrs[i]
            x = elements.value(instr.args[0])
            found.append(folds.step(self.b, instr, state, x, elements.columns, None))
        if self.parts == WARP:  # elements are nobody else's
            self.program.store(loop, elements)
        return found


def _shaped(flat: Sequence[Value], like: Sequence[State]) -> list[State]:
    rest = iter(flat)
    return [tuple(next(rest) for _ in state) for state in like]
