"""Schedules under PyTorch's names, whose count starts at 0: what they call an epoch is a step().

PyTorch computes most of them from the lr before; here each is a function of the count, so that an
lr that is set by hand counts until the next step() only. last_epoch: the schedule goes on behind
it; load_state_dict() does so, too.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..arguments import shown
from ..context import current_trace
from ..creation import tensor, where
from ..dtypes import float64
from ..errors import UserError
from ..rules import whole
from ..tensor import Tensor
from .optimizer import Optimizer, require, require_numbers
from .schedule import Schedule, require_optimizer


class LambdaLR(Schedule):
    """The group's lr times lr_lambda(epoch), or lr_lambda[i](epoch) for group i.

    Eager, epoch is an int. In a compiled step it is a 0-d float64 Tensor, for the function is
    traced once: write it with Tensor functions there (`tx.where`, `.minimum`, `.clip`), or call
    step() outside of the compiled function, which sees the new lr without being traced again."""

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[Any], Any] | Sequence[Callable[[Any], Any]],
        last_epoch: int = -1,
    ) -> None:
        require_optimizer("LambdaLR", optimizer)
        groups = len(optimizer.param_groups)
        several = [lr_lambda] * groups if callable(lr_lambda) else lr_lambda
        if not isinstance(several, (list, tuple)) or not all(map(callable, several)):
            raise TypeError(
                f"LambdaLR: lr_lambda must be a function or a list of them, not {shown(lr_lambda)}"
            )
        self.lr_lambdas = list(several)
        if len(self.lr_lambdas) != groups:
            given = len(self.lr_lambdas)
            raise UserError(f"LambdaLR: {given} functions for {groups} parameter groups")
        super().__init__(optimizer, last_epoch)

    def rate(self, i: int, step: Tensor, base: Tensor) -> Tensor:
        f = self.lr_lambdas[min(i, len(self.lr_lambdas) - 1)]  # a group may have been added
        epoch = step - 1
        rate: Tensor = base * f(int(epoch.item()) if current_trace() is None else epoch)
        return rate


class StepLR(Schedule):
    """The lr times gamma after every step_size epochs."""

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        require_numbers(step_size=step_size, gamma=gamma)
        require("StepLR: step_size", step_size, step_size > 0, "positive")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def rate(self, i: int, step: Tensor, base: Tensor) -> Tensor:
        return base * self.gamma ** ((step - 1) / self.step_size).floor()


class MultiStepLR(Schedule):
    """The lr times gamma at each of the milestones, which are epochs."""

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Iterable[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        require_numbers(gamma=gamma)
        if not isinstance(milestones, Iterable):
            raise TypeError(f"MultiStepLR: milestones must be ints, not {shown(milestones)}")
        self.milestones = sorted(whole("MultiStepLR: a milestone", m) for m in milestones)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def rate(self, i: int, step: Tensor, base: Tensor) -> Tensor:
        milestones = tensor(self.milestones, dtype=float64, device=step.device)
        return base * self.gamma ** (milestones < step).sum().to(float64)


class ExponentialLR(Schedule):
    """The lr times gamma at each epoch."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        require_numbers(gamma=gamma)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def rate(self, i: int, step: Tensor, base: Tensor) -> Tensor:
        return base * self.gamma ** (step - 1)


class ConstantLR(Schedule):
    """The lr times factor, until epoch total_iters."""

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 1.0 / 3,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        require_numbers(factor=factor, total_iters=total_iters)
        require("ConstantLR: factor", factor, 0 <= factor <= 1, "between 0 and 1")
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer, last_epoch)

    def rate(self, i: int, step: Tensor, base: Tensor) -> Tensor:
        return where(step <= self.total_iters, base * self.factor, base)


class LinearLR(Schedule):
    """The lr times a factor that goes in a line from start_factor to end_factor, which it has from
    epoch total_iters on."""

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        require_numbers(start_factor=start_factor, end_factor=end_factor, total_iters=total_iters)
        require("LinearLR: start_factor", start_factor, 0 < start_factor <= 1, "above 0, at most 1")
        require("LinearLR: end_factor", end_factor, 0 <= end_factor <= 1, "between 0 and 1")
        self.start_factor, self.end_factor = start_factor, end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def rate(self, i: int, step: Tensor, base: Tensor) -> Tensor:
        gone = _gone(step, self.total_iters)
        return base * (self.start_factor + (self.end_factor - self.start_factor) * gone)


