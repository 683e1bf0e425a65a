"""Floor 6: models, each readable top to bottom. stepwise.py says what decoding asks of them."""

from .autoencoder import (
    Autoencoder,
    AutoencoderConfig,
    ConvAutoencoder,
    ConvAutoencoderConfig,
    VariationalAutoencoder,
    VariationalAutoencoderConfig,
)
from .convs2s import ConvS2S, ConvS2SConfig
from .gpt import GPT, GPTConfig
from .loading import load
from .seq2seq import Seq2Seq, Seq2SeqConfig
from .transformer import Transformer, TransformerConfig

__all__ = [
    "GPT",
    "Autoencoder",
    "AutoencoderConfig",
    "ConvAutoencoder",
    "ConvAutoencoderConfig",
    "ConvS2S",
    "ConvS2SConfig",
    "GPTConfig",
    "Seq2Seq",
    "Seq2SeqConfig",
    "Transformer",
    "TransformerConfig",
    "VariationalAutoencoder",
    "VariationalAutoencoderConfig",
    "load",
]
