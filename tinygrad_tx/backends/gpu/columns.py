"""Reductions along rows for a GPU.

In: a ColumnReduce kernel. Out: its code for one thread. Called by writers.py. A block has WARP
columns of a chunk of rows; its warps go down blocks of rows in turn, a thread in one column, and
fold these in their order.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import prod

from ..kernels.instructions import REDUCTIONS
from ..kernels.kinds import ColumnReduce, per_row
from ..kernels.summation import CHAIN
from ..llvm import folds, ir
from ..llvm.ir import Value
from ..llvm.operands import Operand, RowValues, advance
from ..llvm.scalars import to_memory
from .choice import Choice, limited, require_counted
from .elements import Elements
from .folds import Ordered
from .indexing import decode, i32, number, wide
from .thread import WARP, Thread

THREADS = 256
_WARPS = THREADS // WARP
_BLOCK = 2 * CHAIN  # rows


def choose(kernel: ColumnReduce, words: Sequence[int]) -> Choice:
    at = kernel.layout
    rows, each = prod(words[i] for i in at.outer), words[at.rows_per_task]
    warps = _WARPS if min(rows, each) > _BLOCK else 1
    chunks = -(-rows // each)
    parts = chunks * -(-words[at.columns] // WARP)
    require_counted(
        "a reduction along rows", rows=chunks * each, columns=words[at.columns], tiles=parts
    )
    return Choice(warps, warps * WARP, limited(parts))


def column_reduce(kernel: ColumnReduce, form: Hashable, t: Thread) -> None:
    """Write the kernel's code. form: the warps of a block."""
    assert isinstance(form, int)
    _Writer(kernel, form, t).write()


class _Writer:
    """Writes the code of one kernel."""

    def __init__(self, kernel: ColumnReduce, warps: int, t: Thread) -> None:
        self.kernel, self.warps, self.t, self.b = kernel, warps, t, t.b
        words, at = t.words, kernel.layout
        self.extents = [number(t, i) for i in at.outer]
        self.wide_extents = list(words.numbers(*at.outer))
        self.columns, self.rows_each = number(t, at.columns), number(t, at.rows_per_task)
        inputs = [
            Operand.of(words, x.place, *x.outer, x.column, dtype=i.dtype)
            for i, x in zip(kernel.inputs, at.inputs, strict=True)
        ]
        self.reduced = [kernel.instrs[o.instr] for o in kernel.outputs]
        self.outputs = [
            Operand.of(words, x.place, x.chunk, x.column, dtype=instr.dtype)
            for instr, x in zip(self.reduced, at.outputs, strict=True)
        ]
        self.row = RowValues(t.b, kernel, inputs, per_row(kernel.inputs, kernel.instrs))
        self.rows = i32(1)
        for extent in self.extents:
            self.rows = t.b.mul(self.rows, extent)

    def write(self) -> None:
        b, t, warp = self.b, self.t, i32(WARP)
        tiles = ir.ceil_div(b, self.columns, warp)
        total = b.mul(tiles, ir.ceil_div(b, self.rows, self.rows_each))
        arguments = [self.kernel.instrs[i.args[0]].dtype for i in self.reduced]
        ordered = Ordered(t, self.reduced, arguments, self.warps)
        with b.loop(t.block, total, t.blocks) as part:
            chunk = b.binary("udiv", part.i, tiles)
            first = b.mul(chunk, self.rows_each)
            stop = b.smin(self.rows, b.add(first, self.rows_each))
            column = b.add(b.mul(b.sub(part.i, b.mul(chunk, tiles)), warp), t.lane)
            there = b.compare("slt", column, self.columns)
            size, turn = i32(_BLOCK), i32(self.warps)
            blocks = ir.ceil_div(b, b.sub(stop, first), size)
            with b.loop(i32(0), blocks, turn, ordered.carried()) as each:
                mine = each.i if self.warps == 1 else b.add(each.i, t.warp)
                start = b.add(first, b.mul(mine, size))
                end = b.smin(stop, b.add(start, size))
                end = b.select(there, end, start)
                found = self._down(start, end, column, [x for s in ordered.starts for x in s])
                each.next = ordered.fold(each.carried, [(x,) for x in found], each.i, blocks)
            results = ordered.totals(each.carried)
            mine_first = b.compare("eq", t.warp, i32(0))
            with b.when(b.binary("and", there, mine_first)):
                for operand, (x,) in zip(self.outputs, results, strict=True):
                    place = operand.entry(b, wide(b, chunk))
                    at = b.mul(wide(b, column), operand.strides[1])
                    b.store(to_memory(b, x), b.at(place, at, operand.element))
        t.end()

    def _down(self, start: Value, stop: Value, column: Value, states: list[Value]) -> list[Value]:
        """The accumulators of a column of the rows from start to stop."""
        b, kernel = self.b, self.kernel
        each = [i for i, instr in enumerate(kernel.instrs) if instr.op not in REDUCTIONS]
        index = decode(b, start, self.extents)
        with b.loop(start, stop, i32(1), [*index, *states]) as loop:
            here, before = loop.carried[: len(index)], loop.carried[len(index) :]
            self.row.begin(wide(b, loop.i), here)
            for i in each:
                if self.row.rowwise[i]:
                    self.row.compute(i)
            elements = Elements(self.row, wide(b, column))
            for i in each:
                if not self.row.rowwise[i]:
                    elements.compute(i)
            after: list[Value] = []
            for instr, state in zip(self.reduced, before, strict=True):
                x = elements.value(instr.args[0])
                after.extend(folds.step(b, instr, (state,), x, elements.columns, None))
            loop.next = [*advance(b, here, self.wide_extents), *after]
        return loop.carried[len(index) :]
