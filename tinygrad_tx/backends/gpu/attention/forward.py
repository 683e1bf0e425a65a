"""Attention for a GPU without tensor cores.

In: an Attention kernel. Out: its code for one thread. Called by writers.py.

A block has a tile of queries of one head and goes over tiles of keys with the largest score so far
and the sum of exponentials below it: where a later tile has a larger one, what was added up is made
smaller by as much. So no score is ever in memory. Keys that no query of a tile sees add nothing, not
even a rounding error: so tiles of such keys are skipped, and padding changes no bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import inf, nan
from typing import NamedTuple

from ...kernels.kinds import Attention
from ...llvm import ir
from ...llvm.elementary import exp, like, log
from ...llvm.ir import Value
from ..choice import Choice, limited
from ..indexing import i32
from ..thread import Thread
from .exact import COLUMNS, THREADS, Exact, Sums
from .heads import Bounds, Heads, Rows, gathered, lanes, spread

Work = Callable[[Sequence[Value | None], list[Value]], list[Value]]
_FEW = 16  # rows of the smallest tile


class Form(NamedTuple):
    """rows: of a tile. widths: of the sums of a row, powers of 2 that are wide enough."""

    rows: int
    widths: tuple[int, ...]


def tile_rows(count: int, sums: str) -> int:
    """The rows of a tile, where there are so many in all."""
    rows = 32 if sums == "float64" else 64
    while rows > _FEW and rows >= 2 * count:
        rows //= 2
    return rows


def wide_enough(columns: int) -> int:
    """The width of a row of sums for a matrix of so many columns. ValueError beyond 256."""
    for width in (32, 64, 128, 256):
        if columns <= width:
            return width
    raise ValueError(f"attention on a GPU takes heads of up to 256 columns, not {columns}")


def choose(kernel: Attention, words: Sequence[int]) -> Choice:
    at = kernel.layout
    wide_enough(words[at.d_k])
    form = Form(tile_rows(words[at.t], kernel.sums), (wide_enough(words[at.d_v]),))
    tiles = -(-words[at.t] // form.rows)
    return Choice(form, THREADS, limited(words[at.b] * words[at.h] * tiles))


def attention(kernel: Attention, form: Form, t: Thread) -> None:
    """Write the kernel's code."""
    _Writer(kernel, form, t).write()


@contextmanager
def tiles(
    heads: Heads, rows: int, count: Value, per_batch: Value, last_first: bool = False
) -> Iterator[tuple[Value, Value, Value]]:
    """For each tile of the block: its batch, its head, and its first row of `count`. last_first:
    later tiles are more work, so they are begun earlier."""
    t, b = heads.t, heads.b
    down = ir.ceil_div(b, count, i32(rows))
    total = b.mul(down, b.mul(per_batch, heads.batches))
    with b.loop(t.block, total, t.blocks) as loop:
        matrix = b.binary("udiv", loop.i, down)
        tile = b.sub(loop.i, b.mul(matrix, down))
        if last_first:
            tile = b.sub(b.sub(down, i32(1)), tile)
        batch = b.binary("udiv", matrix, per_batch)
        head = b.sub(matrix, b.mul(batch, per_batch))
        yield batch, head, b.mul(tile, i32(rows))


class Seen:
    """Which keys the queries of a tile of scores see, as far as a thread has it. rows: numbers of
    queries or of keys; columns: those of the others, a vector."""

    def __init__(self, heads: Heads, rows: Sequence[Value], columns_are_keys: bool) -> None:
        self._heads, self._rows, self._across = heads, rows, columns_are_keys
        self._bounds: Sequence[Bounds | None] = [None] * len(rows)
        if heads.kernel.mask == "bounds" and columns_are_keys:
            self._bounds = [heads.bounds(row) for row in rows]

    def _pair(self, row: Value, columns: Value) -> tuple[Value, Value]:
        """Queries and keys."""
        return (row, columns) if self._across else (columns, row)

    def where_any(self, columns: Value, work: Work, state: list[Value]) -> list[Value]:
        """What `work` makes of the state, given the flags of a boolean mask; the state itself where
        that lets no key of the block's tile take part."""
        heads, b = self._heads, self._heads.b
        if heads.kernel.mask != "bool":
            return work([None] * len(self._rows), state)
        flags = [heads.flags(*self._pair(row, columns)) for row in self._rows]
        together = flags[0]
        for word in flags[1:]:
            together = b.binary("or", together, word)
        some = heads.any_of_block(b.compare("ne", together, i32(0)))
        with b.loop(i32(0), b.convert("zext", some, "i32"), i32(1), state) as once:
            once.next = work(flags, once.carried)
        return once.carried

    def masked(
        self, i: int, columns: Value, scores: Value, flags: Value | None
    ) -> tuple[Value, Value]:
        """Row i of scores with the mask, -inf where a key is not seen; and where it is."""
        heads, b = self._heads, self._heads.b
        query, key = self._pair(self._rows[i], columns)
        scores = b.mul(scores, like(scores, heads.kernel.scale))
        if heads.kernel.mask == "float":
            scores = b.add(scores, heads.added(query, key))
        extent = heads.keys if self._across else heads.queries
        there = b.compare("slt", columns, spread(b, extent, columns.lanes))
        bounds = self._bounds[i]
        if heads.kernel.mask == "bounds" and bounds is None:
            bounds = heads.bounds(query)
        allowed = heads.allowed(query, key, there, bounds, flags)
        return b.select(allowed, scores, like(scores, -inf)), allowed


