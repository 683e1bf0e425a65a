"""Row programs as native code.

In: a RowProgram kernel. Out: its function, and the bytes of scratch memory of a call. Called by
writers.py.

Per row of the task: row-invariant values first, as scalars. Then each column loop of the RowPlan:
full vectors, unrolled, one accumulator per unrolled vector; the remainder one masked vector at a
time. Strided columns are copied to scratch memory before, or from there afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...kernels.arguments import RowOperand
from ...kernels.instructions import REDUCTIONS
from ...kernels.kinds import Output, RowProgram
from ...kernels.summation import slots
from ...llvm import folds, ir
from ...llvm.folds import State
from ...llvm.ir import Builder, Value
from ...llvm.loops import Loop, RowPlan, plan
from ...llvm.operands import Operand, RowValues, Words, advance, decode, main_dtype
from ...llvm.scalars import to_memory
from ..processor import Processor
from .operands import Elements, Tail, tail, width
from .reductions import Parts

_PAD = 64  # rows in scratch memory have room for this many columns at a time
_LONG = 32  # instructions up to which the vectors of a round are written out


def row_program(kernel: RowProgram, module: ir.Module, name: str, target: Processor) -> None:
    """Add the kernel's function to the module."""
    params = [("ptr", "args"), ("i64", "task"), ("ptr", "scratch")]
    _Writer(kernel, module.function(name, params), target).write()


def row_program_scratch(kernel: RowProgram, args: Sequence[int], target: Processor) -> int:
    """Bytes of scratch memory for a call with these arguments."""
    padded = _padded(args[kernel.layout.columns])
    return padded * sum(width(dtype) for dtype in _slots(kernel, plan(kernel)))


