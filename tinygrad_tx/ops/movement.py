"""Movement: the same elements in another arrangement. Results may be views of their inputs."""

from __future__ import annotations

from math import prod
from typing import Any

from ..errors import DTypeError, ShapeError
from ..node import Node
from ..op import Op
from ..rules import Spec
from .create import zeros_like

Range = tuple[int, int, int]  # start, stop, step of one axis, as range() takes them


def _reshape_rule(op: Op, x: Node, *, shape: tuple[int, ...]) -> Spec:
    if prod(shape) != prod(x.shape) or any(n < 0 for n in shape):
        raise ShapeError(
            f"reshape: {x.shape} has {prod(x.shape)} elements, {shape} would have {prod(shape)}"
        )
    return Spec(shape, x.dtype)


def _broadcast_rule(op: Op, x: Node, *, shape: tuple[int, ...]) -> Spec:
    tail = shape[len(shape) - x.ndim :]
    if x.ndim > len(shape) or any(n not in (1, m) for n, m in zip(x.shape, tail, strict=True)):
        raise ShapeError(
            f"broadcast: {x.shape} does not expand to {shape}: counted from the right, each of its "
            "sizes must be 1 or equal"
        )
    return Spec(shape, x.dtype)


def _permute_rule(op: Op, x: Node, *, order: tuple[int, ...]) -> Spec:
    if sorted(order) != list(range(x.ndim)):
        raise ShapeError(f"permute: {order} does not name each axis of {x.shape} once")
    return Spec(tuple(x.shape[i] for i in order), x.dtype)


def _permute_vjp(g: Any, y: Any, x: Any, order: Any) -> tuple[Any, ...]:
    return (PERMUTE(g, order=tuple(order.index(i) for i in range(len(order)))),)


def _sliced(ranges: tuple[Range, ...]) -> tuple[int, ...]:
    return tuple(len(range(*r)) for r in ranges)


def _index(ranges: tuple[Range, ...]) -> tuple[slice, ...]:
    # A negative step that runs to the front stops at -1, which a slice would take from the end.
    return tuple(slice(a, None if b < 0 else b, s) for a, b, s in ranges)


def _slice_vjp(g: Any, y: Any, x: Any, ranges: Any) -> tuple[Any, ...]:
    if all(step == 1 for _, _, step in ranges):
        widths = tuple((a, n - b) for (a, b, _), n in zip(ranges, x.shape, strict=True))
        return (PAD(g, widths=widths, value=0.0),)
    return (SLICE_WRITE(zeros_like(x), g, ranges=ranges),)


def _slice_write_rule(op: Op, x: Node, value: Node, *, ranges: tuple[Range, ...]) -> Spec:
    if value.dtype != x.dtype:
        raise DTypeError(f"slice write: {value.dtype.name} into {x.dtype.name}; use .to(dtype)")
    try:
        _broadcast_rule(op, value, shape=_sliced(ranges))
    except ShapeError:
        raise ShapeError(
            f"slice write: a value {value.shape} does not fit the slice {_sliced(ranges)} of "
            f"{x.shape}"
        ) from None
    return x.spec  # type: ignore[return-value]


def _slice_write_vjp(g: Any, y: Any, x: Any, value: Any, ranges: Any) -> tuple[Any, ...]:
    hole = BROADCAST(zeros_like(value), shape=_sliced(ranges))
    return (lambda: SLICE_WRITE(g, hole, ranges=ranges), lambda: SLICE(g, ranges=ranges))


def _pad_rule(op: Op, x: Node, *, widths: tuple[tuple[int, int], ...], value: float) -> Spec:
    if len(widths) != x.ndim or any(w < 0 for pair in widths for w in pair):
        raise ShapeError(f"pad: widths {widths} of {x.shape}: one pair from 0 up for each axis")
    shape = tuple(a + n + b for n, (a, b) in zip(x.shape, widths, strict=True))
    return Spec(shape, x.dtype)


