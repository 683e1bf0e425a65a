"""Random Tensors: what they are, that compiled functions draw what eager code draws, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_tx as tx

WEIGHTS = [0.0, 3.0, 1.0, 0.0, 6.0]


def drawn() -> list[tx.Tensor]:
    x, w = tx.full((3, 4), 0.25, dtype=tx.float64), tx.tensor(WEIGHTS)
    rows = w.expand(2, 5)
    return [
        *(tx.rand_like(x), tx.randn_like(x), tx.randint_like(x, 2, 9), tx.randint_like(x, 5)),
        *(tx.randperm(9), tx.bernoulli(x), x.bernoulli(0.5), tx.ones(3, 4).long().bernoulli(x)),
        *(w.multinomial(1), tx.multinomial(w, 9, True), w.multinomial(3), rows.multinomial(2)),
    ]  # fmt: skip


def test_compiled_draws_what_eager_code_draws() -> None:
    tx.manual_seed(7)
    eager = [drawn() for _ in range(2)]
    tx.manual_seed(7)
    step = tx.compile(drawn)
    for want in eager:
        for a, b in zip(step(), want, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12)


def test_what_is_drawn() -> None:
    tx.manual_seed(1)
    first = drawn()
    shapes = [(3, 4)] * 4 + [(9,)] + [(3, 4)] * 3 + [(1,), (9,), (3,), (2, 2)]
    assert [x.shape for x in first] == shapes
    kinds = [x.dtype for x in first]
    assert kinds == [tx.float64] * 4 + [tx.int64] + [tx.float64] * 2 + [tx.int64] * 5
    assert tx.randperm(5, dtype=tx.int32).dtype == tx.int32 and tx.randperm(0).shape == (0,)
    assert sorted(tx.randperm(50).tolist()) == list(range(50)) != tx.randperm(50).tolist()
    assert tx.empty_like(first[4]).tolist() == [0] * 9
    low = tx.randint_like(tx.ones(100).long(), 2, 4)
    assert set(low.tolist()) == {2, 3}


def test_frequencies() -> None:
    tx.manual_seed(2)
    w, n = tx.tensor(WEIGHTS), 4000
    share = np.array(WEIGHTS) / 10
    found = np.bincount(w.multinomial(n, True).numpy(), minlength=5) / n
    np.testing.assert_allclose(found, share, atol=0.04)
    pairs = w.expand(n, 5).multinomial(2).numpy()
    np.testing.assert_allclose(np.bincount(pairs[:, 0], minlength=5) / n, share, atol=0.04)
    assert (pairs[:, 0] != pairs[:, 1]).all() and not np.isin(pairs, [0, 3]).any()
    assert set(map(tuple, w.expand(20, 5).multinomial(3).sort(1).values.tolist())) == {(1, 2, 4)}
    assert abs(tx.full((n,), 0.3).bernoulli().mean().item() - 0.3) < 0.03
    assert tx.tensor([0.0, 1.0]).expand(50, 2).bernoulli().sum(0).tolist() == [0, 50]


WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: tx.tensor([0.5, 1.5]).bernoulli(), "probability must be between 0 and 1"),
    (lambda: tx.ones(2).bernoulli(float("nan")), "probability must be between 0 and 1"),
    (lambda: tx.ones(2).long().bernoulli(), "bernoulli needs a floating dtype, not int64"),
    (lambda: tx.tensor([0.0, 1.0]).multinomial(2), "2 samples need as many weights that are not 0"),
    (lambda: tx.zeros(3).multinomial(2, True), "1 samples need as many"),
    (lambda: tx.tensor([1.0, -1.0]).multinomial(1), "a weight is negative, infinite or NaN"),
    (lambda: tx.ones(2).multinomial(3), "3 samples of 2 weights; without replacement"),
    (lambda: tx.ones(2, 2, 2).multinomial(1), "one or two dimensions of floats, not float32"),
    (lambda: tx.randint_like(tx.ones(2), 3, 3), "the range .3, 3. is empty"),
    (lambda: tx.randn_like(tx.arange(3)), "random numbers of dtype int64"),
    (lambda: tx.randperm(3, generator=1), "generator=1 is not supported; seed all"),
    (lambda: tx.randperm(-1), "has a negative size"),
]  # fmt: skip


@pytest.mark.parametrize("i", range(len(WRONG)))
def test_errors(i: int) -> None:
    call, message = WRONG[i]
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
