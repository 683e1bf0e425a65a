"""Floor 6: models, each readable top to bottom. stepwise.py says what decoding asks of them."""

from .autoencoder import (
    Autoencoder,
    AutoencoderConfig,
    ConvAutoencoder,
    ConvAutoencoderConfig,
    VariationalAutoencoder,
    VariationalAutoencoderConfig,
)
from .gpt import GPT, GPTConfig
from .loading import load
from .transformer import Transformer, TransformerConfig

__all__ = [
    "GPT",
    "Autoencoder",
    "AutoencoderConfig",
    "ConvAutoencoder",
    "ConvAutoencoderConfig",
    "GPTConfig",
    "Transformer",
    "TransformerConfig",
    "VariationalAutoencoder",
    "VariationalAutoencoderConfig",
    "load",
]