def _pad_vjp(g: Any, y: Any, x: Any, widths: Any, value: Any) -> tuple[Any, ...]:
    ranges = tuple((a, a + n, 1) for (a, _), n in zip(widths, x.shape, strict=True))
    return (SLICE(g, ranges=ranges),)


def _concat_rule(op: Op, *xs: Node, axis: int) -> Spec:
    first = xs[0]
    for x in xs[1:]:
        if x.dtype != first.dtype:
            raise DTypeError(f"concat: {first.dtype.name} with {x.dtype.name}; use .to(dtype)")
        if x.ndim != first.ndim or any(
            n != m for i, (n, m) in enumerate(zip(x.shape, first.shape, strict=True)) if i != axis
        ):
            raise ShapeError(
                f"concat: shapes {first.shape} and {x.shape} may differ along axis {axis} only"
            )
    total = sum(x.shape[axis] for x in xs)
    return Spec((*first.shape[:axis], total, *first.shape[axis + 1 :]), first.dtype)


def _concat_vjp(g: Any, y: Any, *xs: Any, axis: int) -> tuple[Any, ...]:
    grads, start = [], 0
    for x in xs:
        ranges = [(0, n, 1) for n in g.shape]
        ranges[axis] = (start, start + x.shape[axis], 1)
        grads.append(SLICE(g, ranges=tuple(ranges)))
        start += x.shape[axis]
    return tuple(grads)


def _unbind_rule(op: Op, x: Node) -> tuple[Spec, ...]:
    if x.ndim != 1:
        raise ShapeError(f"unbind: a Tensor of one dimension, not {x.shape}")
    return (Spec((), x.dtype),) * x.shape[0]


RESHAPE: Op = Op("reshape", kind="move", rule=_reshape_rule,
             forward=lambda xp, x, shape: xp.reshape(x, shape),
             vjp=lambda g, y, x, shape: (RESHAPE(g, shape=x.shape),))  # fmt: skip
BROADCAST = Op("broadcast", kind="move", rule=_broadcast_rule,
               forward=lambda xp, x, shape: xp.broadcast_to(x, shape),
               vjp=lambda g, y, x, shape: (g,))  # fmt: skip
PERMUTE = Op("permute", kind="move", rule=_permute_rule,
             forward=lambda xp, x, order: xp.transpose(x, order), vjp=_permute_vjp)  # fmt: skip
SLICE = Op("slice", kind="move", rule=lambda op, x, ranges: Spec(_sliced(ranges), x.dtype),
           forward=lambda xp, x, ranges: x[_index(ranges)], vjp=_slice_vjp)  # fmt: skip
SLICE_WRITE = Op("slice_write", kind="move", rule=_slice_write_rule,
                 forward=lambda xp, x, value, ranges: xp.slice_write(x, value, _index(ranges)),
                 vjp=_slice_write_vjp)  # fmt: skip
PAD = Op("pad", kind="move", rule=_pad_rule,
         forward=lambda xp, x, widths, value: xp.pad(x, widths, value), vjp=_pad_vjp)  # fmt: skip
CONCAT = Op("concat", kind="move", rule=_concat_rule,
            forward=lambda xp, *xs, axis: xp.concatenate(xs, axis), vjp=_concat_vjp)  # fmt: skip
FLIP: Op = Op("flip", kind="move", rule=lambda op, x, axis: x.spec,
          forward=lambda xp, x, axis: xp.flip(x, axis),
          vjp=lambda g, y, x, axis: (FLIP(g, axis=axis),))  # fmt: skip
UNBIND = Op(  # a 1-d Tensor as 0-d ones
    "unbind",
    kind="move",
    rule=_unbind_rule,
    forward=lambda xp, x: tuple(x[i, ...] for i in range(len(x))),
    decompose=lambda x: tuple(
        RESHAPE(SLICE(x, ranges=((i, i + 1, 1),)), shape=()) for i in range(x.shape[0])
    ),
)
