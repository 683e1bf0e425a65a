"""How probable translations are, as bulk work. In: pairs of lines. Out: a line for each pair: the
log-probability of the second, and how many tokens it has. Called by `score`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..decoding import Scorer
from .chunks import Chunk, Do, Result
from .model import ModelAt


@dataclass(frozen=True)
class Scoring:
    """A sum of natural log-probabilities and a number of tokens, with a tab between."""

    model: ModelAt

    def open(self) -> Do:
        scorer = Scorer(*self.model.load())

        def do(chunk: Chunk) -> Result:
            with self.model.computing():
                found = scorer(chunk.rows, first_line=chunk.first)
            return Result("".join(f"{x.log_prob:.4f}\t{x.n_tokens}\n" for x in found))

        return do
