"""Beam search: which hypotheses live on, which are finished, and when a row is done.

Comes in, at each step: for each live hypothesis its most probable next tokens with their
log-probabilities. Goes out: which hypothesis each new one continues, and its token. The search
keeps its books on the host, in NumPy and float64, and never sees a model; loop.py drives it. Greedy
search is a beam of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..tensor import Tensor
from .hypothesis import Finished, Hypothesis, penalties

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class MostProbable:
    """The choice that runs inside the compiled step: the k most probable tokens of each row."""

    k: int

    def __call__(self, log_probs: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """(N, V) -> log-probabilities and token ids (N, min(k, V)), the best first."""
        values, ids = log_probs.topk(min(self.k, log_probs.shape[-1]))
        return values, ids


class BeamSearch:
    """The state of a search over some rows, each with `width` live hypotheses.

    A step takes each row's best continuations of all its live hypotheses. An end token among the
    first `width` of them finishes a hypothesis; the best `width` others live on. A row is done when
    no live hypothesis, however it goes on, can push out one of its `width` best finished ones, or
    at its limit, where the live ones count as finished.
    """

    def __init__(
        self,
        limits: Sequence[int],
        *,
        eos_id: int,
        beam_size: int,
        min_new_tokens: int,
        length_penalty: float,
    ) -> None:
        """limits: the most new tokens of each row, the end token included. eos_id -1: none."""
        self.width = beam_size
        # One of them may be the end token; the others suffice, even if all that live on have the
        # same parent.
        self.choice = MostProbable(beam_size + 1)
        self.reorders = beam_size > 1
        self.done = np.zeros(len(limits), np.bool_)
        self.parents = np.zeros((len(limits), beam_size), np.int64)
        self._limits = np.array(limits, np.int64)
        self._eos_id, self._min_new_tokens = eos_id, min_new_tokens
        self._length_penalty = length_penalty
        self._penalties = penalties(max(limits), length_penalty)
        self._finished = [Finished(beam_size) for _ in limits]
        self.rows = np.arange(len(limits))
        self._scores = np.full((len(limits), beam_size), -np.inf)
        self._scores[:, 0] = 0.0
        self._tokens = np.zeros((len(limits), beam_size, max(limits)), np.int64)
        self._n = 0  # tokens so far

    @property
    def tokens(self) -> Ints:
        """The newest token of each hypothesis (slots, width)."""
        return self._tokens[:, :, self._n - 1]

    def inputs(self) -> tuple[Tensor, ...]:
        """What the choice needs besides log-probabilities: nothing."""
        return ()

    def select(self, slots: Ints, done: Bools) -> None:
        """Go on with these slots only; `done` marks those that stand there to fill the shape."""
        self.done, self.parents, self.rows = done, self.parents[slots], self.rows[slots]
        self._limits = self._limits[slots]
        self._scores, self._tokens = self._scores[slots], self._tokens[slots]

    def advance(self, log_probs: Floats, ids: Ints) -> None:
        """One step: (slots, width, k) log-probabilities and ids of each hypothesis's candidates."""
        slots, width, k = ids.shape
        totals = (self._scores[:, :, None] + log_probs).reshape(slots, width * k)
        ends = ids.reshape(slots, width * k) == self._eos_id
        if self._n < self._min_new_tokens:
            totals = np.where(ends, -np.inf, totals)
        order = np.argsort(-totals, axis=1, kind="stable")  # of equal ones the first
        totals, ends = (np.take_along_axis(x, order, axis=1) for x in (totals, ends))
        parents = order // k

        finishing = ends[:, :width] & np.isfinite(totals[:, :width]) & ~self.done[:, None]
        for slot, place in np.argwhere(finishing):
            prefix = self._tokens[slot, parents[slot, place], : self._n]
            self._finish(slot, prefix, totals[slot, place], self._n + 1)

        alive = np.argsort(ends, axis=1, kind="stable")[:, :width]
        dead = np.take_along_axis(ends, alive, axis=1)
        self._scores = np.where(dead, -np.inf, np.take_along_axis(totals, alive, axis=1))
        self.parents = np.take_along_axis(parents, alive, axis=1)
        chosen = np.take_along_axis(order, alive, axis=1)
        self._tokens = np.take_along_axis(self._tokens, self.parents[:, :, None], axis=1)
        self._tokens[:, :, self._n] = np.take_along_axis(
            ids.reshape(slots, width * k), chosen, axis=1
        )
        self._n += 1
        for slot in np.flatnonzero(~self.done):
            self.done[slot] = self._ends(int(slot))

    def results(self, n: int) -> list[list[Hypothesis]]:
        """The n best hypotheses of each row, best first."""
        return [finished.best(n) for finished in self._finished]

    def _finish(self, slot: int, tokens: Ints, total: float, n: int) -> None:
        """n: the length that the score is divided by, the end token included."""
        score = float(total / self._penalties[n])
        self._finished[self.rows[slot]].add(tokens.tolist(), score)

    def _ends(self, slot: int) -> bool:
        """Whether a row is done; at its limit the live hypotheses enter as they are."""
        best, limit = self._scores[slot].max(), self._limits[slot]
        if self._n == limit:
            for tokens, total in zip(self._tokens[slot], self._scores[slot], strict=True):
                if np.isfinite(total):
                    self._finish(slot, tokens[:limit], total, limit)
            return True
        # Log-probabilities only fall, so a live hypothesis does best by adding nothing to its sum,
        # at the length that divides it by most: the limit, or the next one if short is favoured.
        reach = limit if self._length_penalty > 0 else self._n + 1
        bound = best / self._penalties[reach]
        return not np.isfinite(best) or self._finished[self.rows[slot]].beats(bound)
