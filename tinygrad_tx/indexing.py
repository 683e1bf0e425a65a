"""x[index] and x[index] = value: the meaning of an index in terms of slices, gathers and writes.

Integers and slices (with any step) are basic; integer Tensors, arrays and lists are advanced and
broadcast against each other, as in PyTorch; a 0-d integer Tensor is a position that a compiled
function may change. A boolean mask makes a shape that depends on data: eager only, except
`x[mask] = scalar`, which is a where().
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import ops
from .arguments import shown
from .dtypes import bool_, int64, outside
from .errors import DTypeError, ShapeError, TraceError
from .node import Handle, leaf
from .ops.movement import Range
from .rules import broadcast_shape

if TYPE_CHECKING:  # tensor.py imports this file
    from .tensor import Tensor


class _Basic(NamedTuple):
    """The basic part of an index: ranges of every axis, the shape they are read as, and which axes
    of that shape are then indexed by Tensors."""

    ranges: tuple[Range, ...]
    shape: tuple[int, ...]
    advanced: dict[int, Tensor]


def read(x: Tensor, index: Any) -> Tensor:
    basic = _parse(x, index)
    out = _slice(x, basic.ranges).reshape(basic.shape)
    advanced = basic.advanced
    for axis in sorted(advanced, reverse=True):
        if advanced[axis].ndim == 0:  # a position: its axis goes, as with a Python integer
            out, advanced = _take(out, advanced[axis], axis), _without(advanced, axis)
    if not advanced:
        return out
    axes = sorted(advanced)
    if len(axes) == 1:
        return _take(out, advanced[axes[0]], axes[0])
    merged, flat, shape, at = _merge(out, advanced)
    return _take(merged, flat.reshape(shape), at)


def write(x: Tensor, index: Any, value: Any) -> Tensor:
    """x with x[index] replaced by value, which is broadcast and converted to x's dtype."""
    mask: Any = _as_index(index)
    masked = isinstance(mask, Handle) and mask.node.dtype == bool_
    if masked and _shape(value) == ():
        if mask.shape != x.shape[: mask.ndim]:
            raise ShapeError(f"a mask {mask.shape} does not fit a Tensor {x.shape}")
        # As every index, it may lie on another device.
        wide = mask.to(x.device).reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
        written: Tensor = ops.WHERE(wide, converted(value, x), x)
        return written
    basic = _parse(x, index)
    value = converted(value if isinstance(value, Handle) else Handle.wrap(leaf_like(value, x)), x)
    piece = tuple(len(range(*r)) for r in basic.ranges)
    if basic.advanced:
        inner = _slice(x, basic.ranges).reshape(basic.shape)
        value = _write_advanced(inner, basic.advanced, value)
    else:
        value = _fit(value, basic.shape)
    value = value.reshape(piece)
    if piece == x.shape and all(step == 1 for _, _, step in basic.ranges):
        return value  # type: ignore[no-any-return]
    out: Tensor = ops.SLICE_WRITE(x, value, ranges=basic.ranges)
    return out


def narrow(x: Tensor, axis: int, start: int, length: int) -> Tensor:
    """`length` entries from `start` on along axis."""
    ranges = tuple(
        (start, start + length, 1) if i == axis else (0, n, 1) for i, n in enumerate(x.shape)
    )
    return _slice(x, ranges)


def repeated(x: Tensor, axis: int, times: Tensor, total: int | None) -> Tensor:
    """Each slice of x along axis as often as times, one number or one for each slice, says; total
    is the sum of these, which a traced function does not know."""
    n = x.shape[axis]
    if times.dtype.kind != "i" or times.ndim > 1 or times.numel() not in (1, n):
        raise ShapeError(
            f"repeat_interleave: repeats must be integers, one or {n}, not {times.dtype.name} "
            f"{times.shape}"
        )
    ends = times.to(int64).reshape(-1).expand(n).cumsum(0)
    if times.node.array is None:
        if total is None:
            raise TraceError(
                "repeat_interleave: the size of the result depends on repeats, which a compiled "
                "function does not know: give output_size=, or call it outside of tx.compile"
            )
    elif total is None or times.node.has_values:
        value = times._value("repeat_interleave")
        if (value < 0).any():
            raise ShapeError("repeat_interleave: repeats must not be negative")
        found = int(ends[-1].item()) if n else 0
        if total not in (None, found):
            raise ShapeError(f"repeat_interleave: output_size={total}, but repeats make {found}")
        total = found
    steps = ops.ARANGE(start=0, step=1, count=total, dtype=int64, device=x.device)
    return _take(x, ops.SEARCHSORTED(ends, steps, right=True), axis)


