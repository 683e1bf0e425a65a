"""tx.gradcheck: planted mistakes are found, and named by op, input, element and kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx.errors import GradError
from tinygrad_tx.op import OPS


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """Ops made here are forgotten afterwards."""
    before = dict(OPS)
    yield
    OPS.clear()
    OPS.update(before)


def random(*shape: int) -> tx.Tensor:
    return tx.randn(*shape, dtype=tx.float64)


def scaled(vjp: Callable[..., Any]) -> tx.Op:
    return tx.Op("scaled", kind="map", forward=lambda xp, x, y: xp.sin(x) * y, vjp=vjp)


def product(vjp: Callable[..., Any]) -> tx.Op:
    return tx.Op(
        "product",
        rule=lambda op, a, b: tx.Spec((a.shape[0], b.shape[1]), a.dtype),
        forward=lambda xp, a, b: xp.matmul(a, b),
        vjp=vjp,
    )


def biased(vjp: Callable[..., Any]) -> tx.Op:
    return tx.Op(
        "biased",
        rule=lambda op, x, b: tx.Spec(x.shape, x.dtype),
        forward=lambda xp, x, b: xp.exp(x) + b,
        vjp=vjp,
    )


CASES: dict[str, tuple[Callable[..., tx.Op], Callable[..., Any], list[tuple[int, ...]], str]] = {
    "a factor": (
        scaled,
        lambda g, y, a, b: (2 * g * a.cos() * b, g * a.sin()),
        [(2, 3), (2, 3)],
        r"op scaled, input 0, element \(0, 0\): .*: a factor: 2 times what is right everywhere$",
    ),
    "a factor, of the second input": (
        scaled,
        lambda g, y, a, b: (g * a.cos() * b, g * a.sin() / 3),
        [(2, 3), (2, 3)],
        r"op scaled, input 1, element \(0, 0\): .*: a factor: 0.3333 times",
    ),
    "a sign": (
        scaled,
        lambda g, y, a, b: (-g * a.cos() * b, g * a.sin()),
        [(3,), (3,)],
        r"op scaled, input 0, element \(0,\): .*: the sign is wrong everywhere",
    ),
    "nothing": (
        scaled,
        lambda g, y, a, b: (g * a.cos() * b, None),
        [(3,), (3,)],
        r"op scaled, input 1, .* gives 0, .*: it gives no gradient at all",
    ),
    "one element": (
        scaled,
        lambda g, y, a, b: (
            g * a.cos() * b + tx.tensor([0.0, 1.0, 0.0], dtype=tx.float64) * g,
            g * a.sin(),
        ),
        [(3,), (3,)],
        r"op scaled, input 0, element \(1,\): .*: 1 of 3 elements are wrong",
    ),
    "transposed": (
        product,
        lambda g, y, a, b: ((g @ b.T).T, a.T @ g),
        [(3, 3), (3, 3)],
        r"op product, input 0, element .*: it is transposed",
    ),
    "a missing sum": (
        biased,
        lambda g, y, a, b: (g * a.exp(), g[0]),
        [(4, 3), (3,)],
        r"op biased, input 1, element .*: a sum over the broadcast axis 0 is missing",
    ),
    "a missing sum over one of two axes": (
        biased,
        lambda g, y, a, b: (g * a.exp(), g.sum(1, keepdim=True)[:1]),
        [(4, 3), (1, 1)],
        r"op biased, input 1, element .*: a sum over the broadcast axis 0 is missing",
    ),
    "a mean for a sum": (
        biased,
        lambda g, y, a, b: (g * a.exp(), g.mean(0)),
        [(4, 3), (3,)],
        r"op biased, input 1, .*: a mean in place of the sum over the broadcast axis 0",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_op_the_input_the_element_and_the_kind(name: str) -> None:
    make, vjp, shapes, text = CASES[name]
    op = make(vjp)
    tx.manual_seed(1)
    inputs = [random(*shape) for shape in shapes]
    with pytest.raises(GradError, match=text) as found:
        tx.gradcheck(op, inputs)
    assert str(found.value).startswith("gradcheck: the first derivative is ")
    # In the middle of others, which are right.
    with pytest.raises(GradError, match=text):
        tx.gradcheck(lambda *xs: (op(*(x * 1.5 for x in xs)).tanh() * 2).sum(), inputs)


def test_a_transposed_gradient_of_another_shape() -> None:
    op = product(lambda g, y, a, b: ((g @ b.T).T, a.T @ g))
    with pytest.raises(
        GradError, match=r"product: .* \(3, 2\) for an input \(2, 3\): is it transp"
    ):
        tx.gradcheck(op, [random(2, 3), random(3, 4)])


def test_several_results_and_reductions() -> None:
    both = tx.Op(
        "both",
        rule=lambda op, x: (tx.Spec(x.shape, x.dtype),) * 2,
        forward=lambda xp, x: (xp.sin(x), xp.cos(x)),
        vjp=lambda g, y, x: (g[0] * y[1] + g[1] * y[0],),  # the sign of one part
    )
    with pytest.raises(GradError, match=r"op both, input 0, element .* 4 of 4 elements are wrong"):
        tx.gradcheck(both, random(4))
    total = tx.Op(
        "total",
        kind="reduce",
        forward=lambda xp, x, axis: xp.sum(x * x, axis),
        vjp=lambda g, y, x, axis: (g * x,),
    )
    with pytest.raises(GradError, match=r"op total, .*: a factor: 0.5 times"):
        tx.gradcheck(lambda x: total(x, axis=1), random(3, 4))


def test_what_is_not_recorded() -> None:
    with pytest.raises(
        GradError, match=r"input 0, element .*each op by itself is right: is a part"
    ):
        tx.gradcheck(lambda x: x * x.detach(), random(3))


def test_second_derivatives() -> None:
    def vjp(g: Any, y: Any, x: Any) -> Any:
        return (g * x.cos().detach(),)

    op = tx.Op("sine", kind="map", forward=lambda xp, x: xp.sin(x), vjp=vjp)
    x = random(4)
    assert tx.gradcheck(op, x)
    with pytest.raises(GradError, match=r"the second derivative is .*input 0, element .*detach"):
        tx.gradcheck(op, x, order=2)
    cosine = tx.Op(
        "cosine", kind="map", forward=lambda xp, x: xp.cos(x), vjp=lambda g, y, x: (g * x.sin(),)
    )
    sine = tx.Op(
        "sine", kind="map", forward=lambda xp, x: xp.sin(x), vjp=lambda g, y, x: (g * cosine(x),)
    )
    assert tx.gradcheck(sine, x)
    with pytest.raises(GradError, match=r"second .* op cosine, input 0, .* the sign is wrong"):
        tx.gradcheck(sine, x, order=2)


def test_right_ones_cost_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("tinygrad_tx.gradcheck"), "fault", None)
    op = scaled(lambda g, y, a, b: (g * a.cos() * b, g * a.sin()))
    assert tx.gradcheck(op, [random(2, 3), random(3)], order=2)
    assert tx.gradcheck(lambda x: x.softmax(-1), random(2, 3), order=2)
    assert np.isfinite(op(random(2), random(2)).numpy()).all()
