"""Schedules under PyTorch's names: compiled, their states, and what they refuse. Their rates are in
nn/test_torch_values.py."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

import tinygrad_tx as tx
from tinygrad_tx import nn, optim
from tinygrad_tx.errors import UserError
from tinygrad_tx.optim import lr_scheduler as s

MAKE: list[Callable[[Any], Any]] = [
    lambda o: s.LambdaLR(o, lambda epoch: 0.5**epoch),
    lambda o: s.StepLR(o, 2),
    lambda o: s.MultiStepLR(o, [1, 3]),
    lambda o: s.ExponentialLR(o, 0.5),
    lambda o: s.ConstantLR(o, 0.5, 2),
    lambda o: s.LinearLR(o, 0.5, 1.0, 3),
    lambda o: s.PolynomialLR(o, 3),
    lambda o: s.CosineAnnealingLR(o, 3),
    lambda o: s.CosineAnnealingWarmRestarts(o, 2, 2),
    lambda o: s.OneCycleLR(o, 0.5, 6),
    lambda o: s.SequentialLR(o, [s.LambdaLR(o, lambda e: 0.1), s.Cosine(o, 4)], [2]),
    lambda o: s.ReduceLROnPlateau(o, patience=0),
]


def adam() -> optim.Adam:
    return optim.Adam([nn.Parameter(tx.ones(2))], lr=0.1)


def advance(schedule: Any, metric: tx.Tensor) -> None:
    args = (metric,) if isinstance(schedule, s.ReduceLROnPlateau) else ()
    schedule.step(*args)


def test_a_compiled_step_advances_schedules_without_being_traced_again() -> None:
    eager, compiled = ([make(adam()) for make in MAKE] for _ in range(2))

    @tx.compile
    def step(metric: tx.Tensor) -> None:
        for schedule in compiled:
            advance(schedule, metric)

    for i in range(5):
        metric = tx.tensor(float(i))
        step(metric)
        for schedule in eager:
            advance(schedule, metric)
        for a, b in zip(eager, compiled, strict=True):
            assert a.get_last_lr() == pytest.approx(b.get_last_lr(), rel=1e-14), type(a).__name__
    assert step.stats()["retraces"] == 0


def test_states_go_on() -> None:
    for make in MAKE:
        first, second = make(adam()), make(adam())
        for i in range(4):
            advance(first, tx.tensor(float(i)))
        second.optimizer.load_state_dict(first.optimizer.state_dict())
        second.load_state_dict(first.state_dict())
        for schedule in (first, second):
            advance(schedule, tx.tensor(9.0))
        assert first.get_last_lr() == second.get_last_lr(), type(first).__name__


def test_last_epoch() -> None:
    optimizer = adam()
    schedule = s.StepLR(optimizer, 2)
    assert schedule.last_epoch == 0 and isinstance(schedule, s.LRScheduler)
    assert s.StepLR(optimizer, 2, last_epoch=3).get_last_lr() == pytest.approx([0.001])
    with pytest.raises(UserError, match="last_epoch=3 needs the initial_lr of each group"):
        s.StepLR(adam(), 2, last_epoch=3)


def test_a_lambda_that_asks_for_the_epoch_stays_outside() -> None:
    schedule = s.LambdaLR(adam(), lambda epoch: [1.0, 0.5, 0.25][epoch] if epoch < 3 else 0.0)
    schedule.step()
    assert schedule.get_last_lr() == [0.05]
    with pytest.raises(tx.errors.TraceError):
        tx.compile(schedule.step)()


def test_momentum_goes_against_the_rate() -> None:
    optimizer = adam()
    schedule = s.OneCycleLR(optimizer, 0.5, 10)
    (group,) = optimizer.param_groups
    found = []
    for _ in range(10):
        assert group.momentum is not None
        found.append(round(group.momentum.item(), 2))
        schedule.step()
    assert found[0] == 0.95 and min(found) == 0.85 == found[2] and found[-1] == 0.95
    assert group["betas"] == (0.95, 0.999)


WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: s.StepLR(3, 2), "StepLR: optimizer must be an Optimizer, not a int"),
    (lambda: s.StepLR(adam(), 0), "StepLR: step_size is 0; it must be positive"),
    (lambda: s.LambdaLR(adam(), [abs, abs]), "LambdaLR: 2 functions for 1 parameter groups"),
    (lambda: s.LambdaLR(adam(), 3), "lr_lambda must be a function or a list of them, not 3"),
    (lambda: s.MultiStepLR(adam(), 3), "MultiStepLR: milestones must be ints, not 3"),
    (lambda: s.OneCycleLR(adam(), 0.1), "OneCycleLR: give total_steps, or both epochs and"),
    (lambda: s.OneCycleLR(adam(), [0.1, 0.2], 5), "OneCycleLR: max_lr has 2 numbers for 1 groups"),
    (lambda: s.OneCycleLR(optim.SGD([nn.Parameter(tx.ones(1))]), 0.1, 5), "was made without"),
    (lambda: s.OneCycleLR(adam(), 0.1, 5, anneal_strategy="exp"), 'must be "cos" or "linear"'),
    (lambda: s.ReduceLROnPlateau(adam(), "low"), "mode='low' must be \"min\" or \"max\""),
    (lambda: s.ReduceLROnPlateau(adam(), factor=1.0), "factor is 1.0; it must be below 1"),
    (lambda: s.SequentialLR(adam(), [], []), "0 schedules want one milestone less, not 0"),
    (lambda: s.SequentialLR(adam(), [s.StepLR(adam(), 2)], []), "StepLR is of another optimizer"),
    (lambda: s.SequentialLR(adam(), [s.ReduceLROnPlateau(adam())], []), "of steps alone, not"),
    (lambda: s.SequentialLR(adam(), [s.OneCycleLR(adam(), 0.1, 5)], []), "without cycle_momentum"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), WRONG)
def test_errors(call: Callable[[], Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        call()
