"""Floor 6: models, each readable top to bottom. stepwise.py says what decoding asks of them."""

from typing import TYPE_CHECKING

from ..lazy import lazily

if TYPE_CHECKING:
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
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "autoencoder": "Autoencoder AutoencoderConfig ConvAutoencoder ConvAutoencoderConfig "
            "VariationalAutoencoder VariationalAutoencoderConfig",
            "convs2s": "ConvS2S ConvS2SConfig",
            "gpt": "GPT GPTConfig",
            "loading": "load",
            "seq2seq": "Seq2Seq Seq2SeqConfig",
            "transformer": "Transformer TransformerConfig",
            **dict.fromkeys(("config", "encoder_decoder", "registry", "stepwise"), ""),
        },
    )

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
