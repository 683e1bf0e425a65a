"""Reductions of a row in vector lanes.

In: an Instr whose op is in REDUCTIONS, and vectors of its argument. Out: accumulators (a State), in
the end one scalar. Called by rows.py and columns.py.

Elements are dealt into slots and these combined in a fixed order, which no processor's width
changes: a slot is a lane of one of several vectors. A missing element is given as the reduction's
identity, so that it changes nothing. Sums of floats go by blocks, whose sums are added in levels:
so the error grows with the logarithm of the number of elements.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ...kernels.instructions import Instr
from ...kernels.summation import CHAIN
from ...llvm import ir
from ...llvm.elementary import like
from ...llvm.ir import Builder, Function, Module, Value
from ...llvm.scalars import cast, is_nan, maximum, minimum, register, to_memory

State = tuple[Value, ...]  # one vector; the best and its position for argmax and argmin

_LAST = 2**63 - 1  # the position of an element that is not there
_LEVELS = 3  # of sums of blocks; the last one takes whatever comes


def start(instr: Instr, argument: str, lanes: int) -> State:
    """The accumulator before any element. argument: the dtype of the elements."""
    if _is_position(instr):
        best = Value(ir.vector(lanes, register(argument)), "")
        return _identity(instr, best), like(Value(ir.vector(lanes, "i64"), ""), _LAST)
    return (_identity(instr, Value(ir.vector(lanes, register(instr.dtype)), "")),)


def step(
    b: Builder,
    instr: Instr,
    state: State,
    x: Value,
    columns: Callable[[], Value],
    mask: Value | None,
) -> State:
    """The accumulator with x taken in. columns: makes the columns of x's lanes, where they are
    needed; mask: the lanes that count."""
    if not _is_position(instr):
        x = cast(b, x, instr.dtype)
        if mask is not None:
            x = b.select(mask, x, _identity(instr, x))
        return merge(b, instr, state, (x,))
    positions = columns()
    if mask is not None:
        x = b.select(mask, x, _identity(instr, x))
        positions = b.select(mask, positions, like(positions, _LAST))
    # Positions grow, so that a new element must be better to win.
    wins = _better(b, instr, x, state[0])
    return b.select(wins, x, state[0]), b.select(wins, positions, state[1])


def merge(b: Builder, instr: Instr, one: State, other: State) -> State:
    """The accumulator of two disjoint parts, in any order."""
    if _is_position(instr):
        better, worse = _better(b, instr, other[0], one[0]), _better(b, instr, one[0], other[0])
        first = b.binary("xor", b.binary("or", better, worse), like(better, True))
        first = b.binary("and", first, b.compare("slt", other[1], one[1]))
        wins = b.binary("or", better, first)
        return b.select(wins, other[0], one[0]), b.select(wins, other[1], one[1])
    (x,), (y,) = one, other
    match instr.op:
        case "max":
            return (maximum(b, x, y),)
        case "min":
            return (minimum(b, x, y),)
        case "any":
            return (b.binary("or", x, y),)
        case "all":
            return (b.binary("and", x, y),)
    return (b.add(x, y),)


def finish(b: Builder, instr: Instr, states: list[State]) -> Value:
    """The scalar: vectors that are opposite each other first, then halves of lanes."""
    while len(states) > 1:
        half = len(states) // 2
        states = [merge(b, instr, states[i], states[i + half]) for i in range(half)]
    (state,) = states
    while (lanes := state[0].lanes) > 2:
        low, high = range(lanes // 2), range(lanes // 2, lanes)
        state = merge(b, instr, _part(b, state, low), _part(b, state, high))
    # The last two as vectors still: a choice between scalars becomes a branch, often a wrong one.
    state = merge(b, instr, state, _part(b, state, (1, 0)))
    state = tuple(b.lane(x, 0) for x in state)
    if not _is_position(instr):
        return state[0]
    # Where nothing was better than the identity, every element is equal to it.
    none = b.compare("eq", state[1], like(state[1], _LAST))
    return cast(b, b.select(none, like(state[1], 0), state[1]), instr.dtype)


# Sums of blocks ----------------------------------------------------------------------------------


class Sums:
    """Sums of floats over many blocks, beside the vectors that hold those of the block at hand.

    memory: such vectors, `count` of them of one type, which the caller fills before it calls `add`
    or `total`, and finds changed after.
    """

    def __init__(self, b: Builder, type: str, count: int) -> None:
        self._b, self._type, self._count = b, type, ir.integer(count)
        self.memory = b.alloca(f"[{count} x {type}]")
        self._levels = b.alloca(f"[{count * _LEVELS} x {type}]")

    def put(self, i: int, x: Value) -> None:
        self._b.store(x, self._b.at(self.memory, ir.integer(i), self._type))

    def get(self, i: int) -> Value:
        return self._b.load(self._type, self._b.at(self.memory, ir.integer(i), self._type))

    def clear(self, wanted: Value) -> None:
        """Begin without blocks. wanted: True if there will be any."""
        b = self._b
        zeros = b.mul(self._count, ir.integer(_LEVELS))
        with b.loop(ir.integer(0), b.select(wanted, zeros, ir.integer(0)), ir.integer(1)) as loop:
            b.store(_zero(self._type), b.at(self._levels, loop.i, self._type))

    def add(self, number: Value) -> None:
        """Add the block with that number, counted from 1, to the levels; memory begins anew."""
        fold = _fold(self._b.module, self._type)
        fold(self._b, sums=self.memory, levels=self._levels, number=number, count=self._count)

    def total(self) -> None:
        """Leave in memory the sum of all blocks and of its own content."""
        b = self._b
        with b.loop(ir.integer(0), self._count, ir.integer(1)) as loop:
            place = b.at(self.memory, loop.i, self._type)
            sum = b.load(self._type, place)
            for level in range(_LEVELS):
                at = b.add(loop.i, b.mul(self._count, ir.integer(level)))
                sum = b.add(b.load(self._type, b.at(self._levels, at, self._type)), sum)
            b.store(sum, place)


def _fold(module: Module, type: str) -> Function:
    """A function that adds `count` vectors to as many of the first level, and every CHAIN-th time
    these to those of the next, and so on. Vectors that were added become zero."""
    name = f"fold_{ir.suffix(type)}"
    if found := module.find(name):
        return found
    params = [("ptr", "sums"), ("ptr", "levels"), ("i64", "number"), ("i64", "count")]
    b = module.function(name, params, internal=True, attributes="noinline nounwind")
    sums, levels, number, count = b.params
    source, goal = sums, levels
    again = ir.boolean(True)
    for level in range(_LEVELS):
        with b.loop(ir.integer(0), b.select(again, count, ir.integer(0)), ir.integer(1)) as loop:
            place, other = b.at(goal, loop.i, type), b.at(source, loop.i, type)
            b.store(b.add(b.load(type, place), b.load(type, other)), place)
            b.store(_zero(type), other)
        every = b.binary("urem", number, ir.integer(CHAIN ** (level + 1)))
        again = b.compare("eq", every, ir.integer(0))
        source, goal = goal, b.at(goal, count, type)
    b.end()
    return b.function


def _zero(type: str) -> Value:
    return like(Value(type, ""), 0.0)


class Parts:
    """The accumulators of a loop over a row's columns: for each reduction a vector for every
    `lanes` of the slots. arguments: dtypes of the elements."""

    def __init__(
        self, b: Builder, instrs: Sequence[Instr], arguments: Sequence[str], lanes: int, slots: int
    ) -> None:
        self._b, self._instrs, self._lanes = b, instrs, lanes
        self.count = slots // lanes
        self._starts = [start(i, d, lanes) for i, d in zip(instrs, arguments, strict=True)]
        self._sums = {
            k: Sums(b, state[0].type, self.count)
            for k, (instr, state) in enumerate(zip(instrs, self._starts, strict=True))
            if goes_by_blocks(instr, state)
        }
        self._block = ir.integer(slots * CHAIN)

    # In registers, for loops whose rounds are written out.

    @contextmanager
    def blocks(self, columns: Value) -> Iterator[Block]:
        """A loop over the blocks of so many columns. Set `states` of what it yields before the end
        of the body; they are the last ones after the loop."""
        b, starts = self._b, [self._starts] * self.count
        if not self._sums:
            block = Block(ir.integer(0), columns, starts)
            yield block
            return
        several = self._clear(columns)
        flat = _flat(starts)
        with b.loop(ir.integer(0), columns, self._block, flat) as loop:
            states = self._shaped(loop.carried)
            with b.when(b.compare("sgt", loop.i, ir.integer(0))):
                self._put(states)
                for sums in self._sums.values():
                    sums.add(b.binary("udiv", loop.i, self._block))
            begin = [
                [self._starts[k] if k in self._sums else x for k, x in enumerate(part)]
                for part in states
            ]
            block = Block(loop.i, b.smin(columns, b.add(loop.i, self._block)), begin)
            yield block
            loop.next = _flat(block.states)
        block.states = self._shaped(loop.carried)
        once = b.select(several, ir.integer(1), ir.integer(0))
        with b.loop(ir.integer(0), once, ir.integer(1), loop.carried) as total:
            self._put(block.states)
            for sums in self._sums.values():
                sums.total()
            total.next = _flat(self._got(block.states))
        block.states = self._shaped(total.carried)

    def finish(self, states: Sequence[Sequence[State]]) -> list[Value]:
        """The scalars."""
        return [
            finish(self._b, instr, [part[k] for part in states])
            for k, instr in enumerate(self._instrs)
        ]

    def _clear(self, columns: Value) -> Value:
        several = self._b.compare("sgt", columns, self._block)
        for sums in self._sums.values():
            sums.clear(several)
        return several

    def _put(self, states: Sequence[Sequence[State]]) -> None:
        for k, sums in self._sums.items():
            for u, part in enumerate(states):
                sums.put(u, part[k][0])

    def _got(self, states: Sequence[Sequence[State]]) -> list[list[State]]:
        return [
            [(self._sums[k].get(u),) if k in self._sums else x for k, x in enumerate(part)]
            for u, part in enumerate(states)
        ]

    def _shaped(self, values: Sequence[Value]) -> list[list[State]]:
        """Values as they were before _flat."""
        rest = iter(values)
        return [[tuple(next(rest) for _ in x) for x in self._starts] for _ in range(self.count)]

    # In memory, for loops that go vector by vector.

    @contextmanager
    def blocks_in_memory(self, columns: Value) -> Iterator[tuple[Value, Value]]:
        """A loop over the blocks of so many columns: where each begins and ends. Its body takes a
        vector's accumulator by `load`, and gives it back by `store`."""
        b = self._b
        self._memory = [
            [self._sums[k].memory]
            if k in self._sums
            else [b.alloca(f"[{self.count} x {_in_memory(x)}]") for x in state]
            for k, state in enumerate(self._starts)
        ]
        for u in range(self.count):
            self.store(ir.integer(u), self._starts)
        if not self._sums:
            yield ir.integer(0), columns
            return
        several = self._clear(columns)
        with b.loop(ir.integer(0), columns, self._block) as loop:
            stop = b.smin(columns, b.add(loop.i, self._block))
            yield loop.i, stop
            with b.when(b.compare("slt", stop, columns)):
                for sums in self._sums.values():
                    sums.add(b.binary("udiv", stop, self._block))
        with b.when(several):
            for sums in self._sums.values():
                sums.total()

    def place(self, column: Value) -> Value:
        """The number of the accumulator that the columns from this one on belong to."""
        b = self._b
        vector = b.binary("udiv", column, ir.integer(self._lanes))
        return b.binary("and", vector, ir.integer(self.count - 1))

    def load(self, place: Value) -> list[State]:
        b, found = self._b, []
        for state, memory in zip(self._starts, self._memory, strict=True):
            types = [_in_memory(x) for x in state]
            parts = [b.load(t, b.at(m, place, t)) for t, m in zip(types, memory, strict=True)]
            bools = [x.element == "i1" for x in state]
            found.append(
                tuple(
                    b.compare("ne", x, like(x, 0)) if is_bool else x
                    for x, is_bool in zip(parts, bools, strict=True)
                )
            )
        return found

    def store(self, place: Value, states: Sequence[State]) -> None:
        for state, memory in zip(states, self._memory, strict=True):
            for x, base in zip(state, memory, strict=True):
                kept = to_memory(self._b, x)
                self._b.store(kept, self._b.at(base, place, kept.type))


