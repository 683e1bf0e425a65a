"""Ops without inputs: what fills a new Tensor. (Random ones are in random.py.)"""

from __future__ import annotations

from typing import Any

from ..dtypes import DType, require_fit
from ..op import Op
from ..rules import Spec


def _filled(op: Op, *, shape: tuple[int, ...], value: float, dtype: DType, **attrs: Any) -> Spec:
    if dtype.kind == "i":
        require_fit(value, dtype)
    return Spec(shape, dtype)


def _counted(op: Op, *, start: float, step: float, count: int, dtype: DType, **attrs: Any) -> Spec:
    if dtype.kind == "i" and count:
        require_fit(start, dtype)
        require_fit(start + (count - 1) * step, dtype)
    return Spec((count,), dtype)


FULL = Op(
    "full",
    kind="create",
    rule=_filled,
    forward=lambda xp, shape, value, dtype, device: xp.full(shape, value, dtype),
)
ARANGE = Op(
    "arange",
    kind="create",
    rule=_counted,
    forward=lambda xp, start, step, count, dtype, device: xp.iota(start, step, count, dtype),
)


def zeros_like(x: Any) -> Any:
    """Zeros of a Tensor's shape, dtype and device: what gradients start from."""
    return FULL(shape=x.shape, value=0.0, dtype=x.dtype, device=x.device)
