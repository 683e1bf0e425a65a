"""BLEU and chrF, by sacreBLEU. In: translations and their references. Out: Scores. Called by
validation and by `evaluate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scores:
    """Both from 0 to 100, with the signatures that say how they were computed."""

    bleu: float
    chrf: float
    bleu_signature: str
    chrf_signature: str

    def __str__(self) -> str:
        return (
            f"BLEU {self.bleu:.2f}  {self.bleu_signature}\n"
            f"chrF {self.chrf:.2f}  {self.chrf_signature}"
        )


def chrf_of_each(translations: Sequence[str], references: Sequence[str]) -> list[float]:
    """chrF2 of each sentence by itself."""
    from sacrebleu.metrics.chrf import CHRF

    chrf = CHRF()
    return [
        chrf.sentence_score(translation, [reference]).score
        for translation, reference in zip(translations, references, strict=True)
    ]


def score(
    translations: Sequence[str], references: Sequence[str], lowercase: bool = False
) -> Scores:
    """Corpus BLEU (Papineni et al. 2002, tokenized as 13a) and chrF2 (Popović 2015)."""
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    bleu, chrf = BLEU(lowercase=lowercase, force=True), CHRF(lowercase=lowercase)
    bleu_score = bleu.corpus_score(translations, [references]).score
    chrf_score = chrf.corpus_score(translations, [references]).score
    return Scores(bleu_score, chrf_score, str(bleu.get_signature()), str(chrf.get_signature()))
