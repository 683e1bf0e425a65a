"""A kernel of a user's fused op on the Target of a GPU, natively, interpreted and replayed: the
same values, in one kernel. And TX_CHECK=nan there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from modes import running
from simulator.device import NAME, install

import tinygrad_tx as tx
from tinygrad_tx.errors import CheckError
from tinygrad_tx.op import OPS


@pytest.fixture(scope="module", autouse=True)
def _device() -> None:
    install()


@pytest.fixture
def op() -> Iterator[tx.Op]:
    before = dict(OPS)
    yield tx.Op(
        "own_norm",
        kind="fused",
        rule=lambda op, x, axis: tx.Spec(x.shape, x.dtype),
        forward=lambda xp, x, axis: x / (1 + xp.sqrt(xp.sum(x * x, (axis,)) / x.shape[axis])),
        decompose=lambda x, axis: x / (1 + (x * x).mean(axis, keepdim=True).sqrt()),
        kernel_form=lambda x, axis: (
            x * (1 / (1 + ((x * x).sum(axis, keepdim=True) * (1 / x.shape[axis])).sqrt()))
        ),
    )
    OPS.clear()
    OPS.update(before)


@pytest.mark.parametrize("way", ["eager", "native", "interp", "replay", NAME])
def test_a_kernel_form_of_ones_own(way: str, op: tx.Op) -> None:
    a = np.random.default_rng(0).standard_normal((6, 33)).astype(np.float32)
    on = NAME if way == NAME else "cpu"
    x = tx.tensor(a, device=on, requires_grad=True)

    def step(x: tx.Tensor) -> Any:
        y = op(x, axis=-1)
        return y, tx.autograd.grad((y * y).sum(), x)[0]

    y, grad = running(step, "native" if way == NAME else way)(x)
    wide = tx.tensor(a.astype(np.float64), requires_grad=True)
    wanted, wanted_grad = step(wide)
    np.testing.assert_allclose(y.numpy(), wanted.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(grad.numpy(), wanted_grad.numpy(), rtol=1e-4, atol=1e-5)
    if way in ("native", NAME):
        forward = tx.compile(lambda x: op(x * 2, axis=-1).exp())
        forward(x)
        assert forward.stats()["kernels"] == 1
        text = forward.explain(source="asm")
        assert "nothing fused" not in text and "#1 rows" in text


def test_nan_is_named_there_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TX_CHECK", "nan")
    x = tx.tensor([1.0, 0.0], device=NAME)
    for f in (lambda x: (x.log() * 2).sum(), tx.compile(lambda x: (x.log() * 2).sum())):
        with pytest.raises(CheckError, match=r"log made an infinity in 1 of 2 .*, of 0.0"):
            f(x)
    assert tx.compile(lambda x: x + 1)(x).tolist() == [2.0, 1.0]
