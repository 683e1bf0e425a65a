"""Sampling: tokens drawn from the model's distribution, sharpened, flattened or cut.

In: log-probabilities, inside the compiled step. Out: one token for each row with its
log-probability, and at the end the hypotheses. loop.py drives it as it does the beam search.

Random numbers are Philox words under the seed of tx.manual_seed, in streams that nothing else uses:
every row of every call takes the next one. So sampling disturbs neither dropout nor data order, and
what is drawn for a row depends on its place in line, not on its batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .. import random
from ..backends.arrays import numpy_random
from ..creation import arange, tensor
from ..dtypes import float64
from ..node import Node
from ..tensor import Tensor
from .protocols import Bools, Floats, Hypothesis, Ints, Stops, penalties, stopped


@dataclass(frozen=True)
class Draw:
    """The choice that runs inside the compiled step: one token of each row, by its probability.

    top_k: only the k most probable tokens take part; 0 is all.
    nucleus: only the smallest set of most probable tokens that reaches top_p takes part.
    floor: only tokens that are min_p times as probable as the best one take part.
    """

    top_k: int
    nucleus: bool
    eos_id: int
    floor: bool = False
    k = 1
    sums = False

    def __call__(self, log_probs: Tensor, step: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """(N, V) with a 0-d step -> log-probabilities and ids (N, 1). inputs: a uniform number for
        each step and row (L, N); 0-d temperature, top_p, min_p, and the steps that may not end a
        row.

        The log-probabilities given back are the model's own, before temperature and cuts.
        """
        uniforms, temperature, top_p, min_p, first = inputs
        uniform = uniforms.index_select(0, step.reshape(1))  # (1, N)
        size = log_probs.shape[-1]
        every = arange(size, device=log_probs.device)
        banned = (every == self.eos_id) & (step < first)
        weights = log_probs.double().masked_fill(banned, -np.inf)
        if self.top_k or self.nucleus:
            weights, ids = weights.topk(min(self.top_k or size, size))
        else:  # without a cut the order is of no account
            ids = every.unsqueeze(0).expand(*log_probs.shape)
        # The largest is taken off first: however small the temperature, it stays 0.
        weights = (weights - weights.amax(-1, keepdim=True)) / temperature
        probs = weights.softmax(-1)
        reached = probs.cumsum(-1)
        if self.nucleus:
            reached = reached * (reached - probs < top_p)  # what came before fell short of top_p
        if self.floor:
            likely = (reached > 0) & (probs >= min_p * probs.amax(-1, keepdim=True))
            reached = (probs * likely).cumsum(-1)
        total = reached.amax(-1, keepdim=True)
        # The first place whose cumulated probability exceeds the uniform's share of the whole.
        passed = reached > uniform.reshape(-1, 1) * total
        token = ids.take_along_dim(passed.long().argmax(-1, keepdim=True), -1)
        return log_probs.take_along_dim(token, -1), token

    def next(self, ids: Tensor) -> Tensor:
        """(N, 1) -> (N,): the tokens drawn."""
        drawn: Tensor = ids[:, 0]
        return drawn

    def ends(self, ids: Tensor) -> Tensor:
        """(N, 1) -> bool (N,): where that is the end token."""
        found: Tensor = ids[:, 0] == self.eos_id
        return found


class Sampling:
    """The state of sampling over some rows, each with `width` independent continuations."""

    reorders = False

    def __init__(
        self,
        limits: Sequence[int],
        *,
        eos_id: int,
        samples: int,
        min_new_tokens: int,
        length_penalty: float,
        temperature: float,
        top_k: int,
        top_p: float,
        min_p: float,
        stops: Stops,
        seed: int | None,
        often: bool,
        device: str,
    ) -> None:
        """limits: the most new tokens of each row, the end token included. eos_id -1: none.
        stops: sequences that end a continuation like the end token. seed: None for that of
        tx.manual_seed. often: there is a look at every step."""
        self.width, self._stops, self._often = samples, stops, often or bool(stops)
        self.choice = Draw(top_k, top_p < 1, eos_id, min_p > 0)
        self.done = np.zeros(len(limits), np.bool_)
        self.parents = np.tile(np.arange(samples), (len(limits), 1))
        self._settings = [tensor(x, float64, device) for x in (temperature, top_p, min_p)]
        self._settings.append(tensor(min_new_tokens, device=device))
        self._eos_id, self._device = eos_id, device
        self._penalties = penalties(max(limits), length_penalty)
        self._limits = np.array(limits, np.int64)
        self.rows = np.arange(len(limits))
        self._uniforms = _uniforms(limits, samples, seed)
        # By row: the tokens drawn, the sum of their log-probabilities, how many there are.
        self._tokens = np.zeros((len(limits), samples, max(limits)), np.int64)
        self._totals = np.zeros((len(limits), samples))
        self._lengths = np.zeros((len(limits), samples), np.int64)
        self._cuts = np.zeros((len(limits), samples), np.int64)  # of those, how many are of a stop
        self._open = np.ones((len(limits), samples), np.bool_)
        self._n = 0  # tokens so far

    @property
    def tokens(self) -> Ints:
        """The newest token of each continuation (slots, width)."""
        return self._tokens[self.rows, :, self._n - 1]

    @property
    def ahead(self) -> int:
        """Each continuation goes its own way."""
        if self._often:
            return 1
        return int(self._limits[self.rows[~self.done]].min()) - self._n

    def inputs(self, steps: int) -> tuple[Tensor, ...]:
        """The inputs of `Draw` besides log-probabilities. steps: at least the longest limit."""
        drawn = self._uniforms[self.rows]  # (slots, longest, width)
        uniforms = np.zeros((steps, len(drawn) * self.width))
        uniforms[: drawn.shape[1]] = drawn.swapaxes(0, 1).reshape(drawn.shape[1], -1)
        return tensor(uniforms, float64, self._device), *self._settings

    def select(self, slots: Ints, done: Bools) -> None:
        """Go on with these slots only; `done` marks those that stand there to fill the shape."""
        self.done, self.parents, self.rows = done, self.parents[slots], self.rows[slots]

    def advance(self, log_probs: Floats, ids: Ints) -> None:
        """One step: (slots, width, 1) log-probabilities and ids of the tokens drawn."""
        slots = np.flatnonzero(~self.done)
        rows = self.rows[slots]
        self._tokens[rows, :, self._n] = ids[slots, :, 0]
        self._totals[rows] += np.where(self._open[rows], log_probs[slots, :, 0], 0.0)
        self._lengths[rows] += self._open[rows]
        self._n += 1
        ended = ids[slots, :, 0] == self._eos_id
        if self._stops:
            found = stopped(self._tokens[rows, :, : self._n], self._stops)
            self._cuts[rows] += np.where(self._open[rows], np.maximum(found - 1, 0), 0)
            ended |= found > 0
        self._open[rows] &= ~ended
        self.done[slots] = ~self._open[rows].any(axis=1) | (self._limits[rows] == self._n)

    def newest(self, row: int) -> list[int]:
        """The tokens of a row's first continuation so far."""
        found: list[int] = self._tokens[
            row, 0, : self._lengths[row, 0] - self._cuts[row, 0]
        ].tolist()
        return found

    def results(self, n: int) -> list[list[Hypothesis]]:
        """The continuations of each row, the best score first; n is `width`."""
        return [self._row(row)[:n] for row in range(len(self._limits))]

    def _row(self, row: int) -> list[Hypothesis]:
        found = []
        for tokens, total, length, cut, unfinished in zip(
            *(x[row] for x in (self._tokens, self._totals, self._lengths, self._cuts, self._open)),
            strict=True,
        ):
            if total == -np.inf:  # a token was drawn where none was allowed
                continue
            text = tokens[: length if unfinished else length - 1 - cut]
            found.append(Hypothesis(text.tolist(), float(total / self._penalties[length])))
        return sorted(found, key=lambda h: -h.score)


