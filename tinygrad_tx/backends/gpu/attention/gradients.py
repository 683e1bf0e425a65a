"""The gradients of attention for a GPU without tensor cores.

In: an AttentionQueryGrad or AttentionKeyGrad kernel. Out: its code for one thread. Called by
writers.py.

A block has a tile of queries, of which it makes the gradient while it goes over keys; or a tile of
keys, and goes over queries. Both compute the weights again, from the statistics that the forward
pass has kept. Nothing is added by two blocks, so that nothing depends on their order.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...kernels.kinds import AttentionKeyGrad, AttentionQueryGrad
from ...llvm.elementary import exp, like
from ...llvm.ir import Value
from ...llvm.scalars import cast, memory
from ..choice import Choice, limited
from ..indexing import i32
from ..thread import Thread
from .exact import COLUMNS, THREADS, Exact, Sums
from .heads import Heads, Rows, gathered, lanes, spread
from .tiles import Form, Part, Seen, tile_rows, tiles, wide_enough


def choose_queries(kernel: AttentionQueryGrad, words: Sequence[int]) -> Choice:
    at = kernel.layout
    wide_enough(words[at.d_v])
    form = Form(tile_rows(words[at.t], kernel.dtype), (wide_enough(words[at.d_k]),))
    down = -(-words[at.t] // form.rows)
    return Choice(form, THREADS, limited(words[at.b] * words[at.h] * down))


def choose_keys(kernel: AttentionKeyGrad, words: Sequence[int]) -> Choice:
    at = kernel.layout
    widths = wide_enough(words[at.d_k]), wide_enough(words[at.d_v])
    form = Form(tile_rows(words[at.s], kernel.dtype), widths)
    down = -(-words[at.s] // form.rows)
    return Choice(form, THREADS, limited(words[at.b] * words[at.h] // words[at.group] * down))


def query_grad(kernel: AttentionQueryGrad, form: Form, t: Thread) -> None:
    """Write the kernel's code."""
    _Queries(kernel, form, t).write()


def key_grad(kernel: AttentionKeyGrad, form: Form, t: Thread) -> None:
    """Write the kernel's code."""
    _Keys(kernel, form, t).write()


class _Queries:
    """Writes the code of one kernel, by queries."""

    def __init__(self, kernel: AttentionQueryGrad, form: Form, t: Thread) -> None:
        self.kernel, self.rows, self.t, self.b = kernel, form.rows, t, t.b
        (self.width,) = form.widths
        self.heads, at = Heads(kernel, t), kernel.layout
        self.exact, heads = Exact(t, kernel.dtype, form.rows, form.widths), self.heads
        self.q, self.dq = (heads.of_queries(x, heads.d_k) for x in (at.q, at.dq))
        self.out, self.g = (heads.of_queries(x, heads.d_v) for x in (at.out, at.g))
        self.k, self.v = heads.of_keys(at.k, heads.d_k), heads.of_keys(at.v, heads.d_v)
        self.statistics, self.delta = t.words.place(at.statistics), t.words.place(at.delta)
        self.dmask = None if at.dmask is None else heads.of_queries(at.dmask, heads.keys)

    def write(self) -> None:
        heads = self.heads
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
        q, g, out = (x.of(batch, head) for x in (self.q, self.g, self.out))
        k, v = (x.of(batch, shared) for x in (self.k, self.v))
        scores = None if self.dmask is None else self.dmask.of(batch, head)
        mine = exact.row_numbers(first)
        deltas = [exact.row_dot(i, first, g, out) for i in range(exact.each)]
        self._keep(mine, deltas)
        element = memory(self.kernel.dtype)
        last = b.sub(heads.queries, i32(1))
        levels = [
            b.load(element, heads.kept(self.statistics, b.smin(query, last))) for query in mine
        ]
        seen = Seen(heads, first, self.rows, mine, across=True)
        start, stop = heads.span(first, self.rows)
        start = b.binary("and", start, i32(-COLUMNS))
        nothing = [x for row in exact.zero(self.width) for x in row]
        with b.loop(start, stop, i32(COLUMNS), nothing, rolled=True) as loop:
            columns = exact.column_numbers(loop.i)

            def fold(part: Part, state: list[Value]) -> list[Value]:
                products = exact.scores(q, first, k, loop.i)
                slopes = exact.scores(g, first, v, loop.i)
                found = []
                for i, (x, slope) in enumerate(zip(products, slopes, strict=True)):
                    x, allowed = part.masked(i, x)
                    level, delta = (spread(b, n, x.lanes) for n in (levels[i], deltas[i]))
                    slope = b.mul(exp(b, b.sub(x, level)), b.sub(slope, delta))
                    found.append(b.select(allowed, slope, like(slope, 0)))
                if scores is not None:
                    self._put(scores, mine, columns, found)
                exact.put_weights([b.mul(x, like(x, self.kernel.scale)) for x in found])
                sums = exact.weigh(k, loop.i, self.width, exact.shaped(state))
                return [x for row in sums for x in row]

            loop.next = seen.where_any(loop.i, COLUMNS, columns, fold, loop.carried)
        exact.store(self.dq.of(batch, head), first, exact.shaped(loop.carried))
        if scores is not None:
            zero = like(Value(columns.type.replace("i32", exact.element), ""), 0.0)
            with b.loop(loop.i, heads.keys, i32(COLUMNS)) as rest:
                unseen = exact.column_numbers(rest.i)
                self._put(scores, mine, unseen, [zero] * exact.each)

    def _keep(self, mine: Sequence[Value], deltas: Sequence[Value]) -> None:
        """Write delta, for the gradients by keys."""
        b, heads = self.b, self.heads
        for query, delta in zip(mine, deltas, strict=True):
            there = b.compare("slt", query, heads.queries)
            with b.when(b.binary("and", self.exact.first_of_row, there)):
                b.store(delta, heads.kept(self.delta, query))

    def _put(
        self, to: Rows, mine: Sequence[Value], columns: Value, slopes: Sequence[Value]
    ) -> None:
        """Write the thread's elements of a tile of the gradient of scores."""
        b = self.b
        for query, slope in zip(mine, slopes, strict=True):
            with b.when(b.compare("slt", query, to.count)):
                start = to.row(b, query)
                for column, x in zip(lanes(b, columns), lanes(b, slope), strict=True):
                    with b.when(b.compare("slt", column, to.width)):
                        b.store(cast(b, x, to.dtype), b.at(start, column, to.element))


