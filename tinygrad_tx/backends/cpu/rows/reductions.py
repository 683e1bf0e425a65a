"""Reductions of a row in vector lanes.

In: an Instr whose op is in REDUCTIONS, and vectors of its argument. Out: accumulators (a State), in
the end one scalar. Called by rows.py and columns.py.

Elements are dealt into slots and these combined in a fixed order, which no processor's width
changes: a slot is a lane of one of several vectors. A missing element is given as the reduction's
identity, so that it changes nothing. Sums of floats go by blocks, whose sums are added in levels:
so the error grows with the logarithm of the number of elements.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ...kernels.instructions import Instr
from ...kernels.summation import CHAIN
from ...llvm import ir
from ...llvm.elementary import like
from ...llvm.folds import LEVELS, State, goes_by_blocks, merge, result, start
from ...llvm.ir import Builder, Function, Module, Value
from ...llvm.scalars import to_memory


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
    return result(b, instr, state)


# Sums of blocks ----------------------------------------------------------------------------------


class Sums:
    """Sums of floats over many blocks, beside the vectors that hold those of the block at hand.

    memory: such vectors, `count` of them of one type, which the caller fills before it calls `add`
    or `total`, and finds changed after.
    """

    def __init__(self, b: Builder, type: str, count: int) -> None:
        self._b, self._type, self._count = b, type, ir.integer(count)
        self.memory = b.alloca(f"[{count} x {type}]")
        self._levels = b.alloca(f"[{count * LEVELS} x {type}]")

    def put(self, i: int, x: Value) -> None:
        self._b.store(x, self._b.at(self.memory, ir.integer(i), self._type))

    def get(self, i: int) -> Value:
        return self._b.load(self._type, self._b.at(self.memory, ir.integer(i), self._type))

    def clear(self, wanted: Value) -> None:
        """Begin without blocks. wanted: True if there will be any."""
        b = self._b
        zeros = b.mul(self._count, ir.integer(LEVELS))
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
            for level in range(LEVELS):
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
    for level in range(LEVELS):
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


def _in_memory(x: Value) -> str:
    return ir.vector(x.lanes, "i8") if x.element == "i1" else x.type


def _part(b: Builder, state: State, lanes: Sequence[int]) -> State:
    return tuple(b.shuffle(x, x, lanes) for x in state)
