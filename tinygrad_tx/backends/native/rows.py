"""Row programs as native code.

In: a Rows kernel. Out: its function, and how much scratch memory a call needs. Called by render.py.

The function goes through the rows of its task. For each it computes what there is one of for a row
as scalars, and runs the loops over the columns that row_plan.py has found: whole vectors, each of a
round with an accumulator of its own, then the rest vector by vector under a mask. Columns that do
not lie side by side are copied to scratch memory first, or written from there afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..kernel import REDUCTIONS, Instr, Output, Rows
from . import ir, reductions
from .expressions import to_memory
from .ir import Builder, Value
from .operands import (
    Elements,
    Operand,
    Reader,
    RowValues,
    Tail,
    advance,
    decode,
    lanes_of,
    tail,
    width,
)
from .reductions import State
from .row_plan import Loop, RowPlan, plan
from .target import Target

_PAD = 64  # rows in scratch memory have room for this many columns at a time
_LONG = 16  # instructions of a loop's body that one vector at a time keeps the processor busy with


def rows(kernel: Rows, module: ir.Module, name: str, target: Target) -> None:
    """Add the kernel's function to the module."""
    params = [("ptr", "args"), ("i64", "task"), ("ptr", "scratch")]
    _Writer(kernel, module.function(name, params), target).write()


def rows_scratch(kernel: Rows, args: Sequence[int], target: Target) -> int:
    """Bytes of scratch memory for a call with these arguments."""
    return _padded(args[kernel.outer]) * sum(width(dtype) for dtype in _slots(kernel, plan(kernel)))


def _padded(columns: int) -> int:
    return -(-columns // _PAD) * _PAD


def _slots(kernel: Rows, how: RowPlan) -> list[str]:
    """The dtypes of the rows in scratch memory: kept values, then inputs and outputs that do not
    lie side by side."""
    kept = [kernel.instrs[i].dtype for i in how.kept]
    inputs = [kernel.inputs[k].dtype for k in _spread_inputs(kernel)]
    return kept + inputs + [kernel.instrs[kernel.outputs[k].instr].dtype for k in _spread(kernel)]


def _spread_inputs(kernel: Rows) -> list[int]:
    loaded = {instr.value for instr in kernel.instrs if instr.op == "load"}
    return [k for k, i in enumerate(kernel.inputs) if i.column == "any" and k in loaded]


def _spread(kernel: Rows) -> list[int]:
    return [k for k, output in enumerate(kernel.outputs) if output.column == "any"]


class _Writer:
    """Writes the function of one kernel."""

    def __init__(self, kernel: Rows, b: Builder, target: Target) -> None:
        self.kernel, self.b, self.target = kernel, b, target
        self.how = plan(kernel)
        self.lanes = lanes_of(kernel, target)
        args, self.task, scratch = b.params
        reader = Reader(b, args)
        self.extents = [reader.take() for _ in range(kernel.outer)]
        self.columns, self.per_task = reader.take(), reader.take()
        inputs = [reader.operand(i.dtype, kernel.outer + 1) for i in kernel.inputs]
        self.outputs = [self._output(reader, output, inputs) for output in kernel.outputs]
        self.row = RowValues(b, kernel, inputs, self.how.rowwise)
        self._lay_out(scratch)

    def _output(self, reader: Reader, output: Output, inputs: Sequence[Operand]) -> Operand:
        b = self.b
        found = reader.operand(self.kernel.instrs[output.instr].dtype, self.kernel.outer + 1)
        if output.at < 0:
            return found
        moved = b.mul(b.load("i64", inputs[output.at].base), reader.take())
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
        """Compute what there is one of for the row, as far as the reductions so far allow."""
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
        b, instrs = self.b, self.kernel.instrs
        found = [instrs[i] for i in loop.reductions]
        accumulators = [_start(self.kernel, found, self.lanes)] * self._vectors(loop)
        step = self.lanes * len(accumulators)
        whole = b.binary("and", self.columns, ir.integer(-step))
        zero = ir.integer(0)
        with b.loop(zero, whole, ir.integer(step), _flat(accumulators)) as many:
            states = _shaped(many.carried, accumulators)
            for u, state in enumerate(states):
                first = b.add(many.i, ir.integer(u * self.lanes))
                states[u] = self._vector(loop, first, None, state)
            many.next = _flat(states)
        # The rest: accumulators take turns, so that finish() sees them turned, which it allows.
        with b.loop(whole, self.columns, ir.integer(self.lanes), many.carried) as one:
            states = _shaped(one.carried, accumulators)
            end = tail(b, self.columns, one.i, self.lanes)
            state = self._vector(loop, one.i, end, states[0])
            one.next = _flat([*states[1:], state])
        states = _shaped(one.carried, accumulators)
        for k, i in enumerate(loop.reductions):
            parts = [state[k] for state in states]
            self.row.scalars[i] = reductions.finish(b, instrs[i], parts)

    def _vectors(self, loop: Loop) -> int:
        """How many vectors a round of the main loop takes: two, where each waits for the sum (or
        whatever) of the one before and has little else to do. More is no faster, and longer to
        compile."""
        return 2 if loop.reductions and not loop.heavy and len(loop.elements) <= _LONG else 1

    def _vector(
        self, loop: Loop, first: Value, end: Tail | None, state: list[State]
    ) -> list[State]:
        """One vector of columns; what has been reduced before and after."""
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
            after.append(reductions.step(b, kernel.instrs[i], before, x, elements.columns, mask))
        for i in loop.keeps:
            elements.store(i, self.kept[i], None)
        for k in loop.outputs:
            spread = k in self.scattered
            place = self.scattered[k] if spread else self.places[k]
            elements.store(kernel.outputs[k].instr, place, None if spread else end)
        return after


def _start(kernel: Rows, found: Sequence[Instr], lanes: int) -> list[State]:
    return [reductions.start(i, kernel.instrs[i.args[0]].dtype, lanes) for i in found]


def _flat(accumulators: Sequence[Sequence[State]]) -> list[Value]:
    return [value for states in accumulators for state in states for value in state]


def _shaped(values: Sequence[Value], like: Sequence[Sequence[State]]) -> list[list[State]]:
    """Values as they were before _flat."""
    rest = iter(values)
    return [[tuple(next(rest) for _ in state) for state in states] for states in like]
