"""Recurrent layers: PyTorch's results and gradients, padding, dropout, errors."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from convolution_case import projections
from recurrent_case import CASES, FILE, B, H, I, T, by_torch, by_us, flat, numbers

import tinygrad_tx as tx
from tinygrad_tx import nn
from tinygrad_tx.errors import DTypeError, ShapeError, UserError
from tinygrad_tx.node import Graph

VALUES = json.loads(FILE.read_text(encoding="utf-8"))
LAYERS = ("RNN", "LSTM", "GRU")


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_pytorchs(name: str) -> None:
    for got, (shape, *wanted) in zip(by_us(name), VALUES[name], strict=True):
        found = projections(got)
        assert found[0] == shape
        np.testing.assert_allclose(found[1:], wanted, rtol=1e-9, atol=1e-9 * np.abs(got).sum())


@pytest.mark.parametrize("name", ["RNN", "GRU, all", "LSTMCell"])
def test_compiled_equals_eager(name: str) -> None:
    pairs = zip(by_us(name, compiled=True, order=1), by_us(name, order=1), strict=True)
    for got, want in pairs:
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10 * np.abs(want).max())


def test_second_order_is_compiled_too() -> None:
    for got, want in zip(by_us("GRU", compiled=True), by_us("GRU"), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10 * np.abs(want).max())


@pytest.mark.slow
def test_whole_results_are_pytorchs() -> None:
    pytest.importorskip("torch")
    for name in CASES:
        for got, want in zip(by_us(name), by_torch(name), strict=True):
            np.testing.assert_allclose(
                got, want, rtol=1e-9, atol=1e-9 * np.abs(want).max(), err_msg=name
            )


@pytest.mark.parametrize(
    ("kind", "compiled"), [("RNN", False), ("LSTM", False), ("LSTM", True), ("GRU", True)]
)
def test_padding_changes_no_bit(kind: str, compiled: bool) -> None:
    """Of outputs, states and gradients, whatever it holds; its own outputs and gradients are 0."""
    tx.manual_seed(2)
    layer = getattr(nn, kind)(I, H, bidirectional=True)
    clean = numbers(T, B, I).astype(np.float32)
    junk = clean.copy()
    junk[2:, 0], junk[1:, 2] = np.nan, np.inf

    def run(x: tx.Tensor, lengths: tx.Tensor) -> list[tx.Tensor]:
        ys = flat(layer(x, lengths=lengths))
        sum((y**3).sum() for y in ys).backward()
        found = [*ys, x.grad, *(p.grad for p in layer.parameters())]
        layer.zero_grad()
        return found

    run = tx.compile(run) if compiled else run
    lengths = tx.tensor([2, T, 1])
    one, other = (
        [t.numpy() for t in run(tx.tensor(x).requires_grad_(), lengths)] for x in (clean, junk)
    )
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not one[0][2:, 0].any() and not one[0][1:, 2].any() and one[0][3, 1].all()
    alone = flat(layer(tx.tensor(clean[:2, :1])))
    for a, b in zip(one[: len(alone)], alone, strict=True):
        np.testing.assert_allclose(a[: b.shape[0], :1], b.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", LAYERS)
def test_names_and_initial_values(kind: str) -> None:
    tx.manual_seed(0)
    layer = getattr(nn, kind)(3, 4, num_layers=2, bidirectional=True)
    names = [
        f"{part}_l{i}{way}"
        for i in range(2)
        for way in ("", "_reverse")
        for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ]
    gates = {"RNN": 1, "LSTM": 4, "GRU": 3}[kind]
    assert [name for name, _ in layer.named_parameters()] == names
    assert layer.weight_ih_l0.shape == (gates * 4, 3)
    assert layer.weight_ih_l1_reverse.shape == (gates * 4, 8)
    values = np.concatenate([p.numpy().ravel() for p in layer.parameters()])
    assert 0.48 < np.abs(values).max() <= 0.5
    assert repr(layer) == f"{kind}(3, 4, num_layers=2, bidirectional=True)"


def test_the_input_product_is_one_for_all_steps() -> None:
    layer = nn.LSTM(I, H, bidirectional=True)
    y, _ = layer(tx.ones(T, B, I))
    products = [n.shape for n in Graph([y.node]) if n.op.name == "matmul"]
    assert sorted(products) == [(B, 4 * H)] * (2 * T) + [(T, B, 4 * H)] * 2


def test_dropout_acts_between_layers_in_training() -> None:
    layer = nn.GRU(I, H, num_layers=2, dropout=1.0)
    x, other = numbers(2, B, I), numbers(2, B, I, seed=1)
    first, second = (layer(tx.tensor(a, dtype=tx.float32)) for a in (x, other))
    np.testing.assert_array_equal(first[0].numpy(), second[0].numpy())  # of the second, on zeros
    assert not np.allclose(first[1].numpy()[0], second[1].numpy()[0])  # the first one's state
    layer = nn.GRU(I, H, num_layers=2, dropout=0.5)
    x = tx.ones(2, B, I)
    assert not np.allclose(layer(x)[0].numpy(), layer(x)[0].numpy())
    layer.eval()
    np.testing.assert_array_equal(layer(x)[0].numpy(), layer(x)[0].numpy())
    with pytest.warns(UserWarning, match="acts between layers, and there is one"):
        nn.RNN(2, 3, dropout=0.5)


def test_no_steps_and_no_rows() -> None:
    layer = nn.LSTM(I, H, bidirectional=True)
    h = tx.ones(2, B, H)
    y, (last, _) = layer(tx.zeros(0, B, I), (h, h))
    assert y.shape == (0, B, 2 * H)
    np.testing.assert_array_equal(last.numpy(), h.numpy())
    assert layer(tx.zeros(T, 0, I))[0].shape == (T, 0, 2 * H)
    y, (last, _) = layer(tx.ones(T, B, I), (h, h), [0, 1, T])
    np.testing.assert_array_equal(last.numpy()[:, 0], h.numpy()[:, 0])
    assert not y.numpy()[:, 0].any()


BAD: list[Any] = [
    (lambda: nn.RNN(2, 0), ShapeError, "hidden_size = 0 must be positive"),
    (lambda: nn.RNN(2, 3, nonlinearity="silu"), UserError, 'must be "tanh" or "relu"'),
    (lambda: nn.GRU(2, 3, 0), ShapeError, "num_layers = 0 must be positive"),
    (lambda: nn.GRU(2, 3, 2, dropout=1.5), UserError, "between 0 and 1"),
    (lambda: nn.LSTM(2, 3, proj_size=2), UserError, "LSTM: proj_size=2 is not supported"),
    (lambda: nn.LSTM(2, 3)(tx.ones(4, 1, 3)), ShapeError, r"\(length, batch, features\)"),
    (lambda: nn.LSTM(2, 3)(object()), UserError, "must be a Tensor, not a object; .* lengths="),
    (lambda: nn.LSTM(2, 3)(tx.ones(4, 1, 2), tx.ones(1, 1, 3)), UserError, r"a tuple \(h, c\)"),
    (lambda: nn.GRU(2, 3)(tx.ones(4, 1, 2), tx.ones(2, 1, 3)), ShapeError, r"= \(1, 1, 3\)"),
    (lambda: nn.GRU(2, 3)(tx.ones(4, 1, 2), tx.ones(1, 1, 3).double()), DTypeError, "float64"),
    pytest.param(  # a GPU is not waited for: there an IndexError comes later
        lambda: nn.GRU(2, 3)(tx.ones(4, 1, 2), None, [5]), UserError, "a length is 5; .* 0 to 4",
        marks=pytest.mark.cpu,
    ),
    (lambda: nn.GRU(2, 3)(tx.ones(4, 1, 2), None, [1, 2]), ShapeError, "one for each row"),
    (lambda: nn.GRU(2, 3)(tx.ones(4, 1, 2), None, [1.0]), DTypeError, "must be ints"),
    (lambda: nn.GRU(2, 3)(tx.ones(4, 2), None, [4]), UserError, "cut this one sequence"),
    (lambda: nn.GRUCell(2, 3)(tx.ones(1, 3)), ShapeError, "input_size = 2"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "words"), BAD)
def test_errors_say_what_is_wrong(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
