"""Attention for a GPU.

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
from ...llvm.elementary import like, log
from ...llvm.ir import Value
from ..indexing import i32
from ..thread import Thread
from .dropout import Dropout
from .forms import Form
from .heads import Heads, Rows, lanes, spread
from .products import Sums, flat
from .tiles import Part, Seen, tiles


def attention(kernel: Attention, form: Form, t: Thread) -> None:
    """Write the kernel's code."""
    _Writer(kernel, form, t).write()


class _Writer:
    """Writes the code of one kernel."""

    def __init__(self, kernel: Attention, form: Form, t: Thread) -> None:
        self.kernel, self.t, self.b = kernel, t, t.b
        (self.width,) = form.widths
        self.heads, at = Heads(kernel, t), kernel.layout
        self.products, heads = form.products(t, kernel.dtype), self.heads
        self.q, self.out = heads.of_queries(at.q, heads.d_k), heads.of_queries(at.out, heads.d_v)
        self.k, self.v = heads.of_keys(at.k, heads.d_k), heads.of_keys(at.v, heads.d_v)
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
        q, k, v = self.q.of(batch, head), self.k.of(batch, shared), self.v.of(batch, shared)
        seen = Seen(heads, products, first, across=True)
        start, stop = heads.span(first, products.rows)
        start = b.binary("and", start, i32(-products.columns))
        products.begin([q], first)
        products.move([k, v], start, stop, seen.jumps)

        def fold(part: Part, state: list[Value]) -> list[Value]:
            products.turn(loop.i)
            scores = part.masked(products.scores(0, 0))
            rows = products.row_numbers(first)
            kept = self.dropout.kept(rows, loop.i, across=True) if self.dropout else None
            return self._fold(state, scores, kept)

        nothing = self._nothing()
        with b.loop(start, stop, i32(products.columns), nothing, rolled=True) as loop:
            loop.next = seen.where_any(loop.i, fold, loop.carried)
        products.end()
        self._finish(loop.carried, self.out.of(batch, head), first)

    # The state: of each row the largest score, the thread's part of the sum of exponentials, and
    # sums of values.
    def _nothing(self) -> list[Value]:
        zero = like(Value(self.products.element, ""), 0.0)
        sums = self.products.zero(self.width)
        return [*[like(zero, -inf)] * len(sums), *[zero] * len(sums), *flat(sums)]

    def _shaped(self, state: Sequence[Value]) -> tuple[list[Value], list[Value], Sums]:
        rows = self.products.each
        tops, totals = list(state[:rows]), list(state[rows : 2 * rows])
        return tops, totals, self.products.shaped(state[2 * rows :])

    def _fold(
        self, state: Sequence[Value], scores: Sequence[Value], kept: Sequence[Value] | None
    ) -> list[Value]:
        """The state with the scores of one more tile of keys. kept: by dropout."""
        b, products = self.b, self.products
        tops, totals, sums = self._shaped(state)
        weights, factors = [], []
        for i, x in enumerate(scores):
            here = products.along_row(x, lambda p, q: b.intrinsic("maxnum", p.type, p, q))
            top = b.intrinsic("maxnum", here.type, tops[i], here)
            # A row without a key so far keeps 0, from which -inf is still infinitely far.
            level = b.select(b.compare("oeq", top, like(top, -inf)), like(top, 0), top)
            factors.append(products.exp(b.sub(tops[i], level)))
            weights.append(products.exp(b.sub(x, spread(b, level, x.lanes))))
            tops[i] = top
            totals[i] = b.mul(totals[i], factors[i])
            for e in lanes(b, weights[i]):
                totals[i] = b.add(totals[i], e)
        if kept is not None:
            weights = [b.select(k, x, like(x, 0)) for k, x in zip(kept, weights, strict=True)]
        products.second(last=True)
        sums = products.weigh(weights, 1, products.times(sums, factors))
        products.done()
        return [*tops, *totals, *flat(sums)]

    def _finish(self, state: Sequence[Value], out: Rows, first: Value) -> None:
        b, products = self.b, self.products
        tops, totals, sums = self._shaped(state)
        totals = [products.along_row(x, b.add) for x in totals]
        shares = [b.binary("fdiv", like(x, 1), x) for x in totals]
        zeroed = self.kernel.mask in ("bool", "bounds")
        empty = [b.compare("oeq", x, like(x, 0)) for x in totals]
        if zeroed:
            shares = [b.select(e, like(x, 0), x) for e, x in zip(empty, shares, strict=True)]
        if self.dropout:
            shares = [b.mul(x, like(x, self.dropout.factor)) for x in shares]
        products.store(out, first, products.times(sums, shares))
        at = self.kernel.layout.statistics
        if at is None:
            return
        start = self.heads.kept(at)
        for i, query in enumerate(products.row_numbers(first)):
            there = b.compare("slt", query, out.count)
            top = b.mul(tops[i], like(tops[i], 1 / products.unit))
            found = b.add(top, log(b, totals[i]))
            found = b.select(empty[i], like(found, inf if zeroed else nan), found)
            with b.when(b.binary("and", products.first_of_row, there)):
                b.store(found, b.at(start, query, products.element))
