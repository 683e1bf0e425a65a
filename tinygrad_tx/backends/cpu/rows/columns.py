"""Reductions along the rows of a domain as native code.

In: a ColumnReduce kernel. Out: its function. Called by writers.py.

Accumulators of some vectors of columns stay in registers while the function goes down the rows of
its chunk; then come the next columns. The remainder is done one masked vector at a time. Sums go by
blocks of rows, and these are added in levels, as those of a row are.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...kernels.instructions import REDUCTIONS
from ...kernels.kinds import ColumnReduce, per_row
from ...kernels.summation import CHAIN
from ...llvm import folds, ir
from ...llvm.ir import Builder, Value
from ...llvm.operands import Operand, RowValues, Words, advance, decode, main_dtype
from ...llvm.scalars import to_memory
from ..processor import Processor
from .operands import Elements, Tail, store_vector, tail
from .reductions import Sums

_VECTORS = 4  # of columns at once
_BLOCK = 2 * CHAIN  # rows


def column_reduce(kernel: ColumnReduce, module: ir.Module, name: str, target: Processor) -> None:
    """Add the kernel's function to the module."""
    params = [("ptr", "args"), ("i64", "task"), ("ptr", "scratch")]
    _Writer(kernel, module.function(name, params), target).write()


class _Writer:
    """Writes the function of one kernel."""

    def __init__(self, kernel: ColumnReduce, b: Builder, target: Processor) -> None:
        self.kernel, self.b, self.target = kernel, b, target
        self.lanes = target.lanes(main_dtype(kernel))
        args, task, _ = b.params
        words, at = Words(b, args), kernel.layout
        self.extents = words.numbers(*at.outer)
        count, rows_each, columns_each = words.numbers(
            at.columns, at.rows_per_task, at.columns_per_task
        )
        inputs = [
            Operand.of(words, x.place, *x.outer, x.column, dtype=i.dtype)
            for i, x in zip(kernel.inputs, at.inputs, strict=True)
        ]
        self.reduced = [kernel.instrs[o.instr] for o in kernel.outputs]
        self.outputs = [
            Operand.of(words, x.place, x.chunk, x.column, dtype=instr.dtype)
            for instr, x in zip(self.reduced, at.outputs, strict=True)
        ]
        self.row = RowValues(b, kernel, inputs, per_row(kernel.inputs, kernel.instrs))
        # Which rows and which columns are this task's.
        rows = ir.integer(1)
        for extent in self.extents:
            rows = b.mul(rows, extent)
        blocks = b.add(count, b.sub(columns_each, ir.integer(1)))
        blocks = b.binary("udiv", blocks, columns_each)
        self.chunk = b.binary("udiv", task, blocks)
        block = b.sub(task, b.mul(self.chunk, blocks))
        self.first_row = b.mul(self.chunk, rows_each)
        self.last_row = b.smin(b.add(self.first_row, rows_each), rows)
        self.first = b.mul(block, columns_each)
        self.last = b.smin(b.add(self.first, columns_each), count)

    def write(self) -> None:
        b, step = self.b, self.lanes * _VECTORS
        index = decode(b, self.first_row, self.extents)
        places = [operand.entry(b, self.chunk) for operand in self.outputs]
        whole = b.binary("and", b.sub(self.last, self.first), ir.integer(-step))
        middle = b.add(self.first, whole)
        with b.loop(self.first, middle, ir.integer(step)) as many:
            firsts = [b.add(many.i, ir.integer(u * self.lanes)) for u in range(_VECTORS)]
            self._down(firsts, None, index, places)
        with b.loop(middle, self.last, ir.integer(self.lanes)) as one:
            self._down([one.i], tail(b, self.last, one.i, self.lanes), index, places)
        b.end()

    def _down(
        self,
        firsts: Sequence[Value],
        end: Tail | None,
        index: Sequence[Value],
        places: Sequence[Value],
    ) -> None:
        """Reduce vectors of columns, which begin at `firsts`, over the rows; write the results."""
        b, kernel, n = self.b, self.kernel, len(firsts)
        start = [
            folds.start(instr, kernel.instrs[instr.args[0]].dtype, self.lanes)[0]
            for instr in self.reduced
        ]
        sums = {
            k: Sums(b, x.type, n)
            for k, (instr, x) in enumerate(zip(self.reduced, start, strict=True))
            if folds.goes_by_blocks(instr, (x,))
        }
        rows = b.sub(self.last_row, self.first_row)
        several = b.compare("sgt", rows, ir.integer(_BLOCK))
        for each in sums.values():
            each.clear(several)
        step = ir.integer(_BLOCK) if sums else b.intrinsic("smax", "i64", rows, ir.integer(1))
        carried = [*index, *start * n]
        with b.loop(self.first_row, self.last_row, step, carried) as block:
            here, states = block.carried[: len(index)], block.carried[len(index) :]
            done = b.binary("udiv", b.sub(block.i, self.first_row), step)
            with b.when(b.compare("sgt", done, ir.integer(0))):
                for k, each in sums.items():
                    for u, x in enumerate(states[k :: len(start)]):
                        each.put(u, x)
                    each.add(done)
            begin = [
                start[i % len(start)] if i % len(start) in sums else x for i, x in enumerate(states)
            ]
            stop = b.smin(self.last_row, b.add(block.i, step))
            block.next = self._rows(block.i, stop, here, begin, firsts, end)
        results = block.carried[len(index) :]
        for k, each in sums.items():
            for u, x in enumerate(results[k :: len(start)]):
                each.put(u, x)
        with b.when(several):
            for each in sums.values():
                each.total()
        for k, place in enumerate(places):
            for u, first in enumerate(firsts):
                x = results[u * len(start) + k]
                if k in sums:
                    x = sums[k].get(u)
                self._store(k, x, place, first, end)

    def _rows(
        self,
        start: Value,
        stop: Value,
        index: Sequence[Value],
        states: Sequence[Value],
        firsts: Sequence[Value],
        end: Tail | None,
    ) -> list[Value]:
        """Reduce the rows of a block, the first of which has the index; the index of the row after
        the last, and the accumulators."""
        b, kernel, k = self.b, self.kernel, len(self.reduced)
        each = [i for i, instr in enumerate(kernel.instrs) if instr.op not in REDUCTIONS]
        with b.loop(start, stop, ir.integer(1), [*index, *states]) as loop:
            here, before = loop.carried[: len(index)], loop.carried[len(index) :]
            self.row.begin(loop.i, here)
            for i in each:
                if self.row.rowwise[i]:
                    self.row.compute(i)
            after: list[Value] = []
            for u, first in enumerate(firsts):
                elements = Elements(self.target, self.row, self.lanes, first, end, {})
                for i in each:
                    if not self.row.rowwise[i]:
                        elements.compute(i)
                for instr, state in zip(self.reduced, before[u * k : (u + 1) * k], strict=True):
                    x = elements.value(instr.args[0])
                    after.extend(folds.step(b, instr, (state,), x, elements.columns, None))
            loop.next = [*advance(b, here, self.extents), *after]
        return loop.carried

    def _store(self, k: int, x: Value, place: Value, first: Value, end: Tail | None) -> None:
        b, operand, x = self.b, self.outputs[k], to_memory(self.b, x)
        if self.kernel.outputs[k].column == "unit":
            store_vector(b, self.target, x, b.at(place, first, operand.element), end)
            return
        copy = b.alloca(x.type)
        b.store(x, copy)
        count = end.count if end else ir.integer(self.lanes)
        with b.loop(ir.integer(0), count, ir.integer(1)) as loop:
            one = b.load(operand.element, b.at(copy, loop.i, operand.element))
            offset = b.mul(b.add(first, loop.i), operand.strides[1])
            b.store(one, b.at(place, offset, operand.element))
