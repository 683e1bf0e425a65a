"""The gradients of attention for a GPU.

In: an AttentionQueryGrad or AttentionKeyGrad kernel. Out: its code for one thread. Called by
writers.py.

A block has a tile of queries, of which it makes the gradient while it goes over keys; or a tile of
keys, and goes over queries. Both compute the weights again, from the statistics that the forward
pass has kept. Nothing is added by two blocks, so that nothing depends on their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from ...kernels.kinds import AttentionKeyGrad, AttentionQueryGrad
from ...llvm.elementary import like
from ...llvm.ir import Value
from ...llvm.scalars import cast
from ..indexing import i32
from ..thread import Thread
from .dropout import Dropout
from .forms import Form
from .heads import Heads, Rows, gathered, lanes, spread
from .products import Products, Sums, flat
from .tiles import Part, Seen, tiles


def query_grad(kernel: AttentionQueryGrad, form: Form, t: Thread) -> None:
    """Write the kernel's code."""
    _Queries(kernel, form, t).write()


def key_grad(kernel: AttentionKeyGrad, form: Form, t: Thread) -> None:
    """Write the kernel's code."""
    _Keys(kernel, form, t).write()


def _scaled(products: Products, sums: Sums, scale: float) -> Sums:
    factor = like(Value(products.element, ""), scale)
    return products.times(sums, [factor] * len(sums))


class _Queries:
    """Writes the code of one kernel, by queries."""

    def __init__(self, kernel: AttentionQueryGrad, form: Form, t: Thread) -> None:
        self.kernel, self.t, self.b = kernel, t, t.b
        (self.width,) = form.widths
        self.heads, at = Heads(kernel, t), kernel.layout
        self.products, heads = form.products(t, kernel.dtype), self.heads
        self.q, self.dq = (heads.of_queries(x, heads.d_k) for x in (at.q, at.dq))
        self.out, self.g = (heads.of_queries(x, heads.d_v) for x in (at.out, at.g))
        self.k, self.v = heads.of_keys(at.k, heads.d_k), heads.of_keys(at.v, heads.d_v)
        self.dmask = None if at.dmask is None else heads.of_queries(at.dmask, heads.keys)
        self.dropout = Dropout(heads, self.products, form.fours) if kernel.dropout else None

    def write(self) -> None:
        heads, rows = self.heads, self.products.rows
        with tiles(heads, rows, heads.queries, heads.heads, last_first=self.kernel.causal) as tile:
            self._tile(*tile)
        self.t.end()

    def _tile(self, batch: Value, head: Value, first: Value) -> None:
        """The queries from `first` on."""
        b, heads, products = self.b, self.heads, self.products
        heads.begin(batch, head)
        if self.dropout:
            self.dropout.begin()
        shared = b.binary("udiv", head, heads.group)
        q, g, out = (x.of(batch, head) for x in (self.q, self.g, self.out))
        k, v = (x.of(batch, shared) for x in (self.k, self.v))
        slopes = None if self.dmask is None else self.dmask.of(batch, head)
        mine = products.row_numbers(first)
        deltas = [products.row_dot(query, g, out) for query in mine]
        self._keep(mine, deltas)
        levels = self._levels(mine)
        seen = Seen(heads, products, first, across=True)
        start, stop = heads.span(first, products.rows)
        start = b.binary("and", start, i32(-products.columns))
        products.begin([q, g], first)
        products.move([v, k], start, stop, seen.jumps)

        def fold(part: Part, state: list[Value]) -> list[Value]:
            products.turn(loop.i)
            found = products.scores(1, 0)
            products.second(last=True)
            scores = part.masked(products.scores(0, 1))
            if self.dropout:
                kept = self.dropout.kept(mine, loop.i, across=True)
                found = self.dropout.scaled(found, kept)
            for i, x in enumerate(scores):
                level, delta = (spread(b, n, x.lanes) for n in (levels[i], deltas[i]))
                found[i] = b.mul(products.exp(b.sub(x, level)), b.sub(found[i], delta))
            if slopes is not None:
                self._put(slopes, mine, products.column_numbers(loop.i), found)
            sums = products.weigh(found, 1, products.shaped(state))
            products.done()
            return flat(sums)

        nothing = flat(products.zero(self.width))
        with b.loop(start, stop, i32(products.columns), nothing, rolled=True) as loop:
            loop.next = seen.where_any(loop.i, fold, loop.carried)
        products.end()
        sums = _scaled(products, products.shaped(loop.carried), self.kernel.scale)
        products.store(self.dq.of(batch, head), first, sums)
        if slopes is not None:
            self._put_zeros(slopes, mine, loop.i)

    def _levels(self, mine: Sequence[Value]) -> list[Value]:
        """The statistics of queries, in the unit of scores; of those outside, that of the last."""
        b, heads, element = self.b, self.heads, self.products.element
        start, last = heads.kept(self.kernel.layout.statistics), b.sub(heads.queries, i32(1))
        found = [b.load(element, b.at(start, b.smin(query, last), element)) for query in mine]
        return [b.mul(x, like(x, self.products.unit)) for x in found]

    def _keep(self, mine: Sequence[Value], deltas: Sequence[Value]) -> None:
        """Write delta, for the gradients by keys."""
        b, heads = self.b, self.heads
        start = heads.kept(self.kernel.layout.delta)
        for query, delta in zip(mine, deltas, strict=True):
            there = b.compare("slt", query, heads.queries)
            with b.when(b.binary("and", self.products.first_of_row, there)):
                b.store(delta, b.at(start, query, delta.type))

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

    def _put_zeros(self, to: Rows, mine: Sequence[Value], start: Value) -> None:
        """The same for keys that no query of the tile sees."""
        b, products = self.b, self.products
        with b.loop(start, self.heads.keys, i32(products.columns)) as rest:
            columns = products.column_numbers(rest.i)
            zero = like(Value(columns.type.replace("i32", products.element), ""), 0.0)
            self._put(to, mine, columns, [zero] * products.each)


