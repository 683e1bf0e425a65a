"""TX_CHECK=nan: the first op, module and line that made a NaN or an infinity, forward or backward,
eager and compiled; inputs that were NaN already are named as inputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from modes import running

import tinygrad_tx as tx
from tinygrad_tx import finite, nn, node
from tinygrad_tx.errors import CheckError

WAYS = ["eager", "native", "interp", "replay"]


@pytest.fixture(autouse=True)
def _on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TX_CHECK", "nan")


class Log(nn.Module):
    def forward(self, x: tx.Tensor) -> Any:
        y = x.log()  # the first infinity
        return (y * 0).sum()  # the NaN that follows


class Net(nn.Module):
    def __init__(self) -> None:
        self.act = Log()

    def forward(self, x: tx.Tensor) -> Any:
        return self.act(x.abs() - 1)


class Root(nn.Module):
    def __init__(self) -> None:
        self.w = nn.Parameter(tx.tensor([0.0, 1.0, 4.0]))

    def forward(self, x: tx.Tensor) -> Any:
        r = self.w.sqrt()  # finite, but its gradient is not
        return (r * x).sum()


def message(way: str, f: Callable[..., Any], *args: Any) -> str:
    with pytest.raises(CheckError) as found:
        running(f, way)(*args)
    assert str(found.value).startswith("TX_CHECK=nan: ") and "\n" not in str(found.value)
    return str(found.value)


@pytest.mark.parametrize("way", WAYS)
def test_forward(way: str) -> None:
    said = message(way, Net(), tx.tensor([2.0, 1.0, 3.0]))
    assert "log made an infinity in 1 of 3 elements, the first (-inf) at (1,), of 0.0" in said
    assert "in the module Net.act, at " in said
    assert said.endswith("y = x.log()  # the first infinity")


@pytest.mark.parametrize("way", WAYS)
def test_backward(way: str) -> None:
    model = Root()

    def step(x: tx.Tensor) -> tx.Tensor:
        loss: tx.Tensor = model(x)
        loss.backward()
        return loss

    said = message(way, step, tx.ones(3))
    assert "the gradient of sqrt" in said and "made an infinity in 1 of 3 elements" in said
    assert "in the module Root, at " in said
    assert said.endswith("r = self.w.sqrt()  # finite, but its gradient is not")


@pytest.mark.parametrize("way", WAYS)
def test_an_input_that_is_nan_already(way: str) -> None:
    bad = tx.tensor([1.0, math.nan, 2.0])  # NaN from outside
    said = message(way, lambda x: (x + 1).exp().sum(), bad)
    assert "input 0 of add (at " in said and "is NaN already, in 1 of 3 elements" in said
    assert said.endswith("bad = tx.tensor([1.0, math.nan, 2.0])  # NaN from outside")
    if way != "eager":
        assert "argument 0" in said


@pytest.mark.parametrize("way", WAYS)
def test_masks_are_let_pass_and_an_empty_row_is_not(way: str) -> None:
    def weights(x: tx.Tensor, seen: tx.Tensor) -> tx.Tensor:
        return x.where(seen, -math.inf).softmax(-1)

    x = tx.tensor([[1.0, 2.0], [3.0, 4.0]])
    seen = tx.tensor([[True, False], [True, True]])
    out = running(weights, way)(x, seen)
    assert np.isfinite(out.numpy()).all()
    said = message(way, weights, x, tx.tensor([[True, True], [False, False]]))
    assert "softmax made NaN in 2 of 4 elements, the first (nan) at (1, 0), of -inf" in said


@pytest.mark.parametrize("way", WAYS)
def test_inside_a_loop_and_where_nothing_is_seen_of_it(way: str) -> None:
    def divided(x: tx.Tensor) -> Any:
        return tx.scan(lambda c, e: (c / e, c), tx.ones(()), x)[1]

    said = message(way, divided, tx.tensor([1.0, 0.0, 2.0]))
    assert "div made an infinity (inf), of 1.0 and 0.0" in said
    said = message(way, lambda x: (x / x).where(x != 0, 0.0), tx.tensor([0.0, 1.0]))
    assert "div made NaN in 1 of 2 elements" in said


def test_state_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    total = tx.zeros(3)

    @tx.compile
    def add(x: tx.Tensor) -> None:
        total.assign(total + x.log())

    add(tx.ones(3))
    with pytest.raises(CheckError, match="log made an infinity"):
        add(tx.zeros(3))
    assert total.tolist() == [0, 0, 0]
    monkeypatch.setenv("TX_CHECK", "")
    add(tx.zeros(3))  # the same plan, unchecked
    assert total.tolist() == [-math.inf] * 3


def test_what_kernels_alone_make_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    x = tx.ones(3)
    made = (x * 2).node
    with pytest.raises(CheckError, match=r"the kernels made NaN in 1 of 3 .* of leaf at .*"):
        finite.agree([(made, made.array)], [np.array([1, np.nan, 2], np.float32)])
    finite.agree([(made, np.array([np.inf], np.float32))], [np.array([np.nan], np.float32)])


def test_half_precision_that_overflows() -> None:
    with pytest.raises(CheckError, match=r"cast made an infinity .* of 70000"):
        tx.tensor([70000.0, 1.0]).half()


def test_training_with_warmup_and_dropout_is_clean() -> None:
    tx.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Dropout(0.5), nn.Linear(8, 3))
    opt = tx.optim.AdamW(model.parameters(), lr=0.1)
    rate = tx.optim.lr_scheduler.InverseSqrt(opt, 4)

    @tx.compile
    def step(x: tx.Tensor, y: tx.Tensor) -> tx.Tensor:
        opt.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        tx.optim.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        rate.step()
        return loss

    x, y = tx.randn(5, 4), tx.tensor([0, 1, 2, 0, 1])
    for _ in range(3):
        assert math.isfinite(step(x, y).item())


@pytest.mark.parametrize("text", ["", "0", "1"])
def test_nothing_is_looked_at_when_it_is_off(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TX_CHECK", text)
    monkeypatch.setattr(finite, "check", None)
    assert not finite.wanted() and node.finite is finite
    assert tx.zeros(3).log().tolist() == [-math.inf] * 3
    assert tx.compile(lambda x: x.log())(tx.zeros(3)).tolist() == [-math.inf] * 3
