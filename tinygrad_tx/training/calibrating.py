"""A process that takes some steps of training and says what they took: for calibration.py, which
starts it as `python -m tinygrad_tx.training.calibrating WORK`.

In: a work, as JSON: its table; with "timed": true, its waves are timed as well. Out, on standard
output: JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from statistics import median
from typing import Any

import numpy as np

from ..autocast import named
from ..backends.cpu import library
from ..backends.cpu.run.team import get_num_threads
from ..compiler import compile
from ..compiler.inspect.machine import samples
from ..compiler.inspect.timeline import Timeline
from ..compiler.run.execution import Execution
from ..creation import tensor
from ..errors import UserError
from ..tensor import Tensor
from .profile import peak_bytes
from .works import begin

_WARM, _LEAST, _MOST, _SECONDS = 2, 3, 15, 3.0  # steps; seconds after which there are enough


def measure(table: Mapping[str, Any]) -> dict[str, Any]:
    """Steps of a work: their seconds, the memory of the process, and what the waves took."""
    _, step = begin(table, named(table.get("precision", "fp32")))
    compiled, inputs = compile(step), _batch(table)
    for _ in range(_WARM):
        compiled(*inputs).item()
    run = compiled._plan()
    if not isinstance(run, Execution):
        raise UserError(f"this machine cannot be measured: {run.why}")
    seconds: list[float] = []
    rest: list[float] = []
    timelines: list[Timeline] = []
    until = time.perf_counter() + _SECONDS
    while len(seconds) < _LEAST or (len(seconds) < _MOST and time.perf_counter() < until):
        run.timing = bool(table.get("timed"))
        start = time.perf_counter()
        compiled(*inputs).item()
        seconds.append(time.perf_counter() - start)
        if table.get("timed") and run.timeline is not None:
            timelines.append(run.timeline)
            rest.append(seconds[-1] - run.timeline.total)
    return {
        "seconds": median(seconds),
        "least": min(seconds),
        "rest": min(rest, default=0.0),
        "peak": peak_bytes(),
        "made": library.stats()["compiled"],
        "threads": get_num_threads(),
        "launches": len(run.plan.launches()),
        "tensors": len(run.traced.inputs),
        "samples": samples(run, timelines) if timelines else [],
    }


def _batch(table: Mapping[str, Any]) -> list[Tensor]:
    """Words in no order, none of them special where there are pairs."""
    rng, pairs = np.random.default_rng(0), table["kind"] != "gpt"
    shape = (table["batch"], table["length"])
    ids = [rng.integers(4 if pairs else 0, table["vocab"], shape) for _ in range(2 + pairs)]
    return [tensor(x) for x in ids]


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
