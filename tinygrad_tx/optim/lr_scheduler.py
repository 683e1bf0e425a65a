"""Schedules: this library's own, which begin with a warmup, and beside them PyTorch's, which
epochs.py and plateau.py have. What a schedule is: see schedule.py.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING

from ..creation import where
from ..lazy import lazily
from ..tensor import Tensor
from .cycle import OneCycleLR as OneCycleLR
from .epochs import ConstantLR as ConstantLR
from .epochs import CosineAnnealingLR as CosineAnnealingLR
from .epochs import CosineAnnealingWarmRestarts as CosineAnnealingWarmRestarts
from .epochs import ExponentialLR as ExponentialLR
from .epochs import LambdaLR as LambdaLR
from .epochs import LinearLR as LinearLR
from .epochs import MultiStepLR as MultiStepLR
from .epochs import PolynomialLR as PolynomialLR
from .epochs import SequentialLR as SequentialLR
from .epochs import StepLR as StepLR
from .optimizer import Optimizer, require, require_numbers
from .plateau import ReduceLROnPlateau as ReduceLROnPlateau
from .schedule import Schedule as Schedule

LRScheduler = Schedule


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

    def rate(self, i: int, step: Tensor, base: Tensor) -> Tensor:
        return self.factor * (step**-0.5).minimum(step / self.warmup**1.5)


class InverseSqrt(Schedule):
    """Up to the group's lr in `warmup` steps, in a line; then lr * sqrt(warmup / step)."""

    def __init__(self, optimizer: Optimizer, warmup: int = 4000) -> None:
        require_numbers(warmup=warmup)
        require("InverseSqrt: warmup", warmup, warmup > 0, "positive")
        self.warmup = warmup
        super().__init__(optimizer)

    def rate(self, i: int, step: Tensor, base: Tensor) -> Tensor:
        return base * (step / self.warmup).minimum((self.warmup / step).sqrt())


class Constant(Schedule):
    """Up to the group's lr in `warmup` steps, in a line; then the same for ever."""

    def __init__(self, optimizer: Optimizer, warmup: int = 0) -> None:
        require_numbers(warmup=warmup)
        require("warmup", warmup, warmup >= 0, "0 or more")
        self.warmup = warmup
        super().__init__(optimizer)

    def rate(self, i: int, step: Tensor, base: Tensor) -> Tensor:
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

    def rate(self, i: int, step: Tensor, base: Tensor) -> Tensor:
        gone = ((step - self.warmup) / (self.total_steps - self.warmup)).clip(0.0, 1.0)
        falling = self.min_lr + (base - self.min_lr) * self.left(gone)
        return where(step < self.warmup, super().rate(i, step, base), falling)

    @abstractmethod
    def left(self, gone: Tensor) -> Tensor:
        """From 1 to 0, as the share of the steps that is gone goes from 0 to 1."""


class Linear(Falling):
    """A warmup, then a straight line down."""

    def left(self, gone: Tensor) -> Tensor:
        return 1 - gone


class Cosine(Falling):
    """A warmup, then half a cosine wave down (Loshchilov and Hutter, arXiv 1608.03983)."""

    def left(self, gone: Tensor) -> Tensor:
        return (1 + (math.pi * gone).cos()) / 2


if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__)
