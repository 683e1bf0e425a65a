"""Attention on arrays: operands of its kernels, masks, and what NumPy makes of them in float64."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from kernel_case import operand
from numpy.typing import NDArray

from tinygrad_tx.dtypes import ALL

Array = NDArray[Any]


def place(*arrays: Array) -> list[int]:
    return [number for array in arrays for number in operand(array)]


def outputs(dtype: str, *shapes: tuple[int, ...]) -> list[Array]:
    """Memory laid out (batch, length, head, width), as a model has it."""
    return [
        np.full((b, n, h, d), np.nan, ALL[dtype].np).transpose(0, 2, 1, 3) for b, h, n, d in shapes
    ]


class AttentionCase:
    """Inputs of one call. Heads lie side by side in memory; mask: of any shape that fits."""

    def __init__(
        self,
        b: int,
        h: int,
        t: int,
        s: int,
        d_k: int,
        d_v: int,
        dtype: str,
        mask: Array | None = None,
        causal: bool = False,
        group: int = 1,
    ) -> None:
        self.sizes, self.dtype, self.causal = (b, h, t, s, d_k, d_v, group), dtype, causal
        rng = np.random.default_rng(b * 1000 + t * 10 + s)
        self.q, self.k, self.v, self.g = (
            rng.standard_normal((b, n, heads, d)).astype(ALL[dtype].np).transpose(0, 2, 1, 3)
            for heads, n, d in (
                (h, t, d_k),
                (h // group, s, d_k),
                (h // group, s, d_v),
                (h, t, d_v),
            )
        )
        if mask is None:
            self.mask, self.kind = None, "none"
        else:
            self.kind = {"b": "bool", "i": "bounds"}.get(mask.dtype.kind, "float")
            self.mask = np.broadcast_to(mask, (b, h, t, 2 if self.kind == "bounds" else s))
        self.scale = 0.3  # the same for all, for it is part of the code

    @property
    def added(self) -> bool:
        """True if the mask is added to the scores."""
        return self.kind == "float"

    def wide(self, x: Array) -> Array:
        """Keys or values with each head as often as it serves heads of queries."""
        return x.astype("d").repeat(self.sizes[-1], 1)

    def weights(self) -> Array:
        scores = self.q.astype("d") @ self.wide(self.k).swapaxes(-1, -2) * self.scale
        if self.kind == "float":
            scores = scores + self.mask
        elif self.kind == "bounds":
            places = np.arange(scores.shape[-1])
            inside = (places >= self.mask[..., :1]) & (places < self.mask[..., 1:])
            scores = np.where(inside, scores, -np.inf)
        elif self.mask is not None:
            scores = np.where(self.mask, scores, -np.inf)
        if self.causal:
            scores = np.where(np.tri(*scores.shape[-2:], dtype=bool), scores, -np.inf)
        top = scores.max(-1, keepdims=True)
        if self.kind != "float":
            top = np.where(np.isneginf(top), 0, top)
        with np.errstate(invalid="ignore"):
            e = np.exp(scores - top)
        total = e.sum(-1, keepdims=True)
        return e / (total if self.kind == "float" else np.where(total == 0, 1, total))

    def reference(self) -> Array:
        return self.weights() @ self.wide(self.v)

    def reference_grads(self) -> list[Array]:
        p, g = self.weights(), self.g.astype("d")
        ds = g @ self.wide(self.v).swapaxes(-1, -2)
        ds = p * (ds - (ds * p).sum(-1, keepdims=True)) * self.scale
        dk, dv = ds.swapaxes(-1, -2) @ self.q.astype("d"), p.swapaxes(-1, -2) @ g
        b, h, *_, group = self.sizes
        dk, dv = (x.reshape(b, h // group, group, *x.shape[2:]).sum(2) for x in (dk, dv))
        grads = [ds @ self.wide(self.k), dk, dv]
        return [*grads, ds / self.scale] if self.added else grads


def some(shape: tuple[int, ...], seed: int = 0) -> Array:
    """A boolean mask that leaves two thirds."""
    return np.random.default_rng([seed, *shape]).random(shape) < 0.67


def documents(b: int, t: int, seed: int = 0) -> Array:
    """Bounds of documents that lie side by side in each row: (b, 1, t, 2)."""
    rng = np.random.default_rng([seed, b, t])
    found = np.zeros((b, 1, t, 2), np.int64)
    for row in found[:, 0]:
        edges = [0, *sorted(rng.choice(np.arange(1, t), min(4, t - 1), replace=False)), t]
        for begin, end in pairwise(edges):
            row[begin:end] = begin, end
    return found
