"""Pictures: the graph behind a Tensor, and the attention of a model's heads."""

from .attention import attention_maps, draw_attention
from .graph import Drawing, graph

__all__ = ["Drawing", "attention_maps", "draw_attention", "graph"]
