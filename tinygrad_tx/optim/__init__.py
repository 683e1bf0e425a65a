"""Optimizers and what goes with them: clipping, schedules, moving averages, loss scaling."""

from typing import TYPE_CHECKING

from ..lazy import lazily
from .adam import Adam, AdamW
from .optimizer import Optimizer, clip_grad_norm_, clip_grad_value_
from .sgd import SGD

if TYPE_CHECKING:
    from . import lr_scheduler
    from .adafactor import Adafactor
    from .ema import EMA
    from .grad_scaler import GradScaler
    from .groups import parameter_groups
    from .lion import Lion
    from .rmsprop import Adagrad, RMSprop
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "adafactor": "Adafactor",
            "ema": "EMA",
            "grad_scaler": "GradScaler",
            "groups": "parameter_groups",
            "lion": "Lion",
            "lr_scheduler": "",
            "rmsprop": "Adagrad RMSprop",
        },
    )

__all__ = [
    "EMA",
    "SGD",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "GradScaler",
    "Lion",
    "Optimizer",
    "RMSprop",
    "clip_grad_norm_",
    "clip_grad_value_",
    "lr_scheduler",
    "parameter_groups",
]
