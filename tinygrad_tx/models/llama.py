"""Llama: a decoder-only Transformer with rotary positions, RMSNorm, a gated feed-forward and
grouped queries (Touvron et al., arXiv 2302.13971; Grattafiori et al., arXiv 2407.21783).

In: ids (B, T), int32 or int64. Out: logits (B, T, V), or a loss. Called by training and decoding,
and by users. Sizes in the comments: B rows, T positions, D = d_model, H = n_heads heads of queries,
K = n_kv_heads of keys and values, d_k their width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import nn
from ..arguments import check_fields, explain_init
from ..nn import KVCache
from ..nn import functional as F  # noqa: N812
from ..tensor import Tensor
from .config import check, check_ids, check_positive, check_rates
from .language_model import LanguageModel, Seen, attend
from .layers import GatedFeedForward
from .rotary import Rotation, frequencies
from .tensor_parallel import logits, parallelize


@explain_init
@dataclass(frozen=True)
class LlamaConfig:
    """The shape of a Llama; the defaults are those of the first one's smallest.

    n_kv_heads: heads of keys and values, each for n_heads / n_kv_heads heads of queries; None:
        n_heads.
    max_len: how many positions there are, prompt and all.
    rope_theta: the slowest pair of coordinates turns once in some 2 pi rope_theta positions.
    rope_scaling: None, or what stretches positions: a mapping as published configurations have it.
    head_dim: the width of a head; None: d_model / n_heads.
    dropout: on every sub-layer's output; attention_dropout on attention weights, None: the same.
    more_eos_ids: other tokens that end a text as eos_id does.
    tensor_parallel: ranks share feed-forwards and vocabulary (docs/distributed.md).
    """

    vocab_size: int
    d_model: int = 4096
    n_layers: int = 32
    n_heads: int = 32
    n_kv_heads: int | None = None
    d_ff: int = 11008
    max_len: int = 2048
    rope_theta: float = 10000.0
    rope_scaling: Mapping[str, Any] | None = None
    norm_eps: float = 1e-6
    activation: str = "silu"
    head_dim: int | None = None
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_embeddings: bool = False
    dropout: float = 0.0
    attention_dropout: float | None = None
    init_std: float = 0.02
    pad_id: int | None = None
    bos_id: int | None = None
    eos_id: int | None = None
    more_eos_ids: tuple[int, ...] = ()
    tensor_parallel: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        check_positive(self, "vocab_size", "d_model", "n_layers", "n_heads", "d_ff", "max_len")
        check_positive(self, "rope_theta", "norm_eps", "init_std")
        check_rates(self, "dropout", "attention_dropout")
        check_ids(self, "pad_id", "bos_id", "eos_id")
        fits = self.kv_heads > 0 and self.n_heads % self.kv_heads == 0
        check("n_kv_heads", self.n_kv_heads, fits, f"a divisor of n_heads, {self.n_heads}")
        fits = self.head_dim is not None or self.d_model % self.n_heads == 0
        check("d_model", self.d_model, fits, f"a multiple of n_heads, {self.n_heads}")
        fits = self.width > 0 and self.width % 2 == 0
        check("head_dim", self.width, fits, "even: coordinates turn in pairs")
        F.activation(self.activation)
        frequencies(self.width, self.rope_theta, self.rope_scaling, self.max_len)

    @property
    def on_weights(self) -> float:
        """The dropout of attention weights."""
        return self.dropout if self.attention_dropout is None else self.attention_dropout

    @property
    def n_positions(self) -> int:
        """The longest sequence, in tokens."""
        return self.max_len

    def describe(self) -> str:
        """It in one line."""
        return (
            f"d_model {self.d_model}, {self.n_heads} heads of queries, {self.kv_heads} of keys and "
            f"values, d_ff {self.d_ff}, {self.n_layers} layers, dropout {self.dropout}"
        )

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    @property
    def qkv_sizes(self) -> tuple[int, int, int]:
        """The widths of all queries, all keys and all values of a position."""
        return (self.n_heads * self.width, *(self.kv_heads * self.width,) * 2)

    @property
    def width(self) -> int:
        """The width of a head."""
        return self.d_model // self.n_heads if self.head_dim is None else self.head_dim


class Attention(nn.Module):
    """Self-attention of H heads of queries and K of keys and values, all by one map; positions turn
    queries and keys."""

    def __init__(self, config: LlamaConfig) -> None:
        self.n_heads, self.kv_heads = config.n_heads, config.kv_heads
        self.width, self.dropout = config.width, config.on_weights
        inner = config.n_heads * config.width
        self.qkv_proj = nn.Linear(config.d_model, sum(config.qkv_sizes), config.attention_bias)
        self.o_proj = nn.Linear(inner, config.d_model, config.attention_bias)

    def forward(self, x: Tensor, rotation: Rotation, seen: Seen = None) -> Tensor:
        """x (B, T, D) -> the same, of which each position has looked at those up to it."""
        H, K = self.n_heads, self.kv_heads  # noqa: N806
        qkv: Tensor = self.qkv_proj(x).reshape(*x.shape[:2], H + 2 * K, self.width)
        heads = qkv.transpose(1, 2)  # (B, H + 2 K, T, d_k)
        turned = rotation.turn(heads[:, : H + K])
        own = KVCache(turned[:, H:], heads[:, H + K :])
        found = attend(turned[:, :H], own, seen, self.dropout if self.training else 0.0)
        y: Tensor = self.o_proj(found)
        return y


class Block(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x))."""

    def __init__(self, config: LlamaConfig) -> None:
        self.input_layernorm = nn.RMSNorm(config.d_model, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.d_model, config.norm_eps)
        self.mlp = GatedFeedForward(
            config.d_model, config.d_ff, config.activation, bias=config.mlp_bias
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, rotation: Rotation, seen: Seen = None) -> Tensor:
        x = x + self.dropout(self.self_attn(self.input_layernorm(x), rotation, seen))
        y: Tensor = x + self.dropout(self.mlp(self.post_attention_layernorm(x)))
        return y


class Llama(LanguageModel):
    """model(ids) -> logits. Matrices start normal with standard deviation init_std."""

    config: LlamaConfig
    limit = "max_len"
    parallel_words = ("embed_tokens", "lm_head")

    def __init__(self, config: LlamaConfig) -> None:
        self.config = config
        self.heads = (config.kv_heads, config.width)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model, config.pad_id)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = nn.RMSNorm(config.d_model, config.norm_eps)
        self.lm_head: nn.Linear | None = None
        if not config.tie_embeddings:
            self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                nn.init.normal_(p, std=config.init_std)
            elif name.endswith("bias"):
                nn.init.zeros_(p)
        if config.tensor_parallel:
            parallelize(self)

    def embed(self, ids: Tensor, positions: Tensor) -> tuple[Tensor, Rotation]:
        """ids (B, T) at positions (T,) or (B, T) -> x (B, T, D), and how these turn."""
        config, x = self.config, self.embed_tokens(ids)
        speeds = frequencies(config.width, config.rope_theta, config.rope_scaling, config.max_len)
        return x, speeds.at(positions, x.dtype)

    def blocks(self) -> nn.ModuleList[Block]:
        return self.layers

    def head(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> logits (B, T, V)."""
        x = self.norm(x)
        y: Tensor = self.lm_head(x) if self.lm_head else logits(x, self.embed_tokens)
        return y
