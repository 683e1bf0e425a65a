"""Training: the description of a run (config.py, schema.py) and what carries it out
(trainer.py). `train(preset("tiny"), "runs/mine")` is what `tinygrad-tx train` does."""

from tinygrad_tx.training.config import Config, apply_overrides, dump, load, preset
from tinygrad_tx.training.interrupt import Stopped
from tinygrad_tx.training.report import Report
from tinygrad_tx.training.trainer import train

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
