"""PyTorch's side: the same models, written to be as fast as PyTorch runs them.

In: works and weights (works.py). Out: training steps, translations and single kernels. Called by
worker.py in a process of its own. Sizes in the comments: B rows, S and T positions, D = width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from .works import (
    CLIP,
    IGNORED,
    LABEL_SMOOTHING,
    PAD,
    Array,
    Batch,
    GPTWork,
    RecurrentWork,
    TransformerWork,
    Work,
    weights,
)

# The Transformer -------------------------------------------------------------------------------


class Attention(nn.Module):
    """Heads side by side. One matrix for the projections of one input was measured to be no faster
    in training."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.out_proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        q = split_heads(self.q_proj(x), self.heads)
        k = split_heads(self.k_proj(memory), self.heads)
        v = split_heads(self.v_proj(memory), self.heads)
        y = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal)
        return self.out_proj(y.transpose(1, 2).flatten(2))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, D) -> (B, H, T, d_k)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(F.relu(self.linear1(x), inplace=True))


class Layer(nn.Module):
    """An encoder layer, or with `decoder` one that also looks at the encoder's output."""

    def __init__(self, work: TransformerWork, dropout: float, decoder: bool) -> None:
        super().__init__()
        self.dropout, self.decoder = dropout, decoder
        self.self_attn = Attention(work.width, work.heads)
        self.norm1 = nn.LayerNorm(work.width)
        if decoder:
            self.cross_attn = Attention(work.width, work.heads)
        self.norm2 = nn.LayerNorm(work.width)
        self.ffn = FeedForward(work.width, work.hidden)
        self.norm3 = nn.LayerNorm(work.width) if decoder else None

    def forward(self, x: Tensor, memory: Tensor | None, mask: Tensor) -> Tensor:
        own = None if self.decoder else mask
        x = self.norm1(x + self._drop(self.self_attn(x, x, own, self.decoder)))
        if self.norm3 is None:
            return self.norm2(x + self._drop(self.ffn(x)))
        x = self.norm2(x + self._drop(self.cross_attn(x, memory, mask, False)))
        return self.norm3(x + self._drop(self.ffn(x)))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class Stack(nn.Module):
    def __init__(self, work: TransformerWork, dropout: float, decoder: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(work, dropout, decoder) for _ in range(work.layers))


class Transformer(nn.Module):
    positions: Tensor

    def __init__(self, work: TransformerWork, dropout: float, longest: int) -> None:
        super().__init__()
        self.width, self.dropout = work.width, dropout
        self.embedding = nn.Embedding(work.vocab, work.width)
        nn.init.normal_(self.embedding.weight, std=work.width**-0.5)
        self.encoder = Stack(work, dropout, decoder=False)
        self.decoder = Stack(work, dropout, decoder=True)
        self.register_buffer("positions", sinusoids(longest, work.width), persistent=False)

    def loss(self, src: Tensor, tgt_in: Tensor, tgt_out: Tensor) -> Tensor:
        mask = (src != PAD)[:, None, None, :]
        x = self._decode(tgt_in, self.encode(src, mask), mask)
        logits = F.linear(x, self.embedding.weight).flatten(0, 1)
        return F.cross_entropy(
            logits, tgt_out.flatten(), ignore_index=PAD, label_smoothing=LABEL_SMOOTHING
        )

    def encode(self, src: Tensor, mask: Tensor) -> Tensor:
        x = self._embed(src)
        for layer in self.encoder.layers:
            x = layer(x, None, mask)
        return x

    def _decode(self, tgt_in: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        x = self._embed(tgt_in)
        for layer in self.decoder.layers:
            x = layer(x, memory, mask)
        return x

    def _embed(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids) * math.sqrt(self.width) + self.positions[: ids.shape[1]]
        return F.dropout(x, self.dropout, self.training)


def sinusoids(length: int, width: int) -> Tensor:
    pos = torch.arange(length, dtype=torch.float64)[:, None]
    angle = pos * torch.exp(torch.arange(0, width, 2).double() * (-math.log(10000) / width))
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1).float()


