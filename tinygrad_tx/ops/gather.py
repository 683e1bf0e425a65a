"""Gather and scatter: reads and writes at places that are data, and the orders that make them.

Indices are int32 or int64, may be negative (counted from the end), and are checked against the
size they choose from before anything is written: IndexError names the first that is outside.
"""

from __future__ import annotations

from typing import Any

from ..dtypes import bool_, int64
from ..errors import DTypeError, ShapeError
from ..node import Node
from ..op import Op
from ..rules import Spec
from .create import ARANGE, FULL, zeros_like
from .map import WHERE


def _require_index(op: Op, index: Node) -> None:
    if index.dtype.kind != "i":
        raise DTypeError(f"{op.name}: indices must be int32 or int64, not {index.dtype.name}")


def _take_rule(op: Op, x: Node, index: Node, *, axis: int, wrap: bool = True) -> Spec:
    _require_index(op, index)
    return Spec((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]), x.dtype)


def _take_vjp(g: Any, y: Any, x: Any, index: Any, axis: int, wrap: bool = True) -> tuple[Any, ...]:
    flat = (*x.shape[:axis], index.numel(), *x.shape[axis + 1 :])
    return (INDEX_ADD(zeros_like(x), index.reshape(-1), g.reshape(flat), axis=axis), None)


TAKE = Op(  # embedding is TAKE along axis 0, without wrap: there are no negative ids
    "take",
    kind="gather",
    rule=_take_rule,
    forward=lambda xp, x, index, axis, wrap=True: xp.take(
        x, xp.checked(index, x.shape[axis], wrap=wrap, of="take"), axis
    ),
    vjp=_take_vjp,
)


def _index_add_rule(op: Op, x: Node, index: Node, value: Node, *, axis: int) -> Spec:
    _require_index(op, index)
    fits = (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])
    if index.ndim != 1 or value.shape != fits or value.dtype != x.dtype:
        raise ShapeError(
            f"{op.name}: along axis {axis} of {x.dtype.name} {x.shape} with an index {index.shape} "
            f"the value must be {x.dtype.name} {fits}, not {value.dtype.name} {value.shape}"
        )
    return x.spec  # type: ignore[return-value]


INDEX_ADD = Op(
    "index_add",
    kind="gather",
    rule=_index_add_rule,
    forward=lambda xp, x, index, value, axis: xp.index_add(
        x, xp.checked(index, x.shape[axis], of="index_add"), value, axis
    ),
    vjp=lambda g, y, x, index, value, axis: (g, None, lambda: TAKE(g, index, axis=axis)),
)


def _index_put_vjp(g: Any, y: Any, x: Any, index: Any, value: Any, axis: int) -> tuple[Any, ...]:
    def by_value() -> Any:
        # Where an index comes twice, only the slice that stays has an influence.
        size, n = x.shape[axis], index.shape[0]
        order = ARANGE(start=0, step=1, count=n, dtype=int64, device=x.device)
        none = FULL(shape=(size,), value=-1, dtype=int64, device=x.device)
        stays = TAKE(INDEX_PUT(none, index, order, axis=0), index, axis=0) == order
        wide = stays.reshape((n,) + (1,) * (x.ndim - 1 - axis))
        return WHERE(wide, TAKE(g, index, axis=axis), 0)

    return (lambda: INDEX_PUT(g, index, zeros_like(value), axis=axis), None, by_value)


INDEX_PUT: Op = Op(  # as INDEX_ADD, but replacing: of duplicates the last one stays
    "index_put",
    kind="gather",
    rule=_index_add_rule,
    forward=lambda xp, x, index, value, axis: xp.index_put(
        x, xp.checked(index, x.shape[axis], of="index_put"), value, axis
    ),
    vjp=_index_put_vjp,
)


