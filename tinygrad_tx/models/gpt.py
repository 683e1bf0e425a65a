"""GPT-2: a decoder-only Transformer, pre-norm, with learned positions (Radford et al. 2019).

In: ids (B, T), int32 or int64. Out: logits (B, T, V), or a loss. Called by training and decoding,
and by users. Sizes in the comments: B rows, T positions, D = n_embd, H heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from .. import nn
from ..arguments import check_fields, explain_init
from ..creation import arange, tensor, zeros
from ..dtypes import int64
from ..errors import ShapeError
from ..nn import KVCache
from ..nn import functional as F  # noqa: N812
from ..tensor import Tensor, no_grad
from .config import check
from .stepwise import Start, repeated, rows_of


@explain_init
@dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT.

    block_size: how many positions there are, prompt and all.
    dropout: on embedding + position, attention weights, and every sub-layer's output.
    bias: True if maps and layer norms have biases.
    activation: "gelu" is exact; OpenAI's weights want "gelu_tanh".
    init_std: the standard deviation that weights begin with. 0.02 is GPT-2's; narrow models learn
        faster with about 0.7 / sqrt(n_embd).
    eos_id: the token that ends a text, if there is one.
    """

    vocab_size: int
    n_layer: int
    n_head: int
    n_embd: int
    block_size: int
    dropout: float = 0.0
    bias: bool = False
    activation: str = "gelu"
    eos_id: int | None = None
    pad_id: int | None = None
    init_std: float = 0.02

    def __post_init__(self) -> None:
        check_fields(self)
        check("init_std", self.init_std, self.init_std > 0, "positive")
        for name in ("vocab_size", "n_layer", "n_head", "n_embd", "block_size"):
            check(name, getattr(self, name), getattr(self, name) > 0, "positive")
        check("dropout", self.dropout, 0 <= self.dropout < 1, "from 0 to below 1")
        for name in ("eos_id", "pad_id"):
            token = getattr(self, name)
            fits = token is None or 0 <= token < self.vocab_size
            check(name, token, fits, f"an id below vocab_size, {self.vocab_size}")
        fits = self.n_embd % self.n_head == 0
        check("n_embd", self.n_embd, fits, f"a multiple of n_head, {self.n_head}")
        F.activation(self.activation)


class Attention(nn.Module):
    """Self-attention; queries, keys and values by one map."""

    def __init__(self, config: GPTConfig) -> None:
        self.n_head, self.dropout = config.n_head, config.dropout
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, config.bias)

    def forward(self, x: Tensor) -> Tensor:
        q, own = self._project(x)
        return self._attend(q, own, None, is_causal=True)

    @nn.scoped
    def step(self, x: Tensor, cache: KVCache, mask: Tensor, position: Tensor) -> Tensor:
        """The same for the positions x (N, T, D) that begin at a 0-d position: their keys and
        values go into the cache, and mask (N, 1, T, L) says what they see of it."""
        q, own = self._project(x)
        cache.write(own.k, own.v, position)
        return self._attend(q, cache, mask)

    def _project(self, x: Tensor) -> tuple[Tensor, KVCache]:
        """x (B, T, D) -> queries, keys and values, each (B, H, T, d_k)."""
        B, T, D = x.shape  # noqa: N806
        qkv: Tensor = self.c_attn(x)  # (B, T, 3 D)
        q, k, v = (
            y.reshape(B, T, self.n_head, D // self.n_head).transpose(1, 2) for y in qkv.split(D, -1)
        )
        return q, KVCache(k, v)

    def _attend(
        self, q: Tensor, seen: KVCache, mask: Tensor | None, is_causal: bool = False
    ) -> Tensor:
        B, H, T, d_k = q.shape  # noqa: N806
        p = self.dropout if self.training else 0.0
        heads = F.scaled_dot_product_attention(q, seen.k, seen.v, mask, p, is_causal)
        y: Tensor = self.c_proj(heads.transpose(1, 2).reshape(B, T, H * d_k))
        return y


class MLP(nn.Module):
    """D -> 4 D -> D, at each position by itself."""

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
        self.ln_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attn(self.ln_1(x)))
        y: Tensor = x + self.dropout(self.mlp(self.ln_2(x)))
        return y

    @nn.scoped
    def step(self, x: Tensor, cache: KVCache, mask: Tensor, position: Tensor) -> Tensor:
        """The same with a cache; see Attention.step."""
        x = x + self.dropout(self.attn.step(self.ln_1(x), cache, mask, position))
        y: Tensor = x + self.dropout(self.mlp(self.ln_2(x)))
        return y


