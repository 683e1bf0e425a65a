"""Marian's format, that of the Opus-MT models: our Transformer with swish, a bias on the output,
biases in attention, and sinusoids of which all sines come first."""

from __future__ import annotations

from typing import Any

from ...errors import UserError
from ..transformer import Transformer, TransformerConfig
from .base import Format, Settings, activation, plain


def _read(s: Settings) -> TransformerConfig:
    s.only("scale_embedding", True)
    s.only("share_encoder_decoder_embeddings", True)
    s.only("tie_word_embeddings", True)
    s.only("normalize_before", False)
    s.only("add_final_layer_norm", False)
    s.only("normalize_embedding", False)
    s.only("static_position_embeddings", True)
    s.only("decoder_vocab_size", s.need("vocab_size"))
    if s.get("scale_embedding") is None:
        raise UserError(
            "config.json: scale_embedding is not set, and embeddings are scaled by this library"
        )
    for name in ("attention_heads", "ffn_dim"):
        s.only(f"decoder_{name}", s.need(f"encoder_{name}"))
    pad = s.need("pad_token_id")
    return TransformerConfig(
        s.need("vocab_size"), d_model=s.need("d_model"), n_heads=s.need("encoder_attention_heads"),
        d_ff=s.need("encoder_ffn_dim"), n_encoder_layers=s.need("encoder_layers"),
        n_decoder_layers=s.need("decoder_layers"), dropout=s.get("dropout", 0.1),
        attention_dropout=s.get("attention_dropout", 0.0),
        activation_dropout=s.get("activation_dropout", 0.0), norm="post",
        activation=s.activation("activation_function", "gelu"), attention_bias=True,
        tie_embeddings=True, output_bias=True, max_len=s.get("max_position_embeddings", 1024),
        positions="sinusoidal_halves", pad_id=pad, bos_id=s.get("decoder_start_token_id", pad),
        eos_id=s.token("eos_token_id") or 0,
    )  # fmt: skip


def _write(c: TransformerConfig) -> dict[str, Any]:
    wanted = {
        "norm": "post", "attention_bias": True, "tie_embeddings": True, "output_bias": True,
        "positions": "sinusoidal_halves", "layer_norm_eps": 1e-5,
    }  # fmt: skip
    for name, value in wanted.items():
        if getattr(c, name) != value:
            raise UserError(
                f"save_pretrained: a Transformer is written in Marian's format, which has {name} = "
                f"{value!r}, and this one has {getattr(c, name)!r}; `tinygrad-tx train` and "
                "models.load have a format of their own for it"
            )
    return plain([
        ("architectures", ["MarianMTModel"]), ("model_type", "marian"),
        ("vocab_size", c.vocab_size), ("decoder_vocab_size", c.vocab_size),
        ("d_model", c.d_model), ("encoder_layers", c.n_encoder_layers),
        ("decoder_layers", c.n_decoder_layers), ("encoder_attention_heads", c.n_heads),
        ("decoder_attention_heads", c.n_heads), ("encoder_ffn_dim", c.d_ff),
        ("decoder_ffn_dim", c.d_ff), ("max_position_embeddings", c.max_len),
        ("activation_function", activation(c.activation, "swish")), ("dropout", c.dropout),
        ("attention_dropout", c.attention_dropout), ("activation_dropout", c.activation_dropout),
        ("scale_embedding", True), ("share_encoder_decoder_embeddings", True),
        ("tie_word_embeddings", True), ("is_encoder_decoder", True), ("pad_token_id", c.pad_id),
        ("decoder_start_token_id", c.bos_id), ("eos_token_id", c.eos_id),
        ("forced_eos_token_id", c.eos_id), ("bad_words_ids", [[c.pad_id]]),
    ])  # fmt: skip


def _names() -> dict[str, str]:
    found = {"embedding.*": "shared.*", "output_bias": "final_logits_bias"}
    for stack, feed in (("encoder", "norm2"), ("decoder", "norm3")):
        layer = f"{stack}.layers.#"
        found |= {
            f"{layer}.self_attn.*": f"{layer}.self_attn.*",
            f"{layer}.norm1.*": f"{layer}.self_attn_layer_norm.*",
            f"{layer}.ffn.linear1.*": f"{layer}.fc1.*",
            f"{layer}.ffn.linear2.*": f"{layer}.fc2.*",
            f"{layer}.{feed}.*": f"{layer}.final_layer_norm.*",
        }
    found |= {
        "decoder.layers.#.cross_attn.*": "decoder.layers.#.encoder_attn.*",
        "decoder.layers.#.norm2.*": "decoder.layers.#.encoder_attn_layer_norm.*",
    }
    return found


MARIAN = Format(
    Transformer, TransformerConfig, _read, _write, _names(), prefix="model.",
    heads=("final_logits_bias",), rows=("final_logits_bias",),
    spare=("embed_positions.weight",),
    copies=dict.fromkeys(
        ("lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"),
        "shared.weight",
    ),
)  # fmt: skip
