"""Products without tensor cores: exact, each sum in one fixed order.

In: matrices of a head. Out: what one thread of a block has of their products (products.py). Called
by forward.py and gradients.py.

A block has THREADS threads, _SIDE along either side of a tile of scores: a thread has `each` rows
and _ACROSS columns of it. Operands go through shared memory by chunks; while one is multiplied, the
next one is on its way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...llvm import ir
from ...llvm.elementary import exp, like
from ...llvm.ir import Value
from ...llvm.scalars import cast, memory, register
from ..indexing import i32, wide
from ..thread import Thread
from .heads import Rows, gathered, lanes
from .products import Flags, Four, Products, Sums, flat

THREADS = 256
_SIDE = 16
_ACROSS = 4
_COLUMNS = _SIDE * _ACROSS  # of a tile of scores
_DEPTH = 16  # of a chunk of the products that scores are
_CHUNK = 9 << 10  # bytes of a chunk of what weights are multiplied with
_PAD = 4  # elements behind each row in shared memory, so that its columns lie in other banks
_AT_ONCE = 4  # multiply-adds of vectors in a round of a loop


class Exact(Products):
    """rows: of a tile. widths: of the matrices that weights are multiplied with, powers of 2."""

    columns, unit = _COLUMNS, 1.0

    def __init__(self, t: Thread, dtype: str, rows: int, widths: Sequence[int]) -> None:
        super().__init__(t, dtype)
        self.rows, self.each = rows, rows // _SIDE
        self.element = register(dtype)
        self._size = ir.width(self.element)
        self._left, self._right = rows + _PAD, _COLUMNS + _PAD
        chunks = [_DEPTH * (self._left + self._right)]
        chunks += [self._depth(width) * (width + _PAD) for width in widths]
        self._area = max(chunks)
        self._weights = t.shared(_COLUMNS * self._left * self._size)
        self.scratch = self._chunks = t.shared(2 * self._area * self._size)
        b = t.b
        self._x = b.binary("and", t.thread, i32(_SIDE - 1))
        y = b.binary("lshr", t.thread, i32(_SIDE.bit_length() - 1))
        self._down, self._along = b.mul(y, i32(self.each)), b.mul(self._x, i32(_ACROSS))
        self.first_of_row = b.compare("eq", self._x, i32(0))

    # A thread's part -----------------------------------------------------------------------------
    def row_numbers(self, first: Value) -> list[Value]:
        b, mine = self.b, self.b.add(first, self._down)
        return [b.add(mine, i32(i)) for i in range(self.each)]

    def column_numbers(self, first: Value) -> Value:
        b = self.b
        return b.add(b.splat(b.add(first, self._along), _ACROSS), b.iota(_ACROSS, "i32"))

    def column_number(self, first: Value, n: Value) -> Value:
        b = self.b
        return b.add(b.add(first, self._along), n)

    def keys_by_fours(self, four: Four, rows: Sequence[Value], first: Value) -> list[Flags]:
        column = self.column_number(first, i32(0))
        return [Flags(four(row, column), range(_ACROSS)) for row in rows]

    def rows_by_fours(self, four: Four, rows: Sequence[Value], first: Value) -> list[Flags]:
        b, key, word = self.b, self.b.binary("and", rows[0], i32(-4)), i32(0)
        for n in range(_ACROSS):
            bits = four(self.column_number(first, i32(n)), key)
            word = b.binary("or", word, b.binary("shl", bits, i32(4 * n)))
        places = [b.binary("and", row, i32(3)) for row in rows]
        return [Flags(b.binary("lshr", word, n), range(0, 4 * _ACROSS, 4)) for n in places]

    @property
    def sharing(self) -> tuple[Sequence[int], Value, int]:
        return (8, 4, 2, 1), self._x, _SIDE

    def exp(self, x: Value) -> Value:
        return exp(self.b, x)

    # Operands, which come when they are used -----------------------------------------------------
    def begin(self, staying: Sequence[Rows], first: Value) -> None:
        self._staying, self._first = staying, first

    def move(self, moving: Sequence[Rows], start: Value, stop: Value, jumps: bool) -> None:
        self._moving = moving

    def turn(self, start: Value) -> None:
        self._start = start

    def second(self, last: bool) -> None:
        pass

    def over(self) -> None:
        pass

    def done(self) -> None:
        pass

    def end(self) -> None:
        pass

    # Scores --------------------------------------------------------------------------------------
    def scores(self, staying: int, moving: int) -> list[Value]:
        b, left = self.b, self._staying[staying]
        sides = (
            _Side(self, left, self.rows, self._first),
            _Side(self, self._moving[moving], _COLUMNS, self._start),
        )
        nothing = like(Value(ir.vector(_ACROSS, self.element), ""), 0.0)

        def bring(k: Value) -> list[Value]:
            return [x for side in sides for x in side.bring(k)]

        def put(area: Value, values: list[Value]) -> None:
            count = sides[0].count
            sides[0].put(area, values[:count])
            sides[1].put(b.at(area, i32(_DEPTH * self._left), self.element), values[count:])

        def multiply(area: Value, _: Value, sums: list[Value]) -> list[Value]:
            step = max(1, min(_DEPTH, _AT_ONCE // self.each))
            right = b.at(area, i32(_DEPTH * self._left), self.element)
            with b.loop(i32(0), i32(_DEPTH), i32(step), sums, rolled=True) as loop:
                sums = loop.carried
                for k in range(step):
                    depth = b.add(loop.i, i32(k))
                    down = self._read(area, depth, self._left, self._down, self.each)
                    along = self._read(right, depth, self._right, self._along, _ACROSS)
                    sums = self._add(sums, down, along)
                loop.next = sums
            return loop.carried

        return self._by_chunks(left.width, _DEPTH, bring, put, multiply, [nothing] * self.each)

    def _read(self, area: Value, row: Value, width: int, column: Value, count: int) -> Value:
        """Elements side by side, of a row of a chunk."""
        b = self.b
        place = b.at(area, b.add(b.mul(row, i32(width)), column), self.element)
        return b.load(ir.vector(count, self.element), place, min(16, self._size * count))

    def _add(self, sums: Sequence[Value], down: Value, along: Value) -> list[Value]:
        b = self.b
        factors = lanes(b, down)
        return [
            b.fma(b.splat(x, along.lanes), along, sum) for x, sum in zip(factors, sums, strict=True)
        ]

    def _by_chunks(
        self,
        stop: Value,
        depth: int,
        bring: Callable[[Value], list[Value]],
        put: Callable[[Value, list[Value]], None],
        multiply: Callable[[Value, Value, list[Value]], list[Value]],
        sums: list[Value],
    ) -> list[Value]:
        """Multiply chunk after chunk, brought while the one before is multiplied. When it ends, all
        threads have read what they need."""
        b, t = self.b, self.t
        put(self._chunks, bring(i32(0)))
        t.barrier()
        with b.loop(i32(0), stop, i32(depth), [i32(0), *sums], rolled=True) as loop:
            here, sums = loop.carried[0], loop.carried[1:]
            there = b.sub(i32(self._area), here)
            following = bring(b.add(loop.i, i32(depth)))
            sums = multiply(b.at(self._chunks, here, self.element), loop.i, sums)
            put(b.at(self._chunks, there, self.element), following)
            t.barrier()
            loop.next = [there, *sums]
        return loop.carried[1:]

    # Sums ----------------------------------------------------------------------------------------
    def _depth(self, width: int) -> int:
        """Rows of a chunk of a matrix that weights are multiplied with."""
        depth = _DEPTH
        while depth * (width + _PAD) * self._size > _CHUNK:
            depth //= 2
        return depth

    def _parts(self, width: int) -> tuple[int, int]:
        """How many vectors a thread has of a row of sums, and of how many columns."""
        across = min(_ACROSS, width // _SIDE)
        return width // (_SIDE * across), across

    def zero(self, width: int) -> Sums:
        parts, across = self._parts(width)
        nothing = like(Value(ir.vector(across, self.element), ""), 0.0)
        return [[nothing] * parts for _ in range(self.each)]

    def _put_weights(self, weights: Sequence[Value]) -> None:
        """The weights, for all threads of the block."""
        b = self.b
        rows = [lanes(b, x) for x in weights]
        for j in range(_ACROSS):
            column = gathered(b, [row[j] for row in rows])
            at = b.add(b.mul(b.add(self._along, i32(j)), i32(self._left)), self._down)
            place = b.at(self._weights, at, self.element)
            b.store(column, place, min(16, self._size * self.each))
        self.t.barrier()

    def weigh(self, weights: Sequence[Value], moving: int, sums: Sums) -> Sums:
        b, of, first = self.b, self._moving[moving], self._start
        parts, across = len(sums[0]), sums[0][0].lanes
        width = parts * across * _SIDE
        depth = self._depth(width)
        self._put_weights(weights)
        side = _Side(self, of, depth, first, width)
        stop = b.smin(i32(_COLUMNS), b.sub(of.count, first))
        mine = b.mul(self._x, i32(across))

        def multiply(area: Value, start: Value, sums: list[Value]) -> list[Value]:
            step = max(1, min(depth, _AT_ONCE // (self.each * parts)))
            with b.loop(i32(0), i32(depth), i32(step), sums, rolled=True) as loop:
                sums = list(loop.carried)
                for k in range(step):
                    row = b.add(loop.i, i32(k))
                    at = b.add(start, row)
                    down = self._read(self._weights, at, self._left, self._down, self.each)
                    for part in range(parts):
                        column = b.add(mine, i32(part * _SIDE * across))
                        along = self._read(area, row, width + _PAD, column, across)
                        sums[part::parts] = self._add(sums[part::parts], down, along)
                loop.next = sums
            return loop.carried

        found = self._by_chunks(stop, depth, side.bring, side.put, multiply, flat(sums))
        return self.shaped(found)

    def store(self, to: Rows, first: Value, sums: Sums) -> None:
        b = self.b
        for number, row in zip(self.row_numbers(first), sums, strict=True):
            across = row[0].lanes
            with b.when(b.compare("slt", number, to.count)):
                start = to.row(b, number)
                for part, vector in enumerate(row):
                    mine = b.add(b.mul(self._x, i32(across)), i32(part * _SIDE * across))
                    for lane, x in enumerate(lanes(b, vector)):
                        column = b.add(mine, i32(lane))
                        with b.when(b.compare("slt", column, to.width)):
                            place = b.at(start, column, memory(to.dtype))
                            b.store(cast(b, x, to.dtype), place)


class _Side:
    """A matrix on its way into shared memory, chunk by chunk, and a thread's elements of a chunk.

    rows: of a chunk. width: its columns, if chunks go down the matrix from row `first` on; None:
    they have the same rows, from `first` on, and go along these, _DEPTH columns each, which
    become rows in shared memory.
    """

    def __init__(
        self, exact: Exact, of: Rows, rows: int, first: Value, width: int | None = None
    ) -> None:
        self._exact, self._of, self._first, b = exact, of, first, exact.b
        self._turned = width is None
        columns = width or _DEPTH
        thread = exact.t.thread
        self._column = b.binary("and", thread, i32(columns - 1))
        self._row = b.binary("lshr", thread, i32(columns.bit_length() - 1))
        self._step = THREADS // columns  # rows from an element to the next one
        self.count = rows // self._step
        self._width = rows + _PAD if self._turned else columns + _PAD
        if self._turned:
            self._places = [self._in_row(b.add(first, self._mine(e))) for e in range(self.count)]
        else:
            self._there = b.compare("slt", self._column, of.width)

    def _mine(self, e: int) -> Value:
        return self._exact.b.add(self._row, i32(e * self._step))

    def _in_row(self, row: Value) -> tuple[Value, Value]:
        """The address of a row, and whether it is there; else that of the first one."""
        b = self._exact.b
        there = b.compare("slt", row, self._of.count)
        return self._of.row(b, b.select(there, row, i32(0))), there

    def bring(self, at: Value) -> list[Value]:
        """The thread's elements of the chunk that begins at a column, or at a row counted from the
        first one; zero where there are none."""
        b, column = self._exact.b, self._column
        if self._turned:
            column = b.add(at, column)
            inside, places = b.compare("slt", column, self._of.width), self._places
        else:
            row, inside = b.add(self._first, at), self._there
            places = [self._in_row(b.add(row, self._mine(e))) for e in range(self.count)]
        found = []
        for start, there in places:
            there = b.binary("and", inside, there)
            place = b.at(start, wide(b, b.select(there, column, i32(0))), self._of.element)
            x = self._exact.load(self._of, place)
            found.append(b.select(there, x, like(x, 0)))
        return found

    def put(self, area: Value, values: Sequence[Value]) -> None:
        b, element = self._exact.b, self._exact.element
        line, place = (self._column, self._row) if self._turned else (self._row, self._column)
        start = b.at(area, b.add(b.mul(line, i32(self._width)), place), element)
        apart = self._step * (1 if self._turned else self._width)
        for e, x in enumerate(values):
            b.store(x, b.at(start, i32(e * apart), element))
