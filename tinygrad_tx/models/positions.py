"""Positions that are added to embeddings: computed sinusoids, or learned vectors.

In: x (B, T, D). Out: the same, with each position's own vector added. Called by transformer.py.
"""

from __future__ import annotations

import math

from .. import nn
from ..creation import arange, stack
from ..dtypes import DType, float64
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
