"""tx.grad and tx.value_and_grad: trees of arguments, nesting, what is recorded, errors."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from op_case import double, leaf

import tinygrad_tx as tx
from tinygrad_tx.errors import GradError


def test_third_derivative() -> None:
    f = tx.grad(tx.grad(tx.grad(lambda x: x.exp() * x.sin())))
    x = 0.7  # (e^x sin x)''' = 2 e^x (cos x - sin x)
    want = 2 * np.exp(x) * (np.cos(x) - np.sin(x))
    assert f(tx.tensor(x, dtype=tx.float64)).item() == pytest.approx(want, rel=1e-12)


def test_a_hessian() -> None:
    a = np.random.default_rng(3).standard_normal((4, 4))
    gradient = tx.grad(lambda x: (x @ tx.tensor(a) @ x) / 2 + (x**3).sum())
    x = double(4, seed=4)
    rows = [tx.grad(lambda x, i=i: gradient(x)[i])(x).numpy() for i in range(4)]
    np.testing.assert_allclose(rows, (a + a.T) / 2 + np.diag(6 * x.numpy()), rtol=1e-12)


class Point(NamedTuple):
    x: tx.Tensor
    scale: float


def test_trees_of_arguments() -> None:
    def f(a: Any, b: Any, *, power: float) -> tx.Tensor:
        return (a["w"] ** power * b[0].x * b[0].scale).sum() + a["list"][0] * b[1]

    w, x = tx.tensor([1.0, 2.0]), tx.tensor([3.0, 4.0])
    a = {"w": w, "list": [tx.tensor(5.0), None, "name"]}
    b = (Point(x, 2.0), tx.tensor(7.0))
    value, (ga, gb) = tx.value_and_grad(f, argnums=(0, 1))(a, b, power=3.0)
    assert value.item() == 2 * (3 + 32) + 35
    assert ga["w"].tolist() == [18, 96] and ga["list"][0].item() == 7
    assert ga["list"][1:] == [None, None]
    assert isinstance(gb[0], Point) and gb[0].x.tolist() == [2, 16] and gb[0].scale is None
    assert gb[1].item() == 5
    only = tx.grad(f, argnums=1)(a, b, power=3.0)
    assert only[1].item() == 5 and w.grad is None and not w.requires_grad


def test_results_carry_no_graph_that_nobody_can_use() -> None:
    x = tx.tensor([1.0, 2.0])
    value, gradient = tx.value_and_grad(lambda x: (x * x).sum())(x)
    assert not value.requires_grad and not gradient.requires_grad
    w = leaf(1.0, 2.0)
    assert tx.grad(lambda x: (x * x).sum())(w).requires_grad
    assert tx.grad(lambda x: (x * w).sum())(x).requires_grad
    with tx.no_grad():
        value, gradient = tx.value_and_grad(lambda x: (x * w).sum())(w)
    assert gradient.tolist() == [1, 2] and not gradient.requires_grad and not value.requires_grad


def test_a_gradient_penalty_reaches_the_parameters() -> None:
    w, x = tx.tensor(np.ones((3, 2)), requires_grad=True), double(2)
    slope = tx.grad(lambda x: (w @ x).tanh().sum())(x)
    (slope * slope).sum().backward()

    def penalty(w: tx.Tensor) -> tx.Tensor:
        slope = (1 - (w @ x).tanh() ** 2) @ w
        return (slope * slope).sum()

    want = tx.grad(penalty)(w.detach())
    np.testing.assert_allclose(w.grad.numpy(), want.numpy(), rtol=1e-12)


def test_nesting_sees_the_outer_variable() -> None:
    def outer(x: tx.Tensor) -> tx.Tensor:
        return x * tx.grad(lambda y: x * y * y)(x)  # the inner derivative is 2 x y at y = x

    assert tx.grad(outer)(tx.tensor(3.0)).item() == 6 * 9  # of x * 2 x x


def test_the_function_may_change_its_argument() -> None:
    def f(x: tx.Tensor) -> tx.Tensor:
        x *= 3
        x[0] = 0.0
        return (x * x).sum()

    x = tx.tensor([1.0, 2.0])
    assert tx.grad(f)(x).tolist() == [0, 36] and x.tolist() == [1, 2]


def test_zeros_where_nothing_depends_on_an_argument() -> None:
    x, y = tx.tensor(3.0), tx.tensor([1.0, 2.0])
    assert [g.tolist() for g in tx.grad(lambda a, b: a * a, (0, 1))(x, y)] == [6, [0, 0]]


def test_the_same_tensor_as_two_arguments() -> None:
    x = tx.tensor(3.0)
    assert [g.item() for g in tx.grad(lambda a, b: a * a * b, (0, 1))(x, x)] == [18, 9]


@pytest.mark.parametrize(
    ("f", "args", "argnums", "message"),
    [
        (lambda x: x * 2, (tx.ones(2),), 0, "must give a scalar Tensor, not tensor"),
        (lambda x: 3.0, (tx.ones(2),), 0, "must give a scalar Tensor, not 3.0"),
        (lambda x: x.sum(), (tx.ones(2, dtype=tx.int64),), 0, "dtype int64 has no gradient"),
        (lambda x: x, (2.0,), 0, r"argument 0 holds no Tensor; wrap numbers in tx.tensor"),
        (lambda x: x.sum(), (tx.ones(2),), 1, "argnums 1, but only 1 positional"),
        (lambda x: x.sum(), (tx.ones(2),), -1, "argnums -1"),
    ],
)
def test_errors_of_grad(f: Any, args: Any, argnums: int, message: str) -> None:
    with pytest.raises(GradError, match=message):
        tx.grad(f, argnums)(*args)
