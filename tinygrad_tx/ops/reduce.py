"""Reductions. Inside, the reduced axes are kept as 1, so that gradients broadcast back by
themselves; calling the op squeezes them unless keepdims is given."""

from __future__ import annotations

from math import prod
from typing import Any

from ..dtypes import bool_, int64
from ..errors import DTypeError, ShapeError
from ..node import Node
from ..op import Op
from ..rules import Spec, reduced
from .movement import BROADCAST, CONCAT, FLIP, PAD, PERMUTE, RESHAPE, SLICE


def _sums(op: Op, x: Node, *, axis: tuple[int, ...]) -> Spec:
    return Spec(reduced(x.shape, axis), x.dtype if x.dtype.kind == "f" else int64)


def _picks(op: Op, x: Node, *, axis: tuple[int, ...]) -> Spec:
    _not_empty(op, x, axis)
    return Spec(reduced(x.shape, axis), x.dtype)


def _decides(op: Op, x: Node, *, axis: tuple[int, ...]) -> Spec:
    if x.dtype != bool_:
        raise DTypeError(f"{op.name} needs a bool Tensor, not {x.dtype.name}: compare first")
    return Spec(reduced(x.shape, axis), bool_)


def _finds(op: Op, x: Node, *, axis: int) -> Spec:
    _not_empty(op, x, (axis,))
    return Spec(reduced(x.shape, (axis,)), int64)


def _not_empty(op: Op, x: Node, axis: tuple[int, ...]) -> None:
    for a in axis:
        if x.ndim and x.shape[a] == 0:
            raise ShapeError(f"{op.name}: axis {a} of {x.shape} is empty: no entry to take")


def _extreme_vjp(g: Any, y: Any, x: Any, axis: Any) -> tuple[Any, ...]:
    ties = (x == y).to(x.dtype)  # all entries that reach the extreme share the gradient
    return (g * ties / ties.sum(axis, keepdim=True),)


SUM = Op("sum", kind="reduce", rule=_sums, forward=lambda xp, x, axis: xp.sum(x, axis),
         vjp=lambda g, y, x, axis: (BROADCAST(g, shape=x.shape),), autocast="float32")  # fmt: skip
MAX = Op("max", kind="reduce", rule=_picks, forward=lambda xp, x, axis: xp.max(x, axis),
         vjp=_extreme_vjp)  # fmt: skip
MIN = Op("min", kind="reduce", rule=_picks, forward=lambda xp, x, axis: xp.min(x, axis),
         vjp=_extreme_vjp)  # fmt: skip
ANY = Op("any", kind="reduce", rule=_decides, forward=lambda xp, x, axis: xp.any(x, axis))
ALL = Op("all", kind="reduce", rule=_decides, forward=lambda xp, x, axis: xp.all(x, axis))

# Along one axis, an int: not of kind "reduce", whose axis is a set.
ARGMAX = Op("argmax", kind="gather", rule=_finds, forward=lambda xp, x, axis: xp.argmax(x, axis))
ARGMIN = Op("argmin", kind="gather", rule=_finds, forward=lambda xp, x, axis: xp.argmin(x, axis))


def _cumsum_vjp(g: Any, y: Any, x: Any, axis: Any) -> tuple[Any, ...]:
    return (FLIP(CUMSUM(FLIP(g, axis=(axis,)), axis=axis), axis=(axis,)),)


CUMSUM = Op(
    "cumsum",
    kind="scan",
    rule=lambda op, x, axis: Spec(x.shape, x.dtype if x.dtype.kind == "f" else int64),
    forward=lambda xp, x, axis: xp.cumsum(x, axis),
    vjp=_cumsum_vjp,
    autocast="float32",
)


# Products: their decompositions multiply in pairs, so that a 0 among the factors leaves the
# gradient of the others what it is.


def _row_last(x: Any, axis: tuple[int, ...]) -> Any:
    """The axes of a product as one, the last."""
    kept = [i for i in range(x.ndim) if i not in axis]
    rows = PERMUTE(x, order=(*kept, *axis))
    return RESHAPE(rows, shape=(*rows.shape[: len(kept)], prod(rows.shape[len(kept) :])))


def _prod_plain(x: Any, axis: tuple[int, ...]) -> Any:
    shape, dtype = reduced(x.shape, axis), x.dtype if x.dtype.kind == "f" else int64
    rows = _row_last(x.to(dtype), axis)
    if not rows.shape[-1]:
        return RESHAPE(SUM(rows, axis=-1, keepdims=True) + 1, shape=shape)
    while (n := rows.shape[-1]) > 1:
        half = n // 2
        product = _part(rows, 0, half) * _part(rows, half, 2 * half)
        rows = product if n % 2 == 0 else CONCAT(product, _part(rows, n - 1, n), axis=rows.ndim - 1)
    return RESHAPE(rows, shape=shape)


def _part(x: Any, start: int, stop: int) -> Any:
    """Some columns."""
    return SLICE(x, ranges=(*((0, n, 1) for n in x.shape[:-1]), (start, stop, 1)))


PROD = Op("prod", kind="reduce", rule=_sums, forward=lambda xp, x, axis: xp.prod(x, axis),
          decompose=_prod_plain, autocast="float32")  # fmt: skip


def _cumprod_plain(x: Any, axis: int) -> Any:
    """By doubling: after each step an element is the product of twice as many (Hillis and Steele,
    1986)."""
    rows = x.to(x.dtype if x.dtype.kind == "f" else int64).transpose(axis, -1)
    n, step = rows.shape[-1], 1
    widths = ((0, 0),) * (x.ndim - 1)
    while step < n:
        before = PAD(_part(rows, 0, n - step), widths=(*widths, (step, 0)), value=1)
        rows, step = rows * before, 2 * step
    return rows.transpose(axis, -1)


CUMPROD = Op(
    "cumprod",
    kind="fused",
    rule=lambda op, x, axis: Spec(x.shape, x.dtype if x.dtype.kind == "f" else int64),
    forward=lambda xp, x, axis: xp.cumprod(x, axis),
    decompose=_cumprod_plain,
    autocast="float32",
)
