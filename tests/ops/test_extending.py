"""Ops that users make: what one record suffices for, and what is said when it is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx.op import OPS


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """Ops made here are forgotten afterwards."""
    before = dict(OPS)
    yield
    OPS.clear()
    OPS.update(before)


def doubled(vjp: Callable[..., Any]) -> tx.Op:
    return tx.Op("doubled", kind="map", forward=lambda xp, x: x * 2, vjp=vjp)


def test_one_record_is_enough() -> None:
    swish = tx.Op(
        "swish",
        kind="map",
        forward=lambda xp, x: x / (1 + xp.exp(-x)),
        vjp=lambda g, y, x: (g * (y + x.sigmoid() * (1 - y)),),
    )
    x = tx.randn(3, 4, dtype=tx.float64)
    assert tx.gradcheck(swish, x, order=2)
    a = x.numpy()
    np.testing.assert_allclose(swish(x).numpy(), a / (1 + np.exp(-a)), rtol=1e-14)
    for dtype in (tx.float16, tx.float32):
        assert swish(x.to(dtype)).dtype == dtype
    grad = tx.grad(lambda x: swish(x).sum())
    np.testing.assert_allclose(tx.compile(grad)(x).numpy(), grad(x).numpy(), rtol=1e-13, atol=1e-15)
    with pytest.raises(tx.errors.DTypeError, match=r"swish needs a floating dtype, not int64: use"):
        swish(tx.arange(3))
    with pytest.raises(tx.errors.DTypeError, match="swish: at least one input must be a Tensor"):
        swish(np.ones(3))


def test_scalars_reach_a_vjp_as_tensors() -> None:
    """A constant is a NumPy scalar inside; the Tensor of it behaves as any other."""
    seen = []

    def vjp(g: tx.Tensor, y: tx.Tensor, x: tx.Tensor, factor: tx.Tensor) -> tuple[Any, ...]:
        seen.append((factor.item(), factor.numpy().shape, factor.tolist()))
        return g * factor, None

    scaled = tx.Op("scaled", kind="map", forward=lambda xp, x, factor: x * factor, vjp=vjp)
    x = tx.ones(2, requires_grad=True)
    scaled(x, 3).sum().backward()
    assert seen == [(3.0, (), 3.0)]
    assert x.grad is not None and x.grad.tolist() == [3.0, 3.0]


def test_made_again_an_op_is_replaced() -> None:
    x = tx.ones(2, requires_grad=True)
    first = doubled(lambda g, y, x: (g * 2,))
    y = first(x).sum()
    second = doubled(lambda g, y, x: (g * 5,))
    assert OPS["doubled"] is second
    y.backward()
    assert x.grad is not None and x.grad.tolist() == [2.0, 2.0]  # the recorded op is kept


@pytest.mark.parametrize(
    ("vjp", "message"),
    [
        (lambda g, y, x: g * 2, "doubled: the vjp must give a tuple with one gradient"),
        (lambda g, y, x: (g, g), "doubled: the vjp must give a tuple with one gradient"),
        (lambda g, y, x: (g.sum(),), r"doubled: the vjp gave a gradient \(\) for an input \(3,\)"),
        (lambda g, y, x: (g[:2],), r"doubled: the vjp gave a gradient \(2,\) for an input \(3,\)"),
        (lambda g, y, x: (g.numpy(),), "doubled: the vjp gave a gradient of type ndarray"),
        (lambda g, y, x: (lambda: 2.0,), "doubled: the vjp gave a gradient of type float for"),
        (lambda g, y, x: (g.double(),), "gradient of type float64 for a Tensor of float32"),
    ],
)
def test_a_wrong_vjp_is_named(vjp: Callable[..., Any], message: str) -> None:
    x = tx.ones(3, requires_grad=True)
    with pytest.raises(tx.errors.GradError, match=message):
        doubled(vjp)(x).sum().backward()


def test_a_gradient_of_none_is_a_constant() -> None:
    x = tx.ones(3, requires_grad=True)
    doubled(lambda g, y, x: (None,))(x).sum().backward()
    assert x.grad is None


def test_what_a_record_needs() -> None:
    with pytest.raises(ValueError, match=r'Op "foreign": kind "opaque" needs rule='):
        tx.Op("foreign", forward=lambda xp, x: x)
    assert "foreign" not in OPS


def test_a_forward_that_belongs_to_no_module() -> None:
    total = tx.Op("total", kind="opaque", forward=_method, rule=lambda op, x: x.spec)
    assert total(tx.tensor([1.0, 2.0])).tolist() == [1, 3]


class _Forward:
    def __call__(self, xp: Any, x: Any) -> Any:
        return np.add.accumulate(x)


_method = _Forward()
_method.__module__ = None  # as of a method of NumPy's
