"""OneCycleLR: the learning rate up, and down far below where it began, and the momentum against it
(Smith and Topin, arXiv 1708.07120)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..creation import tensor, where
from ..dtypes import float64
from ..errors import UserError
from ..rules import whole
from ..tensor import Tensor, no_grad
from .optimizer import Optimizer, require, require_numbers
from .schedule import Schedule, require_optimizer

Ends = tuple[float, str, str]  # of a phase: its last epoch, and what it goes from and to


class OneCycleLR(Schedule):
    """From max_lr / div_factor up to max_lr in the first share pct_start of total_steps (or of
    epochs * steps_per_epoch), then down to that start divided by final_div_factor; three_phase:
    down to the start in as many steps as up, and then on. After total_steps it stays.

    anneal_strategy: "cos", half a cosine wave each, or "linear". cycle_momentum: the momentum, or
    the first of betas, from max_momentum to base_momentum and back; what it is at the moment stands
    in group.momentum, for group["momentum"] is the option. max_lr, base_momentum, max_momentum: a
    number, or one for each group."""

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.85,
        max_momentum: float | Sequence[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        require_optimizer("OneCycleLR", optimizer)
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise UserError("OneCycleLR: give total_steps, or both epochs and steps_per_epoch")
            total_steps = whole("OneCycleLR: epochs", epochs) * whole(
                "OneCycleLR: steps_per_epoch", steps_per_epoch
            )
        self.total_steps = whole("OneCycleLR: total_steps", total_steps)
        require("OneCycleLR: total_steps", total_steps, total_steps > 0, "positive")
        require_numbers(
            pct_start=pct_start, div_factor=div_factor, final_div_factor=final_div_factor
        )
        require("OneCycleLR: pct_start", pct_start, 0 <= pct_start <= 1, "between 0 and 1")
        if anneal_strategy not in ("cos", "linear"):
            raise UserError(
                f'OneCycleLR: anneal_strategy={anneal_strategy!r} must be "cos" or "linear"'
            )
        self.anneal_strategy = anneal_strategy
        self.final_div_factor = final_div_factor
        up, last = pct_start * total_steps - 1, float(total_steps - 1)
        self._phases: list[Ends] = [(up, "start", "top"), (last, "top", "end")]
        if three_phase:
            back = 2 * pct_start * total_steps - 2
            self._phases[1:] = [(back, "top", "start"), (last, "start", "end")]
        self.optimizer, groups = optimizer, optimizer.param_groups
        self.max_lrs = _each("max_lr", max_lr, len(groups))
        for group, rate in zip(groups, self.max_lrs, strict=True):
            if last_epoch < 0:
                group["lr"] = rate / div_factor
                group["initial_lr"] = group["lr"].detach()
        self.sets_momentum = cycle_momentum
        if cycle_momentum:
            self._use_momentum(base_momentum, max_momentum)
        super().__init__(optimizer, last_epoch)

    def _use_momentum(self, low: float | Sequence[float], high: float | Sequence[float]) -> None:
        groups = self.optimizer.param_groups
        lows, highs = (
            _each("base_momentum", low, len(groups)),
            _each("max_momentum", high, len(groups)),
        )
        self._momenta = list(zip(lows, highs, strict=True))
        for group, most in zip(groups, highs, strict=True):
            if not group.get("betas") and not group.get("momentum"):
                raise UserError(
                    f"OneCycleLR: this {type(self.optimizer).__name__} was made without momentum "
                    "and has no betas; write cycle_momentum=False"
                )
            if "betas" in group:
                group["betas"] = (most, *group["betas"][1:])
            else:
                group["momentum"] = most
            group.momentum = tensor(most, dtype=float64, device=self.optimizer.step_count.device)

    @no_grad()
    def _set(self) -> None:
        super()._set()
        if self.sets_momentum:
            step = self.step_count.to(float64)
            for group, (low, high) in zip(self.optimizer.param_groups, self._momenta, strict=False):
                if group.momentum is not None:
                    group.momentum.assign(self._between(step, start=high, top=low, end=high))

    def rate(self, i: int, step: Tensor, base: Tensor) -> Tensor:
        top = self.max_lrs[min(i, len(self.max_lrs) - 1)]  # a group may have been added
        return self._between(step, start=base, top=top, end=base / self.final_div_factor)

    def _between(self, step: Tensor, **at: Tensor | float) -> Tensor:
        """What a step has of what is `at` the ends of the phases."""
        epoch, begin = step - 1, 0.0
        found: Tensor | None = None
        for end, a, b in self._phases:
            gone = (
                ((epoch - begin) / (end - begin)).clip(0.0, 1.0) if end > begin else epoch * 0 + 1
            )
            if self.anneal_strategy == "cos":
                here = at[b] + (at[a] - at[b]) / 2 * ((math.pi * gone).cos() + 1)
            else:
                here = at[a] + (at[b] - at[a]) * gone
            found = here if found is None else where(epoch > begin, here, found)
            begin = end
        assert found is not None
        return found


def _each(name: str, given: float | Sequence[float], groups: int) -> list[float]:
    """A number for each group."""
    several = list(given) if isinstance(given, Sequence) else [given] * groups
    for one in several:
        require_numbers(**{name: one})
    if len(several) != groups:
        raise UserError(f"OneCycleLR: {name} has {len(several)} numbers for {groups} groups")
    return several
