"""Dropout on weights: the elements of a tile that are kept, as a DropoutMask says.

In: a thread's elements of a tile of scores. Out: for each whether it is kept. Called by forward.py
and gradients.py.

Element i of all weights (b, h, t, s) is word i % 4 of Philox counter i // 4. Where the number of
keys is a multiple of 4, a counter is of four keys of one query: it is made once, by one of the
threads that have these, and bits are what they tell one another. Else each element makes its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from ...kernels.kinds import dropout_factor
from ...llvm import ir
from ...llvm.elementary import like
from ...llvm.ir import Value
from ...llvm.philox import LOW, philox32, words32
from ..indexing import i32, wide
from .heads import Heads
from .products import Flags, Products


class Dropout:
    """fours: True if the number of keys is a multiple of 4. begin() after that of the heads."""

    def __init__(self, heads: Heads, products: Products, fours: bool) -> None:
        self._heads, self._products, self._fours = heads, products, fours
        self.b, kernel = heads.b, heads.kernel
        self._least = ceil(kernel.dropout * 2**24) << 8
        self.factor = dropout_factor(kernel.dropout)  # of what is kept

    def begin(self) -> None:
        """Begin a head of queries."""
        b, heads, at = self.b, self._heads, self._heads.kernel.layout
        assert at.key is not None and at.stream is not None
        self._key, self._stream = (
            words32(b, b.load("i64", heads.t.words.place(word))) for word in (at.key, at.stream)
        )
        self._start = b.mul(heads.number, wide(b, heads.queries))

    def kept(self, rows: Sequence[Value], start: Value, across: bool) -> list[Value]:
        """For each of the thread's rows which of its columns are kept, a vector of i1. start: the
        first column of the tile. across: True if rows are queries and columns keys."""
        b, products = self.b, self._products
        if self._fours:
            by_fours = products.keys_by_fours if across else products.rows_by_fours
            flags = by_fours(self._four, rows, start)
        else:
            flags = [self._one_by_one(row, start, across) for row in rows]
        found = []
        for word, places in flags:
            bits = b.splat(word, len(places))
            named = ", ".join(f"i32 {1 << n}" for n in places)
            bit = b.binary("and", bits, Value(bits.type, f"<{named}>"))
            found.append(b.compare("ne", bit, like(bit, 0)))
        return found

    def scaled(self, rows: Sequence[Value], kept: Sequence[Value]) -> list[Value]:
        """The rows with what is dropped 0, and the rest times the factor."""
        b = self.b
        return [
            b.select(k, b.mul(x, like(x, self.factor)), like(x, 0))
            for k, x in zip(kept, rows, strict=True)
        ]

    def _drawn(self, query: Value, key: Value) -> tuple[list[Value], Value]:
        """The words of an element's counter; the element's place among them."""
        b = self.b
        at = b.mul(b.add(self._start, wide(b, query)), wide(b, self._heads.keys))
        at = b.add(at, wide(b, key))
        words = philox32(b, b.binary("lshr", at, ir.integer(2)), self._stream, self._key)
        return words, b.binary("and", b.convert("trunc", at, "i32"), i32(3))

    def _keeps(self, word: Value) -> Value:
        """1 where a word is large enough, else 0."""
        b = self.b
        if self._least > LOW:
            return i32(0)
        return b.convert("zext", b.compare("uge", word, like(word, self._least)), "i32")

    def _four(self, query: Value, key: Value) -> Value:
        """Four bits: of keys `key`, a multiple of 4, to `key` + 3."""
        b, found = self.b, i32(0)
        for n, word in enumerate(self._drawn(query, key)[0]):
            found = b.binary("or", found, b.binary("shl", self._keeps(word), i32(n)))
        return found

    def _one_by_one(self, row: Value, start: Value, across: bool) -> Flags:
        b, count = self.b, self._products.column_numbers(start).lanes
        with b.loop(i32(0), i32(count), i32(1), [i32(0)], rolled=True) as loop:
            column = self._products.column_number(start, loop.i)
            words, place = self._drawn(*((row, column) if across else (column, row)))
            word = words[0]
            for n in range(1, 4):
                word = b.select(b.compare("eq", place, i32(n)), words[n], word)
            bit = b.binary("shl", self._keeps(word), loop.i)
            loop.next = [b.binary("or", loop.carried[0], bit)]
        return Flags(loop.carried[0], range(count))