def leaf_like(value: Any, x: Tensor) -> Any:
    """A node of x's dtype and device for a scalar, an array or a nested list."""
    from . import backends

    data = backends.get(x.device).from_host(outside(value, x.dtype))
    return leaf(data, x.dtype, x.device)


def converted(value: Any, x: Any) -> Any:
    """A Tensor or a scalar in x's dtype, so that x decides the dtype of what both go into."""
    if isinstance(value, Handle):
        return value.to(x.dtype)  # type: ignore[attr-defined]
    return outside(value, x.dtype).item()


def _shape(value: Any) -> tuple[int, ...]:
    return value.node.shape if isinstance(value, Handle) else np.shape(value)


def _slice(x: Tensor, ranges: tuple[Range, ...]) -> Tensor:
    if all(r == (0, n, 1) for r, n in zip(ranges, x.shape, strict=True)):
        return x.contiguous()
    out: Tensor = ops.SLICE(x, ranges=ranges)
    return out


def _take(x: Tensor, index: Tensor, axis: int) -> Tensor:
    out: Tensor = ops.TAKE(x, index, axis=axis)
    return out


def _fit(value: Tensor, shape: tuple[int, ...]) -> Tensor:
    while value.ndim > len(shape) and value.shape[0] == 1:
        value = value.squeeze(0)
    try:
        return value if value.shape == shape else value.broadcast_to(shape)
    except ShapeError:
        raise ShapeError(
            f"x[index] = value: a value {value.shape} does not fit the indexed part {shape}"
        ) from None


def _as_index(item: Any) -> Any:
    """Arrays and lists as Tensors; everything else as it is."""
    if isinstance(item, (np.ndarray, list)):
        array = np.asarray(item)
        if array.size == 0 and array.dtype.kind == "f":
            array = array.astype(np.int64)
        if array.dtype.kind not in "bi":
            raise DTypeError(f"an index must be of integers or bools, not {array.dtype}")
        dtype = bool_ if array.dtype.kind == "b" else int64
        from . import backends

        data = backends.get("cpu").from_host(array.astype(dtype.np))
        return Handle.wrap(leaf(data, dtype, "cpu"))
    if isinstance(item, np.integer):
        return int(item)
    return item


def _parse(x: Tensor, index: Any) -> _Basic:
    items = [_as_index(item) for item in (index if isinstance(index, tuple) else (index,))]
    for item in items:
        if isinstance(item, Handle):
            if item.node.dtype.kind == "f" or (item.node.dtype == bool_ and not item.node.ndim):
                raise DTypeError(
                    f"a Tensor cannot be indexed by a {item.node.ndim}-d Tensor of "
                    f"{item.node.dtype.name}: use int32, int64 or a bool mask"
                )
        elif isinstance(item, bool) or not (
            item is None or item is Ellipsis or isinstance(item, (int, slice))
        ):
            raise DTypeError(f"a Tensor cannot be indexed by {shown(item)}")
    taken, dots = sum(map(_axes_taken, items)), sum(1 for item in items if item is Ellipsis)
    if taken > x.ndim or dots > 1:
        raise IndexError(f"{taken} indices (and {dots} ellipses) for a Tensor {x.shape}")
    if not dots:
        items.append(Ellipsis)
    at = next(i for i, item in enumerate(items) if item is Ellipsis)
    items[at : at + 1] = [slice(None)] * (x.ndim - taken)

    ranges: list[Range] = []
    shape: list[int] = []
    advanced: dict[int, Tensor] = {}
    for item in items:
        axis = len(ranges)
        if item is None:
            shape.append(1)
        elif isinstance(item, int):
            n = x.shape[axis]
            if not -n <= item < n:
                raise IndexError(f"index {item} is outside axis {axis} of a Tensor {x.shape}")
            ranges.append((item % n, item % n + 1, 1))
        elif isinstance(item, slice):
            ranges.append(_range(item, x.shape[axis]))
            shape.append(len(range(*ranges[-1])))
        else:
            for position in _positions(item, x, axis):
                advanced[len(shape)] = position
                ranges.append((0, x.shape[len(ranges)], 1))
                shape.append(ranges[-1][1])
    return _Basic(tuple(ranges), tuple(shape), advanced)