# The GPT ---------------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, work: GPTWork) -> None:
        super().__init__()
        self.heads = work.heads
        d, bias = work.width, work.bias
        self.approximate = "tanh" if work.activation == "gelu_tanh" else "none"
        self.ln_1, self.ln_2 = nn.LayerNorm(d, bias=bias), nn.LayerNorm(d, bias=bias)
        self.attn = nn.ModuleDict(
            {"c_attn": nn.Linear(d, 3 * d, bias=bias), "c_proj": nn.Linear(d, d, bias=bias)}
        )
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(d, 4 * d, bias=bias), "c_proj": nn.Linear(4 * d, d, bias=bias)}
        )

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.attn["c_attn"](self.ln_1(x)).chunk(3, -1)
        q, k, v = (split_heads(y, self.heads) for y in qkv)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attn["c_proj"](y.transpose(1, 2).flatten(2))
        hidden = F.gelu(self.mlp["c_fc"](self.ln_2(x)), approximate=self.approximate)
        return x + self.mlp["c_proj"](hidden)


class GPT(nn.Module):
    def __init__(self, work: GPTWork) -> None:
        super().__init__()
        self.wte = nn.Embedding(work.vocab, work.width)
        self.wpe = nn.Embedding(work.length, work.width)
        self.h = nn.ModuleList(Block(work) for _ in range(work.layers))
        self.ln_f = nn.LayerNorm(work.width, bias=work.bias)

    def loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        x = self.wte(ids) + self.wpe.weight[: ids.shape[1]]
        for block in self.h:
            x = block(x)
        logits = F.linear(self.ln_f(x), self.wte.weight).flatten(0, 1)
        return F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORED)


# A step of training ----------------------------------------------------------------------------


def load(model: nn.Module, found: dict[str, Array]) -> None:
    """Give it weights under the contract's names, which are its own."""
    model.load_state_dict({name: torch.from_numpy(x) for name, x in found.items()})


def made(work: Work, dropout: float) -> Transformer | GPT:
    """The model of a work, in training mode."""
    if isinstance(work, TransformerWork):
        return Transformer(work, dropout, work.length).train()
    assert not dropout, "the works with a GPT have no dropout"
    return GPT(work).train()


def optimizer(work: Work, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Adam or, with decay, AdamW: one fused kernel."""
    rates, kind, decay = (work.lr, work.betas, work.eps), torch.optim.Adam, 0.0
    if isinstance(work, GPTWork):
        kind, decay = torch.optim.AdamW, work.weight_decay
    return kind(parameters, *rates, weight_decay=decay, fused=True)


class Training:
    """Called with a batch, it takes a step and gives the loss."""

    def __init__(self, work: Work, dropout: float, shared: bool) -> None:
        """shared: begin with the weights that all contenders have, not with PyTorch's own."""
        model = made(work, dropout)
        if shared:
            load(model, weights(work))
        self.parameters = list(model.parameters())
        self.optimizer = optimizer(work, self.parameters)
        self.loss: Callable[..., Tensor] = model.loss

    def __call__(self, batch: Batch) -> float:
        loss = self.loss(*map(torch.from_numpy, batch))
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        found: float = loss.item()
        return found

    def stats(self) -> dict[str, Any]:
        return {}


class RecurrentTraining:
    """Called with a batch, it takes a step and gives the loss."""

    def __init__(self, work: RecurrentWork) -> None:
        kind = {"LSTM": nn.LSTM, "GRU": nn.GRU}[work.cell]
        self.model = kind(work.width, work.width, work.layers)
        load(self.model, weights(work))
        self.optimizer = torch.optim.Adam(self.model.parameters(), work.lr, fused=True)

    def __call__(self, batch: Batch) -> float:
        x, wanted = map(torch.from_numpy, batch)
        loss = F.mse_loss(self.model(x)[0], wanted)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        found: float = loss.item()
        return found


class CompiledTraining(Training):
    """The same with forward and backward by torch.compile; the optimizer's step, one fused kernel
    already, and clipping stay eager."""

    def __init__(self, work: Work, dropout: float, shared: bool) -> None:
        super().__init__(work, dropout, shared)
        self.loss = torch.compile(self.loss)
