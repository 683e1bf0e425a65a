"""Schedules: the learning rate as a function of the step, counted from 1.

In: an optimizer. Out: the lr of its groups, set at construction for step 1 and by each step() for
the next one: call it after optimizer.step(). The count is a Tensor and the rate is computed from it
by Tensor ops, so a compiled step advances the schedule without being traced again.

A group's lr before any schedule is kept as its "initial_lr", as in PyTorch, and in both the
optimizer's state and the schedule's: so it matters in no order whether states are loaded or
schedules made first.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from ..creation import tensor, where
from ..dtypes import float64, int64
from ..state import State, load_state, require_state
from ..tensor import Tensor, no_grad
from .optimizer import Optimizer, require, require_numbers


class Schedule(ABC):
    """Base of the schedules. step_count: 0-d int64 Tensor, the step that the present lr is for."""

    def __init__(self, optimizer: Optimizer) -> None:
        if not isinstance(optimizer, Optimizer):
            kind = type(optimizer).__name__
            raise TypeError(f"{type(self).__name__}: optimizer must be an Optimizer, not a {kind}")
        self.optimizer = optimizer
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"].detach())
        self.step_count = tensor(1, dtype=int64, device=optimizer.step_count.device)
        self._set()

    def step(self) -> None:
        """Set the lr of the step that comes next."""
        self.step_count.assign(self.step_count + 1)
        self._set()

    @no_grad()
    def _set(self) -> None:
        step = self.step_count.to(float64)
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(step, group["initial_lr"])

    @abstractmethod
    def _rate(self, step: Tensor, base: Tensor) -> Tensor:
        """The lr of a step, a 0-d float64 Tensor of 1, 2, ...; base is the group's lr as made."""

    def state_dict(self) -> dict[str, Tensor]:
        """ "step", and the lr of each group before any schedule as "initial_lr.{group}"."""
        return {name: t.detach() for name, t in self._state().items()}

    def load_state_dict(self, state_dict: State) -> None:
        """Go on from a state_dict, and set the lr of its step. Where it holds no "initial_lr" (it
        did not always), the optimizer's own counts."""
        state, targets = state_dict, self._state()
        require_state(type(self).__name__, state)
        if not any(name.startswith("initial_lr.") for name in state):
            targets = {"step": self.step_count}
        load_state(type(self).__name__, targets, state, strict=True)
        self._set()

    def _state(self) -> dict[str, Tensor]:
        groups = enumerate(self.optimizer.param_groups)
        return {
            "step": self.step_count,
            **{f"initial_lr.{i}": group["initial_lr"] for i, group in groups},
        }


class Noam(Schedule):
    """scale * d_model^-0.5 * min(step^-0.5, step * warmup^-1.5): section 5.3 of arXiv 1706.03762.
    The groups' own lr plays no part."""

    def __init__(
        self, optimizer: Optimizer, d_model: int, warmup: int = 4000, scale: float = 1.0
    ) -> None:
        require_numbers(d_model=d_model, warmup=warmup, scale=scale)
        require("Noam: d_model", d_model, d_model > 0, "positive")
        require("Noam: warmup", warmup, warmup > 0, "positive")
        self.warmup, self.factor = warmup, scale / math.sqrt(d_model)
        super().__init__(optimizer)

    def _rate(self, step: Tensor, base: Tensor) -> Tensor:
        return self.factor * (step**-0.5).minimum(step / self.warmup**1.5)


class InverseSqrt(Schedule):
    """Up to the group's lr in `warmup` steps, in a line; then lr * sqrt(warmup / step)."""

    def __init__(self, optimizer: Optimizer, warmup: int = 4000) -> None:
        require_numbers(warmup=warmup)
        require("InverseSqrt: warmup", warmup, warmup > 0, "positive")
        self.warmup = warmup
        super().__init__(optimizer)

    def _rate(self, step: Tensor, base: Tensor) -> Tensor:
        return base * (step / self.warmup).minimum((self.warmup / step).sqrt())


class Constant(Schedule):
    """Up to the group's lr in `warmup` steps, in a line; then the same for ever."""

    def __init__(self, optimizer: Optimizer, warmup: int = 0) -> None:
        require_numbers(warmup=warmup)
        require("warmup", warmup, warmup >= 0, "0 or more")
        self.warmup = warmup
        super().__init__(optimizer)

    def _rate(self, step: Tensor, base: Tensor) -> Tensor:
        return base * (step / max(self.warmup, 1)).clip(max=1.0)


class Falling(Constant):
    """Base of the schedules that, after the warmup, fall from the group's lr to min_lr at
    total_steps, and stay there."""

    def __init__(
        self, optimizer: Optimizer, total_steps: int, warmup: int = 0, min_lr: float = 0.0
    ) -> None:
        require_numbers(total_steps=total_steps, warmup=warmup, min_lr=min_lr)
        require("total_steps", total_steps, total_steps > warmup, f"more than warmup, {warmup}")
        self.total_steps, self.min_lr = total_steps, min_lr
        super().__init__(optimizer, warmup)

    def _rate(self, step: Tensor, base: Tensor) -> Tensor:
        gone = ((step - self.warmup) / (self.total_steps - self.warmup)).clip(0.0, 1.0)
        falling = self.min_lr + (base - self.min_lr) * self._left(gone)
        return where(step < self.warmup, super()._rate(step, base), falling)

    @abstractmethod
    def _left(self, gone: Tensor) -> Tensor:
        """From 1 to 0, as the share of the steps that is gone goes from 0 to 1."""


class Linear(Falling):
    """A warmup, then a straight line down."""

    def _left(self, gone: Tensor) -> Tensor:
        return 1 - gone


class Cosine(Falling):
    """A warmup, then half a cosine wave down (Loshchilov and Hutter, arXiv 1608.03983)."""

    def _left(self, gone: Tensor) -> Tensor:
        return (1 + (math.pi * gone).cos()) / 2