class Block:
    """The columns from start to stop, and the accumulators before them."""

    def __init__(self, start: Value, stop: Value, states: list[list[State]]) -> None:
        self.start, self.stop, self.states = start, stop, states


def _flat(states: Sequence[Sequence[State]]) -> list[Value]:
    return [value for part in states for state in part for value in state]


def order_matters(instr: Instr) -> bool:
    """True if the bits of the result depend on the order of the elements: sums of floats round, and
    the larger of 0.0 and -0.0 is the later one."""
    return not _is_position(instr) and register(instr.dtype) in ("float", "double")


def goes_by_blocks(instr: Instr, state: State) -> bool:
    return instr.op == "sum" and state[0].is_float


def _in_memory(x: Value) -> str:
    return ir.vector(x.lanes, "i8") if x.element == "i1" else x.type


# -------------------------------------------------------------------------------------------------


def _part(b: Builder, state: State, lanes: Sequence[int]) -> State:
    return tuple(b.shuffle(x, x, lanes) for x in state)


def _is_position(instr: Instr) -> bool:
    return instr.op in ("argmax", "argmin")


def _better(b: Builder, instr: Instr, x: Value, than: Value) -> Value:
    """Further towards the extreme, and NaN furthest."""
    up = instr.op == "argmax"
    if not x.is_float:
        kinds = ("ugt", "ult") if x.element == "i1" else ("sgt", "slt")
        return b.compare(kinds[0] if up else kinds[1], x, than)
    # "or unordered": also where one of them is NaN, which is right unless `than` is.
    wins = b.compare("ugt" if up else "ult", x, than)
    settled = b.binary("xor", is_nan(b, than), like(wins, True))
    return b.binary("and", wins, settled)


def _identity(instr: Instr, x: Value) -> Value:
    """The identity of a reduction, in x's type."""
    if instr.op in ("sum", "any"):
        return like(x, 0)
    if instr.op == "all":
        return like(x, 1)
    low = instr.op in ("max", "argmax")
    if x.is_float:
        return like(x, -math.inf if low else math.inf)
    if x.element == "i1":
        return like(x, not low)
    bits = ir.width(x.element) * 8 - 1
    return like(x, -(2**bits) if low else 2**bits - 1)
