"""Loops that draw random numbers, compiled for a GPU: what eager code draws, though
streams are counted on the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("llvmlite")
from simulator.device import NAME, install

import tinygrad_tx as tx
from tinygrad_tx.compiler.compiled import Compiled
from tinygrad_tx.compiler.run.execution import Execution
from tinygrad_tx.nn import functional as F  # noqa: N812

Function = Callable[..., tuple[tx.Tensor, ...]]


@pytest.fixture(scope="module", autouse=True)
def simulator() -> None:
    install()


@pytest.fixture(autouse=True)
def host() -> Iterator[None]:
    yield
    tx.set_default_device("cpu")


def in_rounds(x: tx.Tensor, w: tx.Tensor) -> tuple[tx.Tensor, ...]:
    """Draws before, in and behind a loop, which draws twice in a round."""

    def step(c: tx.Tensor, row: tx.Tensor) -> Any:
        c = F.dropout(c @ w, 0.5) + F.dropout(row, 0.25)
        return c, tx.rand(3, device=x.device)

    before = tx.rand(2, device=x.device)
    last, rows = tx.scan(step, x[0], x)
    return before, last, rows, tx.rand(2, device=x.device)


def backwards(x: tx.Tensor, w: tx.Tensor) -> tuple[tx.Tensor, ...]:
    """A loop that begins where another one has ended, and that draws in no loop of its own."""

    def inner(c: tx.Tensor, row: tx.Tensor) -> Any:
        return c + F.dropout(row, 0.5), None

    def outer(c: tx.Tensor, row: tx.Tensor) -> Any:
        return tx.scan(inner, c, x)[0], row + tx.rand(4, device=x.device)

    first = tx.scan(inner, w[0], x, reverse=True)[0]
    return (first, *tx.scan(outer, first, x))


def with_gradients(x: tx.Tensor, w: tx.Tensor) -> tuple[tx.Tensor, ...]:
    """The gradient has the masks of its rounds."""

    def step(c: tx.Tensor, row: tx.Tensor) -> Any:
        c = F.dropout((c @ w).tanh() + row, 0.5)
        return c, c

    last, rows = tx.scan(step, x[0], x)
    loss = (rows * rows).sum() + last.sum()
    return (loss, *tx.autograd.grad(loss, [x, w]))


def checkpointed(x: tx.Tensor, w: tx.Tensor) -> tuple[tx.Tensor, ...]:
    """The second time with the same masks."""
    block = tx.checkpoint(lambda y: F.dropout((F.dropout(y, 0.5) @ w).tanh(), 0.25))
    y = block(block(x))
    return (y, *tx.autograd.grad((y * y).sum(), [x, w]), tx.rand(2, device=x.device))


def sorting(x: tx.Tensor, w: tx.Tensor) -> tuple[tx.Tensor, ...]:
    """A loop that no kernel runs is called as it is."""

    def step(c: tx.Tensor, row: tx.Tensor) -> Any:
        return F.dropout(c.sort()[0], 0.5) + row, None

    return tx.scan(step, x[0], x)[0], F.dropout(x, 0.5)


def attending(x: tx.Tensor, w: tx.Tensor) -> tuple[tx.Tensor, ...]:
    """Attention draws in its own kernels."""

    def attend(y: tx.Tensor) -> tx.Tensor:
        q = (y @ w).reshape(1, 1, 5, 4)
        return F.scaled_dot_product_attention(q, q, q, dropout_p=0.5).reshape(5, 4)

    y = tx.checkpoint(attend)(x)
    y = tx.scan(lambda c, row: (attend(c) + row, None), y, x)[0]
    return (y, *tx.autograd.grad((y * y).sum(), [x, w]))


def drawn(f: Function, device: str, compiled: bool) -> tuple[list[Any], Any]:
    """The results of three calls, the second one from another seed, and the function."""
    rng = np.random.default_rng(0)
    x, w = (
        tx.tensor(rng.standard_normal(shape) / 2, device=device, requires_grad=True)
        for shape in ((5, 4), (4, 4))
    )
    run = tx.compile(f) if compiled else f
    tx.manual_seed(3)
    found = []
    for i in range(3):
        if i == 1:
            tx.manual_seed(7)
        found += [y.numpy() for y in run(x, w)]
    return [*found, tx.random.get_state()], run


FUNCTIONS = [in_rounds, backwards, with_gradients, checkpointed, attending, sorting]


@pytest.mark.parametrize("device", [NAME, pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("f", FUNCTIONS, ids=lambda f: f.__name__)
def test_it_draws_what_eager_code_draws(f: Function, device: str) -> None:
    (*wanted, state), _ = drawn(f, "cpu", compiled=False)
    (*found, other), run = drawn(f, device, compiled=True)
    assert isinstance(run, Compiled) and isinstance(run._plan(), Execution), run.explain()
    assert state == other
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


def test_a_loop_with_more_of_the_host_is_replayed() -> None:
    """Its rounds count by themselves what the host has."""
    count = tx.tensor(0)

    @tx.compile
    def f(x: tx.Tensor) -> tx.Tensor:
        def step(c: tx.Tensor, row: tx.Tensor) -> Any:
            count.assign(count * 2 + 1)
            return c + F.dropout(row, 0.5), None

        return tx.scan(step, x[0], x)[0]

    x = tx.ones(3, 4, device=NAME)
    tx.manual_seed(1)
    found = f(x).numpy()
    assert count.item() == 7 and "of several devices" in f.explain()
    tx.manual_seed(1)
    count.assign(tx.tensor(0))
    assert (f._f(x).numpy() == found).all() and count.item() == 7