class _Line:
    """The number of streams handed out since the random numbers were last seeded."""

    seeding: Node | None = None
    taken = 0


_FIRST_STREAM = 1 << 62  # dropout and tx.rand count up from 0


def _uniforms(limits: Sequence[int], samples: int, seed: int | None) -> Floats:
    """(rows, longest, samples) numbers in [0, 1): each row has a stream, each step its words."""
    shape = (max(limits), samples)
    if seed is not None:
        return _drawn(seed, _FIRST_STREAM, len(limits), shape)
    key = random.generator("cpu").key
    if _Line.seeding is not key.node:  # seeding, or going on from a checkpoint, makes a new key
        _Line.seeding, _Line.taken = key.node, 0
    first = _FIRST_STREAM + _Line.taken
    _Line.taken += len(limits)
    return _drawn(key.item(), first, len(limits), shape)


def _drawn(seed: int, first: int, rows: int, shape: tuple[int, int]) -> Floats:
    """For each row its stream, counted from the first."""
    found = [numpy_random.uniform(seed, first + i, shape, np.float64) for i in range(rows)]
    return np.stack(found)


def skip(rows: int) -> None:
    """Let the streams of so many rows pass, as if they had been drawn since the random numbers were
    seeded: what is drawn next is what follows them."""
    _Line.seeding, _Line.taken = random.generator("cpu").key.node, rows
