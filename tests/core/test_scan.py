"""tx.scan and tx.checkpoint: the values and gradients of the Python loop that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import tinygrad_tx as tx


class Weights(NamedTuple):
    w: tx.Tensor
    u: tx.Tensor
    b: tx.Tensor


def weights() -> Weights:
    tx.manual_seed(1)
    return Weights(*(tx.randn(*shape).requires_grad_() for shape in ((5, 4), (4, 4), (4,))))


def cell(at: Weights) -> Callable[[Any, Any], Any]:
    def step(h: tx.Tensor, x: tx.Tensor) -> Any:
        h = (x @ at.w + h @ at.u + at.b).tanh()
        return h, {"h": h, "norm": (h * h).sum()}

    return step


def python_loop(f: Any, carry: Any, xs: tx.Tensor, reverse: bool = False) -> tuple[Any, Any]:
    ys: list[Any] = [None] * len(xs)
    for i in range(len(xs))[:: -1 if reverse else 1]:
        carry, ys[i] = f(carry, xs[i])
    return carry, {k: tx.stack([y[k] for y in ys]) for k in ys[0]}


def total(carry: tx.Tensor, ys: dict[str, tx.Tensor]) -> tx.Tensor:
    return (ys["h"] ** 3).sum() + carry.sum() + ys["norm"].sum()


def gradients(loss: Callable[[], tx.Tensor], *of: tx.Tensor) -> list[Any]:
    value = loss()
    value.backward()
    found = [value.item(), *(tensor.grad.numpy().copy() for tensor in of)]
    for tensor in of:
        tensor.grad = None
    return found


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_scan_is_the_loop(reverse: bool, checkpoint: bool) -> None:
    at, h = weights(), tx.zeros(3, 4)
    x = tx.randn(7, 3, 5).requires_grad_()
    wanted = gradients(lambda: total(*python_loop(cell(at), h, x, reverse)), *at, x)

    def scanned() -> tx.Tensor:
        return total(*tx.scan(cell(at), h, x, reverse=reverse, checkpoint=checkpoint))

    @tx.compile
    def compiled() -> list[tx.Tensor]:
        loss = scanned()
        loss.backward()
        found = [loss, *(t.grad for t in (*at, x))]
        for t in (*at, x):
            t.grad = None
        return found

    for got in (gradients(scanned, *at, x), compiled(), compiled()):
        for a, b in zip(got, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)
