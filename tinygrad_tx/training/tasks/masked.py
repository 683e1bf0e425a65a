"""Masked words of a text, which a model guesses from what is around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...creation import tensor
from ...data.text import Text
from ...data.windows import IGNORED, MaskedWindows, Windows
from ...errors import UserError
from ...nn.module import evaluating
from ...tensor import no_grad
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
        most = self._config.data.valid_tokens
        return _Guesses(model, self._valid, pause, most, self.tokenizer)


class _Guesses(LanguageMeasuring):
    def __init__(
        self, model: Any, windows: Windows, pause: Pause, most: int, tokenizer: Any
    ) -> None:
        super().__init__(model, windows, pause, most)
        self._tokenizer = tokenizer

    def shown(self, found: Losses) -> Row:
        return {"valid_loss": found.loss, "perplexity": found.perplexity}

    @no_grad()
    def final(self, steps: int, best_step: int) -> tuple[Row, Report]:
        """Some masked words, and what the model takes them for."""
        found, batch = self.losses(), next(self.windows.once())
        with evaluating(self.model.modules()):
            guesses = self.model.logits(tensor(batch.ids[:1])).argmax(-1).numpy()[0]
        lines: list[str] = []
        for at, wanted in enumerate(batch.targets[0]):
            if wanted != IGNORED and len(lines) < _SHOWN:
                guess, word = self._tokenizer.tokens([int(guesses[at]), int(wanted)])
                lines.append(f"word {at:>4}: {word!r}, guessed {guess!r}")
        row = {"of": "held-out text", **self.shown(found)}
        command = "Look at how it went by\n\n  tinygrad-tx info {model}"
        return row, LanguageReport(steps, best_step, found, "\n".join(lines), command)
