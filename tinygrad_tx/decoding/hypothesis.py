"""What a search finds: hypotheses, their scores, and the best finished ones of a row.

Comes in: token lists with their summed log-probabilities. Goes out: `Hypothesis` lists, best first.
Used by beam.py and sampling.py.
"""

from __future__ import annotations

from bisect import insort_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError


class Hypothesis(NamedTuple):
    """One continuation that the model proposes.

    tokens: ids without the start token, up to and without the end token; a GPT's prompt left out.
    score: the sum of their log-probabilities (natural logarithm), the end token's included where
    it was reached, divided by ((5 + n) / 6)^length_penalty; n counts the end token.
    """

    tokens: list[int]
    score: float


def penalties(longest: int, length_penalty: float) -> NDArray[np.float64]:
    """((5 + n) / 6)^length_penalty for n = 0 .. longest (Wu et al. 2016, equation 14, without the
    coverage term). Raises UserError where it is no positive number."""
    lengths = np.arange(longest + 1, dtype=np.float64)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        found: NDArray[np.float64] = ((5 + lengths) / 6) ** length_penalty
    if not (np.isfinite(found).all() and (found > 0).all()):
        raise UserError(
            f"length_penalty {length_penalty} is out of range: 0 is none, 0.6 is usual, "
            "negative ones favour short output"
        )
    return found


class Finished:
    """The best finished hypotheses of one row, at most `size` of them.

    Of equal scores the one that was finished first stays ahead.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._best: list[Hypothesis] = []

    def add(self, tokens: Sequence[int], score: float) -> None:
        insort_right(self._best, Hypothesis(list(tokens), score), key=lambda h: -h.score)
        del self._best[self._size :]

    def beats(self, score: float) -> bool:
        """Whether `size` hypotheses are here, none of which a score this high would push out."""
        return len(self._best) == self._size and self._best[-1].score >= score

    def best(self, n: int) -> list[Hypothesis]:
        return self._best[:n]
