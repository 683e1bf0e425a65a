"""Heads: what a call of attention works on, as one thread sees it.

In: the arguments of a call; a batch and a head. Out: the matrices of that head, and which keys its
queries see. Called by the writers beside it, which compute with tiles of queries and keys.

Queries and keys are numbered in 32 bits. Either may be a vector: a thread has scores of one query
and several keys at a time, or of one key and several queries.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...kernels.arguments import Matrix
from ...kernels.kinds import Attention, AttentionKeyGrad, AttentionQueryGrad
from ...llvm import ir
from ...llvm.elementary import like
from ...llvm.ir import Builder, Value
from ...llvm.scalars import cast, memory
from ..indexing import i32, number, wide
from ..thread import WARP, Thread

Kernel = Attention | AttentionQueryGrad | AttentionKeyGrad
Bounds = tuple[Value, Value]  # the first key that a query sees, and where they end


@dataclass(frozen=True)
class Rows:
    """A matrix (count, width) of one head: rows `stride` apart, whose elements lie side by side."""

    start: Value
    stride: Value
    count: Value
    width: Value
    dtype: str

    @property
    def element(self) -> str:
        return memory(self.dtype)

    def row(self, b: Builder, number: Value) -> Value:
        """The address of a row (i32) that is there."""
        return b.at(self.start, b.mul(wide(b, number), self.stride), self.element)


@dataclass(frozen=True)
class Operand:
    """A matrix of every batch and head, (b, h, count, width). Its address and strides are read when
    a head is begun: registers that held them meanwhile would be missed elsewhere."""

    t: Thread
    at: Matrix[int]
    count: Value
    width: Value
    dtype: str

    def of(self, batch: Value, head: Value) -> Rows:
        b, words, at = self.t.b, self.t.words, self.at
        index, outer = (wide(b, batch), wide(b, head)), words.numbers(at.b0, at.b1)
        offset = b.index(ir.integer(0), *zip(index, outer, strict=True))
        start = b.at(words.place(at.place), offset, memory(self.dtype))
        return Rows(start, words.number(at.row), self.count, self.width, self.dtype)


class Heads:
    """The numbers of a call, and the mask of the head that was begun last."""

    def __init__(self, kernel: Kernel, t: Thread) -> None:
        self.kernel, self.t, self.b, at = kernel, t, t.b, kernel.layout
        self.batches, self.heads, self.group = (number(t, w) for w in (at.b, at.h, at.group))
        self.queries, self.keys = number(t, at.t), number(t, at.s)
        self.d_k, self.d_v = number(t, at.d_k), number(t, at.d_v)

    def of_queries(self, at: Matrix[int], width: Value) -> Operand:
        return Operand(self.t, at, self.queries, width, self.kernel.stored)

    def of_keys(self, at: Matrix[int], width: Value) -> Operand:
        return Operand(self.t, at, self.keys, width, self.kernel.stored)

    def begin(self, batch: Value, head: Value) -> None:
        """Begin a head of queries."""
        b = self.b
        self.number = wide(b, b.add(b.mul(batch, self.heads), head))
        at, words = self.kernel.layout.mask, self.t.words
        if at is not None:
            index, outer = (wide(b, batch), wide(b, head)), words.numbers(at.b0, at.b1)
            offset = b.index(ir.integer(0), *zip(index, outer, strict=True))
            self._start = b.at(words.place(at.place), offset, self._stored)
            self._strides = words.numbers(at.row, at.column)

    def kept(self, word: int) -> Value:
        """Where the numbers of the head's queries begin, of those of all heads, (b, h, t). word: of
        the arguments."""
        b = self.b
        at = b.mul(self.number, wide(b, self.queries))
        return b.at(self.t.words.place(word), at, memory(self.kernel.dtype))

    # Masks ---------------------------------------------------------------------------------------
    @property
    def _stored(self) -> str:
        return {"bool": "i8", "bounds": "i64"}.get(self.kernel.mask, memory(self.kernel.stored))

    def _read(self, query: Value, key: Value) -> list[Value]:
        """The mask at each lane; of what lies outside, at the last query or key."""
        b, start = self.b, self._start
        terms = [
            ([b.smin(x, last) for x in lanes(b, whole)], stride)
            for whole, last, stride in zip(
                (query, key),
                (b.sub(n, i32(1)) for n in (self.queries, self.keys)),
                self._strides,
                strict=True,
            )
        ]
        for (first, *others), stride in terms:
            if not others:
                start = b.at(start, b.mul(wide(b, first), stride), self._stored)
        places = [start]
        for several, stride in terms:
            if len(several) > 1:
                places = [b.at(start, b.mul(wide(b, x), stride), self._stored) for x in several]
        return [b.load(self._stored, place) for place in places]

    def added(self, query: Value, key: Value) -> Value:
        """The mask that is added to scores."""
        b, kernel = self.b, self.kernel
        return cast(b, gathered(b, self._read(query, key)), kernel.dtype, kernel.stored)

    def flags(self, query: Value, key: Value) -> Value:
        """A boolean mask: an i32 whose bit n is lane n's."""
        b, word = self.b, i32(0)
        for n, byte in enumerate(self._read(query, key)):
            bit = b.binary("shl", b.convert("zext", byte, "i32"), i32(n))
            word = b.binary("or", word, bit)
        return word

    def any_of_block(self, flag: Value, scratch: Value) -> Value:
        """True if the flag (i1) is, for any thread of the block. scratch: shared memory."""
        t, b = self.t, self.b
        b.store(t.vote(flag), b.at(scratch, t.warp, "i32"))
        t.barrier()
        warps = b.binary("lshr", t.size, i32(WARP.bit_length() - 1))
        with b.loop(i32(0), warps, i32(1), [i32(0)]) as each:
            word = b.load("i32", b.at(scratch, each.i, "i32"))
            each.next = [b.binary("or", each.carried[0], word)]
        t.barrier()
        return b.compare("ne", each.carried[0], i32(0))

    def bounds(self, query: Value) -> Bounds:
        """Those of the mask, for each lane."""
        b, found = self.b, []
        for column in range(2):
            last = b.sub(self.queries, i32(1))
            several = []
            for x in lanes(b, query):
                row = b.mul(wide(b, b.smin(x, last)), self._strides[0])
                at = b.add(row, b.mul(ir.integer(column), self._strides[1]))
                key = b.load("i64", b.at(self._start, at, "i64"))
                key = b.smin(b.intrinsic("smax", "i64", key, ir.integer(0)), wide(b, self.keys))
                several.append(b.convert("trunc", key, "i32"))
            found.append(gathered(b, several))
        return found[0], found[1]

    def span(self, first: Value, count: int) -> Bounds:
        """What `count` queries from `first` on may see together. All threads of a warp must ask."""
        b, t, end = self.b, self.t, self.keys
        if self.kernel.causal:
            end = b.smin(end, b.add(first, i32(count)))
        if self.kernel.mask != "bounds":
            return i32(0), end
        least, most = self.keys, i32(0)
        for start in range(0, count, WARP):
            query = b.add(first, b.add(t.lane, i32(start)))
            if count < WARP:
                query = b.add(first, b.binary("and", t.lane, i32(count - 1)))
            begin, stop = self.bounds(query)
            some = b.compare("slt", begin, stop)
            least = b.select(some, b.smin(least, begin), least)
            most = b.select(some, b.intrinsic("smax", "i32", most, stop), most)
        mask = WARP // 2
        while mask:
            least = b.smin(least, t.exchange(least, mask))
            most = b.intrinsic("smax", "i32", most, t.exchange(most, mask))
            mask //= 2
        return least, b.smin(most, end)

    def allowed(
        self, query: Value, key: Value, there: Value, bounds: Bounds | None, flags: Value | None
    ) -> Value:
        """Whether the query sees the key, for each lane. there: whether there is this lane."""
        b = self.b
        query, key = (spread(b, x, there.lanes) for x in (query, key))
        if self.kernel.causal:
            there = b.binary("and", there, b.compare("sle", key, query))
        if bounds is not None:
            begin, end = (spread(b, x, there.lanes) for x in bounds)
            there = b.binary("and", there, b.compare("sle", begin, key))
            there = b.binary("and", there, b.compare("slt", key, end))
        if flags is not None:
            bits = spread(b, flags, there.lanes)
            if there.lanes > 1:
                named = ", ".join(f"i32 {1 << n}" for n in range(there.lanes))
                bit = b.binary("and", bits, Value(bits.type, f"<{named}>"))
            else:
                bit = b.binary("and", bits, i32(1))
            there = b.binary("and", there, b.compare("ne", bit, like(bit, 0)))
        return there


# Lanes -------------------------------------------------------------------------------------------


def lanes(b: Builder, x: Value) -> list[Value]:
    """The elements of a vector; a scalar alone."""
    return [b.lane(x, i) for i in range(x.lanes)] if x.lanes > 1 else [x]


def gathered(b: Builder, several: list[Value]) -> Value:
    """A vector of several scalars; one alone stays a scalar."""
    if len(several) == 1:
        return several[0]
    type = ir.vector(len(several), several[0].type)
    made = Value(type, "poison")
    for i, x in enumerate(several):
        made = b.emit(type, f"insertelement {type} {made.name}, {x.type} {x.name}, i64 {i}")
    return made


def spread(b: Builder, x: Value, count: int) -> Value:
    """A scalar in so many lanes; a vector as it is."""
    return b.splat(x, count) if x.lanes == 1 else x
