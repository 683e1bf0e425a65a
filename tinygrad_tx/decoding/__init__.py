"""Floor 7: decoding. generate() takes ids; translate() and Translator take lines of text."""

from .generate import generate
from .protocols import Hypothesis
from .streaming import stream
from .translate import Translation, Translator, translate

__all__ = ["Hypothesis", "Translation", "Translator", "generate", "stream", "translate"]
