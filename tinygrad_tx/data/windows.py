"""Running text in batches of windows, for models of language: the next token, or masked ones.

In: a `Text`. Out: batches of NumPy arrays, all of one shape, so that one plan does for them. Called
by training's tasks.

An epoch cuts the text into windows that follow each other from a place that the seed draws, and
takes them in an order that the seed draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from .epochs import Epochs, shuffled
from .text import Text

Ints = NDArray[np.int32]

IGNORED = -100  # as a target: nothing is asked for there


@dataclass(frozen=True)
class WindowBatch:
    """ids (B, T) and what is asked for at each of them, targets (B, T), or IGNORED; n_tokens: how
    many are asked for. bounds (B, T, 2): where the document of each place begins in its window, and
    where it ends; None where all is one text. All int32."""

    ids: Ints
    targets: Ints
    n_tokens: int
    bounds: Ints | None = None


class Planned(NamedTuple):
    """A batch of an epoch: its number, and where its windows begin."""

    epoch: int
    number: int
    starts: NDArray[np.int64]


class Windows(Epochs[Planned, WindowBatch]):
    """Windows of `length` tokens, each with the tokens that follow. An endless stream of batches
    that can be taken up anywhere. Where the text is several documents, batches have their bounds,
    and no token is asked for that begins another one."""

    ahead = 1  # tokens after a window that it needs

    def __init__(
        self, text: Text, length: int, rows: int, seed: int = 0, only_once: bool = False
    ) -> None:
        """UserError for a text that is too short for one window, unless it is only read once()."""
        self.text, self.length, self._endless = text, length, not only_once
        left = len(text.ids) - self.ahead
        if left < self._taken and self._endless:
            raise UserError(
                f"the text has {len(text.ids):,} tokens, which is too short for one window of "
                f"{length}; lower data.max_len, or give a longer text"
            )
        # One less than there may be leaves room for a place to begin at.
        self._windows = max(1, (left - self._taken) // self._taken)
        self.rows = min(rows, self._windows + only_once)
        super().__init__(seed)

    @property
    def _taken(self) -> int:
        """Tokens of the text that a window has."""
        return self.length

    @property
    def fingerprint(self) -> int:
        return self.text.fingerprint

    def rows_of(self, batch: WindowBatch) -> int:
        return len(batch.ids)

    def part(self, batch: WindowBatch, first: int, count: int) -> WindowBatch:
        rows = slice(first, first + count) if count else slice(0, 1)
        targets = batch.targets[rows] if count else np.full_like(batch.targets[:1], IGNORED)
        n_tokens = int((targets != IGNORED).sum())
        bounds = None if batch.bounds is None else batch.bounds[rows]
        return WindowBatch(batch.ids[rows], targets, n_tokens, bounds)

    def once(self) -> Iterator[WindowBatch]:
        """Every token once, in order; the last window, and rows that only fill the last batch, have
        places where nothing is asked for. The stream stays where it is."""
        starts = np.arange(0, len(self.text.ids) - self.ahead, self._taken)
        for number, at in enumerate(range(0, len(starts), self.rows)):
            chosen = starts[at : at + self.rows]
            fill = np.full(self.rows - len(chosen), len(self.text.ids))
            yield self._batch(Planned(0, number, np.concatenate([chosen, fill])))

    def _order(self, epoch: int) -> list[Planned]:
        if not self._endless:
            return []
        bits = self._bits(epoch)
        most = min(self._taken, len(self.text.ids) - self.ahead - self._windows * self._taken + 1)
        first = int(bits.random_raw() % most)
        starts = first + shuffled(self._windows, bits) * self._taken
        whole = len(starts) // self.rows
        return [
            Planned(epoch, i, starts[i * self.rows : (i + 1) * self.rows]) for i in range(whole)
        ]

    def _batch(self, planned: Planned) -> WindowBatch:
        ids = self._windowed(planned.starts, self.length + 1)
        targets = ids[:, 1:].copy()
        known = targets >= 0
        targets[~known] = IGNORED
        bounds = None
        if self.text.several:
            bounds = self._bounds(planned.starts)
            targets[np.arange(1, self.length + 1) == bounds[:, :, 1]] = IGNORED
        n_tokens = int((targets != IGNORED).sum())
        return WindowBatch(np.maximum(ids[:, :-1], 0), targets, n_tokens, bounds)

    def _bounds(self, starts: NDArray[np.int64]) -> Ints:
        """Where the document of each place begins and ends, counted from the window's start."""
        offsets = self.text.documents.offsets
        places = starts[:, None] + np.arange(self.length)
        of = np.searchsorted(offsets, places, "right").clip(1, len(offsets) - 1)
        both = np.stack([offsets[of - 1], offsets[of]], -1) - starts[:, None, None]
        # A document that goes on in the next window has no end in this one.
        both[:, :, 1] = np.where(both[:, :, 1] > self.length, self.length + 1, both[:, :, 1])
        return np.maximum(both, 0).astype(np.int32)

    def _windowed(self, starts: NDArray[np.int64], length: int) -> Ints:
        """That many tokens from each of some places on; -1 beyond the end of the text."""
        found = np.full((len(starts), length), -1, np.int32)
        for row, start in zip(found, starts, strict=True):
            part = self.text.ids[start : start + length]
            row[: len(part)] = part
        return found


