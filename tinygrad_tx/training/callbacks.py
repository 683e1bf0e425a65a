"""Callbacks: functions of a user's that a run calls after steps, validations and checkpoints.

In: objects with some of the methods of Callback. Out: calls of them, each with an Event. What one
raises ends the run: everything is saved, and the error names the callback. Called by trainer.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..mistakes import near
from ..nn import Module

MOMENTS = ("on_step", "on_validation", "on_checkpoint")


@dataclass(frozen=True)
class Event:
    """What has just happened, at the end of a step.

    step: the number of steps so far. model: the one that is trained, to be looked at. run: the
    run's directory. values: of a step its loss, lr, grad_norm, tokens, and finite (False where it
    was skipped); of a validation what metrics.jsonl has of it. path: of a checkpoint its file.
    """

    step: int
    model: Module
    run: Path
    values: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None


class Callback:
    """The base of callbacks; any object with some of these methods is one. training.Stopped, raised
    in one, ends the run as Ctrl-C does, with everything saved."""

    def on_step(self, event: Event) -> None:
        """After each step."""

    def on_validation(self, event: Event) -> None:
        """After each validation."""

    def on_checkpoint(self, event: Event) -> None:
        """After a checkpoint has been written."""


class CallbackError(UserError):
    """A callback has raised an error, which is this one's cause."""


class Callbacks:
    """Those of a run. TypeError for what is none."""

    def __init__(self, given: Sequence[Any], model: Module, run: Path) -> None:
        require(given)
        self._given, self._model, self._run = tuple(given), model, run

    @property
    def any(self) -> bool:
        """True if there are some."""
        return bool(self._given)

    def tell(
        self, moment: str, step: int, values: Mapping[str, Any], path: Path | None = None
    ) -> None:
        """Call those that have a method for it; CallbackError where one raises an error."""
        for callback in self._given:
            method = getattr(callback, moment, None)
            if method is None:
                continue
            try:
                method(Event(step, self._model, self._run, dict(values), path))
            except Exception as error:
                said = " ".join(str(error).split())
                raise CallbackError(
                    f"callback {_name(callback)}.{moment} at step {step}: {type(error).__name__}"
                    f"{f': {said}' if said else ''}"
                ) from error


def require(given: Any) -> None:
    """TypeError where something given is no callback, with what was meant."""
    if not isinstance(given, (list, tuple)):
        raise TypeError(f"train: callbacks must be a list, not a {type(given).__name__}")
    for callback in given:
        name = _name(callback)
        if isinstance(callback, type):
            raise TypeError(f"train: callback {name} is a class: give an object of it, {name}()")
        wrong = [n for n in dir(callback) if n.startswith("on_") and n not in MOMENTS]
        if wrong:
            raise TypeError(f"train: callback {name} has {wrong[0]}{near(wrong[0], MOMENTS)}")
        if not any(callable(getattr(callback, moment, None)) for moment in MOMENTS):
            raise TypeError(f"train: {name} is no callback: it has none of {', '.join(MOMENTS)}")


def _name(callback: Any) -> str:
    return getattr(callback, "__name__", type(callback).__name__)
