"""TX_CHECK=1 on a GPU: every launch against the interpreter, which has its memory copied."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("llvmlite")
from simulator.device import NAME, Simulator, install

import tinygrad_tx as tx
from tinygrad_tx import backends
from tinygrad_tx.backends.kernels import interpreter, interpreter_math
from tinygrad_tx.compiler.inspect.check import CheckError
from tinygrad_tx.compiler.run.execution import Execution
from tinygrad_tx.nn import functional as F  # noqa: N812

DEVICES = [NAME, pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(scope="module", autouse=True)
def simulator() -> Simulator:
    return install()


@pytest.fixture(autouse=True)
def checking(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TX_CHECK", "1")
    monkeypatch.delenv("TX_COMPILE", raising=False)
    yield
    tx.set_default_device("cpu")


def trained(device: str, precision: str = "fp32") -> tuple[list[float], Any, Any]:
    """Losses, the compiled step, and its weights: maps, reductions, products, attention, dropout,
    gathers, sums at places, an optimizer."""
    backends.get(device)
    tx.manual_seed(0)
    model = tx.models.GPT(tx.models.GPTConfig(19, 1, 2, 16, 12, dropout=0.1)).to(device)
    optimizer = tx.optim.AdamW(model.parameters(), lr=1e-2)

    @tx.compile
    def step(ids: tx.Tensor) -> tx.Tensor:
        optimizer.zero_grad()
        with tx.autocast(precision):
            loss = model.loss(ids[:, :-1], ids[:, 1:])
        loss.backward()
        optimizer.step()
        return loss

    ids = tx.tensor(np.random.default_rng(0).integers(0, 19, (2, 9)), device=device)
    losses = [step(ids).item() for _ in range(2)]
    return losses, step, [p.numpy() for p in model.parameters()]


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("device", "precision"),
    [(NAME, "bf16"), pytest.param("cuda", "fp32", marks=pytest.mark.gpu)],
)
def test_a_right_step_passes_and_is_what_it_is_without(
    device: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, step, weights = trained(device, precision)
    plan = step._plan()
    assert isinstance(plan, Execution) and plan.checked
    monkeypatch.setenv("TX_CHECK", "0")
    other, step, wanted = trained(device, precision)
    assert losses == other and not step._plan().checked
    for a, b in zip(weights, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("device", DEVICES)
def test_the_first_wrong_kernel_is_named(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter is made wrong, which to a comparison is all the same."""
    backends.get(device)
    state = tx.zeros(4, device=device)

    @tx.compile
    def step(x: tx.Tensor) -> tx.Tensor:
        state.assign(state + 1)
        return (x @ x).tanh().sum()

    x = tx.ones(4, 4, device=device) * 0.1
    step(x).item()
    right = interpreter_math.apply

    def wrong(op: str, dtype: str, *args: Any) -> Any:
        out = right(op, dtype, *args)
        return out * np.float32(1.001) if op == "tanh" else out

    monkeypatch.setattr(interpreter_math, "apply", wrong)
    with pytest.raises(CheckError, match=r"tanh.* at .*test_checked.py:\d+: native code made"):
        step(x)
    assert state.tolist() == [1.0] * 4


def test_a_wrong_product_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    right = interpreter._gemm

    def wrong(kernel: Any, args: Any) -> None:
        right(kernel, args._replace(k=args.k - 1))  # one of K is left out

    f = tx.compile(lambda x, y: x @ y)
    x, y = tx.rand(20, 30).to(NAME) + 0.5, tx.rand(30, 40).to(NAME) + 0.5
    f(x, y)
    monkeypatch.setattr(interpreter, "_gemm", wrong)
    with pytest.raises(CheckError, match=r"gemm .*test_checked.py:\d+: .* \d+\.\d% of \[20, 40\]"):
        f(x, y)


@pytest.mark.parametrize("device", DEVICES)
def test_the_first_nan_is_named(device: str) -> None:
    backends.get(device)
    f = tx.compile(lambda x: ((x - 2).log() + 1).sum())
    f(tx.full((4,), 3.0, device=device))
    with pytest.raises(CheckError, match=r"test_checked.py:\d+: a NaN appears at"):
        f(tx.tensor([3.0, 3.0, 1.0, 3.0], device=device))


@pytest.mark.parametrize("device", DEVICES)
def test_an_index_outside_is_raised_at_once(device: str) -> None:
    backends.get(device)
    table = tx.ones(4, 2, device=device)
    count = tx.zeros(1, device=device)

    @tx.compile
    def step(ids: tx.Tensor) -> tx.Tensor:
        count.assign(count + 1)
        return F.embedding(ids, table).sum()

    def given(*ids: int) -> tx.Tensor:
        return tx.tensor(list(ids), device=device)

    assert step(given(1, 2)).item() == 4
    with pytest.raises(IndexError, match="index 7 is outside the 4 entries"):
        step(given(1, 7))
    assert step(given(3, 0)).item() == 4 and count.tolist() == [2.0]


def test_an_index_outside_of_before_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    table = tx.ones(4, 2, device=NAME)
    monkeypatch.setenv("TX_CHECK", "0")
    quick = tx.compile(lambda ids: table[ids].sum())
    quick(tx.tensor([1], device=NAME))
    quick(tx.tensor([9], device=NAME))
    monkeypatch.setenv("TX_CHECK", "1")
    f = tx.compile(lambda x: x + 1)
    with pytest.raises(IndexError, match="index 9 is outside"):
        f(tx.ones(3, device=NAME))
    assert f(tx.ones(3, device=NAME)).tolist() == [2.0] * 3


def test_rounds_of_a_loop_are_checked_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def body(state: tx.Tensor, x: tx.Tensor) -> tuple[tx.Tensor, tx.Tensor]:
        state = (state + x).tanh()
        return state, state * 2

    f = tx.compile(lambda xs: tx.scan(body, tx.zeros(3, device=NAME), xs)[1])
    xs = tx.tensor(np.arange(15, dtype=np.float32).reshape(5, 3) / 9, device=NAME)
    found = f(xs).numpy()
    monkeypatch.setenv("TX_CHECK", "0")
    g = tx.compile(lambda xs: tx.scan(body, tx.zeros(3, device=NAME), xs)[1])
    np.testing.assert_array_equal(found, g(xs).numpy())
