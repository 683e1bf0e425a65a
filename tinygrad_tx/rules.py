"""Rules: the shape and dtype of an op's result, known before it exists, and the errors of operands
that do not fit.

In: an op and its input nodes. Out: a Spec. Called by node.apply; the op records share these.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import index
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .arguments import shown
from .dtypes import DType
from .errors import DTypeError, OpError, ShapeError
from .mistakes import broken

if TYPE_CHECKING:  # node.py imports this file
    from .node import Node
    from .op import Op


class Spec(NamedTuple):
    """Shape and dtype of a result, known before it exists."""

    shape: tuple[int, ...]
    dtype: DType


def axes(name: str, axis: Any, ndim: int) -> tuple[int, ...]:
    """`axis` as a sorted tuple of distinct non-negative ints; ShapeError where it does not fit."""
    if axis is None:
        return tuple(range(ndim))
    given = axis if isinstance(axis, (tuple, list)) else (axis,)
    if any(type(a) is not int for a in given):
        given = tuple(whole(f"{name}: an axis", a) for a in given)
    for a in given:
        if not -max(ndim, 1) <= a < max(ndim, 1):
            raise ShapeError(f"{name}: axis {a} is outside a Tensor of {ndim} dimensions")
    found = sorted({int(a) % ndim for a in given} if ndim else set())
    if ndim and len(found) != len(given):
        raise ShapeError(f"{name}: axis {given} names a dimension twice")
    return tuple(found)


def whole(what: str, value: Any) -> int:
    """value as an int; DTypeError for what is none: a bool is no number of a dimension."""
    if not isinstance(value, (bool, np.bool_)) and hasattr(value, "__index__"):
        return index(value)
    raise DTypeError(f"{what} must be an int, not {shown(value)}")


def broadcast_shape(name: str, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that all shapes broadcast to; ShapeError naming them."""
    first = shapes[0]
    if shapes.count(first) == len(shapes):
        return first
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        text = " and ".join(map(str, shapes))
        raise ShapeError(
            f"{name}: shapes {text} do not broadcast: counted from the right, sizes must be equal "
            "or 1; did you mean a reshape or unsqueeze?"
        ) from None


def numeric(op: Op, *nodes: Node, **attrs: Any) -> Spec:
    """Rule of a map op on any dtype, which the result has."""
    first, dtype = nodes[0].spec[0], nodes[-1].spec[1]
    for node in nodes:
        if node.spec[0] != first:
            return Spec(broadcast_shape(op.name, *(n.shape for n in nodes)), dtype)  # type: ignore[arg-type]
    return Spec(first, dtype)  # type: ignore[arg-type]


def floating(op: Op, *nodes: Node, **attrs: Any) -> Spec:
    """Rule of a map op on floating dtypes only: the default."""
    require_floating(op, *nodes)
    return numeric(op, *nodes)


def reducing(op: Op, x: Node, *, axis: tuple[int, ...], **attrs: Any) -> Spec:
    """Rule of a reduction of floating dtypes, whose axes are kept as 1: the default."""
    require_floating(op, x)
    return Spec(reduced(x.shape, axis), x.dtype)


def reduced(shape: tuple[int, ...], axis: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(1 if i in axis else n for i, n in enumerate(shape))


def require_floating(op: Op, *nodes: Node) -> None:
    for node in nodes:
        if node.dtype.kind != "f":
            raise DTypeError(
                f"{op.name} needs a floating dtype, not {node.dtype.name}: use .float() first"
            )


DEFAULT_RULES: dict[str, Callable[..., Any]] = {"map": floating, "reduce": reducing}


def promised(op: Op, given: Any) -> Any:
    """The result of a rule, if it is a Spec or a tuple of them; OpError otherwise."""
    parts = given if isinstance(given, tuple) and type(given) is not Spec else (given,)
    for spec in parts:
        sizes = isinstance(spec, Spec) and isinstance(spec.shape, tuple)
        sizes = sizes and all(isinstance(n, (int, np.integer)) and n >= 0 for n in spec.shape)
        if not sizes or not isinstance(spec.dtype, DType):
            raise OpError(
                f"{op.name}: its rule gave {given!r}; it must give tx.Spec(shape, dtype), of a "
                "tuple and a dtype such as x.dtype, or a tuple of such Specs"
            )
    return given


def as_promised(op: Op, xp: Any, out: Any, spec: Spec | tuple[Spec, ...]) -> Any:
    """The result of a forward as an array, or a tuple of them; ShapeError where its op's rule
    promises something else."""
    if isinstance(spec, Spec):
        array = xp.asarray(out)
        if array.shape != spec[0] or array.dtype != spec[1].np:
            raise broken(op.name, array, spec)
        return array
    if not isinstance(out, (tuple, list)) or len(out) != len(spec):
        many = f"{len(out)}" if isinstance(out, (tuple, list)) else "no tuple of"
        raise ShapeError(
            f"{op.name}: the forward made {many} results, its rule promises {len(spec)}"
        )
    found = tuple(map(xp.asarray, out))
    for array, one in zip(found, spec, strict=True):
        if array.shape != one[0] or array.dtype != one[1].np:
            raise broken(op.name, array, one)
    return found
