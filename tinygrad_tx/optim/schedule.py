"""Schedule: the base of the schedules, the learning rate as a function of the step, counted from 1.

In: an optimizer. Out: the lr of its groups, set at construction for step 1 and by each step() for
the next one: call it after optimizer.step(). The count is a Tensor and the rate is computed from it
by Tensor ops, so a compiled step advances the schedule without being traced again.

A group's lr before any schedule is kept as its "initial_lr", as in PyTorch, and in both the
optimizer's state and the schedule's: so it matters in no order whether states are loaded or
schedules made first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from ..creation import tensor
from ..dtypes import float64, int64
from ..errors import UserError
from ..rules import whole
from ..state import KEEPERS, State, load_state, require_state
from ..tensor import Tensor, no_grad
from .optimizer import Optimizer, adopt


def require_optimizer(name: str, optimizer: Any) -> None:
    if not isinstance(optimizer, Optimizer):
        kind = type(optimizer).__name__
        raise TypeError(f"{name}: optimizer must be an Optimizer, not a {kind}")


class Schedule(ABC):
    """Base of the schedules. step_count: 0-d int64 Tensor, the step that the present lr is for.
    sets_momentum: whether it sets more than the lr."""

    sets_momentum = False

    def __init_subclass__(cls) -> None:
        adopt(cls, {"_rate": "rate"})

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        require_optimizer(type(self).__name__, optimizer)
        self.optimizer = optimizer
        last_epoch = whole(f"{type(self).__name__}: last_epoch", last_epoch)
        for group in optimizer.param_groups:
            if last_epoch >= 0 and "initial_lr" not in group:
                raise UserError(
                    f"{type(self).__name__}: last_epoch={last_epoch} needs the initial_lr of each "
                    "group: load the state of an optimizer that had a schedule first"
                )
            group.setdefault("initial_lr", group["lr"].detach())
        self.step_count = tensor(
            max(last_epoch, -1) + 2, dtype=int64, device=optimizer.step_count.device
        )
        KEEPERS.add(self)
        self._set()

    @property
    def last_epoch(self) -> int:
        """The steps before the one that the present lr is for: 0, 1, ..."""
        return int(self.step_count.item()) - 1

    def get_last_lr(self) -> list[float]:
        """The present lr of each group."""
        return [float(group["lr"].item()) for group in self.optimizer.param_groups]

    def step(self) -> None:
        """Set the lr of the step that comes next."""
        self.step_count.assign(self.step_count + 1)
        self._set()

    @no_grad()
    def _set(self) -> None:
        step = self.step_count.to(float64)
        for i, group in enumerate(self.optimizer.param_groups):
            group["lr"] = self.rate(i, step, group["initial_lr"])

    @abstractmethod
    def rate(self, i: int, step: Tensor, base: Tensor) -> Tensor:
        """The lr of group i at a step, a 0-d float64 Tensor of 1, 2, ...; base: its lr as made."""

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
