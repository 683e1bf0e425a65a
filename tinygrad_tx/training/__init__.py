"""Training: the description of a run (config.py, schema.py) and what carries it out
(trainer.py). `train(preset("tiny"), "runs/mine")` is what `tinygrad-tx train` does."""

from .config import Config, apply_overrides, dump, load, preset
from .interrupt import Stopped
from .report import Report
from .trainer import train

__all__ = [
    "Config",
    "Report",
    "Stopped",
    "apply_overrides",
    "dump",
    "load",
    "preset",
    "train",
]
