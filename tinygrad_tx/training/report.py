"""The report of a finished run. In: its best weights. Out: final scores and ten translations, as
text and as a file. Made by the trainer, printed by `train`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .metrics import Scores

SHOWN = 10  # translations


@dataclass(frozen=True)
class Example:
    """A held-out sentence, its translation by hand, and that by the model."""

    source: str
    reference: str
    output: str


@dataclass(frozen=True)
class Report:
    """steps: of training, best_step: whose weights were kept. scores are of n_sentences held-out
    ones."""

    steps: int
    best_step: int
    n_sentences: int
    scores: Scores
    examples: Sequence[Example]

    def translations(self) -> str:
        """The examples, one below the other."""
        return "\n\n".join(
            f"source     {e.source}\nreference  {e.reference}\noutput     {e.output}"
            for e in self.examples
        )

    file = "translations.txt"

    def next_step(self, model: str) -> str:
        """What can be done with the model in a directory."""
        return f"Translate with\n\n  tinygrad-tx translate --model {model}"

    def text(self) -> str:
        """The whole report."""
        of = f"{self.n_sentences} held-out sentences, weights of step {self.best_step}:"
        return f"{self.translations()}\n\n{of}\n{self.scores}"
