"""Llama's format. Queries, keys and values are maps of their own there, and so are gate and up."""

from __future__ import annotations

from typing import Any

from ..llama import Llama, LlamaConfig
from .base import Format, Joined, Settings, activation, plain


def _read_llama(s: Settings) -> LlamaConfig:
    s.only("pretraining_tp", 1)
    s.only("partial_rotary_factor", 1.0)
    rope = dict(s.get("rope_parameters") or s.get("rope_scaling") or {})
    theta = rope.pop("rope_theta", None) or s.get("rope_theta", 10000.0)
    kind = rope.get("rope_type", rope.get("type", "default"))
    ends = s.tokens("eos_token_id")
    return LlamaConfig(
        s.need("vocab_size"), s.need("hidden_size"), s.need("num_hidden_layers"),
        s.need("num_attention_heads"), s.get("num_key_value_heads"), s.need("intermediate_size"),
        s.get("max_position_embeddings", 2048), float(theta),
        rope_scaling=None if kind == "default" else rope, norm_eps=s.get("rms_norm_eps", 1e-6),
        activation=s.activation("hidden_act", "silu"), head_dim=s.get("head_dim"),
        attention_bias=s.get("attention_bias", False), mlp_bias=s.get("mlp_bias", False),
        tie_embeddings=s.get("tie_word_embeddings", False),
        init_std=s.get("initializer_range", 0.02), pad_id=s.token("pad_token_id"),
        bos_id=s.token("bos_token_id"), eos_id=ends[0] if ends else None,
        more_eos_ids=tuple(ends[1:]), dropout=0.0,
        attention_dropout=s.get("attention_dropout", 0.0),
    )  # fmt: skip


def _write_llama(c: LlamaConfig) -> dict[str, Any]:
    scaling = None if c.rope_scaling is None else dict(c.rope_scaling)
    kind = {"rope_type": "default"} if scaling is None else scaling
    return plain([
        ("architectures", ["LlamaForCausalLM"]), ("model_type", "llama"),
        ("vocab_size", c.vocab_size), ("hidden_size", c.d_model), ("intermediate_size", c.d_ff),
        ("num_hidden_layers", c.n_layers), ("num_attention_heads", c.n_heads),
        ("num_key_value_heads", c.kv_heads), ("head_dim", c.width),
        ("max_position_embeddings", c.max_len), ("rms_norm_eps", c.norm_eps),
        ("rope_theta", c.rope_theta), ("rope_scaling", scaling),  # transformers 4
        ("rope_parameters", {**kind, "rope_theta": c.rope_theta}),  # transformers 5
        ("hidden_act", activation(c.activation)), ("attention_bias", c.attention_bias),
        ("mlp_bias", c.mlp_bias), ("tie_word_embeddings", c.tie_embeddings),
        ("initializer_range", c.init_std), ("pad_token_id", c.pad_id),
        ("bos_token_id", c.bos_id),
        ("eos_token_id", [c.eos_id, *c.more_eos_ids] if c.more_eos_ids else c.eos_id),
        ("attention_dropout", c.dropout if c.attention_dropout is None else c.attention_dropout),
    ])  # fmt: skip


LLAMA = Format(
    Llama, LlamaConfig, _read_llama, _write_llama,
    {
        "layers.#.self_attn.qkv_proj.*": Joined(
            tuple(f"layers.#.self_attn.{x}_proj.*" for x in "qkv"), lambda config: config.qkv_sizes
        ),
        "layers.#.mlp.gate_up_proj.*": Joined(
            ("layers.#.mlp.gate_proj.*", "layers.#.mlp.up_proj.*"),
            lambda config: (config.d_ff,) * 2,
        ),
        **{name: name for name in ("embed_tokens.*", "layers.#.*", "norm.*", "lm_head.*")},
    },
    prefix="model.", heads=("lm_head.",), spare=("rotary_emb.inv_freq",),
    copies={"lm_head.weight": "embed_tokens.weight"}, unties=True,
)  # fmt: skip
