"""The tile of c that a block has summed, on its way to memory, and what is computed of it there.

In: a Gemm, or one with its epilogue, and the sums of a thread. Out: code that writes c, or what the
epilogue's program makes of it. Called by gemm.py and tensor_core.py.

Sums lie in the registers of a thread as suits a product. They go through shared memory, all or half
of the rows (a slab) at a time, so that whoever reads and writes global memory does so in order, and
so that the program is written once, not for each register.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from ..kernels.kinds import Gemm, GemmEpilogue
from ..llvm import ir
from ..llvm.ir import Value
from ..llvm.scalars import cast, memory, register
from .elements import alignment
from .indexing import i32, number, wide
from .program import EACH, Program, aligned, some, together
from .thread import Thread

_PAD = 8  # elements behind each row of a slab, so that neighbouring rows lie in other banks
_HEIGHT = 8  # tiles down c that come before others: what all of them read of b stays in a cache

Product = Gemm | GemmEpilogue


def gemm_of(kernel: Product) -> Gemm:
    """The product alone. Its words are the first ones of either kind."""
    return kernel.product if isinstance(kernel, GemmEpilogue) else kernel


def side_by_side(kernel: Product, words: Sequence[int]) -> bool:
    """True if EACH columns of c, and of what follows, may be read and written at once."""
    of = gemm_of(kernel)
    c = of.layout.c
    steps = [words[i] for i in (c.b0, c.b1, c.row)]
    found = words[of.layout.n] % EACH == 0 and aligned(of.out, words[c.place], steps)
    if isinstance(kernel, Gemm):
        return found
    untouched = not kernel.keep and not of.accumulate
    return (found or untouched) and together(kernel.program, kernel.layout.program, words, kernel.c)


class Place(NamedTuple):
    """A tile: the number of its matrix (i32), the one along b0 and b1 (i64), its first row and
    column (i32)."""

    matrix: Value
    batch: list[Value]
    row: Value
    column: Value


class Tiles:
    """The tiles of all matrices, each of which is some block's. m, n, k: extents, i32."""

    def __init__(self, t: Thread, kernel: Gemm, rows: int, columns: int) -> None:
        self.t, self._rows, self._columns = t, rows, columns
        at = kernel.layout
        self.m, self.n, self.k = (number(t, w) for w in (at.m, at.n, at.k))
        self._b0, self._b1 = number(t, at.b0), number(t, at.b1)

    @contextmanager
    def each(self) -> Iterator[Place]:
        """A loop over the tiles of this block."""
        b, t = self.t.b, self.t
        down = ir.ceil_div(b, self.m, i32(self._rows))
        across = ir.ceil_div(b, self.n, i32(self._columns))
        tiles = b.mul(down, across)
        total = b.mul(tiles, b.mul(self._b0, self._b1))
        with b.loop(t.block, total, t.blocks) as loop:
            matrix = b.binary("udiv", loop.i, tiles)
            i0 = b.binary("udiv", matrix, self._b1)
            batch = [wide(b, i0), wide(b, b.sub(matrix, b.mul(i0, self._b1)))]
            tile = b.sub(loop.i, b.mul(matrix, tiles))
            many = b.mul(across, i32(_HEIGHT))
            strip = b.binary("udiv", tile, many)
            first = b.mul(strip, i32(_HEIGHT))
            height = b.smin(b.sub(down, first), i32(_HEIGHT))
            inside = b.sub(tile, b.mul(strip, many))
            column = b.binary("udiv", inside, height)
            row = b.add(first, b.sub(inside, b.mul(column, height)))
            yield Place(
                matrix, batch, b.mul(row, i32(self._rows)), b.mul(column, i32(self._columns))
            )


class Slabs(NamedTuple):
    """How the rows of a tile are dealt to `many` slabs of `rows` rows. Row q of slab s is row
    q // group * apart + s * group + q % group of the tile."""

    many: int
    rows: int
    group: int
    apart: int


