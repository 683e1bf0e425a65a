"""Translation as bulk work, with or without references to be scored by.

In: lines, or pairs of them. Out: lines of translation, and what BLEU and chrF are made of. Called
by `translate` and `evaluate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..decoding import Translator
from ..errors import UserError
from ..models.encoder_decoder import EncoderDecoder
from ..models.loading import directory_of, is_pretrained
from ..training.metrics import Scores
from ..training.run import RunDirectory
from ..training.schema import DecodeConfig
from .chunks import Chunk, Do, Result
from .model import ModelAt


@dataclass(frozen=True)
class Translating:
    """Lines of translation; n_best above 1: that many for each line, with its number and the score.

    beam, length_penalty: None is what the run's configuration says. seed: of what is drawn.
    """

    model: ModelAt
    beam: int | None = None
    length_penalty: float | None = None
    n_best: int = 1
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def open(self) -> Do:
        return self.using(self.translator())

    def translator(self) -> Translator:
        """The model, read, and how it searches. UserError for one that does not translate."""
        found = replace(
            translator_of(self.model, self.beam, self.length_penalty),
            num_return_sequences=self.n_best,
            do_sample=self.do_sample,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
        )
        if not self.do_sample and self.n_best > found.beam_size:
            found = replace(found, beam_size=self.n_best)
        return found

    def using(self, translator: Translator) -> Do:
        """The function that does it with a translator that has been read."""

        def do(chunk: Chunk) -> Result:
            with self.model.computing():
                if self.do_sample:
                    self._draw_from(chunk.full)
                found = translator.n_best(chunk.rows, first_line=chunk.first)
            lines = [
                f"{text}\n" if self.n_best == 1 else f"{at}\t{score:.4f}\t{text}\n"
                for at, translations in enumerate(found, chunk.first)
                for text, score in translations
            ]
            return Result("".join(lines))

        return do

    def _draw_from(self, line: int) -> None:
        """What is drawn next is what one process draws after so many lines."""
        from .. import random
        from ..decoding import sampling

        random.manual_seed(self.seed)
        sampling.skip(line)


@dataclass(frozen=True)
class Evaluating:
    """Translations of the first lines of pairs; their sums are how many pairs there are, and the
    counts of BLEU and chrF by the second lines."""

    translating: Translating
    lowercase: bool = False

    @property
    def beam_size(self) -> int:
        """That of the search."""
        chosen = self.translating
        return chosen.beam or decode_of(chosen.model.path).beam_size

    def open(self) -> Do:
        return self.using(self.translating.translator())

    def using(self, translator: Translator) -> Do:
        """The function that does it with a translator that has been read."""
        metrics = _metrics(self.lowercase)

        def do(chunk: Chunk) -> Result:
            sources, references = ([row[i] for row in chunk.rows] for i in (0, 1))
            with self.translating.model.computing():
                found = translator.n_best(sources, first_line=chunk.first)
            texts = [best[0].text for best in found]
            counts = [n for metric in metrics for n in _counted(metric, texts, references)]
            return Result("".join(f"{text}\n" for text in texts), (len(texts), *counts))

        return do

    def score(self, sums: Sequence[float]) -> Scores:
        """Corpus BLEU and chrF2 of all chunks, whose sums were added up."""
        metrics = _metrics(self.lowercase)
        values, at = [], 1
        for metric in metrics:
            size = len(_counted(metric, [""], [""]))
            values.append(metric._aggregate_and_compute([list(sums[at : at + size])]).score)
            at += size
        return Scores(*values, *(str(metric.get_signature()) for metric in metrics))


def _metrics(lowercase: bool) -> tuple[Any, Any]:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    return BLEU(lowercase=lowercase, force=True), CHRF(lowercase=lowercase)


def _counted(metric: Any, texts: Sequence[str], references: Sequence[str]) -> list[float]:
    """What a metric counts of n-grams and lengths, added up."""
    # The first half of corpus_score(), which has no public name; the other one begins by adding up.
    rows = metric._extract_corpus_statistics(list(texts), [list(references)])
    return [sum(column) for column in zip(*rows, strict=True)]


def decode_of(model: str) -> DecodeConfig:
    """How a run's configuration says to search; that of a pretrained model is a beam of 4."""
    if is_pretrained(Path(model)):
        return DecodeConfig(beam_size=4)
    return RunDirectory(directory_of(Path(model))).config().decode


def translator_of(model: ModelAt, beam: int | None, length_penalty: float | None) -> Translator:
    """A run's model, to search as its configuration says unless told otherwise."""
    decode = decode_of(model.path)
    found, tokenizer = model.load()
    if not isinstance(found, EncoderDecoder):
        raise UserError(
            f"{model.path} holds a {type(found).__name__}, which does not translate; `tinygrad-tx "
            "info` says what it is"
        )
    if tokenizer is None:
        raise UserError(f"{model.path} has no tokenizer, so no ids can be made of a text")
    return Translator(
        found,
        tokenizer,
        beam or decode.beam_size,
        decode.length_penalty if length_penalty is None else length_penalty,
        decode.max_extra_tokens,
        decode.batch_size,
    )
