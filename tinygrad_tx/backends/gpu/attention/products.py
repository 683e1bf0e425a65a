"""Products: what a machine multiplies for attention, tile by tile.

In: matrices of a head. Out: what one thread of a block has of their products. exact.py makes them
without tensor cores, tensor.py with them; forward.py and gradients.py are written for both.

A block has a tile of rows of some matrices (queries, or keys), which stay, and goes over tiles of
columns: the rows of two other matrices, which move. Scores are products of rows that stay with
columns. They become weights, and those times the columns are added to the sums of each row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ...llvm.elementary import like
from ...llvm.ir import Value
from ...llvm.scalars import cast
from ..indexing import i32
from ..thread import Thread
from .heads import Rows, lanes, spread

Sums = list[list[Value]]  # of a thread's rows, each its columns: some vectors
Four = Callable[[Value, Value], Value]
"""Four bits of a query and the keys from one on, a multiple of 4."""


class Flags(NamedTuple):
    """Of a row: an i32, and for each lane the number of its bit."""

    word: Value
    places: Sequence[int]


class Products(ABC):
    """rows, columns: of a tile of scores. each: rows of it that a thread has. element: the type of
    scores and sums. unit: of scores; their exponential is `exp` of unit times them. scratch: shared
    memory that nobody uses between two tiles of columns."""

    rows: int
    columns: int
    each: int
    element: str
    unit: float
    scratch: Value
    first_of_row: Value  # True for one of the threads that share a row

    def __init__(self, t: Thread, dtype: str) -> None:
        self.t, self.b, self.dtype = t, t.b, dtype

    # A thread's part -----------------------------------------------------------------------------
    @abstractmethod
    def row_numbers(self, first: Value) -> list[Value]:
        """The numbers of the thread's rows, in a tile from `first` on."""

    @abstractmethod
    def column_numbers(self, first: Value) -> Value:
        """A vector of the numbers of its columns."""

    @abstractmethod
    def column_number(self, first: Value, n: Value) -> Value:
        """That of lane n (i32)."""

    @abstractmethod
    def keys_by_fours(self, four: Four, rows: Sequence[Value], first: Value) -> list[Flags]:
        """The bits of all elements, where rows are queries and columns, from `first` on, keys."""

    @abstractmethod
    def rows_by_fours(self, four: Four, rows: Sequence[Value], first: Value) -> list[Flags]:
        """The same where rows are keys and columns queries."""

    @property
    @abstractmethod
    def sharing(self) -> tuple[Sequence[int], Value, int]:
        """The threads that share a row: the bits in which their numbers in the warp differ, highest
        first; the number of this one among them, and how many they are."""

    def along_row(self, x: Value, combine: Callable[[Value, Value], Value]) -> Value:
        """All lanes of all threads that share a row, combined."""
        parts = lanes(self.b, x)
        while len(parts) > 1:
            half = len(parts) // 2
            parts = [combine(p, q) for p, q in zip(parts[:half], parts[half:], strict=True)]
        (found,) = parts
        for bit in self.sharing[0]:
            found = combine(found, self.t.exchange(found, bit))
        return found

    def row_dot(self, row: Value, left: Rows, right: Rows) -> Value:
        """The sum of products of a row of two matrices of one shape, for all threads that share
        it; of what lies outside, that of the last row."""
        b, (_, mine, count) = self.b, self.sharing
        row = b.smin(row, b.sub(left.count, i32(1)))
        rows = [(m, m.row(b, row)) for m in (left, right)]
        nothing = like(Value(self.element, ""), 0.0)
        with b.loop(mine, left.width, i32(count), [nothing]) as loop:
            x, y = (self.load(m, b.at(place, loop.i, m.element)) for m, place in rows)
            loop.next = [b.fma(x, y, loop.carried[0])]
        return self.along_row(loop.carried[0], b.add)

    def load(self, of: Rows, place: Value) -> Value:
        return cast(self.b, self.b.load(of.element, place), self.dtype, of.dtype)

    @abstractmethod
    def exp(self, x: Value) -> Value:
        """e to the power of x / unit."""

    # Operands ------------------------------------------------------------------------------------
    @abstractmethod
    def begin(self, staying: Sequence[Rows], first: Value) -> None:
        """Begin a tile of rows of some matrices, from `first` on."""

    @abstractmethod
    def move(self, moving: Sequence[Rows], start: Value, stop: Value, jumps: bool) -> None:
        """Two other matrices, of which tiles begin at row `start` and later ones, before `stop`.
        jumps: tiles may be left out."""

    @abstractmethod
    def turn(self, start: Value) -> None:
        """Begin a tile of columns, from `start` on; all uses of the first matrix may follow."""

    @abstractmethod
    def second(self, last: bool) -> None:
        """Uses of the second one may follow. last: those of the first one are over."""

    @abstractmethod
    def over(self) -> None:
        """The uses of the first one are over."""

    @abstractmethod
    def done(self) -> None:
        """The uses of both are over."""

    @abstractmethod
    def end(self) -> None:
        """No more tiles of columns follow."""

    # Products ------------------------------------------------------------------------------------
    @abstractmethod
    def scores(self, staying: int, moving: int) -> list[Value]:
        """The products of the rows of one matrix with those of another: for each of the thread's
        rows a vector of its columns."""

    @abstractmethod
    def zero(self, width: int) -> Sums:
        """Sums of nothing, of a row with so many columns, a power of 2."""

    @abstractmethod
    def weigh(self, weights: Sequence[Value], moving: int, sums: Sums) -> Sums:
        """With weights, as scores lie, times the rows of a matrix."""

    @abstractmethod
    def store(self, to: Rows, first: Value, sums: Sums) -> None:
        """Write the sums to rows from `first` on, as far as there are such rows and columns."""

    def shaped(self, flat: Sequence[Value]) -> Sums:
        """Sums that were laid end to end."""
        parts = len(flat) // self.each
        return [list(flat[i : i + parts]) for i in range(0, len(flat), parts)]

    def times(self, sums: Sums, factors: Sequence[Value]) -> Sums:
        """Each row times its factor."""
        b = self.b
        return [
            [b.mul(x, spread(b, factor, x.lanes)) for x in row]
            for row, factor in zip(sums, factors, strict=True)
        ]


def flat(*sums: Sums) -> list[Value]:
    """Sums laid end to end."""
    return [x for rows in sums for row in rows for x in row]
