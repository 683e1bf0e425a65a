"""Loops: a SCAN becomes one call, of the plan of its round.

In: Values and a node. Out: the call, and copies before it, added to the Values. Called by fuse.py
through KERNELS.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from ....backends.kernels import kinds
from ....backends.kernels.arguments import PackArgs
from ....node import Node
from ...schedule.layout import Shape, dense, same_places
from ...schedule.records import Binding, Buffer, Call, Loop, Plan, View, itemsize, whole
from ..body import copying
from ..build import add, copy_dense, materialise, note_made
from ..group import fresh
from ..rounds import Outline, outline
from ..values import Values
from .writes import own_or_copy

WORD = 8  # bytes of an element of the memory that a round works in


def fits(values: Values, node: Node) -> bool:
    """True if there is a plan of a round."""
    return isinstance(values.rounds.get(node), Plan)


def emit(values: Values, node: Node) -> None:
    plan = values.rounds[node]
    assert isinstance(plan, Plan)
    loop = _Loop(values, node, plan)
    loop.bind_inputs()
    loop.bind_outputs()
    loop.bind_others()
    name, rounds = str(node.attrs["round"]), node.attrs["length"]
    record = Loop(plan, rounds, loop.bindings)
    call = Call(kinds.Loop(name), (), tuple(loop.reads), tuple(loop.writes), (node,), loop=record)
    add(values, call)
    note_made(values, node, *loop.outputs())


class _Loop:
    """The places of a round's buffers outside."""

    def __init__(self, values: Values, node: Node, plan: Plan) -> None:
        self.values, self.node, self.plan = values, node, plan
        self.outline: Outline = outline(node, values.users[node])
        self.rounds, self.back = node.attrs["length"], node.attrs["reverse"]
        self.bindings: dict[Buffer, Binding] = {}
        self.reads: list[View] = []
        self.writes: list[View] = []
        self.carries: dict[int, View] = {}  # by number: the carry, or its history
        self.rows: dict[Node, View] = {}  # of values of a round: those of all rounds

    def bind_inputs(self) -> None:
        """Constants lie where they lie, xs as well, a carry in memory that may be written over."""
        traced = self.node.attrs["round"]
        firsts = self.node.srcs[len(traced.consts) : len(traced.consts) + len(traced.carry)]
        for p, src in zip(traced.consts, self.node.srcs, strict=False):
            self._bind_const(p, src)
        for p, src in zip(
            traced.xs, self.node.srcs[len(traced.inputs) - len(traced.xs) :], strict=True
        ):
            self._bind_entries(p, src)
        for i, (p, src) in enumerate(zip(traced.carry, firsts, strict=True)):
            if i in self.outline.history:
                self._begin_history(i, p, src)
            else:
                view = self.carries[i] = own_or_copy(self.values, self.node, src)
                self.reads.append(view)
                self.writes.append(view)
                self._bind(self._buffer(p), view, 0)

    def _bind_const(self, p: Node, src: Node) -> None:
        view = materialise(self.values, src)
        if not view.contiguous:
            view = copy_dense(self.values, src)
        self._read(p, view, 0)

    def _bind_entries(self, p: Node, src: Node) -> None:
        """An entry for each round."""
        view = materialise(self.values, src)
        if not same_places(view.shape[1:], view.strides[1:], dense(view.shape[1:])):
            view = copy_dense(self.values, src)
        step = view.strides[0] if self.rounds > 1 else 0
        first = replace(view, offset=view.offset + step * (self.rounds - 1) * self.back)
        self.reads.append(view)
        self._bind(self._buffer(p), first, -step if self.back else step)

    def _begin_history(self, i: int, p: Node, src: Node) -> None:
        """The array of all values of a carry, the first one in it."""
        size, rounds = prod(p.shape), self.rounds
        all_ = self.carries[i] = fresh(p.dtype.name, (rounds + 1, *p.shape), self.node)
        first, step = (rounds, -1) if self.back else (0, 1)
        place = _entry(all_, first)
        add(self.values, copying(materialise(self.values, src), place))
        self.reads.append(all_)
        self.writes.append(all_)
        self._bind(self._buffer(p), place, step * size)
        out = self.outline.carry[i][1]
        self._bind(self.plan.places[out].buffer, _entry(all_, first + step), step * size)
        later, earlier = _part(all_, 1, rounds + 1), _part(all_, 0, rounds)
        self.rows[p], self.rows[out] = (later, earlier) if self.back else (earlier, later)

    def bind_outputs(self) -> None:
        """Arrays for what rounds give beside carries."""
        for value in self.outline.rows.values():
            if value in self.rows:
                continue
            rows = fresh(value.dtype.name, (self.rounds, *value.shape), self.node)
            self.rows[value] = rows
            step, last = prod(value.shape), self.rounds - 1
            self._bind(
                self.plan.places[value].buffer,
                _entry(rows, last * self.back),
                -step if self.back else step,
            )
            self.writes.append(rows)

    def bind_others(self) -> None:
        """The memory that a round works in, its constants, and packed weights, which are packed
        once."""
        plan, values = self.plan, self.values
        room = Buffer("value", "int64", -(-plan.arena_bytes // WORD), self.node)
        for new, old in plan.aliases.items():
            if old in self.bindings:
                self.bindings[new] = self.bindings[old]
        for call in plan.prepacked:
            self._pack(call)
        for buffer, role in plan.roles.items():
            if role == "arena":
                self.bindings[buffer] = Binding(room, plan.offsets[buffer])
            elif role == "constant":
                values.constants[buffer] = plan.constants[buffer]
                self.reads.append(View(buffer, (buffer.size,), (1,)))
            elif role == "report":
                self.writes.append(View(buffer, (buffer.size,), (1,)))
        if room.size:
            self.writes.append(View(room, (room.size,), (1,)))

    def _pack(self, call: Call) -> None:
        """A packing of a constant, outside of the loop."""
        (source,), (packed,) = call.reads, call.writes
        binding = self.bindings[source.buffer]
        offset = binding.offset // itemsize(source.dtype)
        view = View(binding.buffer, source.shape, source.strides, offset + source.offset)
        assert isinstance(call.args, PackArgs)
        args = call.args._replace(b=call.args.b._replace(place=view.place))
        add(self.values, replace(call, args=args, reads=(view,)))
        self.reads.append(packed)

    def outputs(self) -> list[View]:
        """The view of each output of the node that is read."""
        found: dict[int, View] = {}
        for i, view in self.carries.items():
            last = 0 if self.back else self.rounds
            found[i] = _entry(view, last) if i in self.outline.history else view
        found |= {i: self.rows[value] for i, value in self.outline.rows.items()}
        unread = whole(Buffer("value", "int64", 0, self.node), (0,))
        return [found.get(i, unread) for i in range(len(self.node.specs))]

    # Binding --------------------------------------------------------------------------------------
    def _buffer(self, p: Node) -> Buffer | None:
        return self.plan.inputs.get(p)

    def _read(self, p: Node, view: View, step: int) -> None:
        self.reads.append(view)
        self._bind(self._buffer(p), view, step)

    def _bind(self, buffer: Buffer | None, view: View, step: int) -> None:
        """step: elements from round to round."""
        if buffer is not None:
            size = itemsize(view.dtype)
            self.bindings[buffer] = Binding(view.buffer, view.offset * size, step * size)


def _entry(rows: View, i: int) -> View:
    """Entry i of an array of all rounds."""
    return View(rows.buffer, rows.shape[1:], rows.strides[1:], rows.offset + i * rows.strides[0])


def _part(rows: View, start: int, end: int) -> View:
    first: Shape = (end - start, *rows.shape[1:])
    return View(rows.buffer, first, rows.strides, rows.offset + start * rows.strides[0])
