"""The layers: PyTorch's, with its parameter names and initial values.

In: Tensors (..., features). Out: the same. Called by the models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..autocast import product_dtype
from ..creation import arange, ones, zeros
from ..drawing import randn
from ..errors import ShapeError
from ..spelling import refuse
from ..tensor import Tensor
from . import functional as F  # noqa: N812
from . import init
from .calls import scoped
from .module import Module, Parameter


class Linear(Module):
    """x (..., in) -> (..., out): x W^T + b. weight (out, in) and bias (out,) start uniform in
    +-1/sqrt(in)."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(zeros(out_features, in_features, dtype=dtype, device=device))
        bound = 1 / math.sqrt(in_features) if in_features else 0.0
        init.uniform_(self.weight, -bound, bound)
        self.bias: Parameter | None = None
        if bias:
            self.bias = Parameter(zeros(out_features, dtype=dtype, device=device))
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)

    def describe(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


class Embedding(Module):
    """ids (...) -> the rows (..., embedding_dim) of weight (num_embeddings, embedding_dim), which
    starts normal with standard deviation 1, or is _weight. The row padding_idx starts as zeros and
    gets no gradient."""

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Tensor | None = None,
        _freeze: bool = False,
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        refuse("Embedding", max_norm=max_norm, scale_grad_by_freq=scale_grad_by_freq, sparse=sparse)
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx: int | None = None
        if padding_idx is not None:
            self.padding_idx = F.padding_row("Embedding", padding_idx, num_embeddings)
        weight = _weight
        if weight is None:
            weight = randn(num_embeddings, embedding_dim, dtype=dtype, device=device)
            if self.padding_idx is not None:
                weight[self.padding_idx] = 0.0
        elif weight.shape != (num_embeddings, embedding_dim):
            raise ShapeError(
                f"Embedding: _weight {weight.shape} is not {(num_embeddings, embedding_dim)}"
            )
        self.weight = Parameter(weight, requires_grad=not _freeze)

    def forward(self, input: Tensor) -> Tensor:
        return F.embedding(input, self.weight, self.padding_idx)

    def describe(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"


class LayerNorm(Module):
    """Mean 0 and variance 1 over the last axes, then * weight + bias; see F.layer_norm.
    elementwise_affine=False: neither weight nor bias; bias=False: no bias."""

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        shape = self.normalized_shape = F.sizes(normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        self.weight = self.bias = None
        if elementwise_affine:
            self.weight = Parameter(ones(shape, dtype=dtype, device=device))
            self.bias = Parameter(zeros(shape, dtype=dtype, device=device)) if bias else None

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def describe(self) -> str:
        affine = "" if self.elementwise_affine else ", elementwise_affine=False"
        return f"{self.normalized_shape}, eps={self.eps}{affine}, bias={self.bias is not None}"


class RMSNorm(Module):
    """Root mean square 1 over the last axes, then * weight; see F.rms_norm.
    elementwise_affine=False: no weight."""

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        shape = self.normalized_shape = F.sizes(normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        self.weight: Parameter | None = None
        if elementwise_affine:
            self.weight = Parameter(ones(shape, dtype=dtype, device=device))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def describe(self) -> str:
        affine = "" if self.elementwise_affine else ", elementwise_affine=False"
        return f"{self.normalized_shape}, eps={self.eps}{affine}"


class Dropout(Module):
    """In training mode, zeros with probability p and x / (1 - p) elsewhere; see F.dropout."""

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout: p = {p} must be between 0 and 1")
        self.p, self.inplace = p, inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout(input, self.p, self.training, self.inplace)

    def describe(self) -> str:
        return f"p={self.p}{', inplace=True' if self.inplace else ''}"


class KVCache(NamedTuple):
    """Keys and values of attention, kept for later queries."""

    k: Tensor  # (N, H, S, d_k)
    v: Tensor  # (N, H, S, d_k)

    @staticmethod
    def empty(shape: tuple[int, int, int, int], like: Tensor) -> KVCache:
        """Zeros (N, H, S, d_k) on the device of `like`, in the dtype that products take it in."""
        dtype = product_dtype(like.dtype)
        k, v = (zeros(shape, dtype=dtype, device=like.device) for _ in range(2))
        return KVCache(k, v)

    def write(self, k: Tensor, v: Tensor, position: Tensor) -> None:
        """Put k and v (N, H, T, d_k) in from a 0-d integer position on, in place."""
        self.k.assign(F.write_at(self.k, k, position, 2))
        self.v.assign(F.write_at(self.v, v, position, 2))

    def select(self, rows: Tensor) -> KVCache:
        """The rows (N',) as a new cache."""
        return KVCache(self.k.index_select(0, rows), self.v.index_select(0, rows))

    def reorder(self, rows: Tensor) -> None:
        """Let row i go on from what row rows[i] has, in place; rows (N,)."""
        chosen = self.select(rows)
        self.k.assign(chosen.k)
        self.v.assign(chosen.v)


class MultiHeadAttention(Module):
    """Attention by n_heads heads with projections of their own: section 3.2.2 of arXiv 1706.03762.

    query (B, T, d_model), key and value (B, S, d_model) -> (B, T, d_model).
    attn_mask: broadcasts to (B, n_heads, T, S); bool (True takes part) or added to the scores.
    dropout: the share of attention weights dropped in training.
    """

    def __init__(
        self, d_model: int, n_heads: int, dropout: float = 0.0, bias: bool = False
    ) -> None:
        if n_heads < 1 or d_model % n_heads:
            raise ShapeError(
                f"MultiHeadAttention: d_model {d_model} must be a multiple of n_heads {n_heads}"
            )
        self.n_heads, self.dropout = n_heads, dropout
        self.q_proj = Linear(d_model, d_model, bias)
        self.k_proj = Linear(d_model, d_model, bias)
        self.v_proj = Linear(d_model, d_model, bias)
        self.out_proj = Linear(d_model, d_model, bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        return self.attend(query, self.project(key, value), attn_mask, is_causal)

    @scoped
    def project(self, key: Tensor, value: Tensor) -> KVCache:
        """The keys and values (B, H, S, d_k) of every head, as a cache keeps them."""
        return KVCache(self._heads(self.k_proj(key)), self._heads(self.v_proj(value)))

    @scoped
    def attend(
        self,
        query: Tensor,
        seen: KVCache,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """query (B, T, d_model) looks at projected keys and values -> (B, T, d_model)."""
        q = self._heads(self.q_proj(query))
        p = self.dropout if self.training else 0.0
        heads = F.scaled_dot_product_attention(q, seen.k, seen.v, attn_mask, p, is_causal)
        y: Tensor = self.out_proj(heads.transpose(1, 2).reshape(query.shape))  # side by side again
        return y

    @scoped
    def step(self, x: Tensor, cache: KVCache, position: Tensor) -> Tensor:
        """Self-attention of the one position x (N, 1, d_model), which sees itself and what the
        cache holds of the positions before; it is added to the cache."""
        cache.write(*self.project(x, x), position)
        places = arange(cache.k.shape[2], device=x.device)
        return self.attend(x, cache, places <= position)

    def empty_cache(self, rows: int, length: int) -> KVCache:
        """A cache for step(), with room for `length` positions of `rows` rows."""
        weight = self.k_proj.weight
        return KVCache.empty((rows, self.n_heads, length, len(weight) // self.n_heads), weight)

    def _heads(self, x: Tensor) -> Tensor:
        if x.ndim != 3:
            raise ShapeError(
                f"MultiHeadAttention: an input must be (batch, length, d_model), not {x.shape}"
            )
        B, T, D = x.shape  # noqa: N806
        return x.reshape(B, T, self.n_heads, D // self.n_heads).transpose(1, 2)  # (B, H, T, d_k)

    def describe(self) -> str:
        return f"n_heads={self.n_heads}, dropout={self.dropout}"
