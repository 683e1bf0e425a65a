"""Panels: tiles of matrices in shared memory, as tensor cores read them.

In: a matrix of a head; where its tile begins. Out: asynchronous copies into shared memory;
fragments of what is there. Called by tensor.py.

A panel has rows of `width` columns, filled with zeros behind those of the matrix. They lie as in
memory, in pieces of 16 bytes. Eight rows of one piece, or four of two, are what a warp reads at
once: so that these lie in different banks, piece p of a row lies where p ^ swizzle(row) would be.
"""

from __future__ import annotations

from ...llvm import ir
from ...llvm.elementary import like
from ...llvm.ir import Value
from ..indexing import i32
from ..thread import PIECE, Thread
from .heads import Rows

_BANKS = 8  # pieces: all banks of shared memory
Fragment = list[Value]  # four registers


class Panel:
    """kind: of the numbers, as Thread.mma has it. start: where all panels begin, of which this one
    lies `offset` bytes behind. copy: bytes that are copied at a time, to which all rows are
    aligned; 0 where elements are read one by one."""

    def __init__(
        self, t: Thread, kind: str, start: Value, offset: int, rows: int, width: int, copy: int
    ) -> None:
        self.t, self.b, self.kind, self.copy = t, t.b, kind, copy
        self.start, self.offset = start, offset
        self.bytes = 4 if kind == "tf32" else 2  # of an element
        self.each = PIECE // self.bytes  # elements of a piece
        self.rows, self.pieces = rows, width * self.bytes // PIECE
        self.line = self.pieces * PIECE  # bytes of a row
        self.size = rows * self.line
        b, lane = self.b, t.lane
        low, high = b.binary("and", lane, i32(7)), b.binary("lshr", lane, i32(3))
        first, second = b.binary("and", high, i32(1)), b.binary("lshr", high, i32(1))
        # Which row and piece of a fragment a thread tells ldmatrix of: rows 0-7 and 8-15 of a piece
        # before the next piece, or both pieces of a row before the next rows.
        self._down = self._of_lane(b.add(low, b.mul(first, i32(8))), second)
        self._along = self._of_lane(b.add(low, b.mul(second, i32(8))), first)

    def _swizzle(self, row: Value) -> Value:
        b, shared = self.b, max(1, _BANKS // self.pieces)  # rows that lie in all banks together
        turn = b.binary("lshr", row, i32(shared.bit_length() - 1))
        return b.binary("and", turn, i32(min(self.pieces, _BANKS) - 1))

    def _of_lane(self, row: Value, piece: Value) -> tuple[Value, Value]:
        """The bytes before a row, and those before a piece in it."""
        b = self.b
        inside = b.mul(b.binary("xor", piece, self._swizzle(row)), i32(PIECE))
        return b.mul(row, i32(self.line)), inside

    # To shared memory ----------------------------------------------------------------------------
    def bring(self, of: Rows, first: Value) -> None:
        """Begin to fill the panel with the rows from `first` on."""
        b, t = self.b, self.t
        if not self.copy:
            with b.loop(t.thread, i32(self.rows * self.pieces), t.size) as loop:
                self._read(of, first, loop.i)
            return
        step = t.threads // self.pieces  # rows from one piece of a thread to the next
        piece = b.binary("and", t.thread, i32(self.pieces - 1))
        top = b.binary("lshr", t.thread, i32(self.pieces.bit_length() - 1))
        column = b.mul(piece, i32(self.each))
        valid = b.mul(b.sub(of.width, column), i32(self.bytes))
        for e in range(0, self.rows, step):
            row = b.add(top, i32(e))
            number = b.add(first, row)
            there = b.compare("slt", number, of.count)
            source = of.row(b, b.select(there, number, i32(0)))
            source = b.at(source, column, of.element)
            bytes = b.select(there, valid, i32(0))
            inside = b.mul(b.binary("xor", piece, self._swizzle(row)), i32(PIECE))
            target = self._at(b.add(b.mul(row, i32(self.line)), inside), 0)
            for part in range(0, PIECE, self.copy):
                rest = b.intrinsic("smax", "i32", b.sub(bytes, i32(part)), i32(0))
                to, place = (b.at(x, i32(part), "i8") for x in (target, source))
                t.copy_async(to, place, b.smin(rest, i32(self.copy)), self.copy)

    def _read(self, of: Rows, first: Value, number: Value) -> None:
        """Fill a piece, element by element."""
        b, type = self.b, ir.vector(self.each, of.element)
        row = b.binary("lshr", number, i32(self.pieces.bit_length() - 1))
        piece = b.binary("and", number, i32(self.pieces - 1))
        begin = b.mul(piece, i32(self.each))
        there = b.compare("slt", b.add(first, row), of.count)
        start = of.row(b, b.select(there, b.add(first, row), i32(0)))
        made = Value(type, "poison")
        for i in range(self.each):
            column = b.add(begin, i32(i))
            inside = b.binary("and", there, b.compare("slt", column, of.width))
            place = b.at(start, b.select(inside, column, i32(0)), of.element)
            x = b.load(of.element, place)
            x = b.select(inside, x, like(x, 0))
            made = b.emit(type, f"insertelement {type} {made.name}, {x.type} {x.name}, i64 {i}")
        inside = b.mul(b.binary("xor", piece, self._swizzle(row)), i32(PIECE))
        b.store(made, self._at(b.add(b.mul(row, i32(self.line)), inside), 0), PIECE)

    def _at(self, mine: Value, more: int) -> Value:
        """The address of a byte. more: what is the same for all threads, which is added last, so
        that panels share what is not."""
        return self.b.at(self.b.at(self.start, mine, "i8"), i32(self.offset + more), "i8")

    # From shared memory --------------------------------------------------------------------------
    def rows_down(self, mine: Value, row: int, step: Value) -> Fragment:
        """16 rows from row `mine` + `row` on (multiples of 16), of a step along the columns: a left
        operand."""
        before, inside = self._down
        before = self.b.add(before, self.b.mul(mine, i32(self.line)))
        return self._numbers(self._matrices((before, inside), row, self._piece(step), False))

    def rows_across(self, row: int, step: Value) -> Fragment:
        """The same as a right operand whose columns these rows are: two times 8 of them."""
        return self._numbers(self._matrices(self._along, row, self._piece(step), False))

    def _piece(self, step: Value) -> Value:
        """Bytes before the pieces of a step along the columns."""
        return self.b.mul(step, i32(2 * PIECE))

    def columns_across(self, column: int, step: int) -> Fragment:
        """A right operand with 16 of the columns, from `column` on, and the rows of a step: in the
        order in which `weights` of tensor.py has them."""
        if self.kind == "tf32":
            return self._numbers([self._element(8 * step, column, i) for i in range(4)])
        rows = PIECE * step  # a step has as many rows as a piece has bytes
        return self._matrices(self._down, rows, i32(column * self.bytes), True)

    def _matrices(
        self, lane: tuple[Value, Value], row: int, piece: Value, transposed: bool
    ) -> list[Value]:
        b, (before, inside) = self.b, lane
        mine = b.add(before, b.binary("xor", inside, piece))
        return self.t.load_matrices(self._at(mine, row * self.line), transposed)

    def _element(self, row: int, column: int, i: int) -> Value:
        """Of the 8 rows from `row` on and two times 8 columns: in thread 4 g + p that of column g
        of the i // 2-th 8, and of row 2 p + i % 2."""
        b, lane = self.b, self.t.lane
        group, pair = b.binary("lshr", lane, i32(2)), b.binary("and", lane, i32(3))
        mine = b.add(b.mul(pair, i32(2)), i32(i % 2))
        piece = b.add(b.binary("lshr", group, i32(2)), i32((column + 8 * (i // 2)) // self.each))
        piece = b.binary("xor", piece, self._swizzle(mine))
        inside = b.add(b.mul(piece, i32(PIECE)), b.mul(b.binary("and", group, i32(3)), i32(4)))
        offset = b.add(b.mul(mine, i32(self.line)), inside)
        return b.load("i32", self._at(offset, row * self.line))

    def _numbers(self, words: list[Value]) -> Fragment:
        """As tensor cores take them."""
        if self.kind != "tf32":
            return words
        return [self.t.tf32(self.b.convert("bitcast", x, "float")) for x in words]
