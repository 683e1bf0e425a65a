"""Translation: sentence pairs, and BLEU and chrF beside the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ...data import Batches
from ...errors import UserError
from ...tensor import Tensor
from ...tokenizer import Tokenizer
from ..corpus import Pair
from ..examples import load_examples
from ..metrics import Scores, chrf_of_each
from ..report import SHOWN, Example, Report
from ..samples import Attention, Heads, Sample, extremes
from ..schema import Config
from ..step import tensors
from ..validation import Validation
from .base import Counted, Measuring, Pause, Row, Seen, Task


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

        heads = Heads(model, across=True)
        return _Translations(
            self._config, of(self._valid), of, self._held_out, self.tokenizer, heads
        )


class _Translations(Measuring):
    def __init__(
        self,
        config: Config,
        valid: Validation,
        of: Callable[[Sequence[Pair]], Validation],
        held_out: Sequence[Pair],
        tokenizer: Tokenizer,
        heads: Heads,
    ) -> None:
        self._config, self._valid, self._of, self._held_out = config, valid, of, held_out
        self._tokenizer, self._heads = tokenizer, heads

    def seen(self) -> Seen:
        """The loss and, by greedy search, BLEU and chrF; the first sentences, and the extremes of
        all that are translated."""
        train = self._config.train
        row: Row = {"valid_loss": self._valid.loss()}
        if not train.valid_bleu and not train.samples:
            return Seen(row)
        if not train.valid_bleu:
            with suppress(UserError):  # of a model that has diverged, whose loss says so
                found, _ = self._translated(train.samples)
                return Seen(row, self._shown(found))
            return Seen(row)
        found, scores = self._translated(train.valid_sentences)
        row |= {"bleu": scores.bleu, "chrf": scores.chrf}
        return Seen(row, self._shown(found), *(extremes(found) if train.samples else ((), ())))

    def _translated(self, n: int) -> tuple[list[Sample], Scores]:
        """The first n sentences, by greedy search."""
        greedy = replace(self._config.decode, beam_size=1, length_penalty=0.0)
        pairs = self._valid.pairs[:n]
        outputs, scores = self._valid.translate(n, greedy)
        each = chrf_of_each(outputs, [reference for _, reference in pairs])
        found = [
            Sample(source, output, reference, round(chrf, 1))
            for (source, reference), output, chrf in zip(pairs, outputs, each, strict=True)
        ]
        return found, scores

    def _shown(self, found: list[Sample]) -> list[Sample]:
        """Those that every validation shows, with their attention."""
        shown = found[: self._config.train.samples]
        return [replace(sample, attention=self._attention(sample)) for sample in shown]

    def _attention(self, sample: Sample) -> Attention | None:
        """That of the translation to its source."""
        pieces, target = self._tokenizer, self._tokenizer.target
        source = pieces.encode(sample.source, special=True)
        said = [target.bos_id, *target.encode(sample.output, special=False)]
        return self._heads.of([source, said], target.tokens(said), pieces.tokens(source))

    def final(self, steps: int, best_step: int) -> tuple[Row, Report]:
        """Translations of held-out sentences."""
        pairs, decode = self._held_out, self._config.decode
        outputs, scores = self._of(pairs).translate(len(pairs), decode)
        row: Row = {"of": "held-out sentences", "beam": decode.beam_size}
        row |= {"bleu": scores.bleu, "chrf": scores.chrf}
        shown = zip(pairs[:SHOWN], outputs, strict=False)
        examples = [Example(source, target, output) for (source, target), output in shown]
        return row, Report(steps, best_step, len(pairs), scores, examples)
