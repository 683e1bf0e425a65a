"""tx.autograd.grad and backward, and hooks on gradients: eager and compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx.errors import GradError, TraceError
from tinygrad_tx.nn import functional as F  # noqa: N812


def leaf(*values: float) -> tx.Tensor:
    return tx.tensor(values[0] if len(values) == 1 else list(values), requires_grad=True)


def test_grad_by_inputs_that_depend_on_each_other() -> None:
    a = leaf(2.0)
    b = a * a
    assert [g.item() for g in tx.autograd.grad(b * a, [a, b], retain_graph=True)] == [12, 2]
    assert [g.item() for g in tx.autograd.grad(b, b, retain_graph=True)] == [1]
    assert a.grad is None


def test_grad_of_grad() -> None:
    a = leaf(2.0)
    (first,) = tx.autograd.grad(a**3, a, create_graph=True)
    (second,) = tx.autograd.grad(first, a, create_graph=True)
    assert [first.item(), second.item(), tx.autograd.grad(second, a)[0].item()] == [12, 12, 6]


def test_cotangents() -> None:
    v = leaf(1.0, 2.0)
    g = tx.autograd.grad([v * 2, v.sum()], v, [tx.tensor([1.0, 10.0]), None])
    assert g[0].tolist() == [3, 21]
    assert tx.autograd.grad(v * v, [v], tx.ones(2))[0].tolist() == [2, 4]


def test_unused_inputs() -> None:
    a, b = leaf(2.0), leaf(1.0, 2.0)
    assert tx.autograd.grad(a * 2, [a, b], allow_unused=True)[1] is None
    assert tx.autograd.grad(a * 2, [a, b], materialize_grads=True)[1].tolist() == [0, 0]


def test_backward_of_several_and_by_results() -> None:
    v = leaf(1.0, 2.0)
    tx.autograd.backward([v.sum(), (v * v).sum()])
    assert v.grad.tolist() == [3, 5]
    w = v * 3
    (w * w).sum().backward(inputs=[v, w])
    assert (v.grad.tolist(), w.grad.tolist()) == ([21, 41], [6, 12])


WRONG: list[tuple[Callable[[], Any], Any, str]] = [
    (lambda: tx.autograd.grad(leaf(1.0) * 2, leaf(1.0)), GradError, r"not depend on inputs\[0\]"),
    (lambda: tx.autograd.grad(leaf(1.0) * 2, tx.ones(1)), GradError, r"inputs\[0\] requires no gr"),
    (lambda: tx.autograd.grad(tx.ones(()), leaf(1.0)), GradError, "requires no gradient: no input"),
    (lambda: tx.autograd.grad(leaf(1.0, 2.0), leaf(1.0)), GradError, "needs grad_outputs=; reduce"),
    (lambda: tx.autograd.grad(lambda x: x, leaf(1.0)), TypeError, r"of a function is tx.grad\(f\)"),
    (lambda: tx.autograd.grad(5, leaf(1.0)), TypeError, "outputs must be a list of Tensors"),
    (lambda: tx.autograd.grad(leaf(1.0), leaf(1.0), is_grads_batched=True), ValueError, "batched"),
    (lambda: tx.autograd.grad([leaf(1.0)] * 2, leaf(1.0), tx.ones(())), GradError, "as many as"),
    (lambda: tx.ones(2).register_hook(print), GradError, "register_hook of a Tensor that requires"),
    (lambda: leaf(1.0).register_hook(5), TypeError, "hook must be a function, not 5"),
]  # fmt: skip


@pytest.mark.parametrize("i", range(len(WRONG)))
def test_errors(i: int) -> None:
    call, error, message = WRONG[i]
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_hooks_see_and_change_gradients() -> None:
    x, seen = leaf(1.0, 2.0, 3.0), []
    y = x * 2
    z = (y * y).sum()
    handle = y.register_hook(lambda g: g * 3)  # after z was computed of it
    y.register_hook(lambda g: seen.append(g.tolist()))
    x.register_hook(lambda g: seen.append(g.tolist()))
    z.backward()
    assert seen == [[12, 24, 36], [24, 48, 72]] and x.grad.tolist() == [24, 48, 72]
    handle.remove()
    with tx.no_grad():
        x += 1  # a leaf keeps its hooks
    (x * 2).sum().backward()
    assert seen[2:] == [[2, 2, 2]]


def test_a_hook_must_give_a_gradient() -> None:
    x = leaf(1.0, 2.0)
    with x.register_hook(lambda g: g.sum()), pytest.raises(GradError, match=r"float32 \(2,\), not"):
        (x * 2).sum().backward()
    (x * 2).sum().backward()


def test_hooks_of_second_order() -> None:
    x = leaf(3.0)
    y = x * x
    y.register_hook(lambda g: g * y)
    (g,) = tx.autograd.grad(y, x, create_graph=True)  # 2 x^3
    assert g.item() == 54
    assert tx.autograd.grad(g, x)[0].item() == 342  # as in PyTorch: the hook is called again


def test_compiled() -> None:
    """Hooks are traced; ops known whole around a result with one are still differentiated right."""
    w = leaf(1.0, 2.0)

    def f(x: tx.Tensor) -> Any:
        y = w * x
        y.register_hook(lambda g: g * 10)
        (g,) = tx.autograd.grad(F.softmax(y, 0).log().sum(), [w], retain_graph=True)
        h = tx.autograd.grad((y * y).sum(), [w, y])
        return g, *h

    step, x = tx.compile(f), tx.tensor([1.0, 3.0])

    def agree() -> None:
        for a, b in zip(step(x), f(x), strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6)

    agree()
    agree()
    handle = w.register_hook(lambda g: g + 100)
    agree()
    handle.remove()
    agree()

    @tx.compile
    def late(x: tx.Tensor) -> None:
        w.register_hook(lambda g: g)

    with pytest.raises(TraceError, match="register it before the function is called"):
        late(x)
