"""Controls: what is done to the logits of a step before a search chooses from them: tokens that
were there already made less likely, words forbidden, first tokens prescribed.

In: logits, inside the compiled step, and the tokens so far. Out: log-probabilities. generate.py
makes one where it is asked for any of this, and loop.py carries its state along.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..creation import arange, cat, tensor, where
from ..tensor import Tensor
from .protocols import Ints

_ANY = -1  # in a sequence: whatever token


class Told(NamedTuple):
    """What a step is told of its N rows, V tokens; None where it does not matter."""

    penalty: Tensor | None  # 0-d
    seen: Tensor | None  # bool (N, V): what has been read and said
    recent: Tensor | None  # (N, M): the newest tokens, the newest one last
    prefix: Tensor | None  # (L, N): the token prescribed for each step; -1: none
    words: Tensor | None  # bool (V,): tokens that are never chosen
    heads: Tensor | None  # (K, M): what forbids a token where it comes last; _ANY: whatever
    tails: Tensor | None  # (K,): the tokens that these forbid

    def reorder(self, rows: Tensor) -> None:
        """Let row i go on from what row rows[i] has, in place."""
        for own in (self.seen, self.recent):
            if own is not None:
                own.assign(own.index_select(0, rows))

    def keep(self, rows: Tensor) -> Told:
        """What is told of these rows (N',) alone."""
        return self._replace(
            seen=None if self.seen is None else self.seen.index_select(0, rows),
            recent=None if self.recent is None else self.recent.index_select(0, rows),
            prefix=None if self.prefix is None else self.prefix.index_select(1, rows),
        )

    def take(self, ids: Tensor) -> None:
        """Note the tokens (N,) that are read, in place."""
        if self.seen is not None:
            every = arange(self.seen.shape[-1], device=ids.device)
            self.seen.assign(self.seen | (every == ids.unsqueeze(1)))
        if self.recent is not None:
            self.recent.assign(cat([self.recent[:, 1:], ids.unsqueeze(1)], 1))


def penalised(scores: Tensor, told: Told) -> Tensor:
    """Scores (N, V), logits or log-probabilities, those of what was there made less likely. Called
    inside the step."""
    if told.seen is None or told.penalty is None:
        return scores
    less = where(scores < 0, scores * told.penalty, scores / told.penalty)
    return where(told.seen, less, scores)


def allowed(scores: Tensor, step: Tensor, told: Told) -> Tensor:
    """Log-probabilities (N, V) of a 0-d step, -inf where a token is not allowed; the others stay
    what they are. Called inside the step."""
    if told.words is not None:
        scores = scores.masked_fill(told.words, -np.inf)
    every = arange(scores.shape[-1], device=scores.device)
    if told.heads is not None and told.tails is not None and told.recent is not None:
        fits = (told.heads == told.recent.unsqueeze(1)) | (told.heads == _ANY)  # (N, K, M)
        said = fits.all(-1).unsqueeze(-1) & (told.tails.unsqueeze(-1) == every)  # (N, K, V)
        scores = scores.masked_fill(said.any(1), -np.inf)
    if told.prefix is not None:
        wanted = told.prefix.index_select(0, step.reshape(1)).reshape(-1, 1)  # (N, 1)
        scores = scores.masked_fill((wanted >= 0) & (wanted != every), -np.inf)
    return scores


@dataclass(frozen=True)
class Controls:
    """repetition_penalty: a positive logit of a token that was there is divided by it, a negative
    one multiplied (Keskar et al., arXiv 1909.05858). prefixes: of each row, the tokens that it
    begins with. bad_words: sequences of tokens that are not said. said: of each row, the tokens
    that are there before the first step reads one. size: V."""

    size: int
    said: Sequence[Sequence[int]]
    repetition_penalty: float
    prefixes: tuple[tuple[int, ...], ...]
    bad_words: tuple[tuple[int, ...], ...]

    def told(self, rows: Ints, steps: int, device: str) -> Told:
        """What is told at the start. rows (N,): the row of the call that each is of. steps: more
        than there will be."""
        said = [self.said[i] for i in rows]
        several = [word for word in self.bad_words if len(word) > 1]
        longest = max(map(len, several), default=1) - 1
        seen = recent = heads = tails = words = prefix = penalty = None
        if self.repetition_penalty != 1:
            found = np.zeros((len(rows), self.size), np.bool_)
            for line, row in zip(found, said, strict=True):
                line[list(row)] = True
            seen = tensor(found, device=device)
            penalty = tensor(self.repetition_penalty, device=device)
        if several:
            recent = tensor(_ends(said, longest), device=device)
            heads = tensor(_ends([word[:-1] for word in several], longest), device=device)
            tails = tensor(np.array([word[-1] for word in several]), device=device)
        single = [word[0] for word in self.bad_words if len(word) == 1]
        if single:
            flags = np.zeros(self.size, np.bool_)
            flags[single] = True
            words = tensor(flags, device=device)
        if any(self.prefixes):
            wanted = np.full((steps, len(rows)), -1, np.int64)
            for i, row in enumerate(rows):
                own = self.prefixes[row][:steps]
                wanted[: len(own), i] = own
            prefix = tensor(wanted, device=device)
        return Told(penalty, seen, recent, prefix, words, heads, tails)


def _ends(rows: Sequence[Sequence[int]], length: int) -> Ints:
    """The last tokens of each row, _ANY before the first."""
    found = np.full((len(rows), length), _ANY, np.int64)
    for line, row in zip(found, rows, strict=True):
        last = list(row)[-length:] if length else []
        if last:
            line[-len(last) :] = last
    return found
