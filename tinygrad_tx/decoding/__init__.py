"""Floor 7: decoding. generate() takes ids; translate() and Translator take lines of text, stream()
a prompt; Embedder makes vectors of lines, Scorer says how probable translations are."""

from typing import TYPE_CHECKING

from ..lazy import lazily
from .embed import Embedder
from .generate import generate
from .protocols import Hypothesis
from .scoring import Score, Scorer
from .streaming import stream
from .translate import Translation, Translator, translate

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__)

__all__ = [
    "Embedder",
    "Hypothesis",
    "Score",
    "Scorer",
    "Translation",
    "Translator",
    "generate",
    "stream",
    "translate",
]
