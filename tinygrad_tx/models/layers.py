"""The layers of encoders and decoders: those of the Transformer, of Marian and of BERT; and the
feed-forwards that T5 and Llama have, too.

In: x (B, T, D), and what each of its positions may look at. Out: the same. Called by
transformer.py, bert.py, t5.py and llama.py. Sizes in the comments: B sentences, T positions, S of
the source, D = d_model, H heads, N rows in decoding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .. import nn
from ..nn import KVCache
from ..nn import functional as F  # noqa: N812
from ..tensor import Tensor


class LayerConfig(Protocol):
    """What a layer must know. norm: "post" (the paper's) or "pre"."""

    @property
    def d_model(self) -> int: ...
    @property
    def n_heads(self) -> int: ...
    @property
    def d_ff(self) -> int: ...
    @property
    def dropout(self) -> float: ...
    @property
    def attention_dropout(self) -> float: ...
    @property
    def activation_dropout(self) -> float: ...
    @property
    def norm(self) -> str: ...
    @property
    def activation(self) -> str: ...
    @property
    def attention_bias(self) -> bool: ...
    @property
    def layer_norm_eps(self) -> float: ...


class FeedForward(nn.Module):
    """D -> d_ff -> D with an activation between, at each position by itself: section 3.3."""

    parallel_units = ("linear1", "linear2", "dropout")

    def __init__(
        self, d_model: int, d_ff: int, activation: str, dropout: float = 0.0, bias: bool = True
    ) -> None:
        self.activation = F.activation(activation)
        self.linear1 = nn.Linear(d_model, d_ff, bias)
        self.linear2 = nn.Linear(d_ff, d_model, bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear2(self.dropout(self.activation(self.linear1(x))))
        return y

    def describe(self) -> str:
        return f"activation={self.activation.__name__}"


class GatedFeedForward(nn.Module):
    """down(activation(gate(x)) * up(x)): SwiGLU and its relatives (Shazeer, arXiv 2002.05202). Gate
    and up are one map."""

    parallel_units = ("gate_up_proj", "down_proj", "dropout")

    def __init__(
        self, d_model: int, d_ff: int, activation: str, dropout: float = 0.0, bias: bool = False
    ) -> None:
        self.activation = F.activation(activation)
        self.gate_up_proj = nn.Linear(d_model, 2 * d_ff, bias)
        self.down_proj = nn.Linear(d_ff, d_model, bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x).chunk(2, -1)
        y: Tensor = self.down_proj(self.dropout(self.activation(gate) * up))
        return y

    def describe(self) -> str:
        return f"activation={self.activation.__name__}"


class Layer(nn.Module):
    """The base of both kinds of layer: the wrapping of a sub-layer."""

    def __init__(self, config: LayerConfig) -> None:
        self.pre = config.norm == "pre"
        self.dropout = nn.Dropout(config.dropout)

    def around(self, sublayer: Callable[[Tensor], Tensor], norm: nn.LayerNorm, x: Tensor) -> Tensor:
        """norm(x + dropout(sublayer(x))), or for "pre" x + dropout(sublayer(norm(x)))."""
        if self.pre:
            y: Tensor = x + self.dropout(sublayer(norm(x)))
        else:
            y = norm(x + self.dropout(sublayer(x)))
        return y


def attention(config: LayerConfig) -> nn.MultiHeadAttention:
    """Attention as the configuration says."""
    return nn.MultiHeadAttention(
        config.d_model, config.n_heads, config.attention_dropout, config.attention_bias
    )


def feed_forward(config: LayerConfig) -> FeedForward:
    """The feed-forward as the configuration says."""
    return FeedForward(config.d_model, config.d_ff, config.activation, config.activation_dropout)


def layer_norm(config: LayerConfig) -> nn.LayerNorm:
    """A norm as the configuration says."""
    return nn.LayerNorm(config.d_model, config.layer_norm_eps)


class EncoderLayer(Layer):
    """Self-attention, feed-forward. mask: broadcasts to (B, H, T, T), or None for none."""

    def __init__(self, config: LayerConfig) -> None:
        super().__init__(config)
        self.self_attn, self.norm1 = attention(config), layer_norm(config)
        self.ffn, self.norm2 = feed_forward(config), layer_norm(config)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.around(lambda y: self.self_attn(y, y, y, mask), self.norm1, x)
        return self.around(self.ffn, self.norm2, x)


class DecoderLayer(Layer):
    """Masked self-attention, cross-attention (queries from here, keys and values from the encoder),
    feed-forward."""

    def __init__(self, config: LayerConfig) -> None:
        super().__init__(config)
        self.self_attn, self.norm1 = attention(config), layer_norm(config)
        self.cross_attn, self.norm2 = attention(config), layer_norm(config)
        self.ffn, self.norm3 = feed_forward(config), layer_norm(config)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        x = self.around(lambda y: self.self_attn(y, y, y, is_causal=True), self.norm1, x)
        x = self.around(lambda y: self.cross_attn(y, memory, memory, mask), self.norm2, x)
        return self.around(self.ffn, self.norm3, x)

    @nn.scoped
    def step(
        self, x: Tensor, own: KVCache, memory: KVCache, mask: Tensor, position: Tensor
    ) -> Tensor:
        """The same for the one position x (N, 1, D), which sees what `own` holds of those before;
        `memory` holds the encoder's keys and values (B, H, S, d_k)."""

        def cross(y: Tensor) -> Tensor:  # a sentence's hypotheses are queries of one attention
            together = y.reshape(memory.k.shape[0], -1, y.shape[-1])  # (B, beam, D)
            return self.cross_attn.attend(together, memory, mask).reshape(y.shape)

        x = self.around(lambda y: self.self_attn.step(y, own, position), self.norm1, x)
        x = self.around(cross, self.norm2, x)
        return self.around(self.ffn, self.norm3, x)
