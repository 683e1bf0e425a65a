"""Layer norm, known whole, with its gradient. The parts of such a record are told in softmax.py."""

from __future__ import annotations

from typing import Any

from ..errors import ShapeError
from ..node import Node
from ..op import Op
from ..rules import Spec, require_floating
from .map import RSQRT
from .reduce import SUM

# mypy sees arrays and Tensors as Any: decompositions run on Tensors, which are two floors up.
X = Any


def _normalised(xp: X, x: X, eps: float) -> tuple[X, X]:
    """(x - mean) / sqrt(var + eps) over the last axis, and the factor 1 / sqrt(...)."""
    last, n = (x.ndim - 1,), x.shape[-1]
    centred = x - xp.sum(x, last) / n
    factor = 1 / xp.sqrt(xp.sum(centred * centred, last) / n + eps)
    return centred * factor, factor


def _normalised_plain(x: X, eps: float) -> tuple[X, X]:
    n = x.shape[-1]
    centred = x - SUM(x, axis=-1, keepdims=True) / n
    factor = RSQRT(SUM(centred * centred, axis=-1, keepdims=True) / n + eps)
    return centred * factor, factor


def _affine(y: X, weight: X, bias: X) -> X:
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _layer_norm_rule(op: Op, x: Node, *affine: Node, eps: float) -> Spec:
    require_floating(op, x)
    if not x.ndim:
        raise ShapeError("layer_norm: a 0-d Tensor has no last axis to normalise; use .reshape(1)")
    for p in affine:
        if p.shape != x.shape[-1:] or p.dtype != x.dtype:
            raise ShapeError(
                f"layer_norm: weight and bias must be {x.dtype.name} {x.shape[-1:]} for an input "
                f"{x.shape}, not {p.dtype.name} {p.shape}"
            )
    return x.spec  # type: ignore[return-value]


def _layer_norm_vjp(g: X, y: X, x: X, *affine: X, eps: float) -> tuple[X, ...]:
    if not affine:
        return (LAYER_NORM_GRAD(g, x, eps=eps)[0],)
    return LAYER_NORM_GRAD(g, x, affine[0], eps=eps)[: 1 + len(affine)]  # type: ignore[no-any-return]


def _layer_norm_grad_rule(op: Op, g: Node, x: Node, *weight: Node, eps: float) -> tuple[Spec, ...]:
    per_column = Spec(x.shape[-1:], x.dtype)
    return (Spec(x.shape, x.dtype), *(per_column for w in weight for _ in range(2)))


def _layer_norm_grad(xp: X, g: X, x: X, weight: X = None, *, eps: float) -> tuple[X, ...]:
    y, factor = _normalised(xp, x, eps)
    last, rows, n = (x.ndim - 1,), tuple(range(x.ndim - 1)), x.shape[-1]
    gw = g if weight is None else g * weight
    dx = factor * (gw - xp.sum(gw, last) / n - y * (xp.sum(gw * y, last) / n))
    if weight is None:
        return (dx,)
    columns = x.shape[-1:]
    return dx, xp.sum(g * y, rows).reshape(columns), xp.sum(g, rows).reshape(columns)


def _layer_norm_grad_plain(g: X, x: X, weight: X = None, *, eps: float) -> tuple[X, ...]:
    y, factor = _normalised_plain(x, eps)
    n = x.shape[-1]
    gw = g if weight is None else g * weight
    mean = SUM(gw, axis=-1, keepdims=True) / n
    slope = SUM(gw * y, axis=-1, keepdims=True) / n
    dx = factor * (gw - mean - y * slope)
    if weight is None:
        return (dx,)
    rows = tuple(range(x.ndim - 1))
    return dx, SUM(g * y, axis=rows), SUM(g, axis=rows)


LAYER_NORM = Op(
    "layer_norm",
    kind="fused",
    rule=_layer_norm_rule,
    forward=lambda xp, x, weight=None, bias=None, *, eps: _affine(
        _normalised(xp, x, eps)[0], weight, bias
    ),
    decompose=lambda x, weight=None, bias=None, *, eps: _affine(
        _normalised_plain(x, eps)[0], weight, bias
    ),
    vjp=_layer_norm_vjp,
    autocast="float32",
)
LAYER_NORM_GRAD = Op(
    "layer_norm_grad",
    kind="fused",
    rule=_layer_norm_grad_rule,
    forward=_layer_norm_grad,
    decompose=_layer_norm_grad_plain,
)