class PolynomialLR(Schedule):
    """The lr times (1 - epoch / total_iters)^power, 0 from epoch total_iters on."""

    def __init__(
        self,
        optimizer: Optimizer,
        total_iters: int = 5,
        power: float = 1.0,
        last_epoch: int = -1,
    ) -> None:
        require_numbers(total_iters=total_iters, power=power)
        self.total_iters, self.power = total_iters, power
        super().__init__(optimizer, last_epoch)

    def rate(self, i: int, step: Tensor, base: Tensor) -> Tensor:
        return base * (1 - _gone(step, self.total_iters)) ** self.power


def _gone(step: Tensor, total: int) -> Tensor:
    """The share of the epochs that is over, at most 1."""
    return ((step - 1) / max(total, 1)).clip(max=1.0)


class CosineAnnealingLR(Schedule):
    """Half a cosine wave from the lr to eta_min in T_max epochs, then up again, and so on."""

    def __init__(
        self,
        optimizer: Optimizer,
        T_max: int,  # noqa: N803
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        require_numbers(T_max=T_max, eta_min=eta_min)
        require("CosineAnnealingLR: T_max", T_max, T_max > 0, "positive")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def rate(self, i: int, step: Tensor, base: Tensor) -> Tensor:
        return _wave((step - 1) / self.T_max, base, self.eta_min)


class CosineAnnealingWarmRestarts(Schedule):
    """Half a cosine wave from the lr to eta_min in T_0 epochs, then anew from the lr, each time in
    T_mult times as many (Loshchilov and Hutter, arXiv 1608.03983)."""

    def __init__(
        self,
        optimizer: Optimizer,
        T_0: int,  # noqa: N803
        T_mult: int = 1,  # noqa: N803
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        name = "CosineAnnealingWarmRestarts"
        self.T_0, self.T_mult = whole(f"{name}: T_0", T_0), whole(f"{name}: T_mult", T_mult)
        require_numbers(eta_min=eta_min)
        require(f"{name}: T_0", T_0, T_0 > 0, "positive")
        require(f"{name}: T_mult", T_mult, T_mult > 0, "positive")
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def rate(self, i: int, step: Tensor, base: Tensor) -> Tensor:
        gone = (step - 1) / self.T_0  # in lengths of the first wave
        if self.T_mult == 1:
            return _wave(gone - gone.floor(), base, self.eta_min)
        # Wave n begins at (T_mult^n - 1) / (T_mult - 1); what is added stands for rounding errors,
        # and is less than an epoch.
        n = (((self.T_mult - 1) * gone + 1).log() / math.log(self.T_mult) + 1e-10).floor()
        length = self.T_mult**n
        return _wave((gone - (length - 1) / (self.T_mult - 1)) / length, base, self.eta_min)


def _wave(gone: Tensor, base: Tensor, low: float) -> Tensor:
    return low + (base - low) * (1 + (math.pi * gone).cos()) / 2


class SequentialLR(Schedule):
    """Several schedules one after the other: schedulers[i] from epoch milestones[i - 1] on, where
    its own count starts at 0. They are made first, of the same optimizer, and step() is called on
    this one alone."""

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[Schedule],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:
        self.schedulers = list(schedulers)
        self.milestones = [whole("SequentialLR: a milestone", m) for m in milestones]
        for one in self.schedulers:
            if not isinstance(one, Schedule) or one.sets_momentum:
                kind = "without cycle_momentum" if isinstance(one, Schedule) else "of steps alone"
                raise UserError(f"SequentialLR takes schedules {kind}, not {type(one).__name__}")
            if one.optimizer is not optimizer:
                raise UserError(f"SequentialLR: {type(one).__name__} is of another optimizer")
        if not self.schedulers or len(self.milestones) != len(self.schedulers) - 1:
            raise UserError(
                f"SequentialLR: {len(self.schedulers)} schedules want one milestone less, not "
                f"{len(self.milestones)}"
            )
        super().__init__(optimizer, last_epoch)

    def rate(self, i: int, step: Tensor, base: Tensor) -> Tensor:
        starts = [0, *self.milestones]
        if current_trace() is None:
            at = bisect_right(self.milestones, int(step.item()) - 1)
            return self.schedulers[at].rate(i, step - starts[at], base)
        rate = self.schedulers[0].rate(i, step, base)
        for one, start in zip(self.schedulers[1:], self.milestones, strict=True):
            later = one.rate(i, (step - start).clip(min=1.0), base)
            rate = where(step > start, later, rate)
        return rate
