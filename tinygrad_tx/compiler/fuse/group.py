"""A kernel in the making: a row program, or a reduction along rows, that nodes join one by one.

In: nodes, and how their operands are read (fuse/fuser.py decides both). Out: a Call. A group's
domain is rows x columns. A value inside it belongs to a place of the domain ("element": as many
elements as the domain, in the same row-major order), or to a whole row ("row": as many as there are
rows). Shapes do not matter beyond that, so a reshape inside a group costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from ...backends.kernels.kinds import Columns, Input, Kernel, Output, Rows
from ...node import Node
from ..schedule.layout import Shape, collapse, dense
from ..schedule.records import Buffer, Call, View
from .symbolic import Program

TASK_ELEMENTS = 16384  # of a row program: some 10 microseconds of work
CHUNK_ROWS = 64  # the fewest rows of one chunk of a reduction along rows
CHUNKS = 16  # and the most chunks
TASK_COLUMNS = 256


class Member(NamedTuple):
    """A value inside a group: the instruction that makes it, and what it belongs to."""

    instr: int
    level: str  # "element" or "row"


class Load(NamedTuple):
    view: View  # of shape (outer..., columns)
    gathers: bool


class Store(NamedTuple):
    instr: int
    view: View  # of shape (outer..., columns); columns 1 for a row's value
    at: int
    at_stride: int


class Group:
    """kind: "rows", or "columns" for reductions along the rows."""

    def __init__(self, kind: str, outer: Shape, columns: int) -> None:
        self.kind, self.outer, self.columns = kind, outer, columns
        self.rows = prod(outer)
        self.program = Program()
        self.members: dict[Node, Member] = {}
        self.nodes: list[Node] = []
        self.loads: list[Load] = []
        self.reading: list[Node] = []  # values read element by element, not yet known to others
        self.stores: list[Store] = []
        self.reduces = False

    def level(self, size: int) -> str | None:
        """What values of so many elements belong to; None where they do not fit in."""
        if size == self.rows * self.columns:
            return "element"
        return "row" if size == self.rows else None

    # Trying ---------------------------------------------------------------------------------------
    def mark(self) -> tuple[int, int, int, int]:
        """How far it has come: what back() goes back to."""
        return len(self.program.instrs), len(self.loads), len(self.nodes), len(self.reading)

    def back(self, mark: tuple[int, int, int, int]) -> None:
        """Undo what has been read and computed since: an attempt has failed."""
        instrs, loads, nodes, reading = mark
        self.program.forget(instrs)
        del self.loads[loads:], self.nodes[nodes:], self.reading[reading:]

    # Reading and writing ------------------------------------------------------------------------
    def load(self, view: View, level: str) -> int | None:
        """The instruction that reads a view with as many elements as its level has; None where no
        strides over the domain say it."""
        columns = self.columns if level == "element" else 1
        fitted = view.reshape((*self.outer, columns))
        if fitted is None:
            return None
        if level == "row":
            fitted = View(
                fitted.buffer,
                (*self.outer, self.columns),
                (*fitted.strides[:-1], 0),
                fitted.offset,
            )
        return self.program.add("load", (), view.dtype, self._input(Load(fitted, False)))

    def gather(self, view: View, index: int) -> int:
        """The instruction that reads row `index` (an instruction) of a view (entries, columns)."""
        strides = (view.strides[0], *(0,) * (len(self.outer) - 1), view.strides[1])
        found = View(view.buffer, (*self.outer, self.columns), strides, view.offset)
        return self.program.add("gather", (index,), view.dtype, self._input(Load(found, True)))

    def _input(self, load: Load) -> int:
        for i, (view, gathers) in enumerate(self.loads):
            if gathers == load.gathers and view.same(load.view):
                return i
        self.loads.append(load)
        return len(self.loads) - 1

    def store(self, member: Member, view: View, at: int = -1, at_stride: int = 0) -> None:
        """Write a member's value to a view of its size."""
        columns = self.columns if member.level == "element" else 1
        fitted = view.reshape((*self.outer, columns))
        assert fitted is not None, "a kernel's output lies where the plan has put it"
        self.stores.append(Store(member.instr, fitted, at, at_stride))

    # The finished kernel ------------------------------------------------------------------------
    def call(self, rows_per_task: int = 0) -> Call:
        """rows_per_task: where the tasks are those of a product whose rows these are."""
        return self._columns() if self.kind == "columns" else self._rows(rows_per_task)

    def _rows(self, per_task: int) -> Call:
        width = self.columns
        gathers = [load.view.strides[: len(self.outer)] for load in self.loads if load.gathers]
        walks = [load.view.strides for load in self.loads if not load.gathers]
        walks += [store.view.strides for store in self.stores]
        whole = all(s.view.shape[-1] == width for s in self.stores)
        if whole and not (self.reduces or gathers or self._counts() or per_task):
            # Rows and columns mean nothing: as few and as long rows as there can be.
            extents, strides = collapse((*self.outer, width), walks)
            extents, strides = _split(extents, strides)
            outer, width = extents[:-1], extents[-1]
            column = [s[-1] for s in strides]
            strides = [s[:-1] for s in strides]
        else:
            column = [s[-1] for s in walks]
            outer, strides = collapse(self.outer, [s[:-1] for s in walks])
        if not outer:
            outer, strides = (1,), [(0,) for _ in strides]
        rows = prod(outer)
        per_task = per_task or max(1, min(rows, TASK_ELEMENTS // max(width, 1)))
        args: list[int | tuple[Buffer, int]] = [*outer, width, per_task]
        walked = iter(zip(strides, column, strict=True))
        inputs, outputs = [], []
        for load in self.loads:
            args.append((load.view.buffer, load.view.offset))
            if load.gathers:
                args += [load.view.strides[0], *(0,) * (len(outer) - 1), load.view.strides[-1]]
                inputs.append(Input(load.view.dtype, _kind(load.view.strides[-1], width)))
            else:
                along, step = next(walked)
                args += [*along, step]
                inputs.append(Input(load.view.dtype, _kind(step, width)))
        for store in self.stores:
            along, step = next(walked)
            args += [(store.view.buffer, store.view.offset), *along, step]
            if store.at >= 0:
                args.append(store.at_stride)
            row = store.view.shape[-1] == 1 and self.columns > 1
            outputs.append(Output(store.instr, "same" if row else _kind(step, width), store.at))
        kernel = Rows(len(outer), tuple(inputs), tuple(self.program.instrs), tuple(outputs))
        return self._made(kernel, args)

    def _counts(self) -> bool:
        return any(i.op in ("row", "col") for i in self.program.instrs)

    def _columns(self) -> Call:
        outer, strides = collapse(self.outer, [load.view.strides[:-1] for load in self.loads])
        if not outer:
            outer, strides = (1,), [(0,) for _ in strides]
        per_task = self.chunk
        args: list[int | tuple[Buffer, int]] = [
            *outer,
            self.columns,
            per_task,
            min(self.columns, TASK_COLUMNS),
        ]
        inputs = []
        for load, along in zip(self.loads, strides, strict=True):
            step = load.view.strides[-1]
            args += [(load.view.buffer, load.view.offset), *along, step]
            inputs.append(Input(load.view.dtype, _kind(step, self.columns)))
        outputs = []
        for store in self.stores:  # views (chunks, columns)
            args += [(store.view.buffer, store.view.offset), *store.view.strides]
            outputs.append(Output(store.instr, "unit"))
        kernel = Columns(len(outer), tuple(inputs), tuple(self.program.instrs), tuple(outputs))
        return self._made(kernel, args)

    @property
    def chunk(self) -> int:
        """Rows of one chunk of a reduction along rows: by shape alone."""
        return max(CHUNK_ROWS, -(-self.rows // CHUNKS))

    @property
    def chunks(self) -> int:
        return -(-self.rows // self.chunk)

    def _made(self, kernel: Kernel, args: list[int | tuple[Buffer, int]]) -> Call:
        reads = [load.view if load.gathers else _once(load.view) for load in self.loads]
        return Call(kernel, args, reads, [s.view for s in self.stores], self.nodes)


def _once(view: View) -> View:
    """What is read of an operand that there is one of for each row: that one."""
    if view.strides[-1]:
        return view
    return View(view.buffer, (*view.shape[:-1], 1), view.strides, view.offset)


def _kind(step: int, columns: int) -> str:
    if columns == 1:
        return "unit"
    return {0: "same", 1: "unit"}.get(step, "any")


def _split(extents: Shape, strides: Sequence[Shape]) -> tuple[Shape, list[Shape]]:
    """One long row cut into rows that can be handed out, where its length divides."""
    if not extents:
        return (1,), [(0,) for _ in strides]
    if len(extents) > 1 or extents[0] < 2 * TASK_ELEMENTS:
        return tuple(extents), list(strides)
    n = extents[0]
    width = next((w for w in range(TASK_ELEMENTS, 255, -1) if n % w == 0), n)
    if width == n:
        return tuple(extents), list(strides)
    return (n // width, width), [(s[0] * width, s[0]) for s in strides]


def copying(source: View, target: View) -> Call:
    """A kernel that copies one view to another of the same shape."""
    shape = source.shape or (1,)
    group = Group("rows", shape[:-1], shape[-1])
    number = group.load(source, "element")
    assert number is not None
    group.store(Member(number, "element"), target)
    return group.call()


def filling(target: View, value: float) -> Call:
    """A kernel that writes one value everywhere."""
    shape = target.shape or (1,)
    group = Group("rows", shape[:-1], shape[-1])
    group.store(Member(group.program.const(value, target.dtype), "element"), target)
    return group.call()


def fresh(dtype: str, shape: Shape, node: Node | None = None) -> View:
    """A new dense buffer for a value."""
    return View(Buffer("arena", dtype, prod(shape), node), shape, dense(shape))
