"""GPT-2's format. Its maps are (in, out), the other way round than a Linear's."""

from __future__ import annotations

from typing import Any

from ...errors import UserError
from ..gpt import GPT, GPTConfig
from .base import Format, Settings, activation, plain


def _read_gpt2(s: Settings) -> GPTConfig:
    s.only("scale_attn_weights", True)
    s.only("scale_attn_by_inverse_layer_idx", False)
    s.only("add_cross_attention", False)
    s.only("tie_word_embeddings", True)
    width = s.need("n_embd")
    s.only("n_inner", 4 * width)
    dropouts = {s.get(name, 0.1) for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop")}
    if len(dropouts) > 1:
        raise UserError(
            "config.json: resid_pdrop, embd_pdrop and attn_pdrop differ, and a GPT has one dropout"
        )
    return GPTConfig(
        s.need("vocab_size"), s.need("n_layer"), s.need("n_head"), width, s.need("n_positions"),
        dropout=dropouts.pop(), bias=True, eos_id=s.token("eos_token_id"),
        pad_id=s.token("pad_token_id"), init_std=s.get("initializer_range", 0.02),
        activation=s.activation("activation_function", "gelu_new"),
        layer_norm_eps=s.get("layer_norm_epsilon", 1e-5),
    )  # fmt: skip


def _write_gpt2(c: GPTConfig) -> dict[str, Any]:
    if not c.bias:
        raise UserError("save_pretrained: GPT-2's format has biases, and this GPT has bias=False")
    return plain([
        ("architectures", ["GPT2LMHeadModel"]), ("model_type", "gpt2"),
        ("vocab_size", c.vocab_size), ("n_layer", c.n_layer), ("n_head", c.n_head),
        ("n_embd", c.n_embd), ("n_positions", c.block_size), ("n_ctx", c.block_size),
        ("resid_pdrop", c.dropout), ("embd_pdrop", c.dropout), ("attn_pdrop", c.dropout),
        ("activation_function", activation(c.activation, "gelu_new")),
        ("layer_norm_epsilon", c.layer_norm_eps), ("initializer_range", c.init_std),
        ("bos_token_id", c.eos_id), ("eos_token_id", c.eos_id), ("pad_token_id", c.pad_id),
        ("tie_word_embeddings", True),
    ])  # fmt: skip


GPT2 = Format(
    GPT, GPTConfig, _read_gpt2, _write_gpt2,
    {name: name for name in ("wte.*", "wpe.*", "h.#.*", "ln_f.*")},
    prefix="transformer.", spare=(".attn.bias", ".attn.masked_bias"),
    copies={"lm_head.weight": "wte.weight"},
    turned=("c_attn.weight", "c_proj.weight", "c_fc.weight"),
)  # fmt: skip
