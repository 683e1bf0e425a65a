"""Beam search: which hypotheses live on, which are finished, and when a row is done.

In, at each step: for each live hypothesis its most probable next tokens with their
log-probabilities. Out: the hypothesis that each new one continues, and its token. The search keeps
its books on the host, in NumPy and float64, and never sees a model; loop.py drives it. Greedy
search is a beam of one.
"""

from __future__ import annotations

from bisect import insort_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from ..creation import cat, full, where, zeros
from ..tensor import Tensor
from .protocols import Bools, Floats, Hypothesis, Ints, Stops, penalties, stopped


@dataclass(frozen=True)
class MostProbable:
    """The choice that runs inside the compiled step: the k most probable tokens of each row."""

    k: int
    eos_id: int
    sums: bool = False  # a beam of several compares sums; greedy search takes the best token

    def __call__(self, log_probs: Tensor, step: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """(N, V) -> log-probabilities and token ids (N, k), the best first; where V is less than k,
        the rest is impossible."""
        rows, size = log_probs.shape
        values, ids = log_probs.topk(min(self.k, size))
        missing = self.k - size
        if missing > 0:
            none = full((rows, missing), -inf, dtype=values.dtype, device=values.device)
            values = cat([values, none], -1)
            ids = cat([ids, zeros(rows, missing, dtype=ids.dtype, device=ids.device)], -1)
        return values, ids

    def next(self, ids: Tensor) -> Tensor:
        """(N, k) -> (N,): of a beam of one, the best that is no end token."""
        return where(self.ends(ids), ids[:, -1], ids[:, 0])

    def ends(self, ids: Tensor) -> Tensor:
        """(N, k) -> bool (N,): where the best one is the end token."""
        found: Tensor = ids[:, 0] == self.eos_id
        return found


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
        stops: Stops = (),
        often: bool = False,
    ) -> None:
        """limits: the most new tokens of each row, the end token included. eos_id -1: none.
        stops: sequences that end a hypothesis like the end token. often: there is a look at every
        step."""
        self.width, self._stops, self._often = beam_size, stops, often or bool(stops)
        # One of them may be the end token, or end a sequence that stops; the others suffice, even
        # if all that live on have the same parent.
        ends = len({stop[-1] for stop in stops})
        self.choice = MostProbable(beam_size + 1 + ends, eos_id, beam_size > 1)
        self.reorders = beam_size > 1
        self.done = np.zeros(len(limits), np.bool_)
        self.parents = np.zeros((len(limits), beam_size), np.int64)
        self._limits = np.array(limits, np.int64)
        self._eos_id, self._min_new_tokens = eos_id, min_new_tokens
        self._length_penalty = length_penalty
        self._penalties = penalties(max(limits), length_penalty)
        self._finished: list[list[Hypothesis]] = [[] for _ in limits]  # of each row, best first
        self._worst = np.full(len(limits), -np.inf)  # of each row, where it has `width` finished
        self._any_full = False  # whether there is such a row
        self.rows = np.arange(len(limits))
        self._scores = np.full((len(limits), beam_size), -np.inf)
        self._scores[:, 0] = 0.0
        self._tokens = np.zeros((len(limits), beam_size, max(limits)), np.int64)
        self._n = 0  # tokens so far

    @property
    def tokens(self) -> Ints:
        """The newest token of each hypothesis (slots, width)."""
        return self._tokens[:, :, self._n - 1]

    @property
    def ahead(self) -> int:
        """Alone, a hypothesis goes on with its best candidate; several change places."""
        if self.reorders or self._often:
            return 1
        return int(self._limits[~self.done].min()) - self._n

    def inputs(self, steps: int) -> tuple[Tensor, ...]:
        """The inputs of the choice besides log-probabilities: none."""
        return ()

    def select(self, slots: Ints, done: Bools) -> None:
        """Go on with these slots only; `done` marks those that stand there to fill the shape."""
        self.done, self.parents, self.rows = done, self.parents[slots], self.rows[slots]
        self._limits = self._limits[slots]
        self._scores, self._tokens = self._scores[slots], self._tokens[slots]

    def advance(self, log_probs: Floats, ids: Ints) -> None:
        """One step: (slots, width, k) log-probabilities and ids of each hypothesis's candidates."""
        slots, width, k = ids.shape
        every = np.arange(slots)[:, None]
        totals = (self._scores[:, :, None] + log_probs).reshape(slots, width * k)
        ids = ids.reshape(slots, width * k)
        ends = ids == self._eos_id
        cuts = None
        if self._stops:
            cuts = self._cuts(ids, k)
            ends |= cuts > 0
        ended = ends
        ending = ends.any()  # mostly not, which saves half of the work
        if ending and self._n < self._min_new_tokens:
            totals[ids == self._eos_id] = -np.inf
        order = (-totals).argsort(axis=1, kind="stable")  # of equal ones the first
        live = order[:, :width]
        if ending:
            ends = ends[every, order]
            if ends[:, :width].any():
                self._take_finished(totals, order, ends, cuts)
                live = order[every, ends.argsort(axis=1, kind="stable")[:, :width]]
        chosen, self._scores = ids[every, live], totals[every, live]
        if ending:
            # Fewer candidates than places: some are end tokens, which do not live on.
            self._scores[ended[every, live]] = -np.inf
        self.parents = live // k
        if self.reorders:
            self._tokens = self._tokens[every, self.parents]
        self._tokens[:, :, self._n] = chosen
        self._n += 1
        self._end_rows()

    def _end_rows(self) -> None:
        """See which rows are done."""
        at_limit = self._limits == self._n
        if at_limit.any():
            for i in np.flatnonzero(at_limit & ~self.done):
                self._take_unfinished(int(i))
        self.done = self.done | at_limit
        # Nothing else can end a row: it has all that it may finish, or nothing that can live on.
        if self._any_full or not np.isfinite(self._scores).all():
            self.done |= self._bounds() <= self._worst[self.rows]

    def newest(self, row: int) -> list[int]:
        """The tokens of a row's best live hypothesis so far."""
        (slot,) = np.flatnonzero(self.rows == row)[:1]
        found: list[int] = self._tokens[slot, 0, : self._n].tolist()
        return found

    def results(self, n: int) -> list[list[Hypothesis]]:
        """The n best hypotheses of each row, best first."""
        return [best[:n] for best in self._finished]

    def _cuts(self, ids: Ints, k: int) -> Ints:
        """How many tokens of a stop each candidate (slots, width * k) completes; 0: it does not."""
        before = np.repeat(self._tokens[:, :, : self._n], k, axis=1)
        return stopped(np.concatenate([before, ids[:, :, None]], axis=2), self._stops)

    def _take_finished(self, totals: Floats, order: Ints, ends: Bools, cuts: Ints | None) -> None:
        """Finish what chose an end among the first `width` candidates of its row."""
        for slot, place in np.argwhere(ends[:, : self.width] & ~self.done[:, None]):
            candidate = order[slot, place]
            parent = candidate // (order.shape[1] // self.width)
            cut = 0 if cuts is None else max(int(cuts[slot, candidate]) - 1, 0)
            self._finish(slot, parent, totals[slot, candidate], self._n + 1, cut)

    def _take_unfinished(self, slot: int) -> None:
        """Finish a row's live hypotheses as they are."""
        for place, total in enumerate(self._scores[slot]):
            self._finish(slot, place, total, self._n)

    def _finish(self, slot: int, place: int, total: float, length: int, cut: int = 0) -> None:
        """length: what the score is divided by, the end token included. cut: so many of the last
        tokens are of a stop."""
        if total == -np.inf:
            return
        row = self.rows[slot]
        tokens = self._tokens[slot, place, : self._n - cut].tolist()
        best = self._finished[row]
        # Of equal scores the one that was finished first stays ahead.
        insort_right(
            best, Hypothesis(tokens, float(total / self._penalties[length])), key=lambda h: -h.score
        )
        del best[self.width :]
        if len(best) == self.width:
            self._worst[row], self._any_full = best[-1].score, True

    def _bounds(self) -> Floats:
        """The best score that any live hypothesis of each slot can still reach."""
        # Log-probabilities only fall, so it does best by adding nothing to its sum, at the length
        # that divides it by most: the limit, or the next one where short output is favoured.
        reach = self._limits if self._length_penalty > 0 else np.minimum(self._n + 1, self._limits)
        bounds: Floats = self._scores.max(axis=1) / self._penalties[reach]
        return bounds
