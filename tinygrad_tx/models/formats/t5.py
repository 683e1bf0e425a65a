"""T5's format. In version 1.1 the output has a matrix of its own, and is not scaled; transformers 5
says so in a setting of its own, transformers 4 by tie_word_embeddings."""

from __future__ import annotations

from typing import Any

from ...errors import UserError
from ..t5 import T5, T5Config
from .base import Format, Joined, Settings, activation, plain


def _read(s: Settings) -> T5Config:
    inner = s.get("feed_forward_proj", "relu")
    gated = inner.startswith("gated-")
    name = "gelu_new" if inner == "gated-gelu" else inner.removeprefix("gated-")
    # transformers 5 ties wherever the file has no matrix for the output, and 4 where it says so.
    own = s.given.get("tie_word_embeddings") is False and "scale_decoder_outputs" not in s.given
    pad = s.get("pad_token_id", 0)
    return T5Config(
        s.need("vocab_size"), s.need("d_model"), s.need("num_layers"), s.need("num_heads"),
        s.need("d_ff"), s.get("d_kv", 64), s.get("num_decoder_layers"),
        n_buckets=s.get("relative_attention_num_buckets", 32),
        max_distance=s.get("relative_attention_max_distance", 128),
        dropout=s.get("dropout_rate", 0.1), layer_norm_eps=s.get("layer_norm_epsilon", 1e-6),
        activation=s.known("feed_forward_proj", name), gated=gated,
        tie_embeddings=not own, pad_id=pad,
        scale_output=s.get("scale_decoder_outputs", not own),
        bos_id=s.get("decoder_start_token_id", pad), eos_id=s.token("eos_token_id") or 1,
    )  # fmt: skip


def _write(c: T5Config) -> dict[str, Any]:
    inner = activation(c.activation)
    if c.gated and c.activation == "gelu":
        raise UserError("save_pretrained: T5's format has no gated gelu but gelu_tanh")
    if c.gated and c.activation == "gelu_tanh":
        inner = "gelu"  # so it is called there
    return plain([
        ("architectures", ["T5ForConditionalGeneration"]), ("model_type", "t5"),
        ("vocab_size", c.vocab_size), ("d_model", c.d_model), ("d_kv", c.width),
        ("d_ff", c.d_ff), ("num_layers", c.n_layers), ("num_decoder_layers", c.decoder_layers),
        ("num_heads", c.n_heads), ("relative_attention_num_buckets", c.n_buckets),
        ("relative_attention_max_distance", c.max_distance), ("dropout_rate", c.dropout),
        ("layer_norm_epsilon", c.layer_norm_eps),
        ("feed_forward_proj", f"gated-{inner}" if c.gated else inner),
        ("tie_word_embeddings", c.tie_embeddings), ("scale_decoder_outputs", c.scaled),
        ("is_encoder_decoder", True),
        ("pad_token_id", c.pad_id), ("decoder_start_token_id", c.bos_id),
        ("eos_token_id", c.eos_id),
    ])  # fmt: skip


_FEED_FORWARD = {
    "linear1": "wi",
    "linear2": "wo",
    "down_proj": "wo",
}


def _names() -> dict[str, str | Joined]:
    found: dict[str, str | Joined] = {"shared.*": "shared.*", "lm_head.*": "lm_head.*"}
    for stack, last in (("encoder", 1), ("decoder", 2)):
        ours, theirs = f"{stack}.layers.#", f"{stack}.block.#.layer"
        found |= {
            f"{stack}.distances.groups.*": f"{stack}.block.0.layer.0.SelfAttention."
            "relative_attention_bias.*",
            f"{stack}.norm.*": f"{stack}.final_layer_norm.*",
            f"{ours}.self_attn.*": f"{theirs}.0.SelfAttention.*",
            f"{ours}.norm1.*": f"{theirs}.0.layer_norm.*",
            **{
                f"{ours}.ffn.{own}.*": f"{theirs}.{last}.DenseReluDense.{name}.*"
                for own, name in _FEED_FORWARD.items()
            },
            f"{ours}.ffn.gate_up_proj.*": Joined(
                tuple(f"{theirs}.{last}.DenseReluDense.wi_{i}.*" for i in range(2)),
                lambda config: (config.d_ff,) * 2,
            ),
            f"{ours}.norm3.*": f"{theirs}.{last}.layer_norm.*",
        }
    found |= {
        "decoder.layers.#.cross_attn.*": "decoder.block.#.layer.1.EncDecAttention.*",
        "decoder.layers.#.norm2.*": "decoder.block.#.layer.1.layer_norm.*",
    }
    return found


T5_FORMAT = Format(
    T5, T5Config, _read, _write, _names(), prefix="",
    spare=("layer.1.EncDecAttention.relative_attention_bias.weight",),
    copies=dict.fromkeys(
        ("lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"),
        "shared.weight",
    ),
    unties=True,
)  # fmt: skip
