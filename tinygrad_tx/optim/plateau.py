"""ReduceLROnPlateau: the learning rate falls where a number no longer gets better.

In: the number, at each step(). Out: the lr of the optimizer's groups. All that it remembers is
Tensors, and there is no `if` on a value, so step() may be part of a compiled function.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..creation import tensor, where
from ..dtypes import float64, int64
from ..errors import UserError
from ..state import KEEPERS, State, load_state
from ..tensor import Tensor, no_grad
from .optimizer import Optimizer, require, require_numbers
from .schedule import require_optimizer


class ReduceLROnPlateau:
    """Multiply the lr by factor, down to min_lr, when the number given to step() has for more than
    `patience` steps been no better than the best before; the `cooldown` steps after that do not
    count. A change of at most eps is left out.

    mode: "min" or "max", which of two numbers is the better. threshold: by how much, as a share of
    the best (threshold_mode "rel") or as it is ("abs"). min_lr: a number, or one for each group.
    best, bad, cooling: 0-d Tensors, the best number, the steps without a better one, and those of
    the cooldown that are left."""

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0.0,
        eps: float = 1e-8,
    ) -> None:
        require_optimizer("ReduceLROnPlateau", optimizer)
        require_numbers(factor=factor, patience=patience, threshold=threshold)
        require_numbers(cooldown=cooldown, eps=eps)
        require("ReduceLROnPlateau: factor", factor, factor < 1, "below 1")
        for name, value, known in (
            ("mode", mode, ("min", "max")),
            ("threshold_mode", threshold_mode, ("rel", "abs")),
        ):
            if value not in known:
                raise UserError(
                    f'ReduceLROnPlateau: {name}={value!r} must be "{known[0]}" or "{known[1]}"'
                )
        groups = len(optimizer.param_groups)
        self.min_lrs = list(min_lr) if isinstance(min_lr, (list, tuple)) else [min_lr] * groups
        if len(self.min_lrs) != groups:
            raise UserError(f"ReduceLROnPlateau: {len(self.min_lrs)} min_lr for {groups} groups")
        self.optimizer, self.mode, self.threshold_mode = optimizer, mode, threshold_mode
        self.factor, self.patience, self.threshold = factor, patience, threshold
        self.cooldown, self.eps = cooldown, eps
        device = optimizer.step_count.device
        worst = math.inf if mode == "min" else -math.inf
        self.best = tensor(worst, dtype=float64, device=device)
        self.bad = tensor(0, dtype=int64, device=device)
        self.cooling = tensor(0, dtype=int64, device=device)
        KEEPERS.add(self)

    @no_grad()
    def step(self, metrics: Tensor | float) -> None:
        """Take the number in, a Tensor of one element or a float (which a compiled function would
        be traced for), and set the lr."""
        given = metrics if isinstance(metrics, Tensor) else tensor(metrics, dtype=float64)
        now = given.detach().reshape(()).to(self.best.device, float64)
        better = self._is_better(now)
        self.best.assign(where(better, now, self.best))
        cools = self.cooling > 0
        bad = where(better | cools, 0, self.bad + 1)
        cooling = where(cools, self.cooling - 1, self.cooling)
        falls = bad > self.patience
        self.bad.assign(where(falls, 0, bad))
        self.cooling.assign(where(falls, self.cooldown, cooling))
        for i, group in enumerate(self.optimizer.param_groups):
            old = group["lr"]
            new = (old * self.factor).clip(min=self.min_lrs[min(i, len(self.min_lrs) - 1)])
            group["lr"] = where(falls & (old - new > self.eps), new, old)

    def _is_better(self, now: Tensor) -> Tensor:
        least = self.threshold if self.mode == "max" else -self.threshold
        bound = self.best * (1 + least) if self.threshold_mode == "rel" else self.best + least
        return now > bound if self.mode == "max" else now < bound

    def get_last_lr(self) -> list[float]:
        """The present lr of each group."""
        return [float(group["lr"].item()) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Tensor]:
        """ "best", "bad" and "cooling". The lr is in the optimizer's."""
        return {name: t.detach() for name, t in self._state().items()}

    def load_state_dict(self, state_dict: State) -> None:
        """Go on from a state_dict; UserError naming what does not fit."""
        load_state("ReduceLROnPlateau", self._state(), state_dict, strict=True)

    def _state(self) -> dict[str, Any]:
        return {"best": self.best, "bad": self.bad, "cooling": self.cooling}
