"""The forecast of a run on this machine: what a step and an epoch will take, and what memory; and
what it was for the batches of a run. In: a configuration, a Machine that was measured, the data.
Out: a Forecast; a Profile that says how far off it was. Called by `tinygrad-tx plan` and training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from .. import backends
from ..compiler.inspect.machine import Machine
from ..errors import NativeUnavailable
from . import outlook
from .calibration import known
from .profile import Profile, weighed
from .progress import Counted
from .schema import Config
from .tasks import TASKS

_BATCHES = 300  # of an epoch, whose shapes are looked at
_PLANNED = 3  # shapes that are put on paper
Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Forecast:
    """steps: of an epoch; seconds: of a step, the mean of an epoch; peak_bytes: of the process with
    its data, for the largest batch, without what validating takes; shapes: how many shapes batches
    have."""

    steps: int
    seconds: float
    peak_bytes: float
    shapes: int

    @property
    def epoch(self) -> float:
        """The seconds of an epoch's steps."""
        return self.steps * self.seconds


def forecast(
    config: Config,
    machine: Machine,
    *,
    precision: str = "fp32",
    vocab: int | None = None,
    counted: Counted = lambda what, n, unit: None,
) -> Forecast:
    """That of a run, whose data are read. counted: told how far that is. UserError as training
    raises it."""
    config.require_data()
    task, data = weighed(TASKS[config.model.task], config, None, lambda: None, counted)
    epoch = task.batches.batches_per_epoch
    found = Counter(
        _shapes(task.inputs(batch)) for batch in islice(task.batches, min(epoch, _BATCHES))
    )
    total = found.total()
    by_size = sorted(found, key=_positions)
    chosen = [by_size[round(i)] for i in np.linspace(0, len(by_size) - 1, _PLANNED)]
    vocab = vocab or task.tokenizer.vocab_size
    options: dict[str, Any] = {"precision": precision, "vocab": vocab, "here": True}
    planned = [outlook.of_config(config, shapes=s, **options) for s in dict.fromkeys(chosen)]
    sizes = [_positions(shapes) for shapes in dict.fromkeys(chosen)]
    times = [o.on(machine) for o in planned]
    seconds = sum(n * np.interp(_positions(s), sizes, times) for s, n in found.items()) / total
    steps = -(-epoch // config.optim.accumulate)
    peak = data + max(o.memory_on(machine, len(found)) for o in planned)
    return Forecast(steps, float(seconds), peak, len(found))


def expecting(config: Config, profile: Profile) -> Profile:
    """The profile with what is predicted for its most frequent batches, as far as it is of this
    machine, and that was measured."""
    machine = known() if profile.device == backends.devices()[0] and profile.shapes else None
    if machine is None or profile.threads != machine.threads:
        return profile
    options: dict[str, Any] = {"precision": config.train.precision, "here": True}
    try:
        found = outlook.of_config(config, vocab=profile.vocab, shapes=profile.shapes, **options)
    except NativeUnavailable:
        return profile
    peak = found.memory_on(machine, profile.plans, profile.made) + profile.data_bytes
    return replace(profile, expected=found.on(machine), expected_bytes=peak)


def _shapes(inputs: Sequence[Any]) -> Shapes:
    return tuple(x.shape for x in inputs)


def _positions(shapes: Shapes) -> int:
    return sum(int(np.prod(shape)) for shape in shapes)
