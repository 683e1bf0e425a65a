"""Products for a GPU without tensor cores: exact, in the order of every other machine.

In: a Gemm kernel. Out: its code for one thread. Called by writers.py.

A block has a tile of c; its threads bring the tiles of a and b that a few steps along k need into
shared memory, while they compute with those brought before. A thread has some rows and _ACROSS
columns of the tile, and adds each element's products in one upward chain for each block of KC.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...dtypes import ALL
from ..kernels.arguments import Matrix
from ..kernels.kinds import Gemm
from ..kernels.summation import KC
from ..llvm import ir
from ..llvm.elementary import like
from ..llvm.ir import Value
from ..llvm.scalars import cast, memory, register
from .choice import Choice, limited
from .indexing import i32, number, wide
from .thread import Thread

THREADS = 256
_SIDE = 16  # threads along either side of a tile
_ACROSS = 4  # columns of a thread
_COLUMNS = _SIDE * _ACROSS  # of a tile
_DEPTH = 16  # steps along k at a time: a divisor of KC
_PAD = 4  # elements behind each row in shared memory, so that its columns lie in other banks
_BUSY = 128  # tiles: with fewer, smaller ones keep more of a GPU busy


class Form(NamedTuple):
    """rows: of a tile. a_along, b_along: True if the elements of a along k, of b along n, lie side
    by side: they are read in that order."""

    rows: int
    a_along: bool
    b_along: bool


def choose(kernel: Gemm, words: Sequence[int]) -> Choice:
    at = kernel.layout
    m, n, batch = words[at.m], words[at.n], words[at.b0] * words[at.b1]
    across = -(-n // _COLUMNS)
    rows = 64 if kernel.sums == "float64" else 128
    while rows > _SIDE and (rows >= 2 * m or batch * across * -(-m // rows) < _BUSY):
        rows //= 2
    form = Form(rows, words[at.a.column] == 1, words[at.b.column] == 1)
    return Choice(form, THREADS, limited(batch * across * -(-m // rows)))


def gemm(kernel: Gemm, form: Form, t: Thread) -> None:
    """Write the kernel's code."""
    _Writer(kernel, form, t).write()


