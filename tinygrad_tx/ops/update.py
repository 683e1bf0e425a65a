"""A parameter's step of an optimizer as one op, where eager code would call a dozen.

In a compiled step it decomposes into maps, which become one kernel that writes over the old state.
Where `finite` is False nothing changes: the gradient counts as 0, and the numbers that the moments
are changed with are such that they stay.
"""

from __future__ import annotations

from typing import Any

from ..errors import ShapeError
from ..node import Node
from ..op import Op
from ..rules import Spec, require_floating
from .map import SQRT, WHERE

X = Any  # arrays in a forward, Tensors in a decomposition


def _alike(op: Op, p: Node, grad: Node, *moments: Node) -> tuple[Spec, ...]:
    """The specs of the results: those of the parameter and its moments."""
    require_floating(op, p)
    for node in (grad, *moments):
        if node.spec != p.spec:
            raise ShapeError(
                f"{op.name}: gradient and moments must be {p.dtype.name} {p.shape} as the "
                f"parameter is, not {node.dtype.name} {node.shape}"
            )
    return (p.spec,) * (1 + len(moments))  # type: ignore[return-value]


# Adam: `rate` and `eps` hold the corrections of the bias; they do not wait for `finite`, so that a
# compiled step has them early. `lr` is there where the decay of weights is apart from the gradient.


def _adam(xp: X, p: X, g: X, m: X, v: X, finite: X, rate: X, eps: X, share1: X, share2: X,
          lr: X = None, *, weight_decay: float) -> tuple[X, X, X]:  # fmt: skip
    old = p
    g = xp.where(finite, g, xp.cast_like(0, g))  # an array of its own, which may be written to
    if weight_decay and lr is None:
        g += p * weight_decay
    elif weight_decay:
        p = p * (1 - lr * weight_decay)
    square = g * g
    g -= m
    g *= share1
    g += m
    square -= v
    square *= share2
    square += v
    step = g * rate
    root = xp.sqrt(square)
    root += eps
    step /= root
    return xp.where(finite, p - step, old), g, square


def _adam_plain(p: X, g: X, m: X, v: X, finite: X, rate: X, eps: X, share1: X, share2: X,
                lr: X = None, *, weight_decay: float) -> tuple[X, X, X]:  # fmt: skip
    old, g = p, WHERE(finite, g, 0)
    if weight_decay and lr is None:
        g = g + weight_decay * p
    elif weight_decay:
        p = p * (1 - lr * weight_decay)
    m = m + share1 * (g - m)
    v = v + share2 * (g * g - v)
    return WHERE(finite, p - rate * m / (SQRT(v) + eps), old), m, v


ADAM = Op(
    "adam",
    kind="fused",
    rule=lambda op, p, g, m, v, *numbers, weight_decay: _alike(op, p, g, m, v),
    forward=_adam,
    decompose=_adam_plain,
)

# Gradient descent: with momentum `kept` is 1 where finite is False, so that b stays; `share` is
# there where the gradient is dampened.


def _descend(where: X, p: X, g: X, finite: X, lr: X, b: X = None, kept: X = None, share: X = None,
             *, weight_decay: float, momentum: float = 0.0,
             nesterov: bool = False) -> X:  # fmt: skip
    g = where(finite, g + weight_decay * p if weight_decay else g)
    if b is None:
        return p - lr * g
    b = kept * b + (g if share is None else share * g)
    return p - lr * (g + momentum * b if nesterov else b), b


def _sgd(xp: X, p: X, g: X, *rest: X, **attrs: Any) -> X:
    return _descend(lambda c, x: xp.where(c, x, xp.cast_like(0, x)), p, g, *rest, **attrs)


def _sgd_plain(p: X, g: X, *rest: X, **attrs: Any) -> X:
    return _descend(lambda c, x: WHERE(c, x, 0), p, g, *rest, **attrs)


SGD = Op(
    "sgd",
    kind="fused",
    rule=lambda op, p, g, finite, lr, weight_decay: _alike(op, p, g)[0],
    forward=_sgd,
    decompose=_sgd_plain,
)
SGD_MOMENTUM = Op(
    "sgd_momentum",
    kind="fused",
    rule=lambda op, p, g, finite, lr, b, *numbers, **attrs: _alike(op, p, g, b),
    forward=_sgd,
    decompose=_sgd_plain,
)
