"""Optimizers and what goes with them: clipping, schedules, moving averages."""

from . import lr_scheduler
from .adam import Adam, AdamW
from .ema import EMA
from .optimizer import Optimizer, clip_grad_norm_
from .sgd import SGD

__all__ = ["EMA", "SGD", "Adam", "AdamW", "Optimizer", "clip_grad_norm_", "lr_scheduler"]