def _padded(columns: int) -> int:
    return -(-columns // _PAD) * _PAD


def _slots(kernel: RowProgram, how: RowPlan) -> list[str]:
    """The dtypes of the rows in scratch memory: kept values, then strided inputs and outputs."""
    kept = [kernel.instrs[i].dtype for i in how.kept]
    inputs = [kernel.inputs[k].dtype for k in _spread_inputs(kernel)]
    return kept + inputs + [kernel.instrs[kernel.outputs[k].instr].dtype for k in _spread(kernel)]


def _spread_inputs(kernel: RowProgram) -> list[int]:
    loaded = {instr.value for instr in kernel.instrs if instr.op == "load"}
    return [k for k, i in enumerate(kernel.inputs) if i.column == "any" and k in loaded]


def _spread(kernel: RowProgram) -> list[int]:
    return [k for k, output in enumerate(kernel.outputs) if output.column == "any"]


class _Writer:
    """Writes the function of one kernel."""

    def __init__(self, kernel: RowProgram, b: Builder, target: Processor) -> None:
        self.kernel, self.b, self.target = kernel, b, target
        self.how = plan(kernel)
        dtype = main_dtype(kernel)
        self.lanes, self.slots = target.lanes(dtype), slots(dtype)
        args, self.task, scratch = b.params
        words, at = Words(b, args), kernel.layout
        self.extents = words.numbers(*at.outer)
        self.columns, self.per_task = words.numbers(at.columns, at.rows_per_task)
        inputs = [
            Operand.of(words, x.place, *x.outer, x.column, dtype=i.dtype)
            for i, x in zip(kernel.inputs, at.inputs, strict=True)
        ]
        self.outputs = [
            self._output(words, output, x, inputs)
            for output, x in zip(kernel.outputs, at.outputs, strict=True)
        ]
        self.row = RowValues(b, kernel, inputs, self.how.rowwise)
        self._lay_out(scratch)

    def _output(
        self, words: Words, output: Output, at: RowOperand[int], inputs: Sequence[Operand]
    ) -> Operand:
        b, dtype = self.b, self.kernel.instrs[output.instr].dtype
        found = Operand.of(words, at.place, *at.outer, at.column, dtype=dtype)
        if at.at is None:
            return found
        moved = b.mul(b.load("i64", inputs[output.at].base), words.number(at.at))
        return replace(found, base=b.at(found.base, moved, found.element))

    def _lay_out(self, scratch: Value) -> None:
        """Give every row in scratch memory its place."""
        b, dtypes = self.b, _slots(self.kernel, self.how)
        padded = b.add(self.columns, ir.integer(_PAD - 1))
        padded = b.binary("and", padded, ir.integer(-_PAD))
        before = [sum(map(width, dtypes[:k])) for k in range(len(dtypes))]
        places = iter([b.at(scratch, b.mul(padded, ir.integer(n)), "i8") for n in before])
        self.kept = {i: next(places) for i in self.how.kept}
        self.gathered = {k: next(places) for k in _spread_inputs(self.kernel)}
        self.scattered = {k: next(places) for k in _spread(self.kernel)}

    def write(self) -> None:
        b, total = self.b, ir.integer(1)
        for extent in self.extents:
            total = b.mul(total, extent)
        start, stop = ir.share(b, total, ir.ceil_div(b, total, self.per_task), self.task)
        first = decode(b, start, self.extents)
        with b.loop(start, stop, ir.integer(1), first) as loop:
            self._row(loop.i, loop.carried)
            loop.next = advance(b, loop.carried, self.extents)
        b.end()

    def _row(self, row: Value, index: Sequence[Value]) -> None:
        b, kernel = self.b, self.kernel
        self.row.begin(row, index)
        self.places = [operand.row(b, index) for operand in self.outputs]
        for k, place in self.gathered.items():
            operand = self.row.inputs[k]
            one = ir.integer(1)
            self._move(operand.element, self.row.places[k], operand.strides[-1], place, one)
        for loop in self.how.loops:
            self._scalars(loop.level)
            self._columns(loop)
        self._scalars(max(self.how.levels))
        for k, place in self.scattered.items():
            operand = self.outputs[k]
            one = ir.integer(1)
            self._move(operand.element, place, one, self.places[k], operand.strides[-1])
        for output, place in zip(kernel.outputs, self.places, strict=True):
            if output.column == "same":
                b.store(to_memory(b, self.row.scalars[output.instr]), place)

    def _scalars(self, level: int) -> None:
        """Compute the row-invariant values, as far as the reductions so far allow."""
        for i, instr in enumerate(self.kernel.instrs):
            ready = self.how.rowwise[i] and self.how.levels[i] <= level
            if ready and instr.op not in REDUCTIONS and i not in self.row.scalars:
                self.row.compute(i)

    def _move(self, element: str, source: Value, step: Value, to: Value, step_to: Value) -> None:
        """Copy a row, given the distance between two columns in either place."""
        b = self.b
        with b.loop(ir.integer(0), self.columns, ir.integer(1)) as loop:
            x = b.load(element, b.at(source, b.mul(loop.i, step), element))
            b.store(x, b.at(to, b.mul(loop.i, step_to), element))

    def _columns(self, loop: Loop) -> None:
        """One loop over the columns; its reductions become scalars of the row."""
        b, instrs, lanes = self.b, self.kernel.instrs, ir.integer(self.lanes)
        if not loop.reductions:
            whole = b.binary("and", self.columns, ir.integer(-self.lanes))
            with b.loop(ir.integer(0), whole, lanes) as one:
                self._vector(loop, one.i, None, [])
            with b.when(b.compare("slt", whole, self.columns)):
                self._vector(loop, whole, tail(b, self.columns, whole, self.lanes), [])
            return
        found = [instrs[i] for i in loop.reductions]
        arguments = [instrs[i.args[0]].dtype for i in found]
        ordered = any(folds.order_matters(i) for i in found)
        slots = self.slots if ordered else 2 * self.lanes
        parts = Parts(b, found, arguments, self.lanes, slots)
        long = loop.heavy or len(loop.elements) * parts.count > _LONG
        states = self._one_by_one(loop, parts) if long else self._by_rounds(loop, parts)
        for i, value in zip(loop.reductions, parts.finish(states), strict=True):
            self.row.scalars[i] = value

    def _by_rounds(self, loop: Loop, parts: Parts) -> list[list[State]]:
        """A short body: unrolled over the vectors of a round, with accumulators in registers. The
        remainder of a block is a round, too, one masked vector at a time, so that each accumulator
        has had its turn after it."""
        b, lanes = self.b, ir.integer(self.lanes)
        step = ir.integer(self.lanes * parts.count)
        with parts.blocks(self.columns) as block:
            size = b.sub(block.stop, block.start)
            whole = b.add(block.start, b.binary("and", size, b.sub(ir.integer(0), step)))
            with b.loop(block.start, whole, step, _flat(block.states)) as many:
                after = []
                for u, state in enumerate(_shaped(many.carried, block.states)):
                    first = b.add(many.i, ir.integer(u * self.lanes))
                    after.append(self._vector(loop, first, None, state))
                many.next = _flat(after)
            # The vectors that are left, and then as many turns as a round lacks.
            left = b.add(b.sub(block.stop, whole), ir.integer(self.lanes - 1))
            end = b.add(whole, b.binary("and", left, ir.integer(-self.lanes)))
            with b.loop(whole, end, lanes, many.carried) as one:
                states = _shaped(one.carried, block.states)
                mask = tail(b, block.stop, one.i, self.lanes)
                one.next = _flat([*states[1:], self._vector(loop, one.i, mask, states[0])])
            some = b.compare("slt", whole, block.stop)
            round_end = b.select(some, b.add(whole, step), whole)
            with b.loop(end, round_end, lanes, one.carried) as turn:
                states = _shaped(turn.carried, block.states)
                turn.next = _flat([*states[1:], states[0]])
            block.states = _shaped(turn.carried, block.states)
        return block.states

    def _one_by_one(self, loop: Loop, parts: Parts) -> list[list[State]]:
        """A long body: not unrolled, with accumulators in memory."""
        b, lanes = self.b, ir.integer(self.lanes)
        with parts.blocks_in_memory(self.columns) as (start, stop):
            size = b.binary("and", b.sub(stop, start), ir.integer(-self.lanes))
            whole = b.add(start, size)
            with b.loop(start, whole, lanes) as one:
                place = parts.place(one.i)
                parts.store(place, self._vector(loop, one.i, None, parts.load(place)))
            with b.when(b.compare("slt", whole, stop)):
                place, mask = parts.place(whole), tail(b, stop, whole, self.lanes)
                parts.store(place, self._vector(loop, whole, mask, parts.load(place)))
        return [parts.load(ir.integer(u)) for u in range(parts.count)]

    def _vector(
        self, loop: Loop, first: Value, end: Tail | None, state: list[State]
    ) -> list[State]:
        """One vector of columns: from the accumulators before it to those after it."""
        b, kernel = self.b, self.kernel
        ready = {i: self.kept[i] for i, level in self.how.kept.items() if level < loop.level}
        for i, instr in enumerate(kernel.instrs):
            if instr.op == "load" and instr.value in self.gathered:
                ready[i] = self.gathered[instr.value]
        elements = Elements(self.target, self.row, self.lanes, first, end, ready)
        for i in loop.elements:  # all is read before anything is written
            elements.compute(i)
        # So are the reductions done: LLVM 22 merges the mask of a masked load and the same mask in
        # a reduction into one load, and puts that where the reduction is.
        mask, after = end.mask if end else None, []
        for i, before in zip(loop.reductions, state, strict=True):
            x = elements.value(kernel.instrs[i].args[0])
            after.append(folds.step(b, kernel.instrs[i], before, x, elements.columns, mask))
        for i in loop.keeps:
            elements.store(i, self.kept[i], None)
        for k in loop.outputs:
            spread = k in self.scattered
            place = self.scattered[k] if spread else self.places[k]
            elements.store(kernel.outputs[k].instr, place, None if spread else end)
        return after


def _flat(accumulators: Sequence[Sequence[State]]) -> list[Value]:
    return [value for states in accumulators for state in states for value in state]


def _shaped(values: Sequence[Value], like: Sequence[Sequence[State]]) -> list[list[State]]:
    """Values as they were before _flat."""
    rest = iter(values)
    return [[tuple(next(rest) for _ in state) for state in states] for states in like]
