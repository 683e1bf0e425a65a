"""PyTorch's side of decoding: greedy and beam search with caches of keys and values.

In: a Decoding (works.py) and sources. Out: translations. Called by worker.py. Sizes in the
comments: B sentences, N = B * beam rows, S source and T new positions, D = width, V words.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from .contract import Translation
from .peers_torch import Attention, Layer, Transformer, load, split_heads
from .works import BOS, EOS, PAD, Array, Decoding


class Caches:
    """What one decoder layer keeps, and its projections put together: one product instead of
    three."""

    def __init__(self, layer: Layer, memory: Tensor, rows: int, length: int) -> None:
        own: Attention = layer.self_attn
        heads, width = own.heads, memory.shape[-1]
        self.layer, self.heads = layer, heads
        self.qkv = torch.cat([own.q_proj.weight, own.k_proj.weight, own.v_proj.weight])
        self.k, self.v = torch.zeros(2, rows, heads, length, width // heads)
        cross: Attention = layer.cross_attn
        self.memory_k = split_heads(cross.k_proj(memory), heads).contiguous()  # (B, H, S, d_k)
        self.memory_v = split_heads(cross.v_proj(memory), heads).contiguous()

    def step(self, x: Tensor, mask: Tensor | None, t: int) -> Tensor:
        """x (N, D) at position t -> (N, D)."""
        layer, (N, D) = self.layer, x.shape  # noqa: N806
        qkv = F.linear(x, self.qkv).view(N, 3, self.heads, -1)
        self.k[:, :, t], self.v[:, :, t] = qkv[:, 1], qkv[:, 2]
        q = qkv[:, 0].unsqueeze(2)  # (N, H, 1, d_k)
        seen = self.k[:, :, : t + 1], self.v[:, :, : t + 1]
        y = F.scaled_dot_product_attention(q, *seen).reshape(N, D)
        x = layer.norm1(x + layer.self_attn.out_proj(y))
        B = self.memory_k.shape[0]  # noqa: N806
        q = split_heads(layer.cross_attn.q_proj(x).view(B, -1, D), self.heads)  # (B, H, beam, d_k)
        y = F.scaled_dot_product_attention(q, self.memory_k, self.memory_v, mask)
        x = layer.norm2(x + layer.cross_attn.out_proj(y.transpose(1, 2).reshape(N, D)))
        assert layer.norm3 is not None  # of a decoder
        return layer.norm3(x + layer.ffn(x))

    def reorder(self, rows: Tensor, t: int) -> None:
        """Let row i go on from what row rows[i] has up to position t."""
        self.k[:, :, : t + 1] = self.k[rows, :, : t + 1]
        self.v[:, :, : t + 1] = self.v[rows, :, : t + 1]


class Translator:
    """Called with sources (B, S), it translates them."""

    def __init__(self, case: Decoding) -> None:
        self._case = case
        longest = max(case.source, case.new_tokens)
        self._model = Transformer(case.model, 0.0, longest).eval()
        load(self._model, case.weights())

    @torch.inference_mode()
    def __call__(self, sources: Array) -> Translation:
        src = torch.from_numpy(sources)
        mask = (src != PAD)[:, None, None, :]
        memory = self._model.encode(src, mask)
        everything = None if bool(mask.all()) else mask  # no mask is faster than one of ones
        rows, length = len(src) * self._case.beam, self._case.new_tokens
        caches = [Caches(layer, memory, rows, length) for layer in self._model.decoder.layers]
        search = self._greedy if self._case.beam == 1 else self._beam
        tokens, scores = search(caches, everything, rows)
        return Translation(tokens.numpy(), scores.numpy())

    def _logits(self, caches: list[Caches], ids: Tensor, mask: Tensor | None, t: int) -> Tensor:
        """What follows ids (N,) at position t: logits (N, V), the end token ruled out of choice."""
        model = self._model
        x = model.embedding(ids) * math.sqrt(model.width) + model.positions[t]
        for cache in caches:
            x = cache.step(x, mask, t)
        return F.linear(x, model.embedding.weight)

    def _greedy(
        self, caches: list[Caches], mask: Tensor | None, rows: int
    ) -> tuple[Tensor, Tensor]:
        ids = torch.full((rows,), BOS)
        tokens = torch.zeros(rows, self._case.new_tokens, dtype=torch.long)
        scores = torch.zeros(rows)
        for t in range(self._case.new_tokens):
            logits = self._logits(caches, ids, mask, t)
            norm = logits.logsumexp(-1)
            logits[:, EOS] = -math.inf
            best, ids = logits.max(-1)
            scores += best - norm
            tokens[:, t] = ids
        return tokens, scores

    def _beam(self, caches: list[Caches], mask: Tensor | None, rows: int) -> tuple[Tensor, Tensor]:
        beam = self._case.beam
        ids = torch.full((rows,), BOS)
        tokens = torch.zeros(rows, self._case.new_tokens, dtype=torch.long)
        scores = torch.full((rows // beam, beam), -math.inf)
        scores[:, 0] = 0.0  # they begin alike, and one of them is enough
        first = torch.arange(0, rows, beam)[:, None]
        for t in range(self._case.new_tokens):
            logits = self._logits(caches, ids, mask, t)
            norm = logits.logsumexp(-1, keepdim=True)
            logits[:, EOS] = -math.inf
            found, words = logits.topk(beam, -1)  # no sentence takes more of one hypothesis
            totals = (scores.view(-1, 1) + found - norm).view(-1, beam * beam)
            scores, places = totals.topk(beam, -1)  # (B, beam)
            parents = (first + places // beam).view(-1)
            ids = words.view(-1, beam * beam).gather(1, places).view(-1)
            for cache in caches:
                cache.reorder(parents, t)
            tokens = tokens[parents]
            tokens[:, t] = ids
        return tokens[::beam], scores[:, 0]
