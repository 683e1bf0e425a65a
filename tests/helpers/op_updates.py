"""The op table's rows for the steps of optimizers (ops/update.py), with what NumPy says of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from op_case import Bad, OpCase, normal, positive

Array = Any


def adam(p: Array, g: Array, m: Array, v: Array, finite: Array, rate: Array, eps: Array,
         share1: Array, share2: Array, lr: Array = None, *,
         weight_decay: float) -> tuple[Array, ...]:  # fmt: skip
    old, g = p, g if finite else np.zeros_like(g)
    g = g + weight_decay * p if lr is None else g
    p = p if lr is None else p * (1 - lr * weight_decay)
    m, v = m + share1 * (g - m), v + share2 * (g**2 - v)
    return p - rate * m / (np.sqrt(v) + eps) if finite else old, m, v


def sgd(p: Array, g: Array, finite: Array, lr: Array, weight_decay: float) -> Array:
    return p - lr * (g + weight_decay * p if finite else 0 * g)


def sgd_momentum(p: Array, g: Array, finite: Array, lr: Array, b: Array, kept: Array,
                 share: Any = 1, *, weight_decay: float, momentum: float,
                 nesterov: bool) -> tuple[Array, Array]:  # fmt: skip
    g = g + weight_decay * p if finite else 0 * g
    b = kept * b + share * g
    return p - lr * (g + momentum * b if nesterov else b), b


def number(value: float) -> Array:
    return np.array(value)


FINITE, NOT = np.array(True), np.array(False)
SHARES = (number(0.3), number(0.01), number(0.1), number(0.02))
ODD = Bad((normal(2), normal(3), FINITE, number(0.1)), ValueError,
          r"sgd: gradient and moments must be float64 \(2,\) as the parameter is, not float64 \(3,",
          {"weight_decay": 0.0})  # fmt: skip
WHOLE = Bad((*[np.array([1, 2])] * 2, FINITE, number(0.1)), TypeError, "sgd needs a floating dtype")
UPDATES = [
    *[OpCase("adam", (normal(*s), normal(*s), normal(*s), positive(*s), finite, *SHARES, *lr),
             adam, {"weight_decay": decay}, f"{s}{decay}{bool(lr)}{finite}", scale=20)
      for s in ((3, 4), (), (0, 2))
      for finite in (FINITE, NOT)
      for decay, lr in ((0.0, ()), (0.1, ()), (0.1, (number(0.2),)))],
    *[OpCase("sgd", (normal(*s), normal(*s), finite, number(0.2)), sgd, {"weight_decay": decay},
             f"{s}{decay}{finite}", scale=4)
      for s in ((3, 4), (), (0, 2)) for decay in (0.0, 0.1) for finite in (FINITE, NOT)],
    *[OpCase("sgd_momentum", (normal(*s), normal(*s), finite, number(0.2), normal(*s), number(0.9),
                              *share),
             sgd_momentum, {"weight_decay": decay, "momentum": 0.9, "nesterov": nesterov},
             f"{s}{decay}{nesterov}{finite}", scale=8)
      for s in ((3, 4), ()) for decay in (0.0, 0.1) for finite in (FINITE, NOT)
      for nesterov, share in ((False, ()), (True, ()), (False, (number(0.5),)))],
    OpCase("sgd", (normal(2), normal(2), FINITE, number(0.1)), sgd, {"weight_decay": 0.0}, "errors",
           bad=(ODD, WHOLE)),
    OpCase("adam", (*[positive(2)] * 4, FINITE, *SHARES), adam, {"weight_decay": 0.0}, "errors",
           scale=20, bad=(Bad((normal(2), normal(2), normal(1), normal(2), FINITE, *SHARES),
                              ValueError, "adam: gradient and moments"),)),
    OpCase("sgd_momentum", (normal(2), normal(2), FINITE, number(0.1), normal(2), number(0.9)),
           sgd_momentum, {"weight_decay": 0.0, "momentum": 0.9, "nesterov": False}, "errors",
           scale=8, bad=(Bad((normal(2), normal(2), FINITE, number(0.1), normal(1), number(0.9)),
                             ValueError, "sgd_momentum: gradient and moments"),)),
    *[OpCase("unbind", (normal(n),), lambda x: tuple(x), bad=(
        Bad((normal(2, 2),), ValueError, r"unbind: a Tensor of one dimension, not \(2, 2\)"),))
      for n in (1, 3)],
]  # fmt: skip