class _Keys:
    """Writes the code of one kernel, by keys."""

    def __init__(self, kernel: AttentionKeyGrad, form: Form, t: Thread) -> None:
        self.kernel, self.t, self.b = kernel, t, t.b
        self.widths = form.widths
        self.heads, at = Heads(kernel, t), kernel.layout
        self.products, heads = form.products(t, kernel.dtype), self.heads
        self.q, self.g = heads.of_queries(at.q, heads.d_k), heads.of_queries(at.g, heads.d_v)
        self.k, self.dk = (heads.of_keys(x, heads.d_k) for x in (at.k, at.dk))
        self.v, self.dv = (heads.of_keys(x, heads.d_v) for x in (at.v, at.dv))
        self.dropout = Dropout(heads, self.products, form.fours) if kernel.dropout else None

    def write(self) -> None:
        b, heads = self.b, self.heads
        shared = b.binary("udiv", heads.heads, heads.group)
        with tiles(heads, self.products.rows, heads.keys, shared) as tile:
            self._tile(*tile)
        self.t.end()

    def _tile(self, batch: Value, shared: Value, first: Value) -> None:
        """The keys from `first` on, for all heads of queries that they serve."""
        b, heads, products = self.b, self.heads, self.products
        products.begin([x.of(batch, shared) for x in (self.k, self.v)], first)
        start = i32(0)
        if self.kernel.causal:
            start = b.binary("and", first, i32(-products.columns))

        def fold(part: Part, state: list[Value]) -> list[Value]:
            dk, dv = self._shaped(state)
            products.turn(loop.i)
            scores = part.masked(products.scores(0, 0))
            products.second(last=False)
            slopes = products.scores(1, 1)
            levels, deltas = self._kept(starts, products.column_numbers(loop.i))
            weights = [products.exp(b.sub(x, levels)) for x in scores]
            whole = weights
            if self.dropout:
                kept = self.dropout.kept(products.row_numbers(first), loop.i, across=False)
                slopes, weights = (self.dropout.scaled(x, kept) for x in (slopes, weights))
            found = [b.mul(p, b.sub(x, deltas)) for p, x in zip(whole, slopes, strict=True)]
            dk = products.weigh(found, 0, dk)
            products.over()
            dv = products.weigh(weights, 1, dv)
            products.done()
            return flat(dk, dv)

        nothing = [x for width in self.widths for x in flat(products.zero(width))]
        with b.loop(i32(0), heads.group, i32(1), nothing) as member:
            head = b.add(b.mul(shared, heads.group), member.i)
            heads.begin(batch, head)
            if self.dropout:
                self.dropout.begin()
            at = self.kernel.layout
            starts = heads.kept(at.statistics), heads.kept(at.delta)
            seen = Seen(heads, products, first, across=False)
            moving = [x.of(batch, head) for x in (self.q, self.g)]
            products.move(moving, start, heads.queries, seen.jumps)
            with b.loop(
                start, heads.queries, i32(products.columns), member.carried, rolled=True
            ) as loop:
                loop.next = seen.where_any(loop.i, fold, loop.carried)
            products.end()
            member.next = loop.carried
        dk, dv = self._shaped(member.carried)
        dk = _scaled(products, dk, self.kernel.scale)
        products.store(self.dk.of(batch, shared), first, dk)
        products.store(self.dv.of(batch, shared), first, dv)

    def _kept(self, starts: tuple[Value, Value], queries: Value) -> tuple[Value, Value]:
        """Statistics, in the unit of scores, and delta of some queries; of what lies outside, those
        that make weights zero. starts: of those of the head."""
        b, element = self.b, self.products.element
        last = b.sub(self.heads.queries, i32(1))
        levels, deltas = [], []
        for query in lanes(b, queries):
            place = b.smin(query, last)
            level, delta = (b.load(element, b.at(start, place, element)) for start in starts)
            there = b.compare("sle", query, last)
            level = b.mul(level, like(level, self.products.unit))
            levels.append(b.select(there, level, like(level, inf)))
            deltas.append(b.select(there, delta, like(delta, 0)))
        return gathered(b, levels), gathered(b, deltas)

    def _shaped(self, state: Sequence[Value]) -> tuple[Sums, Sums]:
        """The state: sums of the gradients of keys, and of values."""
        count = len(flat(self.products.zero(self.widths[0])))
        return self.products.shaped(state[:count]), self.products.shaped(state[count:])