def _index_max(
    xp: Any, x: Any, index: Any, value: Any, axis: int, least: bool, include_self: bool
) -> Any:
    place = xp.checked(index, x.shape[0], of="index_max")
    whole = value.dtype.kind in "iu"  # the negative of the least integer is itself
    order = xp.argsort(value if whole or not least else -value, 0, least and whole)
    out = xp.index_put(x, place[order], value[order], 0)  # the largest comes last, and stays
    if include_self:
        out = xp.minimum(x, out) if least else xp.maximum(x, out)
    return out


def _index_max_rule(
    op: Op, x: Node, index: Node, value: Node, *, axis: int, least: bool, include_self: bool
) -> Spec:
    if x.ndim != 1 or axis or x.dtype == bool_ or x.dtype.is_half:
        raise ShapeError(
            f"{op.name}: a row of numbers of 32 or 64 bits, not {x.dtype.name} {x.shape}"
        )
    return _index_add_rule(op, x, index, value, axis=axis)


def _index_max_vjp(
    g: Any, y: Any, x: Any, index: Any, value: Any, axis: int, least: bool, include_self: bool
) -> tuple[Any, ...]:
    """All that reach the extreme share the gradient."""
    hits = (value == TAKE(y, index, axis=0)).to(g.dtype)
    if include_self:
        stays = (x == y).to(g.dtype)
    else:
        ones = FULL(shape=x.shape, value=1.0, dtype=g.dtype, device=g.device)
        stays = INDEX_PUT(ones, index, zeros_like(hits), axis=0)
    count = INDEX_ADD(stays, index, hits, axis=0)
    share = g / WHERE(count == 0, 1, count)  # 0: of NaN
    return (share * stays, None, lambda: TAKE(share, index, axis=0) * hits)


# As INDEX_ADD on a row, but the largest stays, or the least; x itself counts where `include_self`
# is set.
INDEX_MAX = Op(
    "index_max", kind="gather", rule=_index_max_rule, forward=_index_max, vjp=_index_max_vjp
)


def _along(op: Op, x: Node, index: Node, axis: int) -> None:
    _require_index(op, index)
    if index.ndim != x.ndim or any(
        n != m for i, (n, m) in enumerate(zip(index.shape, x.shape, strict=True)) if i != axis
    ):
        raise ShapeError(
            f"{op.name}: an index {index.shape} may differ from {x.shape} along axis {axis} only; "
            "expand it first"
        )


def _take_along_rule(op: Op, x: Node, index: Node, *, axis: int) -> Spec:
    _along(op, x, index, axis)
    return Spec(index.shape, x.dtype)


def _scatter_add_rule(
    op: Op, index: Node, value: Node, *, shape: tuple[int, ...], axis: int
) -> Spec:
    _require_index(op, index)
    if index.shape != value.shape:
        raise ShapeError(f"scatter_add: index {index.shape} and value {value.shape} differ")
    return Spec(shape, value.dtype)


TAKE_ALONG = Op(
    "take_along",
    kind="gather",
    rule=_take_along_rule,
    forward=lambda xp, x, index, axis: xp.take_along_axis(
        x, xp.checked(index, x.shape[axis], of="take_along"), axis
    ),
    vjp=lambda g, y, x, index, axis: (SCATTER_ADD(index, g, shape=x.shape, axis=axis), None),
)
SCATTER_ADD: Op = Op(
    "scatter_add",
    kind="gather",
    rule=_scatter_add_rule,
    forward=lambda xp, index, value, shape, axis: xp.scatter_add(
        shape, xp.checked(index, shape[axis], of="scatter_add"), value, axis
    ),
    vjp=lambda g, y, index, value, shape, axis: (None, TAKE_ALONG(g, index, axis=axis)),
)


def _wrap_rule(
    op: Op, index: Node, *, size: int, wrap: bool = True, skip: int | None = None, of: str = ""
) -> Spec:
    _require_index(op, index)
    return Spec(index.shape, int64)


def _wrap(
    xp: Any, index: Any, size: int, wrap: bool = True, skip: int | None = None, of: str = ""
) -> Any:
    if skip is not None:
        index = xp.where(index != skip, index, xp.cast_like(0, index))
    return xp.checked(index, size, wrap=wrap, of=of or "wrap_index").astype("int64")


