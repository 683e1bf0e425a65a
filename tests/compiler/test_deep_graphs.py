"""Long rows of nodes under a recursion limit far below their length: no pass recurses over the
graph, and neither do gradients, a plan in words, or the end of a graph."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

import tinygrad_tx as tx

LENGTH = 1000
DEEP = 10_000  # two nodes each
ROOM = 120  # frames above those of the test
Step = Callable[[tx.Tensor, int], tx.Tensor]


@contextmanager
def shallow() -> Iterator[None]:
    depth, frame = 0, sys._getframe()
    while frame is not None:
        depth, frame = depth + 1, frame.f_back  # type: ignore[assignment]
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(depth + ROOM)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def mixed(x: tx.Tensor, i: int) -> tx.Tensor:
    match i % 8:
        case 0:
            return x * 0.5 + 0.1
        case 1:
            return x.T
        case 2:
            return x.sin()
        case 3:
            return x.reshape(3, 2, 1).reshape(x.shape)
        case 4:
            return x[:, :1].expand(*x.shape) * 0.5 + x
        case 5:
            return tx.cat([x[1:], x[:1]])
        case 6:
            return x - x.mean(0, keepdim=True)
    return x.softmax(-1)


STEPS: dict[str, tuple[Step, int]] = {
    "numbers": (lambda x, i: x * 1.0001 + 0.1, LENGTH),
    "negations": (lambda x, i: -x, LENGTH),
    "roots": (lambda x, i: x.abs().sqrt(), LENGTH),
    "quotients": (lambda x, i: 1 / x, LENGTH),
    "products": (lambda x, i: x * x, LENGTH),
    "sums of itself": (lambda x, i: (x + x) * 0.5, LENGTH),
    "reshapes": (lambda x, i: x.reshape(3, 2) if x.shape == (2, 3) else x.reshape(2, 3), LENGTH),
    "turns": (lambda x, i: x.T, LENGTH),
    "flips": (lambda x, i: x.flip(0), LENGTH),
    "detached": (lambda x, i: x.detach(), LENGTH),
    "casts": (lambda x, i: x.double() if x.dtype == tx.float32 else x.float(), LENGTH),
    "wheres": (lambda x, i: tx.where(x > 0, x, 0.5), LENGTH),
    "conditions": (lambda x, i: ((x > 0) & (x < i)).float(), LENGTH // 2),
    "sums": (lambda x, i: x + x.sum(), LENGTH // 2),
    "products of matrices": (lambda x, i: x @ x.T @ x * 0.1, LENGTH // 4),
    "mixed": (mixed, LENGTH // 2),
}
START = np.linspace(0.2, 0.9, 6, dtype=np.float32).reshape(2, 3)


def chained(step: Step, count: int) -> Callable[[tx.Tensor], tx.Tensor]:
    def f(x: tx.Tensor) -> tx.Tensor:
        for i in range(count):
            x = step(x, i)
        return x

    return f


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", STEPS)
def test_plans(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TX_COMPILE", "interp")
    step, count = STEPS[name]
    f = chained(step, count)
    compiled = tx.compile(f)
    with shallow():
        found = compiled(tx.tensor(START))
        compiled.explain(source=True)
    np.testing.assert_allclose(found.numpy(), f(tx.tensor(START)).numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["numbers", "mixed", "products of matrices", "reshapes", "wheres"])
def test_gradients(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TX_COMPILE", "interp")
    step, count = STEPS[name]
    f = chained(step, count // 2)

    def loss(x: tx.Tensor) -> tx.Tensor:
        return f(x).square().sum()

    with shallow():
        eager = tx.grad(loss)(tx.tensor(START))
        found = tx.compile(tx.grad(loss))(tx.tensor(START))
    np.testing.assert_allclose(found.numpy(), eager.numpy(), rtol=1e-3, atol=1e-6)


def test_a_deep_graph_of_eager_nodes() -> None:
    x = tx.tensor(START, requires_grad=True)
    with shallow():
        y = chained(STEPS["numbers"][0], DEEP)(x)
        y.sum().backward(retain_graph=True)
        assert x.grad is not None
        np.testing.assert_allclose(x.grad.numpy(), 1.0001**DEEP, rtol=1e-3)
        again = tx.tensor(START, requires_grad=True)
        chained(STEPS["numbers"][0], DEEP)(again)  # forgotten at once, as a whole
        del y
        gc.collect()


def test_a_deep_graph_of_traced_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TX_COMPILE", "interp")
    compiled = tx.compile(chained(STEPS["numbers"][0], DEEP))
    with shallow():
        found = compiled(tx.tensor(START)).numpy()
        assert len(compiled.graph()) > 2 * DEEP
        del compiled
        gc.collect()
    wanted = START * 1.0001**DEEP + 0.1 * (1.0001**DEEP - 1) / 0.0001
    np.testing.assert_allclose(found, wanted, rtol=1e-3)


def test_a_long_row_of_maps_is_cut_into_kernels_that_are_alike() -> None:
    f = chained(lambda x, i: x * 1.0001 + 0.1, 1500)
    compiled = tx.compile(f)
    np.testing.assert_allclose(
        compiled(tx.tensor(START)).numpy(), f(tx.tensor(START)).numpy(), rtol=1e-5
    )
    assert 2 <= compiled.stats()["kernels"] <= 20
