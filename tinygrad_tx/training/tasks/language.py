"""What the tasks on running text have in common: its tokens, windows of it, and losses."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from ... import compiler
from ...creation import tensor
from ...data.text import Text
from ...data.windows import WindowBatch, Windows
from ...errors import UserError
from ...nn.module import evaluating
from ...tensor import Tensor, no_grad
from ..samples import Heads, Sample
from ..schema import Config
from ..texts import load_texts
from .base import Counted, Measuring, Pause, Row, Seen, Task


class Losses(NamedTuple):
    """The loss over a text. loss: nats a token; n_tokens: that were asked for; n_bytes: of the
    text."""

    loss: float
    n_tokens: int
    n_bytes: int

    @property
    def perplexity(self) -> float:
        """e to the loss."""
        return math.exp(min(self.loss, 700))

    @property
    def bits_per_byte(self) -> float:
        """Of the text as UTF-8, whatever the tokens are."""
        return self.loss * self.n_tokens / math.log(2) / max(self.n_bytes, 1)


def tensors(batch: WindowBatch) -> tuple[Tensor, ...]:
    """ids, targets and, of several documents, bounds of a batch, on the default device."""
    found = tensor(batch.ids), tensor(batch.targets)
    return found if batch.bounds is None else (*found, tensor(batch.bounds))


class Language(Task):
    """Windows of a text."""

    batches: Windows

    def __init__(
        self,
        config: Config,
        tokenizer: Any,
        then: Callable[[], int | None],
        counted: Counted,
    ) -> None:
        self._config = config
        self.tokenizer, self._data, valid = load_texts(config, tokenizer, counted)
        self.batches = self.windows(self._data, config.train.seed)
        self._valid = self.windows(valid, 0, only_once=True)
        if not any(batch.n_tokens for batch in self._valid.once()):
            raise UserError(
                f"the held-out text has {len(valid.ids)} tokens, too few to be measured; give "
                "a longer text, or --valid-text FILE"
            )

    @abstractmethod
    def windows(self, text: Text, seed: int, only_once: bool = False) -> Windows:
        """Batches of a text."""

    def summary(self) -> str:
        return self._data.summary()

    def inputs(self, batch: Any) -> tuple[Tensor, ...]:
        return tensors(batch)

    @property
    def rows(self) -> int:
        """Windows in a batch."""
        data = self._config.data
        return max(1, data.max_tokens // data.max_len)


class LanguageMeasuring(Measuring):
    """The loss over the held-out text, as much of it as data.valid_tokens says, and samples."""

    def __init__(
        self, model: Any, windows: Windows, pause: Pause, config: Config, tokenizer: Any
    ) -> None:
        self.model, self.windows, self._pause = model, windows, pause
        self._most, self._samples = config.data.valid_tokens, config.train.samples
        self._tokenizer, self._heads = tokenizer, Heads(model, across=False)
        self._loss = compiler.compile(lambda *batch: model.loss(*batch))

    def losses(self) -> Losses:
        """Those over data.valid_tokens of its beginning, whose bytes are taken to be spread evenly;
        of 0, over all."""
        text, total, n_tokens, n_read, share = self.windows.text, 0.0, 0, 0, 1.0
        with evaluating(self.model.modules()), no_grad():
            for batch in self.windows.once():
                self._pause()
                total += self._loss(*tensors(batch)).item() * batch.n_tokens
                n_tokens, n_read = n_tokens + batch.n_tokens, n_read + batch.ids.size
                if 0 < self._most <= n_read < len(text.ids):
                    share = n_read / len(text.ids)
                    break
        return Losses(total / max(n_tokens, 1), n_tokens, round(text.n_bytes * share))

    def seen(self) -> Seen:
        row = self.shown(self.losses())
        with suppress(UserError):  # of a model that has diverged, whose loss says so
            return Seen(row, self.samples() if self._samples else ())
        return Seen(row)

    @abstractmethod
    def samples(self) -> list[Sample]:
        """What the model makes of some places of the held-out text."""

    @abstractmethod
    def shown(self, found: Losses) -> Row:
        """A row of metrics.jsonl."""


@dataclass(frozen=True)
class LanguageReport:
    """steps: of training, best_step: whose weights were kept. losses: over the held-out text. said:
    what else there is to show."""

    steps: int
    best_step: int
    losses: Losses
    said: str
    command: str  # with {model} for the directory

    file = "samples.txt"

    def text(self) -> str:
        """The whole report."""
        found = self.losses
        of = f"{found.n_tokens:,} held-out tokens, weights of step {self.best_step}:"
        scores = f"loss {found.loss:.4f} nats a token  perplexity {found.perplexity:.2f}"
        return f"{self.said}\n\n{of}\n{scores}"

    def next_step(self, model: str) -> str:
        return self.command.format(model=model)
