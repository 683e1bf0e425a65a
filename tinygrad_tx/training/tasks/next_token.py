"""The next token of a text: perplexity, bits per byte, and a continuation at the end."""

from __future__ import annotations

from typing import Any

from ...data.text import Text
from ...data.windows import Windows
from ...decoding import generate
from .base import Measuring, Pause, Report, Row
from .language import Language, LanguageMeasuring, LanguageReport, Losses

_SHOWN = 200  # tokens of a continuation


class NextToken(Language):
    """Windows, each with the tokens that follow."""

    def windows(self, text: Text, seed: int, only_once: bool = False) -> Windows:
        return Windows(text, self._config.data.max_len, self.rows, seed, only_once)

    def measuring(self, model: Any, pause: Pause) -> Measuring:
        most = self._config.data.valid_tokens
        return _Perplexity(model, self._valid, pause, most, self.tokenizer)


class _Perplexity(LanguageMeasuring):
    def __init__(
        self, model: Any, windows: Windows, pause: Pause, most: int, tokenizer: Any
    ) -> None:
        super().__init__(model, windows, pause, most)
        self._tokenizer = tokenizer

    def shown(self, found: Losses) -> Row:
        return {
            "valid_loss": found.loss,
            "perplexity": found.perplexity,
            "bits_per_byte": found.bits_per_byte,
        }

    def final(self, steps: int, best_step: int) -> tuple[Row, Report]:
        """The continuation of the held-out text's beginning, drawn at random."""
        found = self.losses()
        prompt = [int(i) for i in self.windows.text.ids[: self.windows.length // 4 or 1]]
        room = self.model.room(len(prompt))
        most = min(_SHOWN, room) if room is not None else _SHOWN
        [[drawn]] = generate(
            self.model, [prompt], max_new_tokens=most, do_sample=True, temperature=0.8, seed=0
        )
        said = f"{self._tokenizer.decode(prompt)} ...\n\n{self._tokenizer.decode(drawn.tokens)}"
        row = {"of": "held-out text", **self.shown(found)}
        command = 'Go on with a text by\n\n  tinygrad-tx generate --model {model} --prompt "..."'
        return row, LanguageReport(steps, best_step, found, said, command)
