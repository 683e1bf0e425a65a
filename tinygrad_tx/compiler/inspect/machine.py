"""A machine as it was measured: the seconds that its kernels take for what is asked of them.

In: launches that were timed, with their Loads. Out: a Machine, which makes times of the Loads of
others. Called by training/calibration.py and `tinygrad-tx plan`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ..run.execution import Execution
from .loads import KINDS, Load, loads
from .timeline import Timeline

Numbers = np.ndarray[Any, np.dtype[np.float64]]
_ROUNDS = 3000  # of descent


class Sample(NamedTuple):
    """A wave that was timed. loads, busy: of each of its launches, the seconds of all threads;
    seconds: of the wave."""

    loads: tuple[Load, ...]
    busy: tuple[float, ...]
    seconds: float


@dataclass(frozen=True)
class Machine:
    """name: of the processor; threads: that ran. seconds: of one thread, for one of each of KINDS;
    wave: what a wave takes beside its launches; step, tensor: what a step takes beside its waves,
    and for each Tensor that it reads. bytes, launch_bytes: what a process has beside its Tensors,
    and for each launch of its plan; making_bytes: where it makes code."""

    name: str
    threads: int
    seconds: Mapping[str, float]
    wave: float
    step: float
    tensor: float
    bytes: float
    launch_bytes: float
    making_bytes: float

    def launch(self, load: Load) -> float:
        """The seconds that a launch adds to a step."""
        costs = (
            self.seconds[kind] * amount for kind, amount in zip(KINDS, load.amounts, strict=True)
        )
        return sum(costs) * shared(load, self.threads) + self.wave / load.launches

    def slower(self, times: float) -> Machine:
        """One that takes so many times as long for everything."""
        seconds = {kind: times * cost for kind, cost in self.seconds.items()}
        wave, step, tensor = times * self.wave, times * self.step, times * self.tensor
        return replace(self, seconds=seconds, wave=wave, step=step, tensor=tensor)


def shared(load: Load, threads: int) -> float:
    """The part of the work of a wave that its busiest thread does."""
    return -(-load.tasks // threads) / load.tasks


def samples(run: Execution, timelines: Sequence[Timeline]) -> list[Sample]:
    """The waves of a plan that was timed several times: the least times, for whatever else is at
    work on a machine only adds to them. Loops are left out, for nobody knows their parts."""
    found = []
    busy = [timeline.busy() for timeline in timelines]
    for i, wave in enumerate(run.plan.waves()):
        if wave[0].loop or wave[0].opaque:
            continue
        took = min(timeline.seconds[i] for timeline in timelines)
        spent = tuple(min(b.get(x, 0.0) for b in busy) for x in wave)
        found.append(Sample(tuple(loads(wave)), spent, took))
    return found


def fitted(found: Sequence[Sample], threads: int) -> tuple[dict[str, float], float]:
    """What explains the samples best: the seconds of one of each of KINDS, and of a wave."""
    rows = [(load.amounts, t) for s in found for load, t in zip(s.loads, s.busy, strict=True) if t]
    amounts, times = np.array([x for x, _ in rows]), np.array([t for _, t in rows])
    seconds = positive(amounts, times)
    per = dict(zip(KINDS, seconds.tolist(), strict=True))
    rest = []
    for sample in found:
        work = sum(sample.busy)
        rest.append(sample.seconds - work * shared(sample.loads[0], threads))
    return per, max(float(np.median(rest)), 0.0)


def positive(amounts: Numbers, wanted: Numbers) -> Numbers:
    """The numbers, none below 0, by which the amounts add up to what is wanted, with the least sum
    of squared relative errors; large ones weigh more than small ones, by the root of their size.

    Lawson and Hanson solve this exactly; coordinate descent comes as near as anybody needs."""
    weight = np.sqrt(wanted) / wanted
    a, b = amounts * weight[:, None], wanted * weight
    scale = np.linalg.norm(a, axis=0)
    used = scale > 0
    a = a[:, used] / scale[used]
    gram, target = a.T @ a, a.T @ b
    x = np.zeros(a.shape[1])
    for _ in range(_ROUNDS):
        for j in range(len(x)):
            x[j] = max(0.0, x[j] + (target[j] - gram[j] @ x) / gram[j, j])
    found = np.zeros(amounts.shape[1])
    found[used] = x / scale[used]
    return found
