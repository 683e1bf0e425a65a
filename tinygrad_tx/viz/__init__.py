"""Pictures: the autograd graph, and the attention of a model."""


from .graph import Drawing, graph

__all__ = ["Drawing", "attention_maps", "draw", "graph"]
