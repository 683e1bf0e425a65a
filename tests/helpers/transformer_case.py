"""The Transformers that the tests build, and the sentences they read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

import tinygrad_tx as tx
from tinygrad_tx.models import Transformer, TransformerConfig

Array = np.ndarray[Any, Any]
CONFIG = TransformerConfig(
    20, d_model=16, n_heads=4, d_ff=32, n_encoder_layers=2, n_decoder_layers=2, dropout=0.0
)
VARIANTS = {
    "post": CONFIG,
    "pre": replace(CONFIG, norm="pre"),
    "untied": replace(CONFIG, tie_embeddings=False, src_vocab_size=23),
    "pre_untied_learned_gelu_bias": replace(
        CONFIG, norm="pre", tie_embeddings=False, positions="learned", activation="gelu",
        attention_bias=True, max_len=12, layer_norm_eps=1e-6,
    ),
}  # fmt: skip


def build(config: TransformerConfig = CONFIG, seed: int = 0) -> Transformer:
    """A model whose every parameter matters: biases and norms are no longer 0 and 1."""
    tx.manual_seed(seed)
    model = Transformer(config)
    with tx.no_grad():
        for p in model.parameters():
            p.assign(p + 0.1 * tx.randn(p.shape))
    return model


def batch(seed: int = 0) -> tuple[tx.Tensor, tx.Tensor, tx.Tensor]:
    """Three sentence pairs, padded: src (3, 6), tgt_in and tgt_out (3, 5)."""
    rng = np.random.default_rng(seed)
    src, tgt = rng.integers(3, 20, (3, 6)), rng.integers(3, 20, (3, 4))
    src[1, 4:] = src[2, 2:] = 0
    ends = (4, 2, 3)
    tgt_in, tgt_out = np.zeros((3, 5), int), np.zeros((3, 5), int)
    for i, n in enumerate(ends):
        tgt_in[i, : n + 1] = [1, *tgt[i, :n]]
        tgt_out[i, : n + 1] = [*tgt[i, :n], 2]
    return tx.tensor(src), tx.tensor(tgt_in), tx.tensor(tgt_out)
