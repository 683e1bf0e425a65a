"""Attention for a GPU without tensor cores.

In: an Attention kernel. Out: its code for one thread. Called by writers.py.

A block has a tile of queries of one head and goes over tiles of keys with the largest score so far
and the sum of exponentials below it: where a later tile has a larger one, what was added up is made
smaller by as much. So no score is ever in memory. Keys that no query of a tile sees add nothing,
not even a rounding error: so tiles of such keys are skipped, and padding changes no bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, nan

from ...kernels.kinds import Attention
from ...llvm.elementary import exp, like, log
from ...llvm.ir import Value
from ..choice import Choice, limited
from ..indexing import i32
from ..thread import Thread
from .exact import COLUMNS, THREADS, Exact, Sums
from .heads import Heads, Rows, lanes, spread
from .tiles import Form, Part, Seen, tile_rows, tiles, wide_enough


def choose(kernel: Attention, words: Sequence[int]) -> Choice:
    at = kernel.layout
    wide_enough(words[at.d_k])
    form = Form(tile_rows(words[at.t], kernel.dtype), (wide_enough(words[at.d_v]),))
    down = -(-words[at.t] // form.rows)
    return Choice(form, THREADS, limited(words[at.b] * words[at.h] * down))


def attention(kernel: Attention, form: Form, t: Thread) -> None:
    """Write the kernel's code."""
    _Writer(kernel, form, t).write()


class _Writer:
    """Writes the code of one kernel."""

    def __init__(self, kernel: Attention, form: Form, t: Thread) -> None:
        self.kernel, self.rows, self.t, self.b = kernel, form.rows, t, t.b
        (self.width,) = form.widths
        self.heads, at = Heads(kernel, t), kernel.layout
        self.exact = Exact(t, kernel.dtype, form.rows, form.widths)
        heads = self.heads
        self.q, self.out = heads.of_queries(at.q, heads.d_k), heads.of_queries(at.out, heads.d_v)
        self.k, self.v = heads.of_keys(at.k, heads.d_k), heads.of_keys(at.v, heads.d_v)
        self.statistics = None if at.statistics is None else t.words.place(at.statistics)

    def write(self) -> None:
        heads = self.heads
        self.t.resident = 2 if self.width <= 64 else 1
        with tiles(heads, self.rows, heads.queries, heads.heads, last_first=self.kernel.causal) as (
            batch,
            head,
            first,
        ):
            self._tile(batch, head, first)
        self.t.end()

    def _tile(self, batch: Value, head: Value, first: Value) -> None:
        """The queries from `first` on."""
        b, heads, exact = self.b, self.heads, self.exact
        heads.begin(batch, head)
        shared = b.binary("udiv", head, heads.group)
        q, k, v = self.q.of(batch, head), self.k.of(batch, shared), self.v.of(batch, shared)
        seen = Seen(heads, first, self.rows, exact.row_numbers(first), across=True)
        start, stop = heads.span(first, self.rows)
        start = b.binary("and", start, i32(-COLUMNS))
        with b.loop(start, stop, i32(COLUMNS), self._nothing(), rolled=True) as loop:

            def fold(part: Part, state: list[Value]) -> list[Value]:
                products = exact.scores(q, first, k, loop.i)
                scores = [part.masked(i, x)[0] for i, x in enumerate(products)]
                return self._fold(state, scores, v, loop.i)

            columns = exact.column_numbers(loop.i)
            loop.next = seen.where_any(loop.i, COLUMNS, columns, fold, loop.carried)
        self._finish(loop.carried, self.out.of(batch, head), first)

    # The state: of each row the largest score, the thread's part of the sum of exponentials, and
    # sums of values.
    def _nothing(self) -> list[Value]:
        zero = like(Value(self.exact.element, ""), 0.0)
        sums = self.exact.zero(self.width)
        return _flat([like(zero, -inf)] * len(sums), [zero] * len(sums), sums)

    def _fold(
        self, state: Sequence[Value], scores: Sequence[Value], v: Rows, first: Value
    ) -> list[Value]:
        """The state with the scores of one more tile of keys."""
        b, exact = self.b, self.exact
        tops, totals, sums = _shaped(state, exact.each)
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
        return _flat(tops, totals, sums)

    def _finish(self, state: Sequence[Value], out: Rows, first: Value) -> None:
        b, exact = self.b, self.exact
        tops, totals, sums = _shaped(state, exact.each)
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


def _flat(tops: Sequence[Value], totals: Sequence[Value], sums: Sums) -> list[Value]:
    return [*tops, *totals, *(x for row in sums for x in row)]


def _shaped(state: Sequence[Value], rows: int) -> tuple[list[Value], list[Value], Sums]:
    flat = list(state[2 * rows :])
    parts = len(flat) // rows
    sums = [flat[i : i + parts] for i in range(0, len(flat), parts)]
    return list(state[:rows]), list(state[rows : 2 * rows]), sums
