"""Floor 7: decoding. generate() takes ids; translate() and Translator take lines of text, stream()
a prompt; Embedder makes vectors of lines."""

from .embed import Embedder
from .generate import generate
from .protocols import Hypothesis
from .streaming import stream
from .translate import Translation, Translator, translate

__all__ = [
    "Embedder",
    "Hypothesis",
    "Translation",
    "Translator",
    "generate",
    "stream",
    "translate",
]
