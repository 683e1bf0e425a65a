"""Floor 6: models, each readable top to bottom. stepwise.py says what decoding asks of them."""

from .gpt import GPT, GPTConfig
from .loading import load
from .transformer import Transformer, TransformerConfig

__all__ = ["GPT", "GPTConfig", "Transformer", "TransformerConfig", "load"]
