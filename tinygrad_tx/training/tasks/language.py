"""What the tasks on running text have in common: its tokens, windows of it, and losses."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ... import compiler
from ...creation import tensor
from ...data.text import Text
from ...data.windows import WindowBatch, Windows
from ...nn.module import evaluating
from ...tensor import Tensor, no_grad
from ..schema import Config
from ..texts import load_texts
from .base import Counted, Measuring, Pause, Row, Task


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


def measured(
    model: Any, windows: Windows, loss: Callable[..., Tensor], pause: Pause = lambda: None
) -> Losses:
    """The loss of a model over all of a text, in evaluation mode."""
    total, n_tokens = 0.0, 0
    with evaluating(model.modules()), no_grad():
        for batch in windows.once():
            pause()
            total += loss(*tensors(batch)).item() * batch.n_tokens
            n_tokens += batch.n_tokens
    return Losses(total / max(n_tokens, 1), n_tokens, windows.text.n_bytes)


def tensors(batch: WindowBatch) -> tuple[Tensor, Tensor]:
    """ids and targets of a batch, on the default device."""
    return tensor(batch.ids), tensor(batch.targets)


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
    """The loss over the held-out text."""

    def __init__(self, model: Any, windows: Windows, pause: Pause) -> None:
        self.model, self.windows, self._pause = model, windows, pause
        self._loss = compiler.compile(lambda ids, targets: model.loss(ids, targets))

    def losses(self) -> Losses:
        """All of them."""
        return measured(self.model, self.windows, self._loss, self._pause)

    def row(self) -> Row:
        return self.shown(self.losses())

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
