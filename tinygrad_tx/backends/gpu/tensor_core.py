"""Products on tensor cores: of 16-bit numbers, and of float32 rounded to tf32, with float32 sums.

In: a Gemm, or one with its epilogue. Out: its code for one thread. Called by products.py;
shared_tiles.py brings and reads the tiles of a and b, tile.py says what becomes of c's.

A block has a tile of c. Its warps multiply what lies in one stage of a ring in shared memory, while
asynchronous copies fill the stages after it. A stage has what _ROW bytes along k hold: two steps of
the tensor cores. All tiles add up the same products in the same order, so a result depends neither
on the tile's size nor on the matrix around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..kernels.kinds import GemmEpilogue
from ..llvm import ir
from ..llvm.ir import Value
from .choice import Choice, limited
from .indexing import i32
from .shared_tiles import ROW, How, Side, how
from .thread import SHARED, WARP, Thread
from .tile import Product, Slabs, Tile, Tiles, gemm_of, side_by_side

_BUSY = 128  # tiles: with fewer, smaller ones keep more of a GPU busy
_STAGES = 4  # at most
_THREADS = 512  # at work on a multiprocessor at once, each with 128 registers
_OPERANDS = 6  # of an epilogue: more of them take more registers
_DOWN, _ACROSS = 16, 8  # rows and columns of c that a tensor core makes at once


class Form(NamedTuple):
    """rows, columns: of a tile. down, across: warps along either side of it. a, b: how they come to
    shared memory. together: as of Tile."""

    rows: int
    columns: int
    down: int
    across: int
    a: How
    b: How
    together: bool

    @property
    def threads(self) -> int:
        return self.down * self.across * WARP

    @property
    def stages(self) -> int:
        return min(_STAGES, SHARED // ((self.rows + self.columns) * ROW))


_SIZES = ((128, 128, 2, 4), (64, 64, 2, 2), (16, 64, 1, 4))  # rows, columns, warps down and across


def choose(kernel: Product, words: Sequence[int]) -> Choice:
    """The largest tiles that are not half empty and keep a GPU busy."""
    of, at = gemm_of(kernel), gemm_of(kernel).layout
    m, n, batch = words[at.m], words[at.n], words[at.b0] * words[at.b1]
    for size in _SIZES:
        rows, columns, *_ = size
        tiles = batch * -(-m // rows) * -(-n // columns)
        if tiles >= _BUSY and 2 * m > rows and 2 * n > columns:
            break
    a, b = how(of, words, at.a, first=True), how(of, words, at.b, first=False)
    form = Form(*size, a, b, side_by_side(kernel, words))
    return Choice(form, form.threads, limited(tiles))


def _resident(kernel: Product, form: Form) -> int:
    """Blocks that share a multiprocessor, where what is beside the sums of a thread takes few of
    its registers."""
    program = kernel.program if isinstance(kernel, GemmEpilogue) else None
    operands = len((*program.inputs, *program.outputs)) if program else 0
    few = form.a.size and form.b.size and form.together and operands <= _OPERANDS
    return _THREADS // form.threads if few else 1


def gemm(kernel: Product, form: Form, t: Thread) -> None:
    """Write the kernel's code."""
    _Writer(kernel, form, t).write()