class Tile:
    """c's tile. adds: True if what stands in c is added here. together: as side_by_side() says."""

    def __init__(
        self,
        t: Thread,
        kernel: Product,
        tiles: Tiles,
        columns: int,
        slabs: Slabs,
        *,
        together: bool,
        adds: bool = False,
    ) -> None:
        self.t, self.b, self.whole, self.tiles, self.slabs = t, t.b, kernel, tiles, slabs
        self.columns, self.together, self.adds = columns, together, adds
        self.kernel, self.keeps = gemm_of(kernel), isinstance(kernel, Gemm) or kernel.keep
        self.element = register(self.kernel.sums)

    def read(self) -> None:
        """Read where c and the operands of the program lie: late, since that takes registers."""
        t, at = self.t, self.kernel.layout
        self._c = t.words.place(at.c.place)
        self._batch = t.words.numbers(at.c.b0, at.c.b1)
        self._row = t.words.number(at.c.row)
        self.program: Program | None = None
        if isinstance(self.whole, GemmEpilogue):
            given = {self.whole.c: self._c_at}
            self.program = Program(t, self.whole.program, self.whole.layout.program, given)

    @property
    def size(self) -> int:
        """Bytes of shared memory that a slab takes."""
        return self.slabs.rows * (self.columns + _PAD) * ir.width(self.element)

    def row(self, place: Place, row: Value) -> Value:
        """Where a row of c begins, after read()."""
        terms = [*zip(place.batch, self._batch, strict=True), (wide(self.b, row), self._row)]
        offset = self.b.index(ir.integer(0), *terms)
        return self.b.at(self._c, offset, memory(self.kernel.out))

    def at(self, slab: Value, row: Value, column: Value) -> Value:
        """The place of an element of a slab."""
        b = self.b
        return b.at(slab, b.add(b.mul(row, i32(self.columns + _PAD)), column), self.element)

    def write(
        self,
        slab: Value,
        place: Place,
        sums: Sequence[Value],
        put: Callable[[Sequence[Value]], None],
    ) -> None:
        """Write the tile; all threads have come to a barrier in the end. slab: shared memory that
        nobody reads any more. sums: this thread's, those of each slab in turn. put: writes code
        that puts a slab's to their places."""
        b, t, many = self.b, self.t, self.slabs.many
        each = len(sums) // many
        put(sums[:each])
        self.read()
        with b.loop(i32(0), i32(many), i32(1), sums[each:]) as loop:
            t.barrier()
            self._rows(slab, place, loop.i)
            t.barrier()
            if many > 1:
                with b.when(b.compare("slt", loop.i, i32(many - 1))):
                    put(loop.carried[:each])
            nothing = [Value(x.type, "poison") for x in loop.carried[:each]]
            loop.next = [*loop.carried[each:], *nothing]

    def _rows(self, slab: Value, place: Place, number: Value) -> None:
        """This thread's part of the rows of a slab, which has that number."""
        b, t, slabs = self.b, self.t, self.slabs
        across = self.columns // EACH
        y = b.binary("lshr", t.thread, i32(across.bit_length() - 1))
        x = b.binary("and", t.thread, i32(across - 1))
        first = b.add(place.column, b.mul(x, i32(EACH)) if self.together else x)
        with b.loop(y, i32(slabs.rows), i32(t.threads // across)) as each:
            group = b.binary("udiv", each.i, i32(slabs.group))
            inside = b.sub(each.i, b.mul(group, i32(slabs.group)))
            row = b.add(b.mul(group, i32(slabs.apart)), b.mul(number, i32(slabs.group)))
            row = b.add(place.row, b.add(row, inside))
            there = b.compare("slt", row, self.tiles.m), b.compare("slt", first, self.tiles.n)
            with b.when(b.binary("and", *there)):
                self._sums = self.at(slab, each.i, b.sub(i32(0), place.column))
                self._c_row = self.row(place, row)
                self._elements(b.add(b.mul(place.matrix, self.tiles.m), row), first)

    def _elements(self, row: Value, first: Value) -> None:
        """This thread's columns of a row, which is counted over all matrices."""
        b, step = self.b, i32(1 if self.together else self.columns // EACH)
        if self.program is not None:
            self.program.begin(row)
            self.program.tile(first, step, self.together)
        elif self.together:
            self._c_at(wide(b, first), EACH)
        else:
            some(
                b,
                first,
                step,
                self.tiles.n,
                lambda column: self._c_at(wide(b, column), 1),
                lambda made: None,
            )

    def _c_at(self, first: Value, lanes: int) -> Value:
        """Elements of c, as they are in memory, from a column (i64) on; written where c is kept."""
        b, out, sums = self.b, self.kernel.out, self.kernel.sums
        type = ir.vector(lanes, self.element)
        x = b.load(type, b.at(self._sums, first, self.element), alignment(self.element, lanes))
        element = memory(out)
        place, align = b.at(self._c_row, first, element), alignment(element, lanes)
        if self.adds:
            old = b.load(ir.vector(lanes, element), place, align)
            x = b.add(cast(b, old, sums, out), x)
        x = cast(b, x, out, sums)
        if self.keeps:
            b.store(x, place, align)
        return x
