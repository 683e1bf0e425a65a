"""Reductions by the threads of a warp, or of all warps of a block.

In: accumulators of threads (llvm/folds.py). Out: those of a whole row or column. Called by rows.py
and columns.py. The order of additions is that of kernels/summation.py, however many warps take
part: blocks of elements are reduced by one thread each, in a chain, and folded in their order.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..kernels.instructions import Instr
from ..kernels.summation import CHAIN
from ..llvm import folds, ir
from ..llvm.elementary import like
from ..llvm.folds import LEVELS, State
from ..llvm.ir import Value
from ..llvm.scalars import to_memory
from .indexing import i32
from .thread import WARP, Thread


class Ordered:
    """The folding of blocks' accumulators, in their order.

    instrs, arguments: the reductions, and the dtypes of what they reduce. warps: so many reduce
    blocks in turn, the first one the first block.
    """

    def __init__(
        self, t: Thread, instrs: Sequence[Instr], arguments: Sequence[str], warps: int
    ) -> None:
        self.t, self.instrs, self.warps = t, instrs, warps
        self.starts = [folds.start(i, d, 1) for i, d in zip(instrs, arguments, strict=True)]
        if warps > 1:
            sizes = [ir.width(to_memory_type(x)) for state in self.starts for x in state]
            self._slots = [t.shared(size * WARP * warps) for size in sizes]

    def carried(self) -> list[Value]:
        """What begins a loop over blocks: for each reduction its accumulator, and of a sum of
        floats the levels."""
        found: list[Value] = []
        for instr, state in zip(self.instrs, self.starts, strict=True):
            found += state * (LEVELS if folds.goes_by_blocks(instr, state) else 1)
        return found

    def fold(
        self, carried: Sequence[Value], parts: Sequence[State], first: Value, count: Value
    ) -> list[Value]:
        """Take the accumulators of blocks `first` (i32), `first` + 1, ..., one of each warp, into
        what is carried. count: of all blocks."""
        if self.warps == 1:
            return self._take(carried, parts, first)
        t, b = self.t, self.t.b
        mine = b.add(b.mul(t.warp, i32(WARP)), t.lane)
        for slot, x in zip(self._slots, (x for state in parts for x in state), strict=True):
            x = to_memory(b, x)
            b.store(x, b.at(slot, mine, x.type))
        t.barrier()
        with b.loop(i32(0), i32(self.warps), i32(1), carried) as loop:
            number = b.add(first, loop.i)
            at = b.add(b.mul(loop.i, i32(WARP)), t.lane)
            taken = self._take(loop.carried, self._loaded(at), number)
            there = b.compare("slt", number, count)
            loop.next = [b.select(there, x, y) for x, y in zip(taken, loop.carried, strict=True)]
        t.barrier()
        return loop.carried

    def single(self, parts: Sequence[State]) -> list[State]:
        """The accumulators of a row of one block, as carried(), fold() and totals() make them."""
        b, found = self.t.b, list[State]()
        for instr, state, part in zip(self.instrs, self.starts, parts, strict=True):
            if folds.goes_by_blocks(instr, state):
                found.append((b.add(part[0], like(part[0], 0.0)),))
            else:
                found.append(tuple(folds.merge(b, instr, state, part)))
        return found

    def _loaded(self, at: Value) -> list[State]:
        b, slots, found = self.t.b, iter(self._slots), []
        for state in self.starts:
            parts = []
            for x in state:
                y = b.load(to_memory_type(x), b.at(next(slots), at, to_memory_type(x)))
                parts.append(b.compare("ne", y, like(y, 0)) if x.type == "i1" else y)
            found.append(tuple(parts))
        return found

    def _take(self, carried: Sequence[Value], parts: Sequence[State], number: Value) -> list[Value]:
        """With the accumulators of one more block, which has that number."""
        b, rest, found = self.t.b, list(carried), list[Value]()
        for instr, state, part in zip(self.instrs, self.starts, parts, strict=True):
            if not folds.goes_by_blocks(instr, state):
                before, rest = tuple(rest[: len(state)]), rest[len(state) :]
                found += folds.merge(b, instr, before, part)
                continue
            levels, rest = rest[:LEVELS], rest[LEVELS:]
            done = b.add(number, i32(1))
            (add,), every, zero = part, 1, like(levels[0], 0.0)
            up: Value | None = None  # True if the level below begins anew
            for level in range(LEVELS):
                sum = b.add(levels[level], add)
                levels[level] = sum if up is None else b.select(up, sum, levels[level])
                every *= CHAIN
                full = b.compare("eq", b.binary("urem", done, i32(every)), i32(0))
                add = levels[level]
                if level + 1 < LEVELS:
                    levels[level] = b.select(full, zero, levels[level])
                up = full
            found += levels
        return found

    def totals(self, carried: Sequence[Value]) -> list[State]:
        """The accumulators, when all blocks have been folded."""
        b, rest, found = self.t.b, list(carried), list[State]()
        for instr, state in zip(self.instrs, self.starts, strict=True):
            if folds.goes_by_blocks(instr, state):
                levels, rest = rest[:LEVELS], rest[LEVELS:]
                sum = like(levels[0], 0.0)
                for level in levels:
                    sum = b.add(level, sum)
                found.append((sum,))
            else:
                found.append(tuple(rest[: len(state)]))
                rest = rest[len(state) :]
        return found


def across(t: Thread, instr: Instr, state: State, slots: int) -> Value:
    """The result of a reduction whose accumulators the first `slots` threads of each warp hold, and
    the others as many again: opposite ones first."""
    b, mask = t.b, slots // 2
    while mask:
        other = tuple(t.exchange(x, mask) for x in state)
        bit = b.binary("and", t.lane, i32(mask))
        below = b.compare("eq", bit, i32(0))
        low = tuple(b.select(below, x, y) for x, y in zip(state, other, strict=True))
        high = tuple(b.select(below, y, x) for x, y in zip(state, other, strict=True))
        state = folds.merge(b, instr, low, high)
        mask //= 2
    return folds.result(b, instr, state)


def to_memory_type(x: Value) -> str:
    """The type of a register's value in memory."""
    return "i8" if x.type == "i1" else x.type