class _Writer:
    """Writes the code of one kernel."""

    def __init__(self, kernel: Product, form: Form, t: Thread) -> None:
        self.form, self.t, self.b = form, t, t.b
        of, at = gemm_of(kernel), gemm_of(kernel).layout
        self.kind = "tf32" if of.tf32 else of.dtype
        self.tiles = Tiles(t, of, form.rows, form.columns)
        # Of a warp: its rows and columns, and how many times a tensor core makes some of them.
        rows, columns = form.rows // form.down, form.columns // form.across
        self.blocks, self.turns = rows // _DOWN, columns // _ACROSS
        many = 2 if form.rows > 64 else 1  # else a slab has no room where the stages are
        self.group = rows // many  # rows of a warp in a slab
        slabs = Slabs(many, form.rows // many, self.group, rows)
        self.tile = Tile(
            *(t, kernel, self.tiles, form.columns, slabs),
            together=form.together,
            adds=of.accumulate,
        )
        b = self.b
        across = i32(form.across)
        self.warp_down = b.binary("udiv", t.warp, across)
        self.warp_across = b.sub(t.warp, b.mul(self.warp_down, across))
        self.a = Side(t, of, at.a, form.a, form.rows, first=True)
        self.right = Side(t, of, at.b, form.b, form.columns, first=False)
        self.a.of_warp(b.mul(self.warp_down, i32(rows)), self.blocks)
        self.right.of_warp(b.mul(self.warp_across, i32(columns)), self.turns // 2)
        self.stage = self.a.size + self.right.size
        t.resident = _resident(kernel, form)
        self.shared = t.shared(max(form.stages * self.stage, self.tile.size))

    def write(self) -> None:
        t = self.t
        with self.tiles.each() as place:
            self.a.begin(place.batch, place.row, self.tiles.m, self.tiles.k)
            self.right.begin(place.batch, place.column, self.tiles.n, self.tiles.k)
            sums = self._sums()
            t.wait(0)  # copies behind the end of k would write zeros over c's tile
            t.barrier()
            self.tile.write(self.shared, place, sums, self._put)
        t.end()

    def _sums(self) -> list[Value]:
        """The sums of the warp's rows and columns: four for each place of a tensor core, row by row
        of these."""
        b, t, stages = self.b, self.t, self.form.stages
        depth = self.a.depth
        with b.loop(i32(0), i32((stages - 1) * depth), i32(depth), [i32(0)]) as first:
            self._bring(first.carried[0], first.i)
            first.next = [b.add(first.carried[0], i32(self.stage))]
        nothing = [ir.floating(0.0)] * (4 * self.blocks * self.turns)
        last = (stages - 1) * self.stage
        with b.loop(i32(0), self.tiles.k, i32(depth), [*nothing, i32(0), i32(last)]) as loop:
            *sums, read, fill = loop.carried
            t.wait(stages - 2)
            t.barrier()  # what all threads have waited for is there, and what was read last is free
            self._bring(fill, b.add(loop.i, i32((stages - 1) * depth)))
            sums = self._products(read, sums)
            end = b.compare("eq", read, i32(last))
            following = b.select(end, i32(0), b.add(read, i32(self.stage)))
            loop.next = [*sums, following, read]
        return loop.carried[:-2]

    def _bring(self, stage: Value, start: Value) -> None:
        """Begin to fill a stage with what lies from a place along k on."""
        a, right = self._sides(stage)
        self.a.bring(a, start)
        self.right.bring(right, start)
        self.t.commit()

    def _sides(self, stage: Value) -> tuple[Value, Value]:
        """The tiles of a and b in a stage, which begins so many bytes behind the first one."""
        a = self.b.at(self.shared, stage, "i8")
        return a, self.b.at(a, i32(self.a.size), "i8")

    def _products(self, stage: Value, sums: list[Value]) -> list[Value]:
        """All products of a stage."""
        t, turns = self.t, self.turns
        left, right = self._sides(stage)
        for step in range(2):
            a = [self.a.fragment(left, step, i) for i in range(self.blocks)]
            across = [self.right.fragment(right, step, j) for j in range(turns // 2)]
            for i in range(self.blocks):
                for j in range(turns):
                    first = 4 * (i * turns + j)
                    b = across[j // 2][2 * (j % 2) :][:2]
                    sums[first : first + 4] = t.mma(self.kind, a[i], b, sums[first : first + 4])
        return sums

    def _put(self, sums: Sequence[Value]) -> None:
        """Put this thread's sums of a slab there, two at a time."""
        b, lane = self.b, self.t.lane
        group, pair = b.binary("lshr", lane, i32(2)), b.binary("and", lane, i32(3))
        row = b.add(b.mul(self.warp_down, i32(self.group)), group)
        column = b.mul(self.warp_across, i32(self.turns * _ACROSS))
        place = self.tile.at(self.shared, row, b.add(column, b.mul(pair, i32(2))))
        for number in range(0, len(sums), 2):
            block, half = divmod(number // 2, 2)
            i, j = divmod(block, self.turns)
            at = self.tile.at(place, i32(_DOWN * i + _DOWN // 2 * half), i32(_ACROSS * j))
            b.store(_pair(b, *sums[number : number + 2]), at, 8)


def _pair(b: ir.Builder, x: Value, y: Value) -> Value:
    both = b.emit("<2 x float>", f"insertelement <2 x float> poison, float {x.name}, i64 0")
    return b.emit("<2 x float>", f"insertelement <2 x float> {both.name}, float {y.name}, i64 1")
