"""Pictures: the graph behind a Tensor, and what a model's heads look at."""

from .attention import attention_maps, draw_attention
from .graph import Drawing, graph

__all__ = ["Drawing", "attention_maps", "draw_attention", "graph"]