class _Keys:
    """Writes the code of one kernel, by keys."""

    def __init__(self, kernel: AttentionKeyGrad, form: Form, t: Thread) -> None:
        self.kernel, self.rows, self.t, self.b = kernel, form.rows, t, t.b
        self.widths = form.widths
        self.heads, at = Heads(kernel, t), kernel.layout
        self.exact, heads = Exact(t, kernel.dtype, form.rows, form.widths), self.heads
        self.q, self.g = heads.of_queries(at.q, heads.d_k), heads.of_queries(at.g, heads.d_v)
        self.k, self.dk = (heads.of_keys(x, heads.d_k) for x in (at.k, at.dk))
        self.v, self.dv = (heads.of_keys(x, heads.d_v) for x in (at.v, at.dv))
        self.statistics, self.delta = t.words.place(at.statistics), t.words.place(at.delta)

    def write(self) -> None:
        b, heads = self.b, self.heads
        shared = b.binary("udiv", heads.heads, heads.group)
        with tiles(heads, self.rows, heads.keys, shared) as (batch, head, first):
            self._tile(batch, head, first)
        self.t.end()

    def _tile(self, batch: Value, shared: Value, first: Value) -> None:
        """The keys from `first` on, for all heads of queries that they serve."""
        b, heads, exact = self.b, self.heads, self.exact
        k, v = (x.of(batch, shared) for x in (self.k, self.v))
        start = b.binary("and", first, i32(-COLUMNS)) if self.kernel.causal else i32(0)
        with b.loop(i32(0), heads.group, i32(1), self._flat(*self._nothing())) as member:
            head = b.add(b.mul(shared, heads.group), member.i)
            heads.begin(batch, head)
            q, g = (x.of(batch, head) for x in (self.q, self.g))
            seen = Seen(heads, first, self.rows, exact.row_numbers(first), across=False)
            with b.loop(start, heads.queries, i32(COLUMNS), member.carried, rolled=True) as loop:
                columns = exact.column_numbers(loop.i)

                def fold(part: Part, state: list[Value]) -> list[Value]:
                    dk, dv = self._shaped(state)
                    levels, deltas = self._kept(columns)
                    weights, seen = [], []
                    for i, x in enumerate(exact.scores(k, first, q, loop.i)):
                        x, allowed = part.masked(i, x)
                        x = exp(b, b.sub(x, levels))
                        weights.append(b.select(allowed, x, like(x, 0)))
                        seen.append(allowed)
                    exact.put_weights(weights)
                    dv = exact.weigh(g, loop.i, self.widths[1], dv)
                    found = []
                    slopes = exact.scores(v, first, g, loop.i)
                    for p, slope, allowed in zip(weights, slopes, seen, strict=True):
                        slope = b.mul(b.mul(p, b.sub(slope, deltas)), like(p, self.kernel.scale))
                        found.append(b.select(allowed, slope, like(slope, 0)))
                    exact.put_weights(found)
                    return self._flat(exact.weigh(q, loop.i, self.widths[0], dk), dv)

                loop.next = seen.where_any(loop.i, COLUMNS, columns, fold, loop.carried)
            member.next = loop.carried
        dk, dv = self._shaped(member.carried)
        exact.store(self.dk.of(batch, shared), first, dk)
        exact.store(self.dv.of(batch, shared), first, dv)

    def _kept(self, queries: Value) -> tuple[Value, Value]:
        """Statistics and delta of some queries; of what lies outside, those of the last one."""
        b, heads = self.b, self.heads
        last = b.sub(heads.queries, i32(1))
        places = [b.smin(query, last) for query in lanes(b, queries)]
        element = memory(self.kernel.dtype)
        statistics, deltas = (
            gathered(b, [b.load(element, heads.kept(base, place)) for place in places])
            for base in (self.statistics, self.delta)
        )
        return statistics, deltas

    # The state: sums of the gradients of keys, and of values.
    def _nothing(self) -> tuple[Sums, Sums]:
        dk, dv = (self.exact.zero(width) for width in self.widths)
        return dk, dv

    def _flat(self, dk: Sums, dv: Sums) -> list[Value]:
        return [x for sums in (dk, dv) for row in sums for x in row]

    def _shaped(self, state: Sequence[Value]) -> tuple[Sums, Sums]:
        count = sum(len(row) for row in self._nothing()[0])
        return self.exact.shaped(state[:count]), self.exact.shaped(state[count:])
