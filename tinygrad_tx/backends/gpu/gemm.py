"""Products for a GPU without tensor cores: exact, in the order of every other machine.

In: a Gemm, or one with its epilogue. Out: its code for one thread. Called by products.py.

A block has a tile of c; its threads bring the tiles of a and b that a few steps along k need into
shared memory, while they compute with those brought before. A thread has some rows and _ACROSS
columns of the tile, and adds each element's products in one upward chain for each block of KC.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...dtypes import ALL
from ..kernels.arguments import Matrix
from ..kernels.summation import KC
from ..llvm import ir
from ..llvm.elementary import like
from ..llvm.ir import Value
from ..llvm.scalars import cast, memory, register
from .choice import Choice, limited
from .indexing import i32, wide
from .thread import Thread
from .tile import Place, Product, Slabs, Tile, Tiles, gemm_of, side_by_side

THREADS = 256
_SIDE = 16  # threads along either side of a tile
_ACROSS = 4  # columns of a thread
_COLUMNS = _SIDE * _ACROSS  # of a tile
_DEPTH = 16  # steps along k at a time: a divisor of KC
_AT_ONCE = 4  # of them written one after another; with more, registers fill up with what is next
_SLAB = 256  # bytes of a column of a slab, at most
_PAD = 4  # elements behind each row in shared memory, so that its columns lie in other banks
_BUSY = 128  # tiles: with fewer, smaller ones keep more of a GPU busy


class Form(NamedTuple):
    """rows: of a tile. a_along, b_along: True if the elements of a along k, of b along n, lie side
    by side: they are read in that order. together: as of Tile."""

    rows: int
    a_along: bool
    b_along: bool
    together: bool = False


def choose(kernel: Product, words: Sequence[int]) -> Choice:
    at = gemm_of(kernel).layout
    m, n, batch = words[at.m], words[at.n], words[at.b0] * words[at.b1]
    across = -(-n // _COLUMNS)
    rows = 64 if gemm_of(kernel).sums == "float64" else 128
    while rows > _SIDE and (rows >= 2 * m or batch * across * -(-m // rows) < _BUSY):
        rows //= 2
    together = side_by_side(kernel, words)
    form = Form(rows, words[at.a.column] == 1, words[at.b.column] == 1, together)
    return Choice(form, THREADS, limited(batch * across * -(-m // rows)))


def gemm(kernel: Product, form: Form, t: Thread) -> None:
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
        self.size = self.width * _DEPTH * ir.width(self.element)  # bytes of a buffer

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

    def read(self, buffer: Value, k: Value, first: Value, count: int) -> Value:
        """A vector of `count` elements of step k, of a place on the axis and those behind it."""
        b = self.t.b
        at = b.at(buffer, b.add(first, b.mul(k, i32(self.width))), self.element)
        return b.load(ir.vector(count, self.element), at, min(16, ir.width(self.element) * count))


class _Writer:
    """Writes the code of one kernel."""

    def __init__(self, kernel: Product, form: Form, t: Thread) -> None:
        of = self.kernel = gemm_of(kernel)
        self.form, self.t, self.b = form, t, t.b
        at = of.layout
        self.tiles = Tiles(t, of, form.rows, _COLUMNS)
        self.m, self.n, self.k = self.tiles.m, self.tiles.n, self.tiles.k
        self.a_side = _Side(t, at.a, of.dtype, of.sums, form.rows, first=True)
        self.b_side = _Side(t, at.b, of.dtype, of.sums, _COLUMNS, first=False)
        self.each = form.rows // _SIDE  # rows of a thread
        many = 2 if form.rows * ALL[of.sums].itemsize > _SLAB else 1
        self.group = self.each // many  # of them in a slab
        slabs = Slabs(many, form.rows // many, self.group, self.each)
        self.tile = Tile(t, kernel, self.tiles, _COLUMNS, slabs, together=form.together)
        self.stage = self.a_side.size + self.b_side.size  # bytes: one is filled, one is read
        self.shared = t.shared(max(2 * self.stage, self.tile.size))

    def write(self) -> None:
        b, t = self.b, self.t
        self.y = b.binary("lshr", t.thread, i32(_SIDE.bit_length() - 1))
        x = b.binary("and", t.thread, i32(_SIDE - 1))
        self.mine_down, self.mine_across = b.mul(self.y, i32(self.each)), b.mul(x, i32(_ACROSS))
        with self.tiles.each() as place:
            self.a_side.begin(place.batch, place.row, self.m, k_first=self.form.a_along)
            self.b_side.begin(place.batch, place.column, self.n, k_first=not self.form.b_along)
            sums = self._sums(place)
            self.tile.write(self.shared, place, sums, self._put)
        t.end()

    def _put(self, sums: Sequence[Value]) -> None:
        """Put this thread's rows of a slab there."""
        b = self.b
        for i, sum in enumerate(sums):
            row = b.add(b.mul(self.y, i32(self.group)), i32(i))
            b.store(sum, self.tile.at(self.shared, row, self.mine_across), 16)

    def _sums(self, place: Place) -> list[Value]:
        """The thread's rows of the tile, each a vector."""
        b, sides = self.b, (self.a_side, self.b_side)
        type = ir.vector(_ACROSS, register(self.kernel.sums))
        nothing = like(Value(type, ""), 0.0)
        with b.when(b.compare("ne", self.k, i32(0))):  # else there is nothing to read
            self._put_elements(i32(0), [side.bring(i32(0), self.k) for side in sides])
        self.t.barrier()
        before = [nothing] * self.each
        if self.kernel.accumulate:
            self.tile.read()
            before = [self._old(place, i, type) for i in range(self.each)]
        with b.loop(i32(0), self.k, i32(KC), [*before, i32(0)]) as blocks:
            *totals, turn = blocks.carried
            stop = b.smin(self.k, b.add(blocks.i, i32(KC)))
            begin = [*(nothing for _ in totals), turn]
            with b.loop(blocks.i, stop, i32(_DEPTH), begin) as steps:
                *sums, turn = steps.carried
                following = b.add(steps.i, i32(_DEPTH))
                new = [side.bring(following, self.k) for side in sides]
                sums = self._steps(turn, sums)
                turn = b.sub(i32(self.stage), turn)
                self._put_elements(turn, new)
                self.t.barrier()
                steps.next = [*sums, turn]
            *sums, turn = steps.carried
            blocks.next = [*(b.add(x, y) for x, y in zip(totals, sums, strict=True)), turn]
        return blocks.carried[:-1]

    def _buffers(self, turn: Value) -> tuple[Value, Value]:
        """Those of a and b. turn: the bytes before them."""
        a = self.b.at(self.shared, turn, "i8")
        return a, self.b.at(a, i32(self.a_side.size), "i8")

    def _put_elements(self, turn: Value, values: Sequence[Sequence[Value]]) -> None:
        buffers = self._buffers(turn)
        for side, buffer, mine in zip((self.a_side, self.b_side), buffers, values, strict=True):
            side.put(buffer, mine)

    def _steps(self, turn: Value, sums: list[Value]) -> list[Value]:
        """_DEPTH steps along k."""
        b, each = self.b, self.each
        left, right = self._buffers(turn)
        with b.loop(i32(0), i32(_DEPTH), i32(_AT_ONCE), sums) as loop:
            sums = loop.carried
            for i in range(_AT_ONCE):
                k = b.add(loop.i, i32(i))
                across = self.b_side.read(right, k, self.mine_across, _ACROSS)
                down: list[Value] = []
                for first in range(0, each, _ACROSS):
                    count = min(_ACROSS, each - first)
                    found = self.a_side.read(left, k, b.add(self.mine_down, i32(first)), count)
                    down += [found] if count == 1 else [b.lane(found, i) for i in range(count)]
                sums = [
                    b.fma(b.splat(x, _ACROSS), across, sum)
                    for x, sum in zip(down, sums, strict=True)
                ]
            loop.next = sums
        return loop.carried

    def _old(self, place: Place, i: int, type: str) -> Value:
        """What stands in the thread's row i of c: sums go on from it."""
        b, out = self.b, memory(self.kernel.out)
        row = b.add(b.add(place.row, self.mine_down), i32(i))
        first = b.add(place.column, self.mine_across)
        there = b.compare("slt", row, self.m)
        begin = self.tile.row(place, b.select(there, row, i32(0)))
        made = Value(type, "poison")
        for lane in range(_ACROSS):
            column = b.add(first, i32(lane))
            inside = b.binary("and", there, b.compare("slt", column, self.n))
            at = b.at(begin, wide(b, b.select(inside, column, i32(0))), out)
            x = cast(b, b.load(out, at), self.kernel.sums, self.kernel.out)
            made = b.emit(type, f"insertelement {type} {made.name}, {x.type} {x.name}, i64 {lane}")
        return made


assert KC % _DEPTH == 0 and all(name in ALL for name in ("float32", "float64"))
