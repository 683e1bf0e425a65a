"""Pictures: the graph behind a Tensor, the attention of a model's heads, and curves of runs."""

from typing import TYPE_CHECKING

from ..lazy import lazily
from .attention import attention_maps, draw_attention
from .curves import draw_curves
from .graph import Drawing, graph

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__)

__all__ = ["Drawing", "attention_maps", "draw_attention", "draw_curves", "graph"]
