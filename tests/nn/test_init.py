"""Initial values that are more than a draw: truncated, orthogonal, the identity."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx import nn
from tinygrad_tx.errors import ShapeError, UserError


def test_trunc_normal() -> None:
    tx.manual_seed(0)
    x = nn.Parameter(tx.zeros(100, 100, dtype=tx.float64))
    assert nn.init.trunc_normal_(x, 1.0, 2.0, 0.0, 4.0) is x and x.requires_grad
    values = np.sort(x.numpy().ravel())
    assert 0 <= values[0] < 0.01 and 3.99 < values[-1] <= 4
    low, high = (math.erf((b - 1) / math.sqrt(8)) for b in (0, 4))
    for at in (0.5, 1.0, 2.5):  # the distribution itself
        wanted = (math.erf((at - 1) / math.sqrt(8)) - low) / (high - low)
        assert (values < at).mean() == pytest.approx(wanted, abs=0.02)
    far = nn.init.trunc_normal_(nn.Parameter(tx.zeros(1000)), a=-9.0, b=9.0)
    assert far.isfinite().all() and abs(far.std().item() - 1) < 0.1


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 2, 3)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    w = nn.init.orthogonal_(nn.Parameter(tx.zeros(shape, dtype=tx.float64)), 2.0).numpy()
    w = w.reshape(shape[0], -1)
    squares = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(squares, 4 * np.eye(len(squares)), atol=1e-12)


def test_eye_and_half_precision() -> None:
    w = nn.Parameter(tx.ones(2, 3, dtype=tx.float16))
    assert nn.init.eye_(w).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert nn.init.orthogonal_(w).dtype == nn.init.trunc_normal_(w).dtype == tx.float16


def test_errors() -> None:
    vector = nn.Parameter(tx.ones(3))
    with pytest.raises(ShapeError, match="orthogonal_ needs two axes or more"):
        nn.init.orthogonal_(vector)
    with pytest.raises(ShapeError, match="eye_ needs a matrix"):
        nn.init.eye_(vector)
    with pytest.raises(UserError, match=r"std=0\.0 must be positive and a=-2\.0 below"):
        nn.init.trunc_normal_(vector, std=0.0)
