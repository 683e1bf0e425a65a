"""Products on tensor cores: of 16-bit numbers, and of float32 rounded to tf32, with float32 sums.

In: matrices of a head. Out: what one thread of a block has of their products (products.py). Called
by forward.py and gradients.py.

Each warp has 16 rows of a tile, or 32. Thread 4 g + p of it has rows g and g + 8 of each 16, and of
each 8 columns those with the numbers 2 p and 2 p + 1: so scores become weights, and these the left
operand of the next product, without leaving their thread. Moving matrices come by asynchronous
copies: the second one while scores are made of the first one, and the next tile of the first one
while weights are multiplied with the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import e, log2
from typing import NamedTuple

from ....dtypes import ALL
from ...llvm import ir
from ...llvm.ir import Value
from ...llvm.scalars import cast
from ..indexing import i32
from ..thread import WARP, Thread
from .heads import Rows, gathered, lanes
from .panels import Fragment, Panel
from .products import Flags, Four, Products, Sums

_WARPS = 4
_DOWN, _ACROSS = 16, 8  # rows and columns that a tensor core makes at once
_AT_ONCE = 4  # steps in a round of a loop


class Layout(NamedTuple):
    """What the code is made for. kind: of the numbers, as Thread.mma has it. blocks: of 16 rows, of
    a warp. columns: of a tile. staying, moving: the widths of the matrices, powers of 2. kept: True
    if those that stay are in registers. copy: as of Panel. pairs: True if two elements of a result
    are written at once."""

    kind: str
    blocks: int
    columns: int
    staying: tuple[int, ...]
    moving: tuple[int, int]
    kept: bool
    copy: int
    pairs: bool

    @property
    def threads(self) -> int:
        return _WARPS * WARP

    @property
    def rows(self) -> int:
        return _WARPS * self.blocks * _DOWN

    @property
    def bytes(self) -> int:
        """Of an element in shared memory."""
        return 4 if self.kind == "tf32" else 2

    @property
    def shared(self) -> int:
        """Bytes of shared memory."""
        moving = self.columns * sum(self.moving)
        staying = [self.rows * width for width in self.staying]
        return self.bytes * (max(moving, *staying) if self.kept else moving + sum(staying))


class Tensor(Products):
    """Multiplies as a layout says."""

    element, unit = "float", log2(e)

    def __init__(self, t: Thread, layout: Layout) -> None:
        super().__init__(t, "float32")
        self.layout, b = layout, t.b
        self.rows, self.columns, self.each = layout.rows, layout.columns, 2 * layout.blocks
        self.scratch = t.shared(layout.shared)
        self._panels: list[Panel] = []
        self._stays: list[Panel] = []
        offset = 0
        for width in layout.moving:
            self._panels.append(self._panel(offset, layout.columns, width))
            offset += self._panels[-1].size
        for width in layout.staying:
            place = 0 if layout.kept else offset
            self._stays.append(self._panel(place, layout.rows, width))
            offset += self._stays[-1].size
        self._group = b.binary("lshr", t.lane, i32(2))
        self._pair = b.binary("and", t.lane, i32(3))
        self._mine = b.mul(t.warp, i32(_DOWN * layout.blocks))  # the first row of the warp
        self.first_of_row = b.compare("eq", self._pair, i32(0))

    def _panel(self, offset: int, rows: int, width: int) -> Panel:
        layout = self.layout
        return Panel(self.t, layout.kind, self.scratch, offset, rows, width, layout.copy)

    # A thread's part -----------------------------------------------------------------------------
    def row_numbers(self, first: Value) -> list[Value]:
        b = self.b
        mine = b.add(b.add(first, self._mine), self._group)
        return [b.add(mine, i32(8 * i)) for i in range(self.each)]

    def column_numbers(self, first: Value) -> Value:
        b = self.b
        mine = b.add(first, b.mul(self._pair, i32(2)))
        places = [8 * j + i for j in range(self.columns // _ACROSS) for i in range(2)]
        several = b.splat(mine, len(places))
        named = ", ".join(f"i32 {n}" for n in places)
        return b.add(several, Value(several.type, f"<{named}>"))

    def column_number(self, first: Value, n: Value) -> Value:
        b = self.b
        low = b.binary("and", n, i32(1))
        mine = b.add(b.add(first, b.mul(self._pair, i32(2))), low)
        return b.add(mine, b.mul(b.sub(n, low), i32(4)))

    def keys_by_fours(self, four: Four, rows: Sequence[Value], first: Value) -> list[Flags]:
        """Two threads share four columns: one makes the bits of even eights, the other those of odd
        ones."""
        b, turns = self.b, self.columns // _ACROSS
        odd = b.binary("and", self._pair, i32(1))
        column = b.add(first, b.mul(b.binary("lshr", self._pair, i32(1)), i32(4)))
        found = []
        for row in rows:
            with b.loop(odd, i32(turns), i32(2), [i32(0)], rolled=True) as loop:
                bits = four(row, b.add(column, b.mul(loop.i, i32(_ACROSS))))
                bits = b.binary("shl", bits, b.mul(loop.i, i32(4)))
                loop.next = [b.binary("or", loop.carried[0], bits)]
            word = b.binary("or", loop.carried[0], self.t.exchange(loop.carried[0], 1))
            word = b.binary("lshr", word, b.mul(odd, i32(2)))
            found.append(Flags(word, [4 * j + i for j in range(turns) for i in range(2)]))
        return found

    def rows_by_fours(self, four: Four, rows: Sequence[Value], first: Value) -> list[Flags]:
        """Four threads share four rows: each makes the bits of every fourth column."""
        b, count = self.b, self.columns // 4  # columns of a thread
        assert 4 * count <= 32, "four bits for each column fit into a word"
        mine = b.binary("and", self._group, i32(3))
        found = []
        for row in rows:
            key = b.binary("and", row, i32(-4))
            with b.loop(mine, i32(count), i32(4), [i32(0)], rolled=True) as loop:
                bits = four(self.column_number(first, loop.i), key)
                bits = b.binary("shl", bits, b.mul(loop.i, i32(4)))
                loop.next = [b.binary("or", loop.carried[0], bits)]
            (word,) = loop.carried
            for bit in (4, 8):  # of the number of a thread, those of its group
                word = b.binary("or", word, self.t.exchange(word, bit))
            found.append(Flags(b.binary("lshr", word, mine), range(0, 4 * count, 4)))
        return found

    @property
    def sharing(self) -> tuple[Sequence[int], Value, int]:
        return (2, 1), self._pair, 4

    def exp(self, x: Value) -> Value:
        b = self.b
        return gathered(b, [self.t.exp2(one) for one in lanes(b, x)])

    # Operands ------------------------------------------------------------------------------------
    def begin(self, staying: Sequence[Rows], first: Value) -> None:
        t = self.t
        self._kept: list[list[list[Fragment]]] = []  # of each matrix, by blocks and steps
        for panel, of in zip(self._stays, staying, strict=True):
            panel.bring(of, first)
            t.commit()
            if self.layout.kept:
                t.wait(0)
                t.barrier()
                self._kept.append(
                    [
                        [self._left(panel, block, i32(step)) for step in range(panel.pieces // 2)]
                        for block in range(self.layout.blocks)
                    ]
                )
                t.barrier()  # the next matrix takes the place of this one
        if not self.layout.kept:
            t.wait(0)
            t.barrier()

    def _left(self, panel: Panel, block: int, step: Value) -> Fragment:
        return panel.rows_down(self._mine, _DOWN * block, step)

    def move(self, moving: Sequence[Rows], start: Value, stop: Value, jumps: bool) -> None:
        self._moving, self._stop, self._jumps = moving, stop, jumps
        if not jumps:
            self._bring_first(start)

    def _bring_first(self, start: Value) -> None:
        with self.b.when(self.b.compare("slt", start, self._stop)):
            self._panels[0].bring(self._moving[0], start)
        self.t.commit()

    def turn(self, start: Value) -> None:
        self._following = self.b.add(start, i32(self.columns))
        if self._jumps:
            self._bring_first(start)
        self._panels[1].bring(self._moving[1], start)
        self.t.commit()
        self.t.wait(1)
        self.t.barrier()

    def second(self, last: bool) -> None:
        self.t.wait(0)
        self.t.barrier()
        if last and not self._jumps:
            self._bring_first(self._following)

    def over(self) -> None:
        if not self._jumps:
            self.t.barrier()
            self._bring_first(self._following)

    def done(self) -> None:
        self.t.barrier()

    def end(self) -> None:
        self.t.wait(0)
        self.t.barrier()

    # Products ------------------------------------------------------------------------------------
    def scores(self, staying: int, moving: int) -> list[Value]:
        b, layout, panel = self.b, self.layout, self._panels[moving]
        turns, steps = self.columns // _ACROSS, panel.pieces // 2
        sums = [ir.floating(0.0)] * (4 * turns * layout.blocks)
        if layout.kept:
            for step in range(steps):
                left = [fragments[step] for fragments in self._kept[staying]]
                sums = self._add(sums, left, panel, i32(step))
        else:
            stays = self._stays[staying]
            # A loop, for else as much is read ahead as there are registers, and a little more.
            each = min(_AT_ONCE, steps)
            with b.loop(i32(0), i32(steps), i32(each), sums, rolled=True) as loop:
                sums = loop.carried
                for more in range(each):
                    at = b.add(loop.i, i32(more))
                    left = [self._left(stays, block, at) for block in range(layout.blocks)]
                    sums = self._add(sums, left, panel, at)
                loop.next = sums
            sums = loop.carried
        places = [4 * j + i for j in range(turns) for i in range(2)]
        return [
            gathered(b, [sums[4 * turns * block + 2 * half + place] for place in places])
            for block in range(layout.blocks)
            for half in range(2)
        ]

    def _add(
        self, sums: Sequence[Value], left: Sequence[Fragment], panel: Panel, step: Value
    ) -> list[Value]:
        """With the products of a step: sums of 8 columns after another of each block of rows."""
        found, turns = list(sums), self.columns // _ACROSS
        for j in range(0, turns, 2):
            right = panel.rows_across(_ACROSS * j, step)
            for block, a in enumerate(left):
                for half in range(2):
                    at = 4 * (turns * block + j + half)
                    found[at : at + 4] = self.t.mma(
                        self.layout.kind, a, right[2 * half :][:2], found[at : at + 4]
                    )
        return found

    def zero(self, width: int) -> Sums:
        return [[ir.floating(0.0)] * (width // 4) for _ in range(self.each)]

    def weigh(self, weights: Sequence[Value], moving: int, sums: Sums) -> Sums:
        t, b, panel = self.t, self.b, self._panels[moving]
        rows = [lanes(b, x) for x in weights]
        found = [list(row) for row in sums]
        depth = _DOWN if self.layout.bytes == 2 else _ACROSS  # columns of a step
        for step in range(self.columns // depth):
            left = [
                _operand(t, self.layout.kind, rows[2 * i : 2 * i + 2], step)
                for i in range(self.layout.blocks)
            ]
            for column in range(0, 4 * len(sums[0]), 2 * _ACROSS):
                right = panel.columns_across(column, step)
                for block, a in enumerate(left):
                    upper, lower = found[2 * block : 2 * block + 2]
                    for half in range(2):
                        at = column // 4 + 2 * half
                        before = [*upper[at : at + 2], *lower[at : at + 2]]
                        after = t.mma(self.layout.kind, a, right[2 * half :][:2], before)
                        upper[at : at + 2], lower[at : at + 2] = after[:2], after[2:]
        return found

    def store(self, to: Rows, first: Value, sums: Sums) -> None:
        b = self.b
        for number, row in zip(self.row_numbers(first), sums, strict=True):
            with b.when(b.compare("slt", number, to.count)):
                start = to.row(b, number)
                for at in range(0, len(row), 2):
                    column = b.add(b.mul(self._pair, i32(2)), i32(4 * at))
                    self._store_two(to, start, column, row[at : at + 2])

    def _store_two(self, to: Rows, start: Value, column: Value, two: Sequence[Value]) -> None:
        b = self.b
        if self.layout.pairs:
            with b.when(b.compare("slt", column, to.width)):
                place = b.at(start, column, to.element)
                if ALL[to.dtype].is_half:
                    b.store(self.t.pack(to.dtype, *two), place)
                else:
                    b.store(gathered(b, list(two)), place, 8)
            return
        for i, x in enumerate(two):
            mine = b.add(column, i32(i))
            with b.when(b.compare("slt", mine, to.width)):
                b.store(cast(b, x, to.dtype), b.at(start, mine, to.element))


def _operand(t: Thread, kind: str, rows: Sequence[Sequence[Value]], step: int) -> Fragment:
    """Weights of two rows as a left operand. The columns of a step may stand in any order that the
    right operand's rows have as well: of float32, the even ones come first."""
    if kind == "tf32":
        return [t.tf32(rows[i % 2][2 * step + i // 2]) for i in range(4)]
    places = [4 * step + 2 * (i // 2) for i in range(4)]
    return [t.pack(kind, *rows[i % 2][place : place + 2]) for i, place in enumerate(places)]