def _axes_taken(item: Any) -> int:
    if item is None or item is Ellipsis:
        return 0
    masks = isinstance(item, Handle) and item.node.dtype == bool_
    return item.node.ndim if masks else 1


def _range(item: slice, n: int) -> Range:
    start, stop, step = item.indices(n)
    if not len(range(start, stop, step)):
        return (0, 0, 1)
    return (start, stop, step)


def _positions(item: Any, x: Tensor, axis: int) -> list[Any]:
    """An index Tensor; a mask as one for each axis that it covers, from `axis` on."""
    if item.dtype != bool_:
        return [item.to(x.device)]
    covered = x.shape[axis : axis + item.ndim]
    if covered != item.shape:
        raise ShapeError(f"a mask {item.shape} does not fit the axes {covered} of {x.shape}")
    places = np.nonzero(item._value("indexing by a boolean mask"))
    return [_as_index(p).to(x.device) for p in places]


def _without(advanced: dict[int, Tensor], axis: int) -> dict[int, Tensor]:
    """The indices that remain after `axis` has been taken away."""
    return {a - (a > axis): index for a, index in advanced.items() if a != axis}


def _merge(x: Tensor, advanced: dict[int, Tensor]) -> tuple[Tensor, Tensor, tuple[int, ...], int]:
    """x with the indexed axes merged into one, the one flat index, its shape, and that axis."""
    axes = sorted(advanced)
    shape = broadcast_shape("indexing", *(advanced[a].shape for a in axes))
    adjacent = axes == list(range(axes[0], axes[0] + len(axes)))
    at = axes[0] if adjacent else 0
    rest = [a for a in range(x.ndim) if a not in advanced]
    order = [*rest[:at], *axes, *rest[at:]]
    sizes = [x.shape[a] for a in axes]
    moved = x.permute(*order)
    merged = moved.reshape(*moved.shape[:at], prod(sizes), *moved.shape[at + len(axes) :])
    flat: Any = None
    for a in axes:
        one = ops.WRAP_INDEX(advanced[a], size=x.shape[a])
        flat = one if flat is None else flat * x.shape[a] + one
    return merged, flat.broadcast_to(shape).reshape(-1), shape, at


def _write_advanced(x: Tensor, advanced: dict[int, Tensor], value: Tensor) -> Tensor:
    position = next((a for a, index in advanced.items() if index.ndim == 0), None)
    if position is not None:
        index, others = advanced[position], _without(advanced, position)
        slab = (*x.shape[:position], *x.shape[position + 1 :])
        if others:
            value = _write_advanced(_take(x, index, position), others, value)
        value = _fit(value, slab).unsqueeze(position)
        updated: Tensor = ops.UPDATE(x, value, index, axis=position)
        return updated
    axes = sorted(advanced)
    merged, flat, shape, at = _merge(x, advanced)
    lead, tail = merged.shape[:at], merged.shape[at + 1 :]
    value = _fit(value, (*lead, *shape, *tail)).reshape(*lead, prod(shape), *tail)
    put = ops.INDEX_PUT(merged, flat, value, axis=at)
    rest = [a for a in range(x.ndim) if a not in advanced]
    order = [*rest[:at], *axes, *rest[at:]]
    back: Tensor = put.reshape(tuple(x.shape[a] for a in order)).permute(
        *(order.index(a) for a in range(x.ndim))
    )
    return back
