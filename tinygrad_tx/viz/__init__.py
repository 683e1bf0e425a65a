"""Pictures: the graph behind a Tensor, what a model's heads look at, what it knows of positions,
what its outputs depend on, and curves of runs."""

from typing import TYPE_CHECKING

from ..lazy import lazily
from .attention import Attention, attention, decoder_input, draw_attention, translated
from .curves import draw_curves
from .graph import Drawing, graph
from .leaks import dependencies
from .positions import Positions, positions
from .reach import Dependencies, Leak
from .weights import attention_maps

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__)

__all__ = [
    "Attention",
    "Dependencies",
    "Drawing",
    "Leak",
    "Positions",
    "attention",
    "attention_maps",
    "decoder_input",
    "dependencies",
    "draw_attention",
    "draw_curves",
    "graph",
    "positions",
    "translated",
]
