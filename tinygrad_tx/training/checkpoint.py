"""Checkpoints: everything that a run needs to go on as if it had never stopped, in one file each.
In: a state. Out: checkpoints/step-00000050.safetensors, and the state again. Called by the trainer
and by `average`.

A file holds Tensors (weights, optimizer, schedule, moving average, with a prefix each) and, in the
format's own metadata, JSON of everything else. So it is there whole or not at all, and its checksum
(serialize.py) is of all of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .. import random, serialize
from ..data.epochs import Epochs
from ..errors import DamagedError, DeviceError, UserError
from ..models.loading import weights
from ..tensor import Tensor

if TYPE_CHECKING:
    from .step import Outcome

_KEY = "run"  # of the JSON in the metadata


@dataclass
class Window:
    """The sums of the next training row of metrics.jsonl."""

    steps: int = 0
    tokens: int = 0
    loss: float = 0.0  # summed over tokens, as is the next
    plain: float = 0.0  # without label smoothing
    skipped: int = 0  # steps with a gradient that was not finite
    lr: float = 0.0  # of the last step, as is the next
    norm: float = 0.0


@dataclass
class State:
    """The position of a run: all state of the loop itself."""

    step: int = 0
    tokens: int = 0  # of targets, trained on
    bad_steps: int = 0  # not finite, in a row, up to now
    validated: int = 0  # the step of the last validation
    best: list[float] = field(default_factory=list)  # its score; greater is better
    best_step: int = 0
    worse: int = 0  # validations since then
    rows: int = 0  # of metrics.jsonl
    window: Window = field(default_factory=Window)

    def add(self, outcome: Outcome, n_tokens: int) -> None:
        """A step is done, or left out where its gradient was not finite."""
        window = self.window
        self.step += 1
        self.tokens += n_tokens
        self.bad_steps = 0 if outcome.finite else self.bad_steps + 1
        window.steps += 1
        if outcome.finite:
            window.tokens += n_tokens
            window.loss += outcome.loss * n_tokens
            window.plain += outcome.plain * n_tokens
        else:
            window.skipped += 1
        window.lr, window.norm = outcome.lr, outcome.norm


class Stateful(Protocol):
    """Objects with a state of Tensors by name: modules, optimizers, schedules, moving averages."""

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> object: ...


class HasState(Protocol):
    """What a checkpoint is made of."""

    def state_dict(self) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class Held:
    """A state that was asked for before."""

    state: dict[str, Tensor]

    def state_dict(self) -> dict[str, Tensor]:
        return self.state


def save(
    path: Path,
    state: State,
    parts: Mapping[str, HasState],
    batches: Epochs[Any, Any],
    config: Mapping[str, Any] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a checkpoint of everything, random numbers included. UserError if that fails, and
    then the file is as it was. The part called "model" is found by `weights`.

    config: the run's configuration, as a dict. metadata: text that goes with the weights.
    """
    tensors = {
        f"{name}.{key}": tensor
        for name, part in parts.items()
        for key, tensor in part.state_dict().items()
    }
    rest = {
        "version": serialize.FORMAT,
        "config": config or {},
        "state": asdict(state),
        "random": random.get_state(),
        "batches": batches.state(),
        "data": batches.fingerprint,
    }
    serialize.save(tensors, path, {**(metadata or {}), _KEY: json.dumps(rest)})


def restore(
    path: Path,
    parts: Mapping[str, Stateful],
    batches: Epochs[Any, Any],
    check: Callable[[Mapping[str, Any], Mapping[str, str]], None] = lambda config, metadata: None,
) -> State:
    """Put everything back as `save` found it. DamagedError if the file is no whole checkpoint of
    this run, UserError if the data have changed.

    check: is given what `save` was, config ({} in files of the first format) and metadata, before
    anything is put back, and raises what it finds wrong.
    """
    tensors, metadata = serialize.load_with_metadata(path)
    rest = _described(path, metadata)
    check(rest.get("config", {}), metadata)
    if rest["data"] != batches.fingerprint:
        raise UserError(f"the training data are not those that {path} was made with")
    for name, part in parts.items():
        prefix = f"{name}."
        own = {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
        try:
            part.load_state_dict(own)
        except UserError as error:
            raise DamagedError(f"{path} does not fit this run: {error}") from error
    batches.restore(rest["batches"])
    try:
        random.set_state(rest["random"])
    except (ValueError, TypeError, OverflowError, DeviceError) as error:
        raise DamagedError(f"{path} is no checkpoint that this version can go on from") from error
    state = rest["state"]
    return State(**{**state, "window": Window(**_window(state["window"]))})


def data_of(paths: Sequence[Path]) -> int | None:
    """The fingerprint of the data that the newest of these checkpoints that can be read was made
    with; None if there is none."""
    for path in reversed(paths):
        with suppress(UserError):
            found: int = _described(path, serialize.load_with_metadata(path)[1])["data"]
            return found
    return None


def average(paths: Sequence[Path]) -> dict[str, np.ndarray[Any, Any]]:
    """The mean of the weights in several checkpoints (or model files), summed in float64."""
    total: dict[str, np.ndarray[Any, Any]] = {}
    for path in paths:
        loaded = {name: tensor.numpy() for name, tensor in weights(path).items()}
        shapes = {name: array.shape for name, array in loaded.items()}
        if total and shapes != {name: array.shape for name, array in total.items()}:
            raise UserError(f"{path} and {paths[0]} are not of the same model")
        for name, array in loaded.items():
            total[name] = total.get(name, 0) + array.astype(np.float64)
    return {name: (t / len(paths)).astype(loaded[name].dtype) for name, t in total.items()}


def _described(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The JSON in the metadata, with everything in it that `restore` takes."""
    try:
        rest: dict[str, Any] = json.loads(metadata.get(_KEY, "{}"))
        serialize.require_format(rest.get("version"), path)
        state, window = rest["state"], rest["state"]["window"]
        whole = (
            _holds(State, {**state, "window": None, "best": None})
            and _holds(Window, _window(window))
            and all(map(_is_number, state["best"]))
            and all(type(rest["batches"][key]) is int for key in ("epoch", "position"))
            and isinstance(rest["random"], dict)
            and type(rest["data"]) is int
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        if isinstance(error, UserError) and not isinstance(error, DamagedError):
            raise
        whole = False
    if not whole:
        raise DamagedError(f"{path} is no checkpoint that this version can go on from")
    return rest


def _window(values: Mapping[str, Any]) -> dict[str, Any]:
    """A window; those of older versions have no sum of plain losses, which is then not known."""
    return {"plain": float("nan") if values.get("steps") else 0.0, **values}


def _holds(kind: type, values: Mapping[str, Any]) -> bool:
    """True if these are the fields of a dataclass, and numbers where those are."""
    kinds = {"int": lambda value: type(value) is int, "float": _is_number}
    return {f.name for f in fields(kind)} == values.keys() and all(
        kinds[f.type](values[f.name]) for f in fields(kind) if f.type in kinds
    )


def _is_number(value: object) -> bool:
    return type(value) in (int, float)
