"""Validation of a model: its loss on held-out pairs, and BLEU and chrF of its translations. In: a
model, in either mode. Out: numbers. Called by the trainer; nothing of the training's state, random
numbers included, is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .. import compiler
from ..data import Batches, Dataset
from ..data.batches import round_up
from ..decoding import Translator
from ..models.encoder_decoder import EncoderDecoder
from ..nn.module import evaluating
from ..tensor import Tensor, no_grad
from ..tokenizer import Tokenizer
from .corpus import Pair
from .metrics import Scores, score
from .schema import DecodeConfig
from .step import tensors


def longest_measured(max_tokens: int, positions: int | None) -> int:
    """The most tokens, end token included, of a pair that is measured. positions: the model's, if
    they are learned."""
    longest = round_up(max_tokens - 1)
    return longest if positions is None else min(longest, positions - positions % 2)


class Validation:
    """Pairs to measure a model with, tokenized once.

    pause: called between batches; what it raises ends a measurement.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        tokenizer: Tokenizer,
        model: EncoderDecoder,
        batches: Batches,
        pause: Callable[[], None],
    ) -> None:
        most = longest_measured(batches.max_tokens, model.config.n_positions)
        dataset = Dataset.from_pairs(pairs, tokenizer, most)
        # Batches as large as those of training, unless these are too few and short for a pair.
        size = max(
            *(shape.rows * max(shape[1:]) for shape in batches.shapes),
            *(round_up(int(side.lengths.max()) + 1) for side in (dataset.source, dataset.target)),
        )
        self._batches = Batches(dataset, size, shuffle=False, shapes=batches.shapes)
        self._model, self._tokenizer = model, tokenizer
        longest = model.config.max_len - 1  # and its end token
        self.pairs = [p for p in pairs if len(tokenizer.encode(p[0], special=False)) <= longest]
        self._pause = pause
        self._loss = compiler.compile(self._eager_loss)

    @no_grad()
    def loss(self) -> float:
        """The mean over all target tokens, in nats, without label smoothing."""
        total = n_tokens = 0.0
        with evaluating(self._model.modules()):
            for batch in self._batches.once():
                self._pause()
                total += self._loss(*tensors(batch)).item() * batch.n_tokens
                n_tokens += batch.n_tokens
        return total / n_tokens

    def translate(self, n: int, decode: DecodeConfig) -> tuple[list[str], Scores]:
        """The first n sources, by the search that `decode` asks for, and how good that is."""
        sources, references = zip(*self.pairs[:n], strict=True)
        translator = Translator(
            self._model,
            self._tokenizer,
            decode.beam_size,
            decode.length_penalty,
            decode.max_extra_tokens,
            decode.batch_size,
        )
        found = [
            best[0].text for best in translator.n_best(sources, progress=lambda _: self._pause())
        ]
        return found, score(found, references)

    def _eager_loss(self, src: Tensor, tgt_in: Tensor, tgt_out: Tensor) -> Tensor:
        return self._model.loss(src, tgt_in, tgt_out)
