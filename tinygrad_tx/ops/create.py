"""Ops without inputs: what fills a new Tensor. (Random ones are in random.py.)"""

from __future__ import annotations

from typing import Any

from ..dtypes import DType
from ..node import Op, Spec


def _shaped(op: Op, *, shape: tuple[int, ...], dtype: DType, **attrs: Any) -> Spec:
    return Spec(shape, dtype)


FULL = Op(
    "full",
    kind="create",
    rule=_shaped,
    forward=lambda xp, shape, value, dtype, device: xp.full(shape, value, dtype),
)
ARANGE = Op(
    "arange",
    kind="create",
    rule=lambda op, start, step, count, dtype, device: Spec((count,), dtype),
    forward=lambda xp, start, step, count, dtype, device: xp.iota(start, step, count, dtype),
)


def zeros_like(x: Any) -> Any:
    """Zeros of a Tensor's shape, dtype and device: what gradients start from."""
    return FULL(shape=x.shape, value=0.0, dtype=x.dtype, device=x.device)