class MaskedWindows(Windows):
    """Windows of which some tokens are asked for: 15 in 100, of which 8 in 10 are masked, 1 in 10
    is another token, and the others are as they were (Devlin et al., arXiv 1810.04805)."""

    ahead = 0

    def __init__(
        self,
        text: Text,
        length: int,
        rows: int,
        seed: int = 0,
        only_once: bool = False,
        *,
        mask_id: int,
        vocab_size: int,
        frame: tuple[int, ...] = (),
    ) -> None:
        """vocab_size: of the tokens that may stand in the place of others. frame: tokens before and
        after each window, none or two; they count for the length."""
        self.mask_id, self.vocab_size, self.frame = mask_id, vocab_size, frame
        if length <= len(frame):
            raise UserError(f"data.max_len is {length}; it must be above {len(frame)}")
        super().__init__(text, length, rows, seed, only_once)

    @property
    def _taken(self) -> int:
        return self.length - len(self.frame)

    def _batch(self, planned: Planned) -> WindowBatch:
        ids = self._windowed(planned.starts, self._taken)
        bits = self._bits(planned.epoch, planned.number + 1)
        shares = _shares(bits, ids.shape)
        asked = (shares < 0.15) & (ids >= 0)
        for row, chosen, share in zip(ids, asked, shares, strict=True):  # one in each at least
            if not chosen.any() and (row >= 0).any():
                chosen[np.where(row >= 0, share, 1.0).argmin()] = True
        targets = np.where(asked, ids, IGNORED).astype(np.int32)
        kinds, others = _shares(bits, ids.shape), _shares(bits, ids.shape)
        others = (others * self.vocab_size).astype(np.int32)
        shown = np.where(asked & (kinds < 0.8), self.mask_id, np.maximum(ids, 0))
        shown = np.where(asked & (kinds >= 0.9), others, shown).astype(np.int32)
        if self.frame:
            first, last = (np.full((len(ids), 1), token, np.int32) for token in self.frame)
            none = np.full((len(ids), 1), IGNORED, np.int32)
            shown = np.concatenate([first, shown, last], 1)
            targets = np.concatenate([none, targets, none], 1)
        return WindowBatch(shown, targets, int((targets != IGNORED).sum()))


def _shares(bits: np.random.Philox, shape: tuple[int, ...]) -> NDArray[Any]:
    """Numbers from 0 to below 1."""
    raw = bits.random_raw(int(np.prod(shape)))
    found: NDArray[Any] = (raw >> np.uint64(11)).astype(np.float64).reshape(shape) / 2**53
    return found
