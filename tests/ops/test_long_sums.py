"""Sums of very many numbers: the error must not grow with how many there are. The right values are
NumPy's in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx.nn import functional as F  # noqa: N812

MANY = 1_000_000
CLOSE = 2e-6  # relative: some units in the last place of float32


@pytest.fixture(params=["native", "interp", "replay", "0"])
def mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TX_COMPILE", request.param)
    if request.param == "native":
        pytest.importorskip("llvmlite")
    return str(request.param)


TENTH = float(np.float32(0.1))
FUNCTIONS: dict[str, tuple[Callable[[tx.Tensor], tx.Tensor], float]] = {
    "sum": (lambda x: x.sum(), MANY * TENTH),
    "mean": (lambda x: x.mean(), TENTH),
    "norm": (lambda x: x.norm(), TENTH * MANY**0.5),
    "sum of squares": (lambda x: (x * x).sum(), MANY * TENTH**2),
    "logsumexp": (lambda x: x.logsumexp(0), TENTH + np.log(MANY)),
    "sum of exponentials": (lambda x: x.exp().sum(), MANY * np.exp(TENTH)),
    "sum of a long body": (
        lambda x: ((((x * 1.5 + 1) * x - 1) * x + 2) * x * (x + 1) * (x + 2)).sum(),
        MANY * ((((TENTH * 1.5 + 1) * TENTH - 1) * TENTH + 2) * TENTH * (TENTH + 1) * (TENTH + 2)),
    ),
    "two sums": (lambda x: x.sum() - 0.5 * (x + x).sum() + x.sum(), MANY * TENTH),
    "first axis": (lambda x: x.reshape(-1, 4).sum(0).sum(), MANY * TENTH),
    "middle axis": (lambda x: x.reshape(2, -1, 5).sum(1).sum(), MANY * TENTH),
    "outer axes": (lambda x: x.reshape(-1, 2, 5).sum((0, 2)).sum(), MANY * TENTH),
    "one column": (lambda x: x.reshape(-1, 1).sum(0).sum(), MANY * TENTH),
    "turned": (lambda x: x.reshape(-1, 5).T.sum(-1).sum(), MANY * TENTH),
    "part of a row": (lambda x: x.reshape(-1, 5)[:, :3].sum(), 0.6 * MANY * TENTH),
    "cumsum": (lambda x: x.cumsum(0)[-1], MANY * TENTH),
    "index_add": (
        lambda x: tx.zeros(2).index_add(0, tx.zeros(MANY, dtype=tx.int64), x)[0],
        MANY * TENTH,
    ),
    "gradient of an embedding": (
        lambda x: tx.grad(lambda w: (w[tx.zeros(MANY, dtype=tx.int64)] * x).sum())(tx.zeros(2))[0],
        MANY * TENTH,
    ),
    "loss": (lambda x: F.mse_loss(x, x * 0), TENTH**2),
    "softmax": (lambda x: x.softmax(0)[0], 1 / MANY),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_million(name: str, mode: str) -> None:
    f, expected = FUNCTIONS[name]
    x = tx.tensor(np.full(MANY, 0.1, np.float32))
    assert tx.compile(f)(x).item() == pytest.approx(expected, rel=CLOSE)


def test_ten_million_and_odd_numbers(mode: str) -> None:
    x = np.random.default_rng(0).random(10_000_019, dtype=np.float32)
    f = tx.compile(lambda x: (x.sum(), x.reshape(-1, 1).sum(0), x.amax()))
    whole, column, largest = (y.item() for y in f(tx.tensor(x)))
    expected = x.sum(dtype=np.float64)
    assert whole == pytest.approx(expected, rel=CLOSE) == column
    assert largest == x.max()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves_are_rounded_once(dtype: str, mode: str) -> None:
    x = tx.full((MANY,), 2.0**-10).to(getattr(tx, dtype))
    expected = float(tx.tensor(MANY * 2.0**-10).to(getattr(tx, dtype)).item())
    for f in (
        lambda x: x.sum(),
        lambda x: x.reshape(-1, 2).sum(0).sum(),
        lambda x: x.cumsum(0)[-1],
    ):
        assert tx.compile(f)(x).item() == expected


def test_gradient_norms_and_losses(mode: str) -> None:
    p = tx.nn.Parameter(tx.zeros(MANY))
    p.grad = tx.full((MANY,), 0.1)
    assert tx.optim.clip_grad_norm_([p], 1e9).item() == pytest.approx(100.0, rel=CLOSE)
    logits = tx.zeros(200_000, 5)
    loss = tx.compile(lambda x, t: F.cross_entropy(x, t))(logits, tx.zeros(200_000, dtype=tx.int64))
    assert loss.item() == pytest.approx(np.log(5), rel=CLOSE)


def test_padding_changes_no_bit(mode: str) -> None:
    """However many zeros there are behind: blocks that add nothing leave the tree as it is."""
    rng = np.random.default_rng(3)
    f = tx.compile(lambda x: (x.sum(-1), (x.exp() * x).sum(-1)))
    for n in (1, 31, 2048, 2049, 70_000, 300_000):
        x = rng.standard_normal((1, n)).astype(np.float32)
        expected = None
        for padding in (0, 1, 32, 2048, 5000, 200_000):
            found = [y.numpy() for y in f(tx.tensor(np.pad(x, ((0, 0), (0, padding)))))]
            expected = expected or found
            if mode in ("native", "interp"):
                np.testing.assert_array_equal(found, expected)


def test_native_and_interpreted_sums_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llvmlite")
    rng = np.random.default_rng(4)
    for shape in ((3, 5), (2, 33), (1, 2049), (2, 150_000), (5000, 3)):
        for dtype in ("float32", "float64"):
            x = tx.tensor(rng.standard_normal(shape).astype(dtype))
            found = []
            for kind in ("native", "interp"):
                monkeypatch.setenv("TX_COMPILE", kind)
                f = tx.compile(lambda x: (x.sum(-1), x.sum(0)))
                found.append([y.numpy() for y in f(x)])
            for one, other in zip(*found, strict=True):
                np.testing.assert_array_equal(one, other)