class _Side:
    """An operand: its tile in shared memory, and what a thread brings of it. along: elements of the
    tile on the axis that is not k. first: True if that axis is the matrix's first one."""

    def __init__(
        self, t: Thread, at: Matrix[int], dtype: str, sums: str, along: int, first: bool
    ) -> None:
        self.t, self.dtype, self.sums, self.along = t, dtype, sums, along
        words = t.words
        self.base = words.place(at.place)
        self.batch = words.numbers(at.b0, at.b1)
        strides = words.numbers(at.row, at.column)
        self.step, self.k_step = strides if first else strides[::-1]
        self.element = register(sums)
        self.width = along + _PAD
        size = self.width * _DEPTH * ir.width(self.element)
        self.buffers = [t.shared(size) for _ in range(2)]

    def begin(self, batch: Sequence[Value], origin: Value, extent: Value, k_first: bool) -> None:
        """Begin a tile, whose first element on the axis is `origin`. k_first: neighbouring threads
        have neighbouring k."""
        b, t = self.t.b, self.t
        offset = b.index(ir.integer(0), *zip(batch, self.batch, strict=True))
        self.origin = b.at(self.base, offset, memory(self.dtype))
        fast = _DEPTH if k_first else self.along
        self.places = []  # (place on the axis, place along k) of each element that a thread brings
        for e in range(self.along * _DEPTH // THREADS):
            at = b.add(t.thread, i32(e * THREADS))
            low = b.binary("and", at, i32(fast - 1))
            high = b.binary("lshr", at, i32(fast.bit_length() - 1))
            x, k = (high, low) if k_first else (low, high)
            place = b.add(origin, x)
            there = b.compare("slt", place, extent)
            row = b.mul(wide(b, b.select(there, place, i32(0))), self.step)
            self.places.append((x, k, row, there))

    def bring(self, start: Value, stop: Value) -> list[Value]:
        """The thread's elements of the steps from `start` on; zero where there are none."""
        b, found = self.t.b, []
        for _, k, row, there in self.places:
            step = b.add(start, k)
            inside = b.binary("and", there, b.compare("slt", step, stop))
            step = b.select(inside, step, i32(0))
            at = b.add(row, b.mul(wide(b, step), self.k_step))
            x = cast(
                b,
                b.load(memory(self.dtype), b.at(self.origin, at, memory(self.dtype))),
                self.sums,
                self.dtype,
            )
            found.append(b.select(inside, x, like(x, 0)))
        return found

    def put(self, buffer: Value, values: Sequence[Value]) -> None:
        b = self.t.b
        for (x, k, *_), value in zip(self.places, values, strict=True):
            at = b.add(b.mul(k, i32(self.width)), x)
            b.store(value, b.at(buffer, at, self.element))

    def read(self, buffer: Value, k: int, first: Value, count: int) -> Value:
        """A vector of `count` elements of step k, of a place on the axis and those behind it."""
        b = self.t.b
        at = b.at(buffer, b.add(first, i32(k * self.width)), self.element)
        return b.load(ir.vector(count, self.element), at, min(16, ir.width(self.element) * count))


class _Writer:
    """Writes the code of one kernel."""

    def __init__(self, kernel: Gemm, form: Form, t: Thread) -> None:
        self.kernel, self.form, self.t, self.b = kernel, form, t, t.b
        at = kernel.layout
        self.m, self.n, self.k = (number(t, w) for w in (at.m, at.n, at.k))
        self.b1, self.b0 = number(t, at.b1), number(t, at.b0)
        self.a_side = _Side(t, at.a, kernel.dtype, kernel.sums, form.rows, first=True)
        self.b_side = _Side(t, at.b, kernel.dtype, kernel.sums, _COLUMNS, first=False)
        words = t.words
        self.c = words.place(at.c.place)
        self.c_batch = words.numbers(at.c.b0, at.c.b1)
        self.c_row = words.number(at.c.row)
        self.each = form.rows // _SIDE  # rows of a thread

    def write(self) -> None:
        b, t = self.b, self.t
        down = ir.ceil_div(b, self.m, i32(self.form.rows))
        tiles_across = ir.ceil_div(b, self.n, i32(_COLUMNS))
        tiles = b.mul(down, tiles_across)
        total = b.mul(tiles, b.mul(self.b0, self.b1))
        y = b.binary("lshr", t.thread, i32(_SIDE.bit_length() - 1))
        x = b.binary("and", t.thread, i32(_SIDE - 1))
        self.mine_down, self.mine_across = b.mul(y, i32(self.each)), b.mul(x, i32(_ACROSS))
        with b.loop(t.block, total, t.blocks) as loop:
            matrix = b.binary("udiv", loop.i, tiles)
            tile = b.sub(loop.i, b.mul(matrix, tiles))
            i0 = b.binary("udiv", matrix, self.b1)
            batch = [wide(b, i0), wide(b, b.sub(matrix, b.mul(i0, self.b1)))]
            row = b.binary("udiv", tile, tiles_across)
            column = b.mul(b.sub(tile, b.mul(row, tiles_across)), i32(_COLUMNS))
            row = b.mul(row, i32(self.form.rows))
            self.a_side.begin(batch, row, self.m, k_first=self.form.a_along)
            self.b_side.begin(batch, column, self.n, k_first=not self.form.b_along)
            self._store(batch, row, column, self._sums(batch, row, column))
            t.barrier()  # the next tile's first elements take the place of this one's last
        t.end()

    def _sums(self, batch: Sequence[Value], row: Value, column: Value) -> list[Value]:
        """The thread's rows of the tile, each a vector."""
        b, sides = self.b, (self.a_side, self.b_side)
        type = ir.vector(_ACROSS, register(self.kernel.sums))
        nothing = like(Value(type, ""), 0.0)
        for side in sides:
            side.put(side.buffers[0], side.bring(i32(0), self.k))
        self.t.barrier()
        before = [nothing] * self.each
        if self.kernel.accumulate:
            before = [self._old(batch, row, column, i, type) for i in range(self.each)]
        with b.loop(i32(0), self.k, i32(KC), before) as blocks:
            stop = b.smin(self.k, b.add(blocks.i, i32(KC)))
            # Two steps of the ring of buffers in a round, so that each has its own address.
            with b.loop(blocks.i, stop, i32(2 * _DEPTH), [nothing] * self.each) as steps:
                sums, at = steps.carried, steps.i
                for turn in range(2):
                    following = b.add(at, i32(_DEPTH))
                    new = [side.bring(following, self.k) for side in sides]
                    sums = self._step(turn, sums)
                    for side, values in zip(sides, new, strict=True):
                        side.put(side.buffers[1 - turn], values)
                    self.t.barrier()
                    at = following
                steps.next = sums
            blocks.next = [b.add(x, y) for x, y in zip(blocks.carried, steps.carried, strict=True)]
        return blocks.carried

    def _step(self, turn: int, sums: list[Value]) -> list[Value]:
        """_DEPTH steps along k."""
        b, each = self.b, self.each
        a, right = self.a_side.buffers[turn], self.b_side.buffers[turn]
        for k in range(_DEPTH):
            across = self.b_side.read(right, k, self.mine_across, _ACROSS)
            down: list[Value] = []
            for first in range(0, each, _ACROSS):
                count = min(_ACROSS, each - first)
                found = self.a_side.read(a, k, b.add(self.mine_down, i32(first)), count)
                down += [found] if count == 1 else [b.lane(found, i) for i in range(count)]
            sums = [
                b.fma(b.splat(x, _ACROSS), across, sum) for x, sum in zip(down, sums, strict=True)
            ]
        return sums

    # The tile of c -------------------------------------------------------------------------------
    def _place(
        self, batch: Sequence[Value], row: Value, column: Value, i: int
    ) -> tuple[Value, Value, Value]:
        """The address of the thread's first element of its row i, its column, and whether the row
        is there."""
        b = self.b
        at = b.add(b.add(row, self.mine_down), i32(i))
        first = b.add(column, self.mine_across)
        there = b.compare("slt", at, self.m)
        at = wide(b, b.select(there, at, i32(0)))
        terms = [*zip(batch, self.c_batch, strict=True), (at, self.c_row)]
        return b.at(self.c, b.index(wide(b, first), *terms), memory(self.kernel.out)), first, there

    def _old(self, batch: Sequence[Value], row: Value, column: Value, i: int, type: str) -> Value:
        """What stands in row i, for sums that go on from it."""
        b, out = self.b, memory(self.kernel.out)
        place, first, there = self._place(batch, row, column, i)
        made = Value(type, "poison")
        for lane in range(_ACROSS):
            inside = b.binary("and", there, b.compare("slt", b.add(first, i32(lane)), self.n))
            offset = b.select(inside, ir.integer(lane), b.sub(ir.integer(0), wide(b, first)))
            x = cast(b, b.load(out, b.at(place, offset, out)), self.kernel.sums, self.kernel.out)
            made = b.emit(type, f"insertelement {type} {made.name}, {x.type} {x.name}, i64 {lane}")
        return made

    def _store(
        self, batch: Sequence[Value], row: Value, column: Value, sums: Sequence[Value]
    ) -> None:
        b, out = self.b, memory(self.kernel.out)
        for i, sum in enumerate(sums):
            place, first, there = self._place(batch, row, column, i)
            for lane in range(_ACROSS):
                inside = b.binary("and", there, b.compare("slt", b.add(first, i32(lane)), self.n))
                with b.when(inside):
                    x = cast(b, b.lane(sum, lane), self.kernel.out)
                    b.store(x, b.at(place, ir.integer(lane), out))


assert KC % (2 * _DEPTH) == 0 and all(name in ALL for name in ("float32", "float64"))
