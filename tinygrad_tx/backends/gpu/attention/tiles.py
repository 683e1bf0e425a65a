"""Tiles: how a call of attention is cut, and which elements of a tile of scores take part.

In: heads, and where a block is. Out: rows of tiles; scores with their mask. Called by forward.py
and gradients.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import inf

from ...llvm import ir
from ...llvm.elementary import like
from ...llvm.ir import Value
from ..indexing import i32
from .heads import Bounds, Heads, spread
from .products import Products


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


class Part:
    """A thread's elements of a tile of scores that some query sees some key of. first: the number
    of the tile's first column. columns: those of the thread's, a vector. For each row the flags of
    a boolean mask, and bounds."""

    def __init__(
        self,
        seen: Seen,
        first: Value,
        columns: Value,
        flags: Sequence[Value | None],
        bounds: Sequence[Bounds | None],
    ) -> None:
        self._seen, self._first, self._columns = seen, first, columns
        self._flags, self._bounds = flags, bounds

    def masked(self, products: Sequence[Value]) -> list[Value]:
        """The scores, in the unit of products, -inf where a key is not seen."""
        seen, heads, b = self._seen, self._seen.heads, self._seen.heads.b
        unit, kernel = seen.products.unit, heads.kernel
        scores = [b.mul(x, like(x, kernel.scale * unit)) for x in products]
        if kernel.mask == "float":
            pairs = [seen.pair(i, self._columns) for i in range(len(scores))]
            added = [heads.added(query, key) for query, key in pairs]
            if unit != 1:
                added = [b.mul(x, like(x, unit)) for x in added]
            scores = [b.add(x, y) for x, y in zip(scores, added, strict=True)]
        if kernel.mask in ("bool", "bounds"):
            return self._where_seen(scores)
        # Most tiles are seen as a whole.
        edge = b.convert("zext", self._edge(), "i32")
        with b.loop(i32(0), edge, i32(1), scores) as once:
            once.next = self._where_seen(once.carried)
        return once.carried

    def _where_seen(self, scores: Sequence[Value]) -> list[Value]:
        seen, heads, b = self._seen, self._seen.heads, self._seen.heads.b
        extent = heads.keys if seen.across else heads.queries
        there = b.compare("slt", self._columns, spread(b, extent, self._columns.lanes))
        found = []
        for i, x in enumerate(scores):
            pair = seen.pair(i, self._columns)
            allowed = heads.allowed(*pair, there, self._bounds[i], self._flags[i])
            found.append(b.select(allowed, x, like(x, -inf)))
        return found

    def _edge(self) -> Value:
        """True if not every query of the block's tile sees every key of it, without a mask."""
        seen, heads, b = self._seen, self._seen.heads, self._seen.heads.b
        extent = heads.keys if seen.across else heads.queries
        end = b.add(self._first, i32(seen.products.columns))
        edge = b.compare("sgt", end, extent)
        if heads.kernel.causal:
            last, first = (
                (end, seen.first)
                if seen.across
                else (b.add(seen.first, i32(seen.products.rows)), self._first)
            )
            edge = b.binary("or", edge, b.compare("sgt", last, b.add(first, i32(1))))
        return edge


Work = Callable[[Part, list[Value]], list[Value]]


class Seen:
    """Which keys are seen by which queries of a row of tiles. first: the number of its first row.
    across: True if rows are queries and columns keys, else the other way round."""

    def __init__(self, heads: Heads, products: Products, first: Value, across: bool) -> None:
        self.heads, self.products, self.first, self.across = heads, products, first, across
        self._mine = products.row_numbers(first)
        self._bounds: Sequence[Bounds | None] = [None] * products.each
        if across and heads.kernel.mask == "bounds":
            self._bounds = [heads.bounds(query) for query in self._mine]

    @property
    def jumps(self) -> bool:
        """True if tiles may be left out."""
        kind = self.heads.kernel.mask
        return kind == "bool" or (kind == "bounds" and not self.across)

    def pair(self, i: int, columns: Value) -> tuple[Value, Value]:
        """Queries and keys of row i."""
        row = self._mine[i]
        return (row, columns) if self.across else (columns, row)

    def where_any(self, first: Value, work: Work, state: list[Value]) -> list[Value]:
        """What `work` makes of a state, for the tile whose columns begin with number `first`; the
        state itself where no query of that tile sees a key of it. All threads of the block must
        ask."""
        heads, b, count = self.heads, self.heads.b, self.products.each
        columns = self.products.column_numbers(first)
        flags: list[Value | None] = [None] * count
        if not self.jumps:
            return work(Part(self, first, columns, flags, self._bounds), state)
        if heads.kernel.mask == "bool":
            words = [heads.flags(*self.pair(i, columns)) for i in range(count)]
            together = words[0]
            for word in words[1:]:
                together = b.binary("or", together, word)
            some = b.compare("ne", together, i32(0))
            some, flags = heads.any_of_block(some, self.products.scratch), [*words]
        else:
            begin, end = heads.span(first, self.products.columns)
            before = b.compare("slt", begin, b.add(self.first, i32(self.products.rows)))
            some = b.binary("and", before, b.compare("sgt", end, self.first))
        with b.loop(i32(0), b.convert("zext", some, "i32"), i32(1), state) as once:
            bounds = self._bounds
            if heads.kernel.mask == "bounds":
                bounds = [heads.bounds(columns)] * count
            once.next = work(Part(self, first, columns, flags, bounds), once.carried)
        return once.carried
