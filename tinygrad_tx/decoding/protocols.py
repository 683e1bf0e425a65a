"""Protocols of a search: hypotheses with their scores, and the driver of a decoding.

BeamSearch (beam.py) and Sampling (sampling.py) are the two searches; loop.py runs them. Users get
`Hypothesis` lists from generate.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..tensor import Tensor

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Stops = tuple[tuple[int, ...], ...]  # sequences of tokens that end a continuation


class Hypothesis(NamedTuple):
    """One continuation that the model proposes.

    tokens: ids without the start token, up to and without the end token; a GPT's prompt left out.
    score: the sum of their log-probabilities (natural logarithm), the end token's included where
    it was reached, divided by ((5 + n) / 6)^length_penalty; n counts the end token.
    """

    tokens: list[int]
    score: float


def penalties(longest: int, length_penalty: float) -> Floats:
    """((5 + n) / 6)^length_penalty for n = 0 .. longest (Wu et al. 2016, equation 14, without the
    coverage term). Raises UserError where it is no positive number."""
    lengths = np.arange(longest + 1, dtype=np.float64)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        found: Floats = ((5 + lengths) / 6) ** length_penalty
    if not (np.isfinite(found).all() and (found > 0).all()):
        raise UserError(
            f"length_penalty {length_penalty} is out of range: 0 is none, 0.6 is usual, "
            "negative ones favour short output"
        )
    return found


def stopped(tokens: Ints, stops: Stops) -> Ints:
    """tokens (..., n) -> (...): the length of the longest stop that they end in, 0 for none."""
    found = np.zeros(tokens.shape[:-1], np.int64)
    for stop in sorted(stops, key=len):
        if len(stop) <= tokens.shape[-1]:
            found[(tokens[..., -len(stop) :] == stop).all(-1)] = len(stop)
    return found


class Choice(Protocol):
    """The choice that a step makes from its log-probabilities. Hashable: a step is traced for each
    choice."""

    @property
    def k(self) -> int:
        """The number of candidates that it gives."""

    @property
    def sums(self) -> bool:
        """True if hypotheses are compared by sums of log-probabilities, on which controls then act;
        else they act on logits."""

    def __call__(self, log_probs: Tensor, step: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """(N, V), the 0-d number of steps before this one, and the search's inputs ->
        log-probabilities and ids (N, k) of candidates, the best first."""

    def next(self, ids: Tensor) -> Tensor:
        """(N, k) -> (N,): with which of its candidates each row goes on by itself, if the search
        says nothing else."""

    def ends(self, ids: Tensor) -> Tensor:
        """(N, k) -> bool (N,): where the best one is the end token."""


class Search(Protocol):
    """The driver of a decoding: BeamSearch or Sampling. It works on slots; each has one row."""

    width: int  # hypotheses of a row
    reorders: bool  # whether a hypothesis may continue another one than its own
    rows: Ints  # (slots,): the row that a slot works on
    done: Bools  # (slots,)
    parents: Ints  # (slots, width): the hypothesis of its row that each one continues

    @property
    def choice(self) -> Choice:
        """The choice that runs inside the step."""

    @property
    def tokens(self) -> Ints:
        """The newest token of each hypothesis (slots, width)."""

    @property
    def ahead(self) -> int:
        """The number of steps that may be taken before it looks at their candidates, if none ends a
        row."""

    def inputs(self, steps: int) -> tuple[Tensor, ...]:
        """The inputs of the choice, as long as the slots stay. steps: more than there will be."""

    def select(self, slots: Ints, done: Bools) -> None:
        """Go on with these slots only; `done` marks those that are there to fill the shape."""

    def advance(self, log_probs: Floats, ids: Ints) -> None:
        """Take a step's candidates (slots, width, k)."""

    def results(self, n: int) -> list[list[Hypothesis]]:
        """The n best hypotheses of each row, best first."""