# For x[i, j], whose indices are checked before they become one, and for the compiler, which checks
# apart from what is done with them. `skip` becomes 0; `of` names the op that an error is told of.
WRAP_INDEX = Op("wrap_index", kind="gather", rule=_wrap_rule, forward=_wrap)


def _update_rule(op: Op, x: Node, value: Node, position: Node, *, axis: int) -> Spec:
    _require_index(op, position)
    room = x.shape[axis]
    fits = value.ndim == x.ndim and all(
        n == m for i, (n, m) in enumerate(zip(value.shape, x.shape, strict=True)) if i != axis
    )
    if position.ndim or not fits or value.shape[axis] > room or value.dtype != x.dtype:
        raise ShapeError(
            f"update: {value.dtype.name} {value.shape} at a position {position.shape} does not fit "
            f"{x.dtype.name} {x.shape} along axis {axis}"
        )
    return x.spec  # type: ignore[return-value]


def _update_vjp(g: Any, y: Any, x: Any, value: Any, position: Any, axis: Any) -> tuple[Any, ...]:
    n = value.shape[axis]
    steps = ARANGE(start=0, step=1, count=n, dtype=int64, device=x.device)
    places = WRAP_INDEX(position, size=x.shape[axis]) + steps
    return (
        lambda: UPDATE(g, zeros_like(value), position, axis=axis),
        lambda: TAKE(g, places, axis=axis),
        None,
    )


UPDATE = Op(  # a write of a slice at a 0-d position: what a cache does at each step
    "update",
    kind="gather",
    rule=_update_rule,
    forward=lambda xp, x, value, position, axis: xp.update(x, value, position, axis),
    vjp=_update_vjp,
)


def _sort_rule(op: Op, x: Node, *, axis: int, descending: bool) -> Spec:
    return Spec(x.shape, int64)


def _topk_rule(op: Op, x: Node, *, k: int, axis: int) -> Spec:
    if not x.ndim or not 0 <= k <= x.shape[axis]:
        raise ShapeError(f"topk: k = {k} does not fit axis {axis} of {x.shape}")
    return Spec((*x.shape[:axis], k, *x.shape[axis + 1 :]), int64)


ARGSORT = Op(
    "argsort",
    kind="gather",
    rule=_sort_rule,
    forward=lambda xp, x, axis, descending: xp.argsort(x, axis, descending),
)
ARGTOPK = Op(
    "argtopk",
    kind="gather",
    rule=_topk_rule,
    forward=lambda xp, x, k, axis: xp.argtopk(x, k, axis),
)


def _searchsorted_rule(op: Op, row: Node, x: Node, *, right: bool) -> Spec:
    if row.dtype != x.dtype:
        raise DTypeError(f"{op.name}: a sequence of {row.dtype.name}, values of {x.dtype.name}")
    if not row.ndim or (row.ndim > 1 and row.shape[:-1] != x.shape[:-1]):
        raise ShapeError(
            f"{op.name}: a sequence {row.shape} does not fit values {x.shape}: it is one row, or "
            "as many as the values have"
        )
    return Spec(x.shape, int64)


def _searchsorted(xp: Any, row: Any, x: Any, right: bool) -> Any:
    """By halving, all at once: the answer lies between low and high."""
    n = row.shape[-1]
    low = xp.full(x.shape, 0, int64)
    high = xp.full(x.shape, n, int64)
    if row.ndim > 1 and not x.ndim:
        row = row.reshape(-1)
    for _ in range(n.bit_length()):
        middle = (low + high) // 2
        at = xp.minimum(middle, n - 1)
        there = xp.take(row, at, 0) if row.ndim == 1 else xp.take_along_axis(row, at, row.ndim - 1)
        # NaN counts as the largest: it is not less than anything
        beyond = (low < high) & ~((there > x) if right else (there >= x))
        low = xp.where(beyond, middle + 1, low)
        high = xp.where(beyond, high, middle)
    return low


SEARCHSORTED = Op("searchsorted", rule=_searchsorted_rule, forward=_searchsorted)
