"""Softmax, log-softmax and logsumexp, known whole, with their gradients.

A forward is written for speed in a few array operations; `decompose` says the same by simpler ops
on Tensors, and is its oracle; `kernel_form`, where it differs, is what kernels are made of. A
`*_grad` op has no vjp of its own: autograd differentiates its decomposition.
"""

from __future__ import annotations

from typing import Any

from ..errors import ShapeError
from ..node import Node
from ..op import Op
from ..rules import Spec, reduced, require_floating
from .map import EXP, ISFINITE, LOG, WHERE
from .reduce import MAX, SUM

# mypy sees arrays and Tensors as Any: decompositions run on Tensors, which are two floors up.
X = Any


def _same(op: Op, *nodes: Node, axis: int) -> Spec:
    require_floating(op, *nodes)
    if nodes[-1].shape[axis] == 0:
        raise ShapeError(f"{op.name}: axis {axis} of {nodes[-1].shape} is empty")
    return nodes[-1].spec  # type: ignore[return-value]


def _exps(xp: X, x: X, axis: int) -> tuple[X, X]:
    e = xp.exp(x - xp.max(x, (axis,)))
    return e, xp.sum(e, (axis,))


def _softmax(xp: X, x: X, axis: int) -> X:
    e, total = _exps(xp, x, axis)
    return e / total


def _softmax_plain(x: X, axis: int) -> X:
    e = EXP(x - MAX(x, axis=axis, keepdims=True).detach())
    return e / SUM(e, axis=axis, keepdims=True)


def _softmax_kernels(x: X, axis: int) -> X:
    e = EXP(x - MAX(x, axis=axis, keepdims=True))
    return e * (1 / SUM(e, axis=axis, keepdims=True))


def _softmax_grad_plain(g: X, y: X, axis: int) -> X:
    return y * (g - SUM(g * y, axis=axis, keepdims=True))


SOFTMAX = Op(
    "softmax",
    kind="fused",
    rule=_same,
    forward=_softmax,
    decompose=_softmax_plain,
    kernel_form=_softmax_kernels,
    vjp=lambda g, y, x, axis: (SOFTMAX_GRAD(g, y, axis=axis),),
    autocast="float32",
)
SOFTMAX_GRAD: Op = Op(
    "softmax_grad",
    kind="fused",
    rule=_same,
    forward=lambda xp, g, y, axis: y * (g - xp.sum(g * y, (axis,))),
    decompose=_softmax_grad_plain,
)


def _log_softmax(xp: X, x: X, axis: int) -> X:
    shifted = x - xp.max(x, (axis,))
    return shifted - xp.log(xp.sum(xp.exp(shifted), (axis,)))


def _log_softmax_plain(x: X, axis: int) -> X:
    shifted = x - MAX(x, axis=axis, keepdims=True).detach()
    return shifted - LOG(SUM(EXP(shifted), axis=axis, keepdims=True))


def _log_softmax_grad_plain(g: X, y: X, axis: int) -> X:
    return g - EXP(y) * SUM(g, axis=axis, keepdims=True)


LOG_SOFTMAX = Op(
    "log_softmax",
    kind="fused",
    rule=_same,
    forward=_log_softmax,
    decompose=_log_softmax_plain,
    vjp=lambda g, y, x, axis: (LOG_SOFTMAX_GRAD(g, y, axis=axis),),
    autocast="float32",
)
LOG_SOFTMAX_GRAD: Op = Op(
    "log_softmax_grad",
    kind="fused",
    rule=_same,
    forward=lambda xp, g, y, axis: g - xp.exp(y) * xp.sum(g, (axis,)),
    decompose=_log_softmax_grad_plain,
)


def _logsumexp(xp: X, x: X, axis: tuple[int, ...]) -> X:
    m = xp.max(x, axis)
    m = xp.where(xp.isfinite(m), m, 0)  # a row of -inf has the sum 0, not NaN
    return xp.log(xp.sum(xp.exp(x - m), axis)) + m


def _logsumexp_plain(x: X, axis: tuple[int, ...]) -> X:
    m = MAX(x, axis=axis, keepdims=True).detach()
    m = WHERE(ISFINITE(m), m, 0)
    return LOG(SUM(EXP(x - m), axis=axis, keepdims=True)) + m


def _logsumexp_rule(op: Op, x: Node, *, axis: tuple[int, ...]) -> Spec:
    require_floating(op, x)
    if any(x.shape[a] == 0 for a in axis):
        raise ShapeError(f"logsumexp: a reduced axis of {x.shape} is empty")
    return Spec(reduced(x.shape, axis), x.dtype)


LOGSUMEXP = Op(
    "logsumexp",
    kind="reduce",
    rule=_logsumexp_rule,
    forward=_logsumexp,
    decompose=_logsumexp_plain,
    # A row of -inf has the gradient 0, one with inf or NaN what exp(x - y) says.
    vjp=lambda g, y, x, axis: (g * EXP(x - WHERE(y == -float("inf"), 0, y)),),
    autocast="float32",
)
