"""Positions: computed sinusoids or learned vectors, which are added to embeddings, and distances,
which are added to the scores of attention.

In: x (B, T, D), or numbers of positions. Out: the same with each position's own vector, or what is
added. Called by transformer.py and t5.py.
"""

from __future__ import annotations

import math

from .. import nn
from ..creation import arange, stack, where
from ..dtypes import DType, float32, float64, int64
from ..errors import ShapeError
from ..tensor import Tensor


class Sinusoids(nn.Module):
    """PE(pos, 2i) = sin(pos / 10000^(2i / D)), PE(pos, 2i + 1) = cos of the same: section 3.5.
    Computed when asked for, so there is no longest length. halves: all sines come first."""

    def __init__(self, d_model: int, halves: bool = False) -> None:
        self.d_model, self.halves = d_model, halves

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table(x.shape[-2], x.dtype, x.device)

    def describe(self) -> str:
        return f"{self.d_model}"

    def table(self, length: int, dtype: DType, device: str) -> Tensor:
        """(length, D)."""
        pos = arange(length, dtype=float64, device=device).unsqueeze(1)  # (length, 1)
        pair = arange(0, self.d_model, 2, dtype=float64, device=device)  # 2i
        angle = pos * (pair * (-math.log(10000) / self.d_model)).exp()  # (length, D / 2)
        both = stack([angle.sin(), angle.cos()], 1 if self.halves else -1).reshape(length, -1)
        return both[:, : self.d_model].to(dtype)


class LearnedPositions(nn.Embedding):
    """A learned vector for each of max_len positions."""

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table(x.shape[-2], x.dtype, x.device)

    def table(self, length: int, dtype: DType, device: str) -> Tensor:
        """(length, D)."""
        if length > self.num_embeddings:
            raise ShapeError(
                f"a sequence of {length} positions: this model has learned {self.num_embeddings} "
                '(max_len); shorten it, or use positions="sinusoidal"'
            )
        return self.weight[:length]


def positions_of(kind: str, max_len: int, d_model: int) -> Sinusoids | LearnedPositions:
    """Positions of the kind that TransformerConfig.positions names."""
    if kind == "learned":
        return LearnedPositions(max_len, d_model)
    return Sinusoids(d_model, kind == "sinusoidal_halves")


class Distances(nn.Module):
    """What is added to the scores of a query and a key at a distance: a number for each head and
    group of distances (Raffel et al., arXiv 1910.10683). The smaller half of the groups are single
    distances, the others grow like a logarithm. directed: keys behind and ahead of a query have
    groups of their own; else those ahead are not seen, and count as distance 0."""

    def __init__(self, n_groups: int, max_distance: int, n_heads: int, directed: bool) -> None:
        self.directed, self.max_distance = directed, max_distance
        self.groups = nn.Embedding(n_groups, n_heads)

    def forward(self, queries: int, keys: int) -> Tensor:
        """(1, H, queries, keys): both counted from 0."""
        device = self.groups.weight.device
        ahead = arange(keys, device=device) - arange(queries, device=device).unsqueeze(1)
        found: Tensor = self.groups(self.group(ahead))  # (T, S, H)
        return found.permute(2, 0, 1).unsqueeze(0)

    def group(self, ahead: Tensor) -> Tensor:
        """ahead int64: how far a key is ahead of a query -> the number of its group."""
        groups = self.groups.num_embeddings // (2 if self.directed else 1)
        first = (ahead > 0).to(int64) * groups if self.directed else 0
        distance = ahead.abs() if self.directed else (-ahead).clip(min=0)
        single = groups // 2
        far = (distance.clip(min=1).to(float32) / single).log()
        far = far / math.log(self.max_distance / single) * (groups - single)
        grown = (far.to(int64) + single).clip(max=groups - 1)
        return where(distance < single, distance, grown) + first
