"""Token ids in batches of few shapes, for training steps.

In: a `Dataset` of tokenised pairs. Out: `Batch`es of NumPy arrays. Called by the training loop, by
validation, and (`by_length`) by translation.

A compiler makes one plan per shape, so shapes are few and do not depend on the seed: a dozen
buckets, each one (rows, source length, target length), chosen to pad the fewest tokens. An example
goes to the smallest bucket that it fits; rows that do not fill a batch go on to the next larger
bucket, so only the last batch of an epoch has rows of padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from .dataset import Dataset, Indices
from .dataset import Ragged as Ragged  # part of a Dataset
from .epochs import Epochs, shuffled

Ints = NDArray[np.int32]
N = TypeVar("N", int, Indices)

_EVEN = 2  # bucket lengths are multiples of this


@dataclass(frozen=True)
class Batch:
    """Examples of similar length, padded with the padding's id. All arrays are int32.

    `src` (B, S) ends with the end token, `tgt_in` (B, T) starts with the start token, `tgt_out`
    (B, T) ends with the end token and has `n_tokens` tokens. `indices` says which examples the
    first rows are; rows after them are padding, of a lone end and start token (no attention row is
    empty) and nothing in `tgt_out`.
    """

    src: Ints
    tgt_in: Ints
    tgt_out: Ints
    n_tokens: int
    indices: Indices


class Shape(NamedTuple):
    """The shape of a batch: src is (rows, source), tgt_in and tgt_out are (rows, target)."""

    rows: int
    source: int
    target: int


class Batches(Epochs[tuple[Shape, Indices], Batch]):
    """An endless stream of batches, epoch after epoch, that can be taken up anywhere.

    The order of an epoch follows from the seed and the epoch alone, so `state()`, the epoch and the
    position in it, is all it takes to go on.
    """

    def __init__(
        self,
        dataset: Dataset,
        max_tokens: int,
        seed: int = 0,
        shuffle: bool = True,
        max_shapes: int = 12,
        shapes: Sequence[Shape] = (),
    ) -> None:
        """Batches of at most `max_tokens` source and `max_tokens` target tokens, padding included.

        Without shuffle every epoch goes from the shortest examples to the longest. `shapes` takes
        over another stream's, with one more if an example exceeds them all; otherwise up to
        `max_shapes` are chosen. Raises UserError if the longest example exceeds max_tokens.
        """
        self.dataset, self.shuffle = dataset, shuffle
        self.max_tokens = max_tokens
        source, target = dataset.source.lengths + 1, dataset.target.lengths + 1  # with end tokens
        self.shapes = list(shapes) or _shapes(source, target, max_tokens, max_shapes)
        _, width, height = self.shapes[-1]
        if source.max() > width or target.max() > height:
            self.shapes += _shapes(source, target, max_tokens, 1)
        widths = [shape.source for shape in self.shapes]
        heights = [shape.target for shape in self.shapes]
        self._bucket = np.maximum(np.searchsorted(widths, source), np.searchsorted(heights, target))
        self._by_length = None if shuffle else np.lexsort((target, source))
        super().__init__(seed)

    @property
    def fingerprint(self) -> int:
        """A number that differs where the data do."""
        return self.dataset.fingerprint

    @property
    def n_shapes(self) -> int:
        return len(self.shapes)

    def rows_of(self, batch: Batch) -> int:
        return len(batch.src)

    def part(self, batch: Batch, first: int, count: int) -> Batch:
        rows, pad = slice(first, first + count) if count else slice(0, 1), self.dataset.special[0]
        wanted = batch.tgt_out[rows] if count else np.full_like(batch.tgt_out[:1], pad)
        indices = batch.indices[first : first + count]
        n_tokens = int((wanted != pad).sum())
        return Batch(batch.src[rows], batch.tgt_in[rows], wanted, n_tokens, indices)

    def once(self) -> Iterator[Batch]:
        """Every example once, in the order of the first epoch; the stream stays where it is."""
        return map(self._batch, self._order(0))

    def _order(self, epoch: int) -> list[tuple[Shape, Indices]]:
        """The batches of an epoch, as shapes and the examples in them."""
        bits = self._bits(epoch)
        order = self._by_length
        if order is None:
            order = shuffled(len(self._bucket), bits)
        buckets = self._bucket[order]
        batches: list[tuple[Shape, Indices]] = []
        rest = order[:0]
        for number, shape in enumerate(self.shapes):
            pool = np.concatenate([rest, order[buckets == number]])
            full = len(pool) - len(pool) % shape.rows
            batches += [(shape, pool[i : i + shape.rows]) for i in range(0, full, shape.rows)]
            rest = pool[full:]
        if len(rest):
            batches.append((self.shapes[-1], rest))
        return [batches[i] for i in shuffled(len(batches), bits)] if self.shuffle else batches

    def _batch(self, planned: tuple[Shape, Indices]) -> Batch:
        (rows, width, height), indices = planned
        pad, bos, eos = self.dataset.special
        src = np.full((rows, width), pad, dtype=np.int32)
        tgt_in = np.full((rows, height), pad, dtype=np.int32)
        tgt_out = tgt_in.copy()
        src[len(indices) :, 0] = eos
        tgt_in[:, 0] = bos
        n_tokens = 0
        for row, i in enumerate(indices):
            source, target = self.dataset.source[i], self.dataset.target[i]
            src[row, : len(source)] = source
            src[row, len(source)] = eos
            tgt_in[row, 1 : len(target) + 1] = target
            tgt_out[row, : len(target)] = target
            tgt_out[row, len(target)] = eos
            n_tokens += len(target) + 1
        return Batch(src, tgt_in, tgt_out, n_tokens, indices)


def by_length(lengths: Sequence[int], max_tokens: int) -> list[Indices]:
    """Groups of examples in the order of their lengths, the longest first, each of at most
    `max_tokens` when padded (or of one example). Each group holds indices into `lengths`: write
    results to `out[group]` to restore the order."""
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    groups, start = [], 0
    while start < len(order):
        rows = max(1, max_tokens // max(1, lengths[order[start]]))
        groups.append(order[start : start + rows])
        start += rows
    return groups


def _shapes(source: Indices, target: Indices, max_tokens: int, max_shapes: int) -> list[Shape]:
    """Up to `max_shapes` shapes for examples of these lengths, each larger than the one before."""
    longest = Shape(0, round_up(int(source.max())), round_up(int(target.max())))
    if max_tokens < max(longest):
        raise UserError(
            f"max_tokens is {max_tokens}, but the longest example takes {max(longest)}; "
            "raise max_tokens or lower max_len"
        )
    ratio = target.sum() / source.sum()  # one language may be longer throughout
    sizes = np.maximum(source, np.ceil(target / ratio).astype(np.int64))
    shapes = []
    for edge in _edges(sizes, max_shapes):
        width = min(edge, longest.source)
        height = min(round_up(int(np.ceil(edge * ratio))), longest.target)
        rows = min(max_tokens // max(width, height), len(source))
        shapes.append(Shape(rows, width, height))
    return list(dict.fromkeys(shapes))  # the last ones can coincide at the longest lengths


def _edges(sizes: Indices, n: int) -> list[int]:
    """At most n even lengths, the last not below any size, such that rounding every size up to one
    of them adds least in sum. Exact, by dynamic programming over the distinct sizes."""
    values, counts = np.unique(round_up(sizes), return_counts=True)
    up_to = np.concatenate([[0], np.cumsum(counts)])  # up_to[j]: how many are of the first j values
    # together[i, j]: the sum if values i to j - 1 are all rounded up to the last of them
    together = np.concatenate([[0], values]) * (up_to - up_to[:, None])
    best = np.where(up_to > 0, np.inf, 0.0)  # best[j]: the least sum for the first j values
    starts = []  # starts[k][j]: where the last of k + 1 groups of the first j values starts
    for _ in range(min(n, len(values))):
        sums = np.where(together < 0, np.inf, best[:, None] + together)
        starts.append(sums.argmin(axis=0))
        best = sums.min(axis=0)
    edges, j = [], len(values)
    for start in reversed(starts):
        if start[j] < j:
            edges.append(int(values[j - 1]))
        j = start[j]
    return edges[::-1]


def round_up(length: N) -> N:
    """The least length of a bucket that takes it."""
    return -(-length // _EVEN) * _EVEN
