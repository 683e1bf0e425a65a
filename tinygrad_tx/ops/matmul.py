"""The matrix product, with broadcasting batches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

from ..dtypes import bool_
from ..errors import DTypeError, ShapeError
from ..node import Node
from ..op import Op
from ..rules import Spec, broadcast_shape
from .movement import PERMUTE


def product(tf32: bool) -> Callable[..., Any]:
    """MATMUL of two Tensors; tf32: of float32, which it may round to 19 bits."""
    return partial(MATMUL, tf32=True) if tf32 else MATMUL


def _rule(op: Op, a: Node, b: Node, tf32: bool = False) -> Spec:
    if a.ndim < 2 or b.ndim < 2:
        raise ShapeError(f"matmul: a {a.shape} and b {b.shape} need at least two dimensions each")
    if a.dtype != b.dtype:
        raise DTypeError(
            f"matmul: a is {a.dtype.name}, b is {b.dtype.name}; convert one with .to(dtype)"
        )
    if a.dtype == bool_:
        raise DTypeError("matmul needs numbers, not bool: use .float() first")
    if a.shape[-1] != b.shape[-2]:
        fits = a.shape[-1] == b.shape[-1]
        hint = (
            "did you mean b.T?"
            if fits and b.ndim == 2
            else "did you mean b.mT?"
            if fits
            else ("they must be equal")
        )
        raise ShapeError(
            f"matmul: the last axis of a {a.shape} is {a.shape[-1]}, the second-to-last of b "
            f"{b.shape} is {b.shape[-2]}; {hint}"
        )
    batch = broadcast_shape("matmul (batch axes)", a.shape[:-2], b.shape[:-2])
    return Spec((*batch, a.shape[-2], b.shape[-1]), a.dtype)


def _vjp(g: Any, y: Any, a: Any, b: Any, tf32: bool = False) -> tuple[Any, ...]:
    times = product(tf32)
    if b.ndim == 2 and a.ndim > 2:  # one large product over all rows, not a batch of them summed
        n = prod(a.shape[:-1])
        rows, grads = a.reshape(n, a.shape[-1]), g.reshape(n, g.shape[-1])
        if b.node.op is PERMUTE:  # x @ weight.T: the weight's gradient shall lie as the weight does
            return (lambda: times(g, b.mT), lambda: times(grads.mT, rows).mT)
        return (lambda: times(g, b.mT), lambda: times(rows.mT, grads))
    return (lambda: times(g, b.mT), lambda: times(a.mT, g))


MATMUL = Op(  # tf32: compiled products of float32 may round operands to 19 bits
    "matmul",
    kind="matmul",
    rule=_rule,
    forward=lambda xp, a, b, tf32=False: xp.matmul(a, b),
    vjp=_vjp,
    autocast="half",
)
