"""GPT-2: a decoder-only Transformer, pre-norm, with learned positions (Radford et al. 2019).

In: ids (B, T), int32 or int64. Out: logits (B, T, V), or a loss. Called by training and decoding,
and by users. Sizes in the comments: B rows, T positions, D = n_embd, H heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .. import nn
from ..arguments import check_fields, explain_init
from ..nn import KVCache
from ..nn import functional as F  # noqa: N812
from ..tensor import Tensor
from .config import check, check_counts, check_ids, check_positive, check_rates
from .language_model import LanguageModel, Seen, attend
from .tensor_parallel import logits, parallelize


@explain_init
@dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT; the defaults are those of the smallest published one.

    block_size: how many positions there are, prompt and all.
    dropout: on embedding + position, attention weights, and every sub-layer's output.
    bias: True if maps and layer norms have biases.
    activation: "gelu" is exact; OpenAI's weights want "gelu_tanh".
    init_std: the standard deviation that weights begin with. 0.02 is GPT-2's; narrow models learn
        faster with about 0.7 / sqrt(n_embd).
    eos_id: the token that ends a text, if there is one.
    tensor_parallel: ranks share feed-forwards and vocabulary (docs/distributed.md).
    """

    vocab_size: int
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    block_size: int = 1024
    dropout: float = 0.0
    bias: bool = False
    activation: str = "gelu"
    eos_id: int | None = None
    pad_id: int | None = None
    init_std: float = 0.02
    layer_norm_eps: float = 1e-5
    tensor_parallel: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        check_positive(self, "vocab_size", "n_layer", "n_head", "n_embd", "block_size", "init_std")
        check_counts(self, "layer_norm_eps")
        check_rates(self, "dropout")
        check_ids(self, "eos_id", "pad_id")
        fits = self.n_embd % self.n_head == 0
        check("n_embd", self.n_embd, fits, f"a multiple of n_head, {self.n_head}")
        F.activation(self.activation)

    @property
    def d_model(self) -> int:
        """The width of the model, GPT-2's n_embd."""
        return self.n_embd

    @property
    def n_positions(self) -> int:
        """The longest sequence, in tokens: GPT's block_size."""
        return self.block_size

    max_len = n_positions

    def describe(self) -> str:
        """It in one line."""
        return (
            f"{self.n_layer} layers, {self.n_head} heads, n_embd {self.n_embd}, block_size "
            f"{self.block_size}, dropout {self.dropout}"
        )


class Attention(nn.Module):
    """Self-attention; queries, keys and values by one map."""

    def __init__(self, config: GPTConfig) -> None:
        self.n_head, self.dropout = config.n_head, config.dropout
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, config.bias)

    def forward(self, x: Tensor, seen: Seen = None) -> Tensor:
        """x (B, T, D) -> the same, of which each position has looked at those up to it."""
        B, T, D = x.shape  # noqa: N806
        qkv: Tensor = self.c_attn(x)  # (B, T, 3 D)
        q, k, v = (
            y.reshape(B, T, self.n_head, D // self.n_head).transpose(1, 2) for y in qkv.split(D, -1)
        )
        heads = attend(q, KVCache(k, v), seen, self.dropout if self.training else 0.0)
        y: Tensor = self.c_proj(heads)
        return y


class MLP(nn.Module):
    """D -> 4 D -> D, at each position by itself."""

    parallel_units = ("c_fc", "c_proj")

    def __init__(self, config: GPTConfig) -> None:
        self.activation = F.activation(config.activation)
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, config.bias)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, config.bias)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.c_proj(self.activation(self.c_fc(x)))
        return y

    def describe(self) -> str:
        return f"activation={self.activation.__name__}"


class Block(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x))."""

    def __init__(self, config: GPTConfig) -> None:
        self.ln_1 = nn.LayerNorm(config.n_embd, config.layer_norm_eps, bias=config.bias)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, config.layer_norm_eps, bias=config.bias)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, seen: Seen = None) -> Tensor:
        x = x + self.dropout(self.attn(self.ln_1(x), seen))
        y: Tensor = x + self.dropout(self.mlp(self.ln_2(x)))
        return y


class GPT(LanguageModel):
    """model(ids) -> logits. Matrices and embeddings start normal with standard deviation init_std,
    the maps that end a sub-layer with init_std / sqrt(2 n_layer)."""

    config: GPTConfig
    limit = "block_size"
    parallel_words = ("wte",)

    def __init__(self, config: GPTConfig) -> None:
        self.config = config
        self.heads = (config.n_head, config.n_embd // config.n_head)
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, config.layer_norm_eps, bias=config.bias)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                ends = name.endswith("c_proj.weight")
                std = config.init_std
                nn.init.normal_(p, std=std / math.sqrt(2 * config.n_layer) if ends else std)
            elif name.endswith(("c_attn.bias", "c_fc.bias", "c_proj.bias")):
                nn.init.zeros_(p)
        if config.tensor_parallel:
            parallelize(self)

    def embed(self, ids: Tensor, positions: Tensor) -> tuple[Tensor]:
        """ids (B, T) at positions (T,) or (B, T) -> (x (B, T, D),)."""
        return (self.dropout(self.wte(ids) + self.wpe(positions)),)

    def blocks(self) -> nn.ModuleList[Block]:
        return self.h

    def head(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> logits (B, T, V), by the matrix of the embedding."""
        return logits(self.ln_f(x), self.wte)
