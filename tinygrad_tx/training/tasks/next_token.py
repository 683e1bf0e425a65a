"""The next token of a text: perplexity, bits per byte, and a continuation at the end."""

from __future__ import annotations

from typing import Any

from ...data.text import Text
from ...data.windows import Windows
from ...decoding import generate
from ..samples import LONGEST, Sample
from .base import Measuring, Pause, Report, Row
from .language import Language, LanguageMeasuring, LanguageReport, Losses

_SHOWN = 200  # tokens of a continuation
_SAMPLED = 32  # of one at each validation


class NextToken(Language):
    """Windows, each with the tokens that follow."""

    def windows(self, text: Text, seed: int, only_once: bool = False) -> Windows:
        return Windows(text, self._config.data.max_len, self.rows, seed, only_once)

    def measuring(self, model: Any, pause: Pause) -> Measuring:
        return _Perplexity(model, self._valid, pause, self._config, self.tokenizer)


class _Perplexity(LanguageMeasuring):
    def samples(self) -> list[Sample]:
        """Places of the text, spread over it, and how the model goes on from each: drawn at random,
        by the same numbers each time."""
        ids, length = self.windows.text.ids, self.windows.length
        n = min(self._samples, max(1, len(ids) // length))
        starts = [i * len(ids) // n for i in range(n)]
        prompts = [[int(t) for t in ids[at : at + max(1, length // 4)]] for at in starts]
        drawn = self._drawn(prompts, _SAMPLED)
        return [
            self._sample(prompt, tokens, [int(t) for t in ids[at + len(prompt) :][: len(tokens)]])
            for at, prompt, tokens in zip(starts, prompts, drawn, strict=True)
        ]

    def _sample(self, prompt: list[int], drawn: list[int], real: list[int]) -> Sample:
        decode = self._tokenizer.decode
        seen = [*prompt, *drawn][: min(LONGEST, self.windows.length)]
        tokens = self._tokenizer.tokens(seen)
        attention = self._heads.of([seen], tokens, tokens)
        return Sample(decode(prompt), decode(drawn), decode(real), attention=attention)

    def _drawn(self, prompts: list[list[int]], most: int) -> list[list[int]]:
        """What the model goes on with, from each of some prompts."""
        room = self.model.room(max(map(len, prompts)))
        most = min(most, room) if room is not None else most
        found = generate(
            self.model, prompts, max_new_tokens=most, do_sample=True, temperature=0.8, seed=0
        )
        return [list(best.tokens) for [best] in found]

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
        [drawn] = self._drawn([prompt], _SHOWN)
        said = f"{self._tokenizer.decode(prompt)} ...\n\n{self._tokenizer.decode(drawn)}"
        row = {"of": "held-out text", **self.shown(found)}
        command = 'Go on with a text by\n\n  tinygrad-tx generate --model {model} --prompt "..."'
        return row, LanguageReport(steps, best_step, found, said, command)
