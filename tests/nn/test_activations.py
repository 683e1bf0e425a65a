"""Activations and shapes as modules."""

from __future__ import annotations

import pytest

import tinygrad_tx as tx
from tinygrad_tx import nn
from tinygrad_tx.errors import ShapeError
from tinygrad_tx.nn import functional as F  # noqa: N812

X = tx.randn(2, 4, 6)
MODULES: list[tuple[nn.Module, tx.Tensor, str]] = [
    (nn.ReLU(), F.relu(X), "ReLU()"),
    (nn.SiLU(), F.silu(X), "SiLU()"),
    (nn.LeakyReLU(0.2), F.leaky_relu(X, 0.2), "LeakyReLU(negative_slope=0.2)"),
    (nn.ELU(0.5), F.elu(X, 0.5), "ELU(alpha=0.5)"),
    (nn.GELU("tanh"), F.gelu(X, "tanh"), "GELU(approximate='tanh')"),
    (nn.Tanh(), X.tanh(), "Tanh()"),
    (nn.Sigmoid(), X.sigmoid(), "Sigmoid()"),
    (nn.LogSigmoid(), F.logsigmoid(X), "LogSigmoid()"),
    (nn.Softplus(2.0, 1.0), F.softplus(X, 2.0, 1.0), "Softplus(beta=2.0, threshold=1.0)"),
    (nn.Softmax(1), X.softmax(1), "Softmax(dim=1)"),
    (nn.LogSoftmax(-1), X.log_softmax(-1), "LogSoftmax(dim=-1)"),
    (nn.GLU(1), F.glu(X, 1), "GLU(dim=1)"),
    (nn.Identity(3, some="thing"), X, "Identity()"),
    (nn.Flatten(), X.reshape(2, 24), "Flatten(start_dim=1, end_dim=-1)"),
    (nn.Flatten(0, 1), X.reshape(8, 6), "Flatten(start_dim=0, end_dim=1)"),
    (nn.Unflatten(-1, (2, -1)), X.reshape(2, 4, 2, 3),
     "Unflatten(dim=-1, unflattened_size=(2, -1))"),
]  # fmt: skip


def test_modules_do_what_the_functions_do() -> None:
    for module, wanted, text in MODULES:
        assert module(X).tolist() == wanted.tolist() and repr(module) == text


def test_in_place_the_input_becomes_the_result() -> None:
    for module in (nn.ReLU(True), nn.SiLU(True), nn.LeakyReLU(inplace=True), nn.ELU(inplace=True)):
        x = X.clone()
        assert module(x) is x and x.tolist() != X.tolist() and "inplace=True" in repr(module)


def test_a_compiled_sequence() -> None:
    model = nn.Sequential(
        nn.Unflatten(1, (2, 4)), nn.Flatten(), nn.Linear(8, 6), nn.GLU(), nn.ELU(), nn.LogSoftmax(1)
    )
    x = tx.randn(3, 8)
    assert (tx.compile(model)(x) - model(x)).abs().max().item() < 1e-6


def test_an_axis_that_is_not_there() -> None:
    with pytest.raises(ShapeError, match=r"Unflatten: dim 3 is outside \(2, 4, 6\)"):
        nn.Unflatten(3, (2, 2))(X)
