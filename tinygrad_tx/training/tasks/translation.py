"""Translation: sentence pairs, and BLEU and chrF beside the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ...data import Batches
from ...tensor import Tensor
from ...tokenizer import Tokenizer
from ..corpus import Pair
from ..examples import load_examples
from ..report import SHOWN, Example, Report
from ..schema import Config
from ..step import tensors
from ..validation import Validation
from .base import Counted, Measuring, Pause, Row, Task


class Translation(Task):
    """Sentences of one language, to be said in another."""

    batches: Batches

    def __init__(
        self,
        config: Config,
        tokenizer: Tokenizer | None,
        then: Callable[[], int | None],
        counted: Counted,
    ) -> None:
        self._config = config
        examples = load_examples(config, tokenizer, then, counted)
        self.tokenizer, self._data = examples.tokenizer, examples.data
        self._valid = examples.valid
        self._held_out = examples.held_out[: config.train.valid_sentences]
        self.batches = Batches(self._data, config.data.max_tokens, config.train.seed)

    def summary(self) -> str:
        return self._data.summary()

    def inputs(self, batch: Any) -> tuple[Tensor, ...]:
        return tensors(batch)

    def measuring(self, model: Any, pause: Pause) -> Measuring:
        def of(pairs: Sequence[Pair]) -> Validation:
            return Validation(pairs, self.tokenizer, model, self.batches, pause)

        return _Translations(self._config, of(self._valid), of, self._held_out)


class _Translations(Measuring):
    def __init__(
        self,
        config: Config,
        valid: Validation,
        of: Callable[[Sequence[Pair]], Validation],
        held_out: Sequence[Pair],
    ) -> None:
        self._config, self._valid, self._of, self._held_out = config, valid, of, held_out

    def row(self) -> Row:
        """The loss and, by greedy search, BLEU and chrF."""
        train, decode = self._config.train, self._config.decode
        row: Row = {"valid_loss": self._valid.loss()}
        if train.valid_bleu:
            greedy = replace(decode, beam_size=1, length_penalty=0.0)
            _, scores = self._valid.translate(train.valid_sentences, greedy)
            row |= {"bleu": scores.bleu, "chrf": scores.chrf}
        return row

    def final(self, steps: int, best_step: int) -> tuple[Row, Report]:
        """Translations of held-out sentences."""
        pairs, decode = self._held_out, self._config.decode
        outputs, scores = self._of(pairs).translate(len(pairs), decode)
        row: Row = {"of": "held-out sentences", "beam": decode.beam_size}
        row |= {"bleu": scores.bleu, "chrf": scores.chrf}
        shown = zip(pairs[:SHOWN], outputs, strict=False)
        examples = [Example(source, target, output) for (source, target), output in shown]
        return row, Report(steps, best_step, len(pairs), scores, examples)