class _Writer:
    """Writes the code of one kernel."""

    def __init__(self, kernel: Attention, form: Form, t: Thread) -> None:
        self.kernel, self.form, self.t, self.b = kernel, form, t, t.b
        (self.width,) = form.widths
        self.heads, at = Heads(kernel, t), kernel.layout
        self.exact = Exact(t, kernel.sums, form.rows, form.widths)
        heads = self.heads
        self.q, self.out = heads.of_queries(at.q, heads.d_k), heads.of_queries(at.out, heads.d_v)
        self.k, self.v = heads.of_keys(at.k, heads.d_k), heads.of_keys(at.v, heads.d_v)
        self.statistics = None if at.statistics is None else t.words.place(at.statistics)

    def write(self) -> None:
        b, heads, exact = self.b, self.heads, self.exact
        with tiles(
            heads, self.form.rows, heads.queries, heads.heads, self.kernel.causal
        ) as (batch, head, first):
            heads.begin(batch, head)
            shared = b.binary("udiv", head, heads.group)
            q, k, v = self.q.of(batch, head), self.k.of(batch, shared), self.v.of(batch, shared)
            seen = Seen(heads, exact.row_numbers(first), columns_are_keys=True)
            start, stop = heads.span(first, self.form.rows)
            start = b.binary("and", start, i32(-COLUMNS))
            with b.loop(start, stop, i32(COLUMNS), self._nothing()) as loop:
                columns = exact.column_numbers(loop.i)

                def fold(flags: Sequence[Value | None], state: list[Value]) -> list[Value]:
                    scores = exact.scores(q, first, k, loop.i)  # noqa: B023
                    found = [
                        seen.masked(i, columns, x, flag)[0]  # noqa: B023
                        for i, (x, flag) in enumerate(zip(scores, flags, strict=True))
                    ]
                    return self._fold(state, found, v, loop.i)  # noqa: B023

                loop.next = seen.where_any(columns, fold, loop.carried)
            self._finish(loop.carried, self.out.of(batch, head), first)
        self.t.end()

    # The state: of each row the largest score, the thread's part of the sum of exponentials, and
    # sums of values.
    def _nothing(self) -> list[Value]:
        zero = like(Value(self.exact.element, ""), 0.0)
        sums = self.exact.zero(self.width)
        return self._flat([like(zero, -inf)] * len(sums), [zero] * len(sums), sums)

    def _flat(self, tops: Sequence[Value], totals: Sequence[Value], sums: Sums) -> list[Value]:
        return [*tops, *totals, *(x for row in sums for x in row)]

    def _shaped(self, state: Sequence[Value]) -> tuple[list[Value], list[Value], Sums]:
        n = self.exact.each
        tops, totals, flat = list(state[:n]), list(state[n : 2 * n]), list(state[2 * n :])
        parts = len(flat) // n
        return tops, totals, [flat[i : i + parts] for i in range(0, len(flat), parts)]

    def _fold(
        self, state: Sequence[Value], scores: Sequence[Value], v: Rows, first: Value
    ) -> list[Value]:
        """The state with the scores of one more tile of keys."""
        b, exact = self.b, self.exact
        tops, totals, sums = self._shaped(state)
        weights, factors = [], []
        for i, x in enumerate(scores):
            here = exact.along_row(x, lambda p, q: b.intrinsic("maxnum", p.type, p, q))
            top = b.intrinsic("maxnum", here.type, tops[i], here)
            # A row without a key so far keeps 0, from which -inf is still infinitely far.
            level = b.select(b.compare("oeq", top, like(top, -inf)), like(top, 0), top)
            factors.append(exp(b, b.sub(tops[i], level)))
            weights.append(exp(b, b.sub(x, spread(b, level, x.lanes))))
            tops[i] = top
            totals[i] = b.mul(totals[i], factors[i])
            for e in lanes(b, weights[i]):
                totals[i] = b.add(totals[i], e)
        exact.put_weights(weights)
        sums = exact.weigh(v, first, self.width, exact.times(sums, factors))
        return self._flat(tops, totals, sums)

    def _finish(self, state: Sequence[Value], out: Rows, first: Value) -> None:
        b, exact = self.b, self.exact
        tops, totals, sums = self._shaped(state)
        totals = [exact.along_row(x, b.add) for x in totals]
        shares = [b.binary("fdiv", like(x, 1), x) for x in totals]
        zeroed = self.kernel.mask in ("bool", "bounds")
        empty = [b.compare("oeq", x, like(x, 0)) for x in totals]
        if zeroed:
            shares = [b.select(e, like(x, 0), x) for e, x in zip(empty, shares, strict=True)]
        exact.store(out, first, exact.times(sums, shares))
        if self.statistics is None:
            return
        for i, query in enumerate(exact.row_numbers(first)):
            there = b.compare("slt", query, out.count)
            found = b.add(tops[i], log(b, totals[i]))
            found = b.select(empty[i], like(found, inf if zeroed else nan), found)
            with b.when(b.binary("and", exact.first_of_row, there)):
                b.store(found, self.heads.kept(self.statistics, query))


__all__ = ["Form", "Seen", "attention", "choose", "gathered", "tile_rows", "tiles", "wide_enough"]
