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
    from .bert import BERT, BERTConfig
    from .convs2s import ConvS2S, ConvS2SConfig
    from .encoder_decoder import EncoderDecoder
    from .gpt import GPT, GPTConfig
    from .language_model import LanguageModel
    from .llama import Llama, LlamaConfig
    from .loading import load
    from .pretrained import from_pretrained, save_pretrained
    from .registry import register
    from .seq2seq import Seq2Seq, Seq2SeqConfig
    from .t5 import T5, T5Config
    from .transformer import Transformer, TransformerConfig
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "autoencoder": "Autoencoder AutoencoderConfig ConvAutoencoder ConvAutoencoderConfig "
            "VariationalAutoencoder VariationalAutoencoderConfig",
            "bert": "BERT BERTConfig",
            "convs2s": "ConvS2S ConvS2SConfig",
            "encoder_decoder": "EncoderDecoder",
            "gpt": "GPT GPTConfig",
            "language_model": "LanguageModel",
            "registry": "register",
            "llama": "Llama LlamaConfig",
            "loading": "load",
            "pretrained": "from_pretrained save_pretrained",
            "seq2seq": "Seq2Seq Seq2SeqConfig",
            "t5": "T5 T5Config",
            "transformer": "Transformer TransformerConfig",
            **dict.fromkeys(("config", "formats"), ""),
            **dict.fromkeys(("layers", "pieces", "positions", "pretrained_tokenizer"), ""),
            **dict.fromkeys(("rotary", "saving", "stepwise"), ""),
        },
    )

__all__ = [
    "BERT",
    "GPT",
    "T5",
    "Autoencoder",
    "AutoencoderConfig",
    "BERTConfig",
    "ConvAutoencoder",
    "ConvAutoencoderConfig",
    "ConvS2S",
    "ConvS2SConfig",
    "EncoderDecoder",
    "GPTConfig",
    "LanguageModel",
    "Llama",
    "LlamaConfig",
    "Seq2Seq",
    "Seq2SeqConfig",
    "T5Config",
    "Transformer",
    "TransformerConfig",
    "VariationalAutoencoder",
    "VariationalAutoencoderConfig",
    "from_pretrained",
    "load",
    "register",
    "save_pretrained",
]
