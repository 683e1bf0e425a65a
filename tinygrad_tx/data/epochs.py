"""Epochs: an endless stream of batches that can be taken up anywhere.

In: what an epoch's batches are, as a subclass says. Out: batches. The base of batches.py (sentence
pairs) and windows.py (running text). The order of an epoch follows from the seed and the epoch
alone, so the epoch and the position in it are all it takes to go on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError

Planned = TypeVar("Planned")
Made = TypeVar("Made")


class Epochs(ABC, Generic[Planned, Made]):
    """The order of an epoch, and the making of its batches, are a subclass's."""

    def __init__(self, seed: int) -> None:
        """To be called when the order can be asked for."""
        if seed < 0:
            raise UserError(f"the seed must be 0 or more, not {seed}")
        self.seed = seed
        self._epoch, self._position = 0, 0
        self._planned, self._plan = 0, self._order(0)

    @property
    @abstractmethod
    def fingerprint(self) -> int:
        """A number that differs where the data do."""

    @abstractmethod
    def _order(self, epoch: int) -> Sequence[Planned]:
        """The batches of an epoch, as many in each."""

    @abstractmethod
    def _batch(self, planned: Planned) -> Made:
        """A batch."""

    def rows_of(self, batch: Made) -> int:
        """The rows of a batch."""
        raise UserError(f"{type(self).__name__} has no rows_of(batch): ranks cannot share a batch")

    def part(self, batch: Made, first: int, count: int) -> Made:
        """Some rows of a batch, for a rank that has only these; where they are none, a row in which
        nothing is asked for."""
        raise UserError(f"{type(self).__name__} has no part(batch, first, count) of a batch")

    @property
    def batches_per_epoch(self) -> int:
        """The same in every epoch."""
        return len(self._plan)

    @property
    def n_shapes(self) -> int:
        """How many shapes batches have."""
        return 1

    def state(self) -> dict[str, int]:
        """The position of the next batch."""
        return {"epoch": self._epoch, "position": self._position}

    def restore(self, state: Mapping[str, int]) -> None:
        """Go on from a `state()` of a stream over the same data; raises UserError if it cannot be
        one."""
        epoch, position = state["epoch"], state["position"]
        if epoch < 0 or not 0 <= position < self.batches_per_epoch:
            raise UserError(
                f"cannot go on from batch {position} of epoch {epoch}: an epoch has "
                f"{self.batches_per_epoch}; the data or max_tokens have changed"
            )
        self._epoch, self._position = epoch, position

    def __iter__(self) -> Iterator[Made]:
        return self

    def __next__(self) -> Made:
        if self._planned != self._epoch:
            self._planned, self._plan = self._epoch, self._order(self._epoch)
        batch = self._batch(self._plan[self._position])
        self._position += 1
        if self._position == len(self._plan):
            self._epoch, self._position = self._epoch + 1, 0
        return batch

    def _bits(self, *of: int) -> np.random.Philox:
        """Random bits that follow from the seed and these numbers alone."""
        return np.random.Philox(np.random.SeedSequence([self.seed, *of]))


def shuffled(n: int, bits: np.random.Philox) -> NDArray[np.int64]:
    """A permutation made of raw random bits, which NumPy promises never to change."""
    return np.argsort(bits.random_raw(n), kind="stable")
