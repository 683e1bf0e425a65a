"""Tiles: how a call of attention is cut, and which elements of a tile of scores take part.

In: heads, and where a block is. Out: rows of tiles; scores with their mask. Called by forward.py
and gradients.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import NamedTuple

from ...llvm import ir
from ...llvm.elementary import like
from ...llvm.ir import Value
from ..indexing import i32
from .heads import Bounds, Heads, spread

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
    """A thread's elements of a tile of scores that some query sees some key of. columns: their
    numbers, a vector. For each row the flags of a boolean mask, and bounds."""

    def __init__(
        self,
        seen: Seen,
        columns: Value,
        flags: Sequence[Value | None],
        bounds: Sequence[Bounds | None],
    ) -> None:
        self._seen, self._columns, self._flags, self._bounds = seen, columns, flags, bounds

    def masked(self, i: int, products: Value) -> tuple[Value, Value]:
        """The scores of row i, -inf where a key is not seen; and where it is."""
        seen, heads, b = self._seen, self._seen.heads, self._seen.heads.b
        query, key = seen.pair(i, self._columns)
        scores = b.mul(products, like(products, heads.kernel.scale))
        if heads.kernel.mask == "float":
            scores = b.add(scores, heads.added(query, key))
        extent = heads.keys if seen.across else heads.queries
        there = b.compare("slt", self._columns, spread(b, extent, self._columns.lanes))
        allowed = heads.allowed(query, key, there, self._bounds[i], self._flags[i])
        return b.select(allowed, scores, like(scores, -inf)), allowed


Work = Callable[[Part, list[Value]], list[Value]]


class Seen:
    """Which keys are seen by which queries of a row of tiles. first: the number of its first row,
    of `count`; mine: the numbers of the thread's. across: True if rows are queries and columns
    keys, else the other way round."""

    def __init__(
        self, heads: Heads, first: Value, count: int, mine: Sequence[Value], across: bool
    ) -> None:
        self.heads, self.across = heads, across
        self._first, self._count, self._mine = first, count, mine
        self._bounds: Sequence[Bounds | None] = [None] * len(mine)
        if across and heads.kernel.mask == "bounds":
            self._bounds = [heads.bounds(query) for query in mine]

    def pair(self, i: int, columns: Value) -> tuple[Value, Value]:
        """Queries and keys of row i."""
        row = self._mine[i]
        return (row, columns) if self.across else (columns, row)

    def where_any(
        self, first: Value, count: int, columns: Value, work: Work, state: list[Value]
    ) -> list[Value]:
        """What `work` makes of a state, for the tile whose `count` columns begin with number
        `first`; the state itself where no query of that tile sees a key of it. All threads of the
        block must ask. columns: the numbers of the thread's."""
        heads, b, kind = self.heads, self.heads.b, self.heads.kernel.mask
        flags: list[Value | None] = [None] * len(self._mine)
        if kind == "bool":
            words = [heads.flags(*self.pair(i, columns)) for i in range(len(flags))]
            together = words[0]
            for word in words[1:]:
                together = b.binary("or", together, word)
            some = heads.any_of_block(b.compare("ne", together, i32(0)))
            flags = [*words]
        elif kind == "bounds" and not self.across:
            begin, end = heads.span(first, count)
            before = b.compare("slt", begin, b.add(self._first, i32(self._count)))
            some = b.binary("and", before, b.compare("sgt", end, self._first))
        else:
            return work(Part(self, columns, flags, self._bounds), state)
        with b.loop(i32(0), b.convert("zext", some, "i32"), i32(1), state) as once:
            bounds = self._bounds
            if kind == "bounds":
                bounds = [heads.bounds(columns)] * len(flags)
            once.next = work(Part(self, columns, flags, bounds), once.carried)
        return once.carried
