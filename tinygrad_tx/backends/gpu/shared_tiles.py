"""Tiles of the operands of tensor cores in shared memory: how they get there, how they are read.

In: an operand of a Gemm kernel. Out: a Side, whose calls write code. Called by tensor_core.py.

A tile has the rows of a (or the columns of b) of one tile of c, for ROW bytes along k. It lies in
shared memory as the operand lies in memory, so that both are moved in pieces of 16 bytes: in rows
along k, or in rows along the other axis, one for each place along k. Eight rows of one piece, or
four of two, are what a warp reads at once. So that these lie in different banks, the pieces of a
row change places: piece p lies where p ^ swizzle(row) would.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...dtypes import ALL
from ..kernels.arguments import Matrix
from ..kernels.kinds import Gemm
from ..llvm import ir
from ..llvm.elementary import like
from ..llvm.ir import Value
from ..llvm.scalars import memory
from .indexing import i32, wide
from .thread import PIECE, Thread

ROW = 64  # bytes of a stage along k
_STEP = 2 * PIECE  # of which a tensor core takes so many at once
_BANKS = 8  # pieces: all banks of shared memory


class How(NamedTuple):
    """How a tile is brought. along_k: its rows go along k. size: bytes of a copy, 0 where elements
    are read one by one."""

    along_k: bool
    size: int


def how(kernel: Gemm, words: Sequence[int], at: Matrix[int], first: bool) -> How:
    """Of an operand, whose first axis is c's (of a), or k (of b). Copies are as large as the
    addresses of the rows allow; addresses are offsets of what is aligned."""
    layout, bytes = kernel.layout, ALL[kernel.dtype].itemsize
    axis = (layout.m, at.row) if first else (layout.n, at.column)
    k = (layout.k, at.column if first else at.row)
    along_k = words[k[1]] == 1 or words[axis[1]] != 1
    if words[(k if along_k else axis)[1]] != 1:
        return How(along_k, 0)
    # An axis of one place may have any stride; but copies go beyond the end of k.
    rows = (axis if along_k else k, (layout.b0, at.b0), (layout.b1, at.b1))
    some = [stride for extent, stride in rows if words[extent] > 1 or extent == layout.k]
    steps = [words[stride] * bytes for stride in some]
    fit = (s for s in (PIECE, 8, 4) if all(n % s == 0 for n in (words[at.place], *steps)))
    return How(along_k, next(fit, 0))


class Side:
    """An operand. along: rows of c's tile (of a), or columns (of b). size: bytes of its tile.
    depth: elements of it along k."""

    def __init__(
        self, t: Thread, kernel: Gemm, at: Matrix[int], how: How, along: int, first: bool
    ) -> None:
        self.t, self.b, self.at, self.how, self.first = t, t.b, at, how, first
        b = t.b
        self.element, self.bytes = memory(kernel.dtype), ALL[kernel.dtype].itemsize
        self.tf32 = kernel.tf32
        self.size, self.depth = along * ROW, ROW // self.bytes
        self.each = PIECE // self.bytes  # elements of a piece
        self.pieces = (ROW if how.along_k else along * self.bytes) // PIECE  # of a row
        # What is read of a row at once: by ldmatrix a piece, by loads of 32 bits two.
        self.single = self.tf32 and not how.along_k
        self.unit = 2 if self.single else 1
        # The pieces that this thread brings, and whether it has one where it has at most one.
        count, threads = self.size // PIECE, range(0, self.size // PIECE, t.threads)
        self.mine = [self._piece(b.add(t.thread, i32(n))) for n in threads] if how.size else []
        self.works = b.compare("slt", t.thread, i32(count))

    def _swizzle(self, row: Value) -> Value:
        """What the numbers of a row's pieces are changed by: it depends on row % 8 alone."""
        b, shared = self.b, max(1, _BANKS // self.pieces)  # rows that lie in all banks together
        turn = b.binary("lshr", row, i32(shared.bit_length() - 1))
        turn = b.binary("and", turn, i32(min(self.pieces, _BANKS) // self.unit - 1))
        return b.mul(turn, i32(self.unit))

    def _offset(self, row: Value, piece: Value) -> Value:
        """Bytes before a piece, less its row's swizzle."""
        b = self.b
        return b.add(b.mul(row, i32(self.pieces * PIECE)), b.mul(piece, i32(PIECE)))

    # To shared memory ----------------------------------------------------------------------------
    def _piece(self, number: Value) -> tuple[Value, Value, Value]:
        """Of a piece of the tile its row, its number there, and where it lies."""
        b = self.b
        row = b.binary("lshr", number, i32(self.pieces.bit_length() - 1))
        piece = b.binary("and", number, i32(self.pieces - 1))
        return row, piece, self._offset(row, b.binary("xor", piece, self._swizzle(row)))

    def begin(self, batch: Sequence[Value], origin: Value, extent: Value, stop: Value) -> None:
        """Begin a tile, from `origin` on along an axis of that extent. stop: the extent of k."""
        b, words, at = self.b, self.t.words, self.at
        self.step, self.k_step = words.numbers(at.row, at.column)[:: 1 if self.first else -1]
        steps = words.numbers(at.b0, at.b1)
        before = b.index(ir.integer(0), *zip(batch, steps, strict=True))
        self.matrix = b.at(words.place(at.place), before, self.element)
        self.origin, self.extent, self.stop = origin, extent, stop
        self.starts: list[Value] = []  # of each piece its address at the beginning of k
        self.valid: list[Value] = []  # and how many bytes are there: of k, or along the other axis
        for row, piece, _ in self.mine:
            inside = b.mul(piece, i32(self.each))
            x = b.add(origin, row if self.how.along_k else inside)
            k = inside if self.how.along_k else row
            bytes = b.mul(b.sub(extent, x), i32(self.bytes))
            if self.how.along_k:
                there = b.compare("slt", x, extent)
                bytes = b.select(there, b.mul(b.sub(stop, k), i32(self.bytes)), i32(0))
                x = b.select(there, x, i32(0))
            self.valid.append(bytes)
            offset = b.index(ir.integer(0), (wide(b, x), self.step), (wide(b, k), self.k_step))
            self.starts.append(b.at(self.matrix, offset, self.element))

    def bring(self, tile: Value, start: Value) -> None:
        """Begin to fill a tile with what lies from a place along k on; zeros where nothing is."""
        b, t = self.b, self.t
        if not self.how.size:
            some = b.compare("ne", self.stop, i32(0))  # else there is nothing to read
            count = b.select(some, i32(self.size // PIECE), i32(0))
            with b.loop(t.thread, count, t.size) as loop:
                self._elements(tile, loop.i, start)
        elif self.size // PIECE >= t.threads:
            self._begin_copies(tile, start)
        else:
            with b.when(self.works):
                self._begin_copies(tile, start)

    def _begin_copies(self, tile: Value, start: Value) -> None:
        b = self.b
        moved = b.mul(wide(b, start), self.k_step)
        passed = b.mul(start, i32(self.bytes))
        for (row, _, offset), first, valid in zip(self.mine, self.starts, self.valid, strict=True):
            source, target = b.at(first, moved, self.element), b.at(tile, offset, "i8")
            if self.how.along_k:
                valid = b.sub(valid, passed)
            else:
                there = b.compare("slt", b.add(start, row), self.stop)
                valid = b.select(there, valid, i32(0))
            self._copy(source, target, valid)

    def _copy(self, source: Value, target: Value, valid: Value) -> None:
        b, size = self.b, self.how.size
        for first in range(0, PIECE, size):
            rest = b.intrinsic("smax", "i32", b.sub(valid, i32(first)), i32(0))
            to, place = (b.at(x, i32(first), "i8") for x in (target, source))
            self.t.copy_async(to, place, b.smin(rest, i32(size)), size)

    def _elements(self, tile: Value, number: Value, start: Value) -> None:
        """Read a piece, element by element."""
        b, type = self.b, ir.vector(self.each, self.element)
        row, piece, offset = self._piece(number)
        made = Value(type, "poison")
        inside = b.mul(piece, i32(self.each))
        for i in range(self.each):
            at = b.add(inside, i32(i))
            x, k = (row, at) if self.how.along_k else (at, row)
            x, k = b.add(self.origin, x), b.add(start, k)
            there = b.compare("slt", x, self.extent), b.compare("slt", k, self.stop)
            both = b.binary("and", *there)
            terms = (
                (wide(b, b.select(both, n, i32(0))), by)
                for n, by in ((x, self.step), (k, self.k_step))
            )
            found = b.load(
                self.element, b.at(self.matrix, b.index(ir.integer(0), *terms), self.element)
            )
            found = b.select(both, found, like(found, 0))
            made = b.emit(
                type, f"insertelement {type} {made.name}, {found.type} {found.name}, i64 {i}"
            )
        b.store(made, b.at(tile, offset, "i8"), PIECE)

    # From shared memory --------------------------------------------------------------------------
    def of_warp(self, origin: Value, count: int) -> None:
        """A warp reads `count` fragments, of 16 places on the axis each, from `origin` on."""
        b, lane = self.b, self.t.lane
        group, place = b.binary("lshr", lane, i32(2)), b.binary("and", lane, i32(3))
        if self.single:  # the p-th row, and of it what is number g on the axis
            origin = b.add(origin, group)
            row, piece = place, b.binary("lshr", origin, i32(2))
            blocks = range(0, 4 * count, 2)  # pieces of 8 places each
            inside = b.mul(b.binary("and", group, i32(3)), i32(4))
        else:  # the four matrices: 8 places on the axis and one piece along k, then what follows
            inside, high = i32(0), b.binary("lshr", lane, i32(3))
            along, across = b.binary("and", high, i32(1)), b.binary("lshr", high, i32(1))
            x, k = (along, across) if self.first else (across, along)
            low = b.binary("and", lane, i32(7))
            if self.how.along_k:
                row, piece = b.add(origin, b.add(b.mul(x, i32(8)), low)), k
                blocks = range(0, ROW // PIECE, _STEP // PIECE)
            else:
                row = b.add(b.mul(k, i32(8)), low)
                piece = b.add(b.binary("lshr", origin, i32(3)), x)
                blocks = range(0, 2 * count, 2)
        swizzle = self._swizzle(row)
        self.reads = [
            b.add(self._offset(row, b.binary("xor", b.add(piece, i32(more)), swizzle)), inside)
            for more in blocks
        ]

    def fragment(self, tile: Value, step: int, number: int) -> list[Value]:
        """Four registers of a step along k: of a 16 rows, of b two times 8 columns."""
        b, t = self.b, self.t
        row = self.pieces * PIECE
        if self.single:
            # Of a, both blocks of 8 rows come before the next 4 places along k; of b, behind.
            parts = [(e, h) for h in range(2) for e in range(2)]
            found = []
            for block, half in parts if self.first else [(h, e) for e, h in parts]:
                offset = b.add(self.reads[2 * number + block], i32((8 * step + 4 * half) * row))
                found.append(b.load("float", b.at(tile, offset, "i8")))
        else:
            if self.how.along_k:
                offset = b.add(self.reads[step], i32(16 * number * row))
            else:
                offset = b.add(self.reads[number], i32(_STEP // self.bytes * step * row))
            words = t.load_matrices(b.at(tile, offset, "i8"), not self.how.along_k)
            if not self.tf32:
                return words
            found = [b.convert("bitcast", x, "float") for x in words]
        return [t.tf32(x) for x in found]
