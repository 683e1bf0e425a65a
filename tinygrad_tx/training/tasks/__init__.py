"""Tasks: what a run trains on and what it is measured by. A file for each; another task is a file,
and its entry here. `train.task` is that of the model's kind (models/registry.py)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .base import Counted, Measuring, Task
from .masked import MaskedWords
from .next_token import NextToken
from .translation import Translation

__all__ = ["TASKS", "Counted", "Measuring", "Task"]

TASKS: Mapping[str, type[Task]] = MappingProxyType(
    {"translate": Translation, "lm": NextToken, "mlm": MaskedWords}
)
