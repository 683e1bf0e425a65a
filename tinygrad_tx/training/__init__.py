"""Training: the description of a run (config.py, schema.py) and what carries it out
(trainer.py). `train(preset("tiny"), "runs/mine")` is what `tinygrad-tx train` does."""

from typing import TYPE_CHECKING

from ..lazy import lazily

if TYPE_CHECKING:
    from .callbacks import Callback, Event
    from .config import Config, apply_overrides, dump, load, preset
    from .interrupt import Stopped
    from .report import Report
    from .trainer import train
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "callbacks": "Callback Event",
            "config": "Config apply_overrides dump load preset",
            "interrupt": "Stopped",
            "report": "Report",
            "trainer": "train",
            **dict.fromkeys(("beginning", "checkpoint", "corpus", "examples"), ""),
            **dict.fromkeys(("history", "lines", "log", "metrics", "outlook", "page"), ""),
            **dict.fromkeys(("progress", "recorder", "recovery", "run", "samples"), ""),
            **dict.fromkeys(("schema", "sittings", "step", "tensorboard"), ""),
            **dict.fromkeys(("tasks", "texts", "validation", "works"), ""),
        },
    )

__all__ = [
    "Callback",
    "Config",
    "Event",
    "Report",
    "Stopped",
    "apply_overrides",
    "dump",
    "load",
    "preset",
    "train",
]
