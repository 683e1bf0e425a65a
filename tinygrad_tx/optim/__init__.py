"""Optimizers and what goes with them: clipping, schedules, moving averages."""

from . import lr_scheduler
from .adafactor import Adafactor
from .adam import Adam, AdamW
from .ema import EMA
from .lion import Lion
from .optimizer import Optimizer, clip_grad_norm_, clip_grad_value_
from .rmsprop import Adagrad, RMSprop
from .sgd import SGD

__all__ = [
    "EMA",
    "SGD",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Lion",
    "Optimizer",
    "RMSprop",
    "clip_grad_norm_",
    "clip_grad_value_",
    "lr_scheduler",
]
