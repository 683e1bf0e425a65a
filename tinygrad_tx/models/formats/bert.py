"""BERT's format, and RoBERTa's. MiniLM and other sentence encoders have it without the prefix."""

from __future__ import annotations

from typing import Any

from ...errors import UserError
from ..bert import BERT, BERTConfig
from .base import Format, Settings, activation, plain

_LAYERS = {
    "layers.#.self_attn.q_proj.*": "encoder.layer.#.attention.self.query.*",
    "layers.#.self_attn.k_proj.*": "encoder.layer.#.attention.self.key.*",
    "layers.#.self_attn.v_proj.*": "encoder.layer.#.attention.self.value.*",
    "layers.#.self_attn.out_proj.*": "encoder.layer.#.attention.output.dense.*",
    "layers.#.norm1.*": "encoder.layer.#.attention.output.LayerNorm.*",
    "layers.#.ffn.linear1.*": "encoder.layer.#.intermediate.dense.*",
    "layers.#.ffn.linear2.*": "encoder.layer.#.output.dense.*",
    "layers.#.norm2.*": "encoder.layer.#.output.LayerNorm.*",
    "embeddings.words.*": "embeddings.word_embeddings.*",
    "embeddings.positions.*": "embeddings.position_embeddings.*",
    "embeddings.types.*": "embeddings.token_type_embeddings.*",
    "embeddings.norm.*": "embeddings.LayerNorm.*",
    "pooler.*": "pooler.dense.*",
}


def _read_bert(s: Settings) -> BERTConfig:
    roberta = s.given.get("model_type") in _ROBERTAS
    s.only("position_embedding_type", "absolute")
    s.only("is_decoder", False)
    s.only("add_cross_attention", False)
    s.only("tie_word_embeddings", True)
    pad = s.token("pad_token_id")
    pad = (1 if roberta else 0) if pad is None else pad
    names = s.names
    return BERTConfig(
        s.need("vocab_size"), s.need("hidden_size"), s.need("num_hidden_layers"),
        s.need("num_attention_heads"), s.need("intermediate_size"),
        s.need("max_position_embeddings") - (pad + 1 if roberta else 0),
        s.get("type_vocab_size", 2), skip_padding=roberta,
        dropout=s.get("hidden_dropout_prob", 0.1),
        attention_dropout=s.get("attention_probs_dropout_prob", 0.1),
        activation=s.activation("hidden_act", "gelu"),
        layer_norm_eps=s.get("layer_norm_eps", 1e-12), init_std=s.get("initializer_range", 0.02),
        pooler=any(f"{p}pooler.dense.weight" in names for p in ("", "bert.", "roberta.")),
        mlm="cls.predictions.bias" in names or "lm_head.bias" in names,
        pad_id=pad, bos_id=s.token("bos_token_id"), eos_id=s.token("eos_token_id"),
    )  # fmt: skip


def _write_bert(c: BERTConfig) -> dict[str, Any]:
    roberta, kind = c.skip_padding, "RoBERTa" if c.skip_padding else "BERT"
    kind = {"RoBERTa": "Roberta", "BERT": "Bert"}[kind]
    if not c.type_vocab_size:
        raise UserError(
            "save_pretrained: BERT's format has kinds of segments; type_vocab_size is 0"
        )
    head = f"{kind}ForMaskedLM" if c.mlm else f"{kind}Model"
    return plain([
        ("architectures", [head]), ("model_type", "roberta" if roberta else "bert"),
        ("vocab_size", c.vocab_size), ("hidden_size", c.d_model),
        ("num_hidden_layers", c.n_layers), ("num_attention_heads", c.n_heads),
        ("intermediate_size", c.d_ff),
        ("max_position_embeddings", c.max_len + c.first_position),
        ("type_vocab_size", c.type_vocab_size), ("hidden_dropout_prob", c.dropout),
        ("attention_probs_dropout_prob", c.attention_dropout),
        ("hidden_act", activation(c.activation)), ("layer_norm_eps", c.layer_norm_eps),
        ("initializer_range", c.init_std), ("pad_token_id", c.pad_id),
        ("bos_token_id", c.bos_id), ("eos_token_id", c.eos_id), ("tie_word_embeddings", True),
    ])  # fmt: skip


BERT_FORMAT = Format(
    BERT, BERTConfig, _read_bert, _write_bert,
    {
        **_LAYERS,
        "mlm.dense.*": "cls.predictions.transform.dense.*",
        "mlm.norm.*": "cls.predictions.transform.LayerNorm.*",
        "mlm.bias": "cls.predictions.bias",
    },
    prefix="bert.", heads=("cls.",),
    spare=("position_ids", "cls.seq_relationship."),
    copies={
        "cls.predictions.decoder.weight": "embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
)  # fmt: skip
ROBERTA_FORMAT = BERT_FORMAT._replace(
    names={
        **_LAYERS,
        "mlm.dense.*": "lm_head.dense.*",
        "mlm.norm.*": "lm_head.layer_norm.*",
        "mlm.bias": "lm_head.bias",
    },
    prefix="roberta.",
    heads=("lm_head.",),
    spare=("position_ids",),
    copies={
        "lm_head.decoder.weight": "embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    },
)
_ROBERTAS = ("roberta", "xlm-roberta", "camembert")
