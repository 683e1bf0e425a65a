"""Bodies: loads, instructions and stores of a group's kernel, whose cut into tasks is still open.

In: a Group, all of whose nodes are decided. Out: a Body, and from it a Call: epilogues.py calls it
where it knows the tasks. Called by fuse.py, and by emit/writes.py for what writes, copies and
fills.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from ... import ops
from ...backends.kernels.arguments import (
    Args,
    Chunks,
    ColumnReduceArgs,
    Place,
    RowOperand,
    RowProgramArgs,
)
from ...backends.kernels.instructions import cost
from ...backends.kernels.kinds import ColumnReduce, ColumnStride, Input, Kernel, Output, RowProgram
from ...node import Node
from ..schedule.layout import Shape, collapse
from ..schedule.records import Buffer, Call, View
from . import limits
from .group import Again, Column, Const, Fetch, Gather, Group, Inside, Read, Step
from .symbolic import Program


class Access(NamedTuple):
    """An input: the view that it is read through, and whether by rows that another value names."""

    view: View  # of shape (outer..., columns)
    gathers: bool


class Store(NamedTuple):
    instr: int
    view: View  # of shape (outer..., columns); columns 1 for a row's value
    at: int
    at_stride: int


class Body:
    """group: decides the domain."""

    def __init__(self, group: Group) -> None:
        self.kind, self.outer, self.columns = group.kind, group.outer, group.columns
        self.rows, self.group = group.rows, group
        self.program = Program()
        self.numbers: dict[Node, int] = {}  # the instruction of each of the group's values
        self.nodes: list[Node] = []
        self.loads: list[Access] = []
        self.stores: list[Store] = []
        self.reduces = False  # or gathers: its rows and columns have a meaning
        for step in group.steps:
            self.numbers[step.node] = self._step(step)
        for node, view in group.stores:
            self.store(self.numbers[node], view, group.members.get(node, "element"))

    # Instructions --------------------------------------------------------------------------------
    def _step(self, step: Step) -> int:
        """The instruction that makes a node's value."""
        node, program = step.node, self.program
        numbers = [self._read(operand) for operand in step.operands]
        self.nodes.append(node)
        dtype = node.dtype.name
        if node.op.kind == "map":
            return program.map(node.op.forward, numbers, dtype, dict(node.attrs))
        self.reduces = True
        if node.op is ops.TAKE:
            return numbers[0]
        if node.op is ops.SUM:
            numbers = [program.cast(number, dtype) for number in numbers]
        return program.add(node.op.name, tuple(numbers), dtype)

    def _read(self, read: Read) -> int:
        """The instruction that reads an operand."""
        match read:
            case Fetch(view):
                return self._load(view)
            case Inside(node):
                return self.numbers[node]
            case Const(value, dtype):
                return self.program.const(value, dtype)
            case Column(dtype):
                return self.program.cast(self.program.add("col", (), "int64"), dtype)
            case Gather(view, row):
                return self.gather(view, self._read(row))
            case Again(node, operands):
                numbers = [self._read(operand) for operand in operands]
                if node not in self.nodes:
                    self.nodes.append(node)
                name = node.dtype.name
                return self.program.map(node.op.forward, numbers, name, dict(node.attrs))
        raise AssertionError("a Load becomes a Fetch when its value is stored")

    # Reading and writing ------------------------------------------------------------------------
    def load(self, view: View, level: str) -> int:
        """The instruction that reads a view with as many elements as its level has."""
        spread = self.group.spread(view, level)
        assert spread is not None, "only what fits is read"
        return self._load(spread)

    def _load(self, view: View) -> int:
        return self.program.add("load", (), view.dtype, self._input(Access(view, False)))

    def gather(self, view: View, index: int) -> int:
        """The instruction that reads row `index` (an instruction) of a view (entries, columns)."""
        strides = (view.strides[0], *(0,) * (len(self.outer) - 1), view.strides[1])
        found = View(view.buffer, (*self.outer, self.columns), strides, view.offset)
        return self.program.add("gather", (index,), view.dtype, self._input(Access(found, True)))

    def _input(self, load: Access) -> int:
        for i, (view, gathers) in enumerate(self.loads):
            if gathers == load.gathers and view.same(load.view):
                return i
        self.loads.append(load)
        return len(self.loads) - 1

    def store(self, instr: int, view: View, level: str, at: int = -1, at_stride: int = 0) -> None:
        """Write an instruction's value to a view of as many elements as its level has; a reduction
        along rows to one (chunks, columns)."""
        fitted = view if self.kind == "columns" else self.group.fit(view, level)
        assert fitted is not None, "a kernel's output lies where it can be written"
        self.stores.append(Store(instr, fitted, at, at_stride))

    # The finished kernel ------------------------------------------------------------------------
    def call(self, rows_per_task: int = 0) -> Call:
        """rows_per_task: that of the product whose tasks the kernel follows, as an epilogue."""
        return self._columns() if self.kind == "columns" else self._rows(rows_per_task)

    def _rows(self, per_task: int) -> Call:
        width = self.columns
        gathers = [load.view.strides[: len(self.outer)] for load in self.loads if load.gathers]
        walks = [load.view.strides for load in self.loads if not load.gathers]
        walks += [store.view.strides for store in self.stores]
        whole = all(s.view.shape[-1] == width for s in self.stores)
        if whole and not (self.reduces or gathers or self._counts() or per_task):
            # Purely elementwise: row boundaries carry no meaning. Merge axes into the longest rows.
            extents, strides = collapse((*self.outer, width), walks)
            extents, strides = _split(extents, strides, self._task())
            outer, width = extents[:-1], extents[-1]
            column = [s[-1] for s in strides]
            strides = [s[:-1] for s in strides]
        else:
            column = [s[-1] for s in walks]
            outer, strides = collapse(self.outer, [s[:-1] for s in walks])
        if not outer:
            outer, strides = (1,), [(0,) for _ in strides]
        rows = prod(outer)
        per_task = per_task or max(1, min(rows, self._task() // max(width, 1)))
        walked = iter(zip(strides, column, strict=True))
        inputs, outputs = [], []
        read, written = list[RowOperand[Place[Buffer]]](), list[RowOperand[Place[Buffer]]]()
        for load in self.loads:
            if load.gathers:
                along = (load.view.strides[0], *(0,) * (len(outer) - 1))
                step = load.view.strides[-1]
            else:
                along, step = next(walked)
            read.append(RowOperand(load.view.place, along, step))
            inputs.append(Input(load.view.dtype, _kind(step, width)))
        for store in self.stores:
            along, step = next(walked)
            at = store.at_stride if store.at >= 0 else None
            written.append(RowOperand(store.view.place, along, step, at))
            row = store.view.shape[-1] == 1 and self.columns > 1
            outputs.append(Output(store.instr, "same" if row else _kind(step, width), store.at))
        args = RowProgramArgs(outer, width, per_task, tuple(read), tuple(written))
        kernel = RowProgram(len(outer), tuple(inputs), tuple(self.program.instrs), tuple(outputs))
        return self._made(kernel, args)

    def _task(self) -> int:
        """The most elements of a task, which several threads share out."""
        each = sum(cost(i.op) for i in self.program.instrs) + len(self.stores)
        return min(limits.TASK_ELEMENTS, max(limits.TASK_LEAST, limits.TASK_COST // each))

    def _counts(self) -> bool:
        return any(i.op in ("row", "col") for i in self.program.instrs)

    def _columns(self) -> Call:
        outer, strides = collapse(self.outer, [load.view.strides[:-1] for load in self.loads])
        if not outer:
            outer, strides = (1,), [(0,) for _ in strides]
        inputs, outputs = [], []
        read, written = list[RowOperand[Place[Buffer]]](), list[Chunks[Place[Buffer]]]()
        for load, along in zip(self.loads, strides, strict=True):
            step = load.view.strides[-1]
            read.append(RowOperand(load.view.place, along, step))
            inputs.append(Input(load.view.dtype, _kind(step, self.columns)))
        for store in self.stores:  # views (chunks, columns)
            written.append(Chunks(store.view.place, *store.view.strides))
            outputs.append(Output(store.instr, "unit"))
        rows_each, columns_each = self.group.chunk, min(self.columns, limits.TASK_COLUMNS)
        args = ColumnReduceArgs(
            outer, self.columns, rows_each, columns_each, tuple(read), tuple(written)
        )
        kernel = ColumnReduce(len(outer), tuple(inputs), tuple(self.program.instrs), tuple(outputs))
        return self._made(kernel, args)

    def _made(self, kernel: Kernel, args: Args[Place[Buffer]]) -> Call:
        reads = [load.view if load.gathers else _once(load.view) for load in self.loads]
        writes = tuple(store.view for store in self.stores)
        return Call(kernel, args, tuple(reads), writes, tuple(self.nodes))


def _once(view: View) -> View:
    """The view of a row-invariant operand: one column."""
    if view.strides[-1]:
        return view
    return View(view.buffer, (*view.shape[:-1], 1), view.strides, view.offset)


def _kind(step: int, columns: int) -> ColumnStride:
    if columns == 1 or step == 1:
        return "unit"
    return "same" if step == 0 else "any"


def _split(extents: Shape, strides: Sequence[Shape], task: int) -> tuple[Shape, list[Shape]]:
    """One long row cut into rows of a task's elements, where its length divides."""
    if not extents:
        return (1,), [(0,) for _ in strides]
    if len(extents) > 1 or extents[0] < 2 * task:
        return tuple(extents), list(strides)
    n = extents[0]
    width = next((w for w in range(task, limits.TASK_LEAST - 1, -1) if n % w == 0), n)
    if width == n:
        return tuple(extents), list(strides)
    return (n // width, width), [(s[0] * width, s[0]) for s in strides]


def copying(source: View, target: View, *nodes: Node) -> Call:
    """A kernel that copies one view to another of the same shape, in its dtype. nodes: what it is
    done for."""
    shape = source.shape or (1,)
    body = Body(Group("rows", shape[:-1], shape[-1]))
    number = body.program.cast(body.load(source, "element"), target.dtype)
    body.store(number, target, "element")
    body.nodes += nodes
    return body.call()


def filling(target: View, value: float) -> Call:
    """A kernel that writes one value everywhere."""
    shape = target.shape or (1,)
    body = Body(Group("rows", shape[:-1], shape[-1]))
    body.store(body.program.const(value, target.dtype), target, "element")
    return body.call()
