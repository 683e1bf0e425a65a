"""What a machine is said to take: loads of launches, the fit, and timed runs of a plan."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx import nn
from tinygrad_tx.compiler.inspect.loads import KINDS, Load, loads
from tinygrad_tx.compiler.inspect.machine import (
    Machine,
    Sample,
    fitted,
    positive,
    samples,
    shared,
)
from tinygrad_tx.compiler.inspect.timeline import Timeline
from tinygrad_tx.compiler.run.execution import Execution


def test_loads_say_what_launches_do() -> None:
    model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.LayerNorm(32))
    f = tx.compile(lambda x: model(x).sum(0))
    f(tx.ones(64, 16))
    run = f._plan()
    assert isinstance(run, Execution)
    found = [dict(zip(KINDS, x.amounts, strict=True)) for w in run.plan.waves() for x in loads(w)]
    assert all(x["launch"] == 1 <= x["task"] for x in found)
    assert all((x["near"] > 0) + (x["middle"] > 0) + (x["far"] > 0) == 1 for x in found)
    assert sum(x["product"] for x in found) == 2 * 64 * 16 * 32
    assert sum(x["product out"] for x in found) == 64 * 32
    gelu = sum(x["function"] for x in found)
    assert gelu >= 64 * 32 and gelu % (64 * 32) == 0  # erf of each element
    assert sum(x["column op"] for x in found) > 0


def test_a_fit_finds_what_was_planted() -> None:
    rng = np.random.default_rng(0)
    amounts = rng.uniform(0, 1, (60, 4))
    costs = np.array([2.0, 0.0, 0.5, 3.0])
    np.testing.assert_allclose(positive(amounts, amounts @ costs), costs, atol=1e-3)
    away = positive(amounts, amounts @ np.array([1.0, -0.5, 1.0, 1.0]))
    assert away.min() == 0.0 == away[1]

    cost = dict.fromkeys(KINDS, 0.0) | {"product": 2e-9, "launch": 1e-6, "far": 1e-10}
    waves = []
    for _ in range(40):
        load = dict.fromkeys(KINDS, 0.0) | {"launch": 1.0, "product": rng.uniform(1e3, 1e6)}
        load["far"] = rng.uniform(1e6, 1e8)
        busy = sum(cost[kind] * load[kind] for kind in KINDS)
        tasks = int(rng.integers(1, 9))
        one = Load(tuple(load.values()), tasks, 1)
        waves.append(Sample((one,), (busy,), busy * shared(one, 2) + 5e-6))
    seconds, wave = fitted(waves, 2)
    assert seconds["product"] == pytest.approx(2e-9, rel=0.02)
    assert wave == pytest.approx(5e-6, rel=0.02)
    machine = Machine("", 2, seconds, wave, 1e-3, 1e-6, 1.0, 1.0, 1.0)
    for sample in waves:
        assert machine.launch(sample.loads[0]) == pytest.approx(sample.seconds, rel=0.05)
    slow = machine.slower(2)
    assert slow.launch(waves[0].loads[0]) == pytest.approx(2 * machine.launch(waves[0].loads[0]))
    assert (slow.step, slow.bytes) == (2e-3, 1.0)


@pytest.mark.parametrize(
    "tasks, threads, part", [(1, 2, 1.0), (2, 2, 0.5), (3, 2, 2 / 3), (8, 4, 0.25)]
)
def test_the_busiest_thread_counts(tasks: int, threads: int, part: float) -> None:
    assert shared(Load((), tasks, 1), threads) == pytest.approx(part)


def test_any_run_can_be_timed() -> None:
    f = tx.compile(lambda x: (x @ x).relu().sum())
    timelines: list[Timeline] = []
    for i in range(6):
        run = f._last
        if i > 3:
            assert isinstance(run, Execution)
            run.timing = True
        f(tx.ones(32, 32))
        if i > 3:
            assert isinstance(run, Execution) and run.timeline is not None and not run.timing
            timelines.append(run.timeline)
    assert [timeline.run for timeline in timelines] == [5, 6]
    run = f._plan()
    assert isinstance(run, Execution)
    found = samples(run, timelines)
    assert len(found) == len(run.plan.waves())
    assert all(s.seconds > 0 and len(s.busy) == len(s.loads) for s in found)
    assert run.timed is not None and run.timed.run == 3  # explain() has that one
