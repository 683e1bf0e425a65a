"""Checkpoints: everything that a run needs to go on as if it had never stopped, in one file each.
In: a state. Out: checkpoints/step-00000050.safetensors, and the state again. Called by the trainer
and by `average`.

A file holds Tensors (weights, optimizer, schedule, moving average, with a prefix each) and, in the
format's own metadata, JSON of everything else. So it is there whole or not at all.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tinygrad_tx import random, serialize
from tinygrad_tx.data import Batches, Dataset
from tinygrad_tx.errors import UserError
from tinygrad_tx.models.loading import weights
from tinygrad_tx.tensor import Tensor

_VERSION = 1
_KEY = "run"  # of the JSON in the metadata


@dataclass
class Window:
    """What the next training row of metrics.jsonl sums up."""

    steps: int = 0
    tokens: int = 0
    loss: float = 0.0  # summed over tokens
    skipped: int = 0  # steps with a gradient that was not finite
    lr: float = 0.0  # of the last step, as is the next
    norm: float = 0.0


@dataclass
class State:
    """Where a run is; all that the loop itself remembers."""

    step: int = 0
    tokens: int = 0  # of targets, trained on
    bad_steps: int = 0  # not finite, in a row, up to now
    validated: int = 0  # the step of the last validation
    best: list[float] = field(default_factory=list)  # its score; greater is better
    best_step: int = 0
    worse: int = 0  # validations since then
    rows: int = 0  # of metrics.jsonl
    window: Window = field(default_factory=Window)


class Stateful(Protocol):
    """What has a state of Tensors by name: modules, optimizers, schedules, moving averages."""

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


def save(path: Path, state: State, parts: Mapping[str, Stateful], batches: Batches) -> None:
    """Write a checkpoint of everything, random numbers included. UserError if that fails, and
    then the file is as it was. The part called "model" is found by `weights`."""
    tensors = {
        f"{name}.{key}": tensor
        for name, part in parts.items()
        for key, tensor in part.state_dict().items()
    }
    rest = {
        "version": _VERSION,
        "state": asdict(state),
        "random": random.get_state(),
        "batches": batches.state(),
        "data": _fingerprint(batches.dataset),
    }
    serialize.save(tensors, path, {_KEY: json.dumps(rest)})


def restore(path: Path, parts: Mapping[str, Stateful], batches: Batches) -> State:
    """Put everything back as `save` found it. UserError if the file is no checkpoint of this run,
    or if the data have changed."""
    tensors, metadata = serialize.load_with_metadata(path)
    rest = _described(path, metadata)
    if rest["data"] != _fingerprint(batches.dataset):
        raise UserError(f"the training data are not those that {path} was made with")
    for name, part in parts.items():
        prefix = f"{name}."
        own = {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
        try:
            part.load_state_dict(own)
        except UserError as error:
            raise UserError(f"{path} does not fit this run: {error}") from error
    batches.restore(rest["batches"])
    random.set_state(rest["random"])
    state = rest["state"]
    return State(**{**state, "window": Window(**state["window"])})


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


def _fingerprint(dataset: Dataset) -> int:
    """A number that differs where the training data do."""
    found = 0
    for side in (dataset.source, dataset.target):
        found = zlib.crc32(side.offsets.tobytes(), zlib.crc32(side.ids.tobytes(), found))
    return found


def _described(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        rest: dict[str, Any] = json.loads(metadata.get(_KEY, "{}"))
    except json.JSONDecodeError:
        rest = {}
    if rest.get("version") != _VERSION:
        raise UserError(f"{path} is no checkpoint that this version can go on from")
    return rest
