"""TX_CHECK=1: native code against the interpreter, launch by launch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx.backends.kernels import interpreter, interpreter_math
from tinygrad_tx.compiler.inspect.check import CheckError

F = tx.nn.functional


@pytest.fixture(autouse=True)
def checking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TX_CHECK", "1")
    monkeypatch.delenv("TX_COMPILE", raising=False)


def step_and_state(dtype: Any = tx.float32) -> tuple[Callable[..., tx.Tensor], tx.Tensor]:
    tx.manual_seed(1)
    w = tx.randn(12, 9).to(dtype).detach().requires_grad_()

    @tx.compile
    def step(x: tx.Tensor, ids: tx.Tensor) -> tx.Tensor:
        h = F.dropout(F.layer_norm(x @ w, (9,)), 0.2).relu()
        y = F.scaled_dot_product_attention(h, h, h, is_causal=True)
        loss = F.cross_entropy(y.reshape(-1, 9), ids.reshape(-1)) + w[ids].tanh().mean()
        loss.backward()
        with tx.no_grad():
            w.assign(w - 0.1 * w.grad)
        w.grad = None
        return loss

    return step, w


def batch(dtype: Any = tx.float32) -> tuple[tx.Tensor, tx.Tensor]:
    return tx.randn(3, 7, 12).to(dtype), tx.randint(0, 9, (3, 7))


@pytest.mark.parametrize("dtype", [tx.float32, tx.float64])
def test_a_right_step_passes_and_is_what_it_is_without(
    dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = []
    for flag in ("1", "0"):
        monkeypatch.setenv("TX_CHECK", flag)
        step, w = step_and_state(dtype)
        checked.append([step(*batch(dtype)).item() for _ in range(4)] + w.tolist())
    assert checked[0] == checked[1]


def test_an_index_outside_is_still_an_index_error() -> None:
    step, w = step_and_state()
    x, ids = batch()
    step(x, ids)
    before = w.numpy()
    with pytest.raises(IndexError, match="99"):
        step(x, ids * 0 + 99)
    np.testing.assert_array_equal(w.numpy(), before)


def test_the_first_wrong_kernel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter is made wrong, which to a comparison is all the same."""
    right = interpreter_math.apply

    def wrong(op: str, dtype: str, *args: Any) -> Any:
        out = right(op, dtype, *args)
        return out * np.float32(1.001) if op == "tanh" else out

    step, w = step_and_state()
    before = w.numpy()
    monkeypatch.setattr(interpreter_math, "apply", wrong)
    with pytest.raises(CheckError, match=r"rows \(.*tanh.*\) at .*test_check.py:\d+: native code"):
        step(*batch())
    np.testing.assert_array_equal(w.numpy(), before)


def test_a_wrong_product_with_its_epilogue_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    right = interpreter._matmul

    def wrong(kernel: Any, words: Any, target: Any) -> None:
        words[kernel.layout.k] -= 1  # one of K is left out
        right(kernel, words, target)

    f = tx.compile(lambda x, y: (x @ y + 1).relu())
    x, y = tx.rand(20, 30) + 0.5, tx.rand(30, 40) + 0.5
    f(x, y)
    monkeypatch.setattr(interpreter, "_matmul", wrong)
    with pytest.raises(CheckError, match=r"matmul .*test_check.py:\d+: .* \d+\.\d% of \[20, 40\]"):
        f(x, y)


def test_the_first_nan_is_named() -> None:
    f = tx.compile(lambda x: ((x - 2).log() + 1).sum())
    f(tx.full((4,), 3.0))
    with pytest.raises(CheckError, match=r"at .*test_check.py:\d+: a NaN appears at"):
        f(tx.tensor([3.0, 3.0, 1.0, 3.0]))
    assert np.isnan(f(tx.tensor([3.0, float("nan"), 3.0, 3.0])).item())  # it came in with the data


def test_infinities_and_small_sums_of_large_numbers_pass() -> None:
    f = tx.compile(lambda x: (x.exp(), x.sum(-1), (x.softmax(-1) - 0.25).sum(-1)))
    big = tx.tensor([[1e4, 1.0, -1e4, -1.0], [200.0, 0.0, 0.0, -200.0]])
    for _ in range(2):
        exp, total, zero = f(big)
    assert np.isinf(exp.numpy()[0, 0]) and abs(total.numpy()).max() < 1
    assert abs(zero.numpy()).max() < 1e-6


def test_a_write_at_a_place_known_at_run_time(monkeypatch: pytest.MonkeyPatch) -> None:
    @tx.compile
    def write(cache: tx.Tensor, at: tx.Tensor, value: tx.Tensor) -> None:
        cache[:, at] = value

    cache = tx.full((2, 4), float("nan"))  # nothing is there yet
    for i in range(3):
        write(cache, tx.tensor(i), tx.full((2,), float(i)))
    assert cache.numpy()[:, :3].tolist() == [[0.0, 1.0, 2.0]] * 2
    right = interpreter.view

    def wrong(address: int, dtype: str, *rest: Any) -> Any:  # the position reads as one less
        out = right(address, dtype, *rest)
        return out - 1 if dtype == "int64" and not rest[0] else out

    monkeypatch.setattr(interpreter, "view", wrong)
    with pytest.raises(CheckError, match="update"):
        write(cache, tx.tensor(2), tx.full((2,), 7.0))
    assert cache.numpy()[:, :3].tolist() == [[0.0, 1.0, 2.0]] * 2


def test_a_nan_in_a_row_that_is_gathered_has_come_in() -> None:
    table = tx.tensor([[1.0], [2.0], [float("nan")]])
    f = tx.compile(lambda ids: table[ids] * 2)
    assert np.isnan(f(tx.tensor([0, 2, 1])).numpy()).ravel().tolist() == [False, True, False]
