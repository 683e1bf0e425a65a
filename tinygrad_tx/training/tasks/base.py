"""Task: the part of a run that depends on what is learnt. In: a configuration, and the run's
tokenizer if it has one. Out: batches, what a step is given of them, and measurements. The trainer
knows no more of a task than this.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

from ...data.epochs import Epochs
from ...tensor import Tensor
from ..progress import Counted
from ..samples import Row, Seen
from ..schema import Config

__all__ = ["Counted", "Measuring", "Pause", "Report", "Row", "Seen", "Task"]

Pause = Callable[[], None]  # called between batches; what it raises ends a measurement


class Report(Protocol):
    """What is said of a finished run."""

    @property
    def file(self) -> str:
        """The name of the file that has it, in the run's directory."""

    def text(self) -> str:
        """All of it."""

    def next_step(self, model: str) -> str:
        """What can be done with the model in a directory: a sentence, and a command."""


class Measuring(ABC):
    """Measurements of a model, in evaluation mode. Nothing of the training's state, random numbers
    included, is touched."""

    @abstractmethod
    def seen(self) -> Seen:
        """What is measured at each validation: valid_loss in nats, not smoothed, and more; and what
        the model makes of some sentences."""

    @abstractmethod
    def final(self, steps: int, best_step: int) -> tuple[Row, Report]:
        """What is measured at the end, of the best weights, and the report of the run."""


class Task(ABC):
    """The data of a run. tokenizer: the run's, learnt where it had none."""

    tokenizer: Any
    batches: Epochs[Any, Any]  # endless; each has n_tokens, that a loss is the mean of

    @abstractmethod
    def __init__(
        self, config: Config, tokenizer: Any, then: Callable[[], int | None], counted: Counted
    ) -> None:
        """UserError if the run cannot be trained with its data.

        tokenizer: None if one is to be learnt. then: gives the fingerprint of the data that the run
        was begun with, if it was.
        """

    @abstractmethod
    def summary(self) -> str:
        """One line: how much there is to train on."""

    @abstractmethod
    def inputs(self, batch: Any) -> tuple[Tensor, ...]:
        """What the model's loss takes of a batch, on the default device."""

    @abstractmethod
    def measuring(self, model: Any, pause: Pause) -> Measuring:
        """Measurements of a model."""
