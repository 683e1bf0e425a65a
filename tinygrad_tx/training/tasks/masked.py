"""Masked words of a text, which a model guesses from what is around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ...creation import tensor
from ...data.text import Text
from ...data.windows import IGNORED, Ints, MaskedWindows, Windows
from ...errors import UserError
from ...nn.module import evaluating
from ...tensor import no_grad
from ..samples import LONGEST, Sample
from ..schema import Config
from .base import Counted, Measuring, Pause, Report, Row
from .language import Language, LanguageMeasuring, LanguageReport, Losses

_SHOWN = 10  # words


def windows_of(
    text: Text, tokenizer: Any, length: int, rows: int, seed: int, only_once: bool = False
) -> MaskedWindows:
    """Windows of a text, with masks of a tokenizer's."""
    mask = tokenizer.mask_id
    return MaskedWindows(
        text,
        length,
        rows,
        seed,
        only_once,
        mask_id=tokenizer.vocab_size if mask is None else mask,
        vocab_size=tokenizer.vocab_size,
        frame=tokenizer.frame,
    )


class MaskedWords(Language):
    """Windows of which some tokens are asked for."""

    def __init__(
        self, config: Config, tokenizer: Any, then: Callable[[], int | None], counted: Counted
    ) -> None:
        if not config.model.of_model().mlm:
            raise UserError(
                "model.mlm is false: a BERT without a head for masked words has nothing to learn by"
            )
        super().__init__(config, tokenizer, then, counted)

    def windows(self, text: Text, seed: int, only_once: bool = False) -> Windows:
        length = self._config.data.max_len
        return windows_of(text, self.tokenizer, length, self.rows, seed, only_once)

    def measuring(self, model: Any, pause: Pause) -> Measuring:
        return _Guesses(model, self._valid, pause, self._config, self.tokenizer)


class _Asked(NamedTuple):
    """A window (T,): its token ids, the tokens that are asked for, and those that are guessed."""

    ids: Ints
    targets: Ints
    guesses: np.ndarray[Any, np.dtype[Any]]


class _Guesses(LanguageMeasuring):
    def samples(self) -> list[Sample]:
        """Windows of the text with masked words, those words, and the guesses."""
        rows = self._asked(self._samples)
        return [self._sample(row) for row in rows if (row.targets != IGNORED).any()]

    @no_grad()
    def _asked(self, rows: int) -> list[_Asked]:
        """The first windows of the text, and what the model takes their masked words for."""
        batch = next(self.windows.once())
        ids, targets = batch.ids[:rows], batch.targets[:rows]
        with evaluating(self.model.modules()):
            guesses = self.model.logits(tensor(ids)).argmax(-1).numpy()
        return [_Asked(*found) for found in zip(ids, targets, guesses, strict=True)]

    def _sample(self, row: _Asked) -> Sample:
        asked = row.targets != IGNORED
        wanted, guessed = (
            " | ".join(self._tokenizer.tokens(found[asked][:_SHOWN].tolist()))
            for found in (row.targets, row.guesses)
        )
        ids = row.ids[:LONGEST].tolist()
        tokens = self._tokenizer.tokens(ids)
        source = " ".join(
            f"[{token}]" if hidden else token for token, hidden in zip(tokens, asked, strict=False)
        )
        return Sample(source, guessed, wanted, attention=self._heads.of([ids], tokens, tokens))

    def shown(self, found: Losses) -> Row:
        return {"valid_loss": found.loss, "perplexity": found.perplexity}

    def final(self, steps: int, best_step: int) -> tuple[Row, Report]:
        """Some masked words, and what the model takes them for."""
        found, [row] = self.losses(), self._asked(1)
        lines: list[str] = []
        for at, wanted in enumerate(row.targets):
            if wanted != IGNORED and len(lines) < _SHOWN:
                guess, word = self._tokenizer.tokens([int(row.guesses[at]), int(wanted)])
                lines.append(f"word {at:>4}: {word!r}, guessed {guess!r}")
        scores = {"of": "held-out text", **self.shown(found)}
        command = "Look at how it went by\n\n  tinygrad-tx info {model}"
        return scores, LanguageReport(steps, best_step, found, "\n".join(lines), command)
