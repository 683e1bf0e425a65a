"""scatter, scatter_add, scatter_reduce: writes along one dimension, as row-major places of a row.

In: Tensors. Out: Tensors. Called by the methods of that name. Place i of index (of x's dimensions,
each at most as large) stands for x[i] with the coordinate of `dim` replaced by index[i]; negative
ones count from the end.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from . import indexing, ops
from .arguments import shown
from .dtypes import bool_, float32, int64
from .errors import DTypeError, ShapeError, UserError
from .node import Handle

if TYPE_CHECKING:  # Tensor's methods call what is here
    from .tensor import Tensor

REDUCES = ("sum", "prod", "mean", "amax", "amin")


def put(x: Tensor, dim: int, index: Tensor, src: Any) -> Tensor:
    """src, a Tensor or a number, at index along dim; of places that come twice the last stays."""
    places = _places("scatter", x, dim, index)
    if isinstance(src, Handle):
        value = _read("scatter", x, index, src)
    else:
        value = _filled(x, places.shape, indexing.converted(src, x))
    out: Tensor = ops.INDEX_PUT(x.reshape(-1), places, value, axis=0)
    return out.reshape(x.shape)


def add(x: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """src added at index along dim."""
    places, value = _places("scatter_add", x, dim, index), _read("scatter_add", x, index, src)
    out: Tensor = ops.INDEX_ADD(x.reshape(-1), places, value, axis=0)
    return out.reshape(x.shape)


def reduce(x: Tensor, dim: int, index: Tensor, src: Tensor, how: str, include_self: bool) -> Tensor:
    """src reduced into index along dim. include_self: x's own element takes part, too."""
    if how not in REDUCES:
        raise UserError(f"scatter_reduce: reduce={shown(how)} is none of {', '.join(REDUCES)}")
    if x.dtype == bool_:
        raise DTypeError("scatter_reduce needs numbers, not bool: use .long() first")
    if x.dtype.is_half:  # sums and products of many
        wide = src.to(float32) if src.dtype == x.dtype else src
        return reduce(x.to(float32), dim, index, wide, how, include_self).to(x.dtype)
    places = _places("scatter_reduce", x, dim, index)
    value, row = _read("scatter_reduce", x, index, src), x.reshape(-1)
    out: Tensor
    if how in ("amax", "amin"):
        out = ops.INDEX_MAX(
            row, places, value, axis=0, least=how == "amin", include_self=include_self
        )
    elif how == "prod":
        base = row if include_self else _cleared(row, places, 1)
        out = base * _products(row, places, value)
    else:
        base = row if include_self else _cleared(row, places, 0)
        out = ops.INDEX_ADD(base, places, value, axis=0)
        if how == "mean":
            out = _divided(out, row, places, include_self)
    return out.reshape(x.shape)


def _places(name: str, x: Tensor, dim: int, index: Tensor) -> Tensor:
    """The row-major places in x that index stands for, as a row."""
    if not isinstance(index, Handle):
        raise DTypeError(f"{name}: index must be a Tensor, not {shown(index)}")
    if not x.ndim:  # as a row of one
        x, index = x.reshape(1), index.reshape(-1)
    axis = x._axis(dim)
    if index.ndim != x.ndim or any(
        n > m for i, (n, m) in enumerate(zip(index.shape, x.shape, strict=True)) if i != axis
    ):
        raise ShapeError(
            f"{name}: an index {index.shape} does not fit {x.shape}: it must have its dimensions, "
            f"each at most as large, but for dimension {axis}"
        )
    flat: Tensor = ops.WRAP_INDEX(index, size=x.shape[axis], of=name)
    flat = flat * prod(x.shape[axis + 1 :])
    for i, n in enumerate(index.shape):
        if i != axis and n > 1:
            steps: Tensor = ops.ARANGE(
                start=0, step=prod(x.shape[i + 1 :]), count=n, dtype=int64, device=x.device
            )
            flat = flat + steps.reshape(n, *(1,) * (x.ndim - 1 - i))
    return flat.reshape(-1)


def _read(name: str, x: Tensor, index: Tensor, src: Any) -> Tensor:
    """What of src is written, as a row."""
    if not isinstance(src, Handle):
        raise DTypeError(f"{name}: src must be a Tensor, not {shown(src)}")
    value: Any = src
    if value.dtype != x.dtype:
        raise DTypeError(
            f"{name}: src is {value.dtype.name}, self {x.dtype.name}: use .to(x.dtype)"
        )
    if value.ndim != index.ndim or any(
        n > m for n, m in zip(index.shape, value.shape, strict=True)
    ):
        raise ShapeError(
            f"{name}: src {value.shape} must be at least as large as the index {index.shape}"
        )
    for axis, n in enumerate(index.shape):
        if n < value.shape[axis]:
            value = indexing.narrow(value, axis, 0, n)
    out: Tensor = value.reshape(-1)
    return out


def _filled(x: Tensor, shape: tuple[int, ...], value: Any) -> Tensor:
    if isinstance(value, Handle):
        return value.expand(shape)  # type: ignore[attr-defined, no-any-return]
    out: Tensor = ops.FULL(shape=shape, value=value, dtype=x.dtype, device=x.device)
    return out


def _cleared(row: Tensor, places: Tensor, value: float) -> Tensor:
    """The row with value at the places."""
    out: Tensor = ops.INDEX_PUT(row, places, _filled(row, places.shape, value), axis=0)
    return out


def _divided(total: Tensor, row: Tensor, places: Tensor, include_self: bool) -> Tensor:
    """Sums divided by the number of their terms; of integers rounded down."""
    ones = _filled(row, row.shape, 1)
    counts = ones if include_self else _cleared(ones, places, 0)
    terms: Tensor = ops.INDEX_ADD(counts, places, _filled(row, places.shape, 1), axis=0)
    return total / terms if row.dtype.is_floating_point else total // terms


def _products(row: Tensor, places: Tensor, value: Tensor) -> Tensor:
    """1, and at the places the product of all values that go there.

    Values in the order of their places are multiplied by doubling, within a place: the last of
    each then is the product, and the one that a write leaves (Hillis and Steele, 1986). So a 0
    among the factors leaves the gradient of the others what it is.
    """
    order = places.argsort()
    places, value = places.index_select(0, order), value.index_select(0, order)
    n, step = len(places), 1
    while step < n:
        same = indexing.narrow(places, 0, step, n - step) == indexing.narrow(places, 0, 0, n - step)
        before = indexing.narrow(value, 0, 0, n - step).where(same, 1)
        value = value * ops.PAD(before, widths=((step, 0),), value=1)
        step *= 2
    out: Tensor = ops.INDEX_PUT(_filled(row, row.shape, 1), places, value, axis=0)
    return out