class GPTState(NamedTuple):
    """The decoding state of N = B * beam rows; see stepwise.py."""

    caches: tuple[KVCache, ...]  # of each layer: (N, H, L, d_k)
    begin: Tensor  # (B,): the column at which each prompt begins, after its padding

    def reorder(self, rows: Tensor) -> None:
        """Let row i go on from what row rows[i] has, in place; rows (N,) stay in their prompts."""
        for cache in self.caches:
            cache.reorder(rows)

    def keep(self, sentences: Tensor) -> GPTState:
        """A new state of these prompts (B',) alone."""
        rows = rows_of(sentences, self.caches[0].k.shape[0] // self.begin.shape[0])
        caches = tuple(cache.select(rows) for cache in self.caches)
        return GPTState(caches, self.begin.index_select(0, sentences))


class GPT(nn.Module):
    """model(ids) -> logits. Matrices and embeddings start normal with standard deviation init_std,
    the maps that end a sub-layer with init_std / sqrt(2 n_layer)."""

    padding_side = "left"

    def __init__(self, config: GPTConfig) -> None:
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, bias=config.bias)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                ends = name.endswith("c_proj.weight")
                std = config.init_std
                nn.init.normal_(p, std=std / math.sqrt(2 * config.n_layer) if ends else std)
            elif name.endswith(("c_attn.bias", "c_fc.bias", "c_proj.bias")):
                nn.init.zeros_(p)

    def forward(self, ids: Tensor) -> Tensor:
        """ids int (B, T) -> logits (B, T, V): at t, of the token after ids[:, : t + 1]."""
        if ids.ndim != 2:
            raise ShapeError(f"GPT: ids must be (batch, length), not {ids.shape}")
        self._require_room(ids.shape[1])
        x = self.wte(ids) + self.wpe(arange(ids.shape[1], device=ids.device))  # (B, T, D)
        x = self.dropout(x)
        for block in self.h:
            x = block(x)
        return F.linear(self.ln_f(x), self.wte.weight)

    def loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        """The mean cross-entropy, in nats, of targets (B, T), those equal to -100 left out; 0 where
        all are."""
        logits = self(ids)  # (B, T, V)
        rows, wanted = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)
        total = F.cross_entropy(rows, wanted, ignore_index=-100, reduction="sum")
        return total / (wanted != -100).sum().clip(min=1)

    # One token at a time; see stepwise.py
    def room(self, length: int) -> int | None:
        """The number of new tokens that may follow a prompt of that length; the last is never
        read."""
        return self.config.block_size - length + 1

    @no_grad()
    @nn.scoped
    def start(
        self, ids: Tensor, lengths: Tensor | None = None, *, max_new_tokens: int, beam: int = 1
    ) -> Start:
        """Read prompts (B, P), padded on the left, for up to max_new_tokens steps of `beam`
        hypotheses each. Without lengths, leading pad_ids are padding, where the model has one."""
        B, P = ids.shape  # noqa: N806
        if not P:
            raise ShapeError("GPT: a prompt needs at least one token")
        length = P - 1 + max_new_tokens
        if lengths is None:  # where they are known, what is padded takes no room
            self._require_room(length)
        if lengths is not None:
            begin = P - lengths
        elif self.config.pad_id is not None:
            begin = ((ids != self.config.pad_id).to(int64).cumsum(1) == 0).sum(1)
        else:
            begin = zeros(B, dtype=int64, device=ids.device)
        heads = self.config.n_head
        shape = (B, heads, length, self.config.n_embd // heads)
        caches = tuple(KVCache.empty(shape, self.wte.weight) for _ in self.h)
        state = GPTState(caches, begin)
        if P > 1:
            self._advance(state, ids[:, :-1], tensor(0, device=ids.device))
        if beam > 1:
            state = GPTState(tuple(KVCache(*(repeated(x, beam) for x in c)) for c in caches), begin)
        return Start(state, repeated(ids[:, -1], beam), tensor(P - 1, device=ids.device))

    @no_grad()
    @nn.scoped
    def step(self, state: GPTState, ids: Tensor, position: Tensor) -> Tensor:
        """The logits (N, V) of the tokens after ids (N,) at a 0-d position."""
        x = self._advance(state, ids.unsqueeze(1), position)  # (N, 1, D)
        return F.linear(x, self.wte.weight).squeeze(1)

    def _advance(self, state: GPTState, ids: Tensor, position: Tensor) -> Tensor:
        """ids (N, T) at the columns from a 0-d position on -> (N, T, D). A row's own positions
        count from where it begins, and it sees nothing of what is before."""
        (N, T), L = ids.shape, state.caches[0].k.shape[2]  # noqa: N806
        columns = position + arange(T, device=ids.device)  # (T,)
        begin = repeated(state.begin, N // state.begin.shape[0]).unsqueeze(1)  # (N, 1)
        # Padding, and rows that have come to their end, are anywhere: nobody looks at them.
        positions = (columns - begin).clip(0, self.config.block_size - 1)  # (N, T)
        x = self.wte(ids) + self.wpe(positions)  # (N, T, D)
        x = self.dropout(x)
        slots = arange(L, device=ids.device)
        past = slots <= columns.unsqueeze(1)  # (T, L)
        mask = (past & (slots >= begin.unsqueeze(1))).unsqueeze(1)  # (N, 1, T, L)
        for block, cache in zip(self.h, state.caches, strict=True):
            x = block.step(x, cache, mask, position)
        y: Tensor = self.ln_f(x)
        return y

    def _require_room(self, length: int) -> None:
        if length > self.config.block_size:
            raise ShapeError(
                f"GPT: {length} positions, but this model has block_size = "
                f"{self.config.block_size}; shorten the text, or ask for fewer new tokens"
            )
