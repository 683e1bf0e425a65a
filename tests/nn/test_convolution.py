"""Convolution: layers, errors, and what a plan copies; results and gradients of convolution,
pooling and normalization, which are PyTorch's."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from convolution_case import CASES, FILE, by_torch, by_us, projections
from op_case import double
from plan_case import kinds, plan, sizes

import tinygrad_tx as tx
from tinygrad_tx import nn
from tinygrad_tx.compiler.schedule.records import Plan
from tinygrad_tx.errors import ShapeError, UserError
from tinygrad_tx.nn import functional as F  # noqa: N812

VALUES = json.loads(FILE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_pytorchs(name: str) -> None:
    for got, (shape, *numbers) in zip(by_us(name), VALUES[name], strict=True):
        found = projections(got)
        assert found[0] == shape
        np.testing.assert_allclose(found[1:], numbers, rtol=1e-9, atol=1e-9 * np.abs(got).sum())


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", CASES)
def test_compiled_equals_eager(name: str) -> None:
    for got, want in zip(by_us(name, compiled=True), by_us(name), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10 * np.abs(want).max(initial=1))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_whole_results_are_pytorchs() -> None:
    pytest.importorskip("torch")
    for name in CASES:
        for got, want in zip(by_us(name), by_torch(name), strict=True):
            np.testing.assert_allclose(
                got, want, rtol=1e-9, atol=1e-9 * np.abs(want).max(initial=1), err_msg=name
            )


# What a plan copies ------------------------------------------------------------------------------


def of_a_step(module: nn.Module, *shape: int) -> Plan:
    def step(x: tx.Tensor) -> Any:
        (module(x) ** 2).sum().backward()
        return x.grad, *(p.grad for p in module.parameters())

    return plan(step, tx.randn(*shape, requires_grad=True))


def test_no_window_is_copied() -> None:
    """Neither forwards nor for a gradient: the largest values in between are the padded ones."""
    line = of_a_step(nn.Conv1d(32, 24, 5, padding=2), 8, 32, 40)
    assert kinds(line)["Matmul"] == 3 and sizes(line, "arena")[0] == 8 * 44 * 32
    image = of_a_step(nn.Conv2d(16, 16, 3, padding=1), 4, 16, 12, 12)
    # The three lines of a window are three products, added up; for the weight they are a batch.
    assert kinds(image)["Matmul"] == 3 + 3 + 1
    assert sizes(image, "arena")[0] < 2 * (4 * 14 * 14 * 16)


# Layers and errors -------------------------------------------------------------------------------


def test_layers() -> None:
    layer = nn.Conv2d(4, 6, (3, 2), stride=2, padding=1, groups=2, bias=False)
    assert layer.weight.shape == (6, 2, 3, 2) and layer.bias is None
    assert repr(layer) == (
        "Conv2d(4, 6, kernel_size=(3, 2), stride=(2, 2), padding=(1, 1), groups=2, bias=False)"
    )
    assert layer(tx.randn(2, 4, 5, 6)).shape == (2, 6, 3, 4)
    bound = 1 / np.sqrt(2 * 3 * 2)
    assert 0.8 * bound < layer.weight.abs().max().item() <= bound
    wide = nn.Conv1d(3, 4, 4, padding="same", padding_mode="circular")
    x = tx.randn(1, 3, 6)
    np.testing.assert_allclose(
        wide(x).numpy(), F.conv1d(F.pad(x, (1, 2), "circular"), wide.weight, wide.bias).numpy()
    )
    up = nn.ConvTranspose1d(4, 6, 3, stride=2, padding=1, groups=2, dtype=tx.float64)
    assert up.weight.shape == (4, 3, 3) and list(up.state_dict()) == ["weight", "bias"]
    y = up(double(2, 4, 5), output_size=[10])
    assert y.shape == (2, 6, 10)
    np.testing.assert_array_equal(y[..., :9].numpy(), up(double(2, 4, 5)).numpy())
    assert nn.ConvTranspose2d(2, 3, 2, stride=2)(tx.randn(2, 3, 4)).shape == (3, 6, 8)
    with pytest.raises(ShapeError, match=r"must end in 1 sizes from \(9,\) to \(10,\)"):
        up(double(2, 4, 5), output_size=[11])
    assert F.conv1d(tx.zeros(0, 3, 5), tx.ones(2, 3, 2)).shape == (0, 2, 4)


def test_halves_accumulate_in_float32() -> None:
    x, w = tx.ones(1, 4096, 3, dtype=tx.float16), tx.ones(1, 4096, 1, dtype=tx.float16)
    assert F.conv1d(x, w).tolist() == [[[4096.0] * 3]]


X, W = tx.zeros(2, 3, 5), tx.zeros(4, 3, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: F.conv1d(tx.zeros(5), W), r"conv1d: an input must be \(N, C, L\) or \(C, L\)"),
        (lambda: F.conv1d(X, tx.zeros(4, 2, 2)), r"conv1d: an input \(2, 3, 5\) of 3 channels"),
        (lambda: F.conv1d(X, W, groups=0), "groups=0 must be 1 or more"),
        (lambda: F.conv1d(X, W, tx.zeros(3)), r"conv1d: a bias \(3,\) must be \(4,\)"),
        (lambda: F.conv1d(X, W, stride=0), "conv1d: stride=0 must be 1 or more"),
        (lambda: F.conv1d(X, W, stride=(1, 2)), r"conv1d: stride=\(1, 2\) must be"),
        (lambda: F.conv1d(X, W, padding="half"), "conv1d: padding='half' is unknown"),
        (lambda: F.conv1d(X, W, 2, padding="same"), "bias must be a Tensor"),
        (lambda: F.conv1d(X, W, stride=2, padding="same"), 'padding="same" needs stride=1'),
        (lambda: F.conv1d(X, W, dilation=9), r"the \(5,\) places .* fewer than the \(10,\)"),
        (lambda: F.conv1d(X.double(), W), "the input is float64, the weight float32"),
        (lambda: F.conv_transpose1d(X, W), r"conv_transpose1d: an input \(2, 3, 5\)"),
        (lambda: F.conv_transpose1d(X, W.mT.reshape(3, 4, 2), output_padding=1), "output_padding"),
        (lambda: F.fold(X, 3, 2), "fold: an input"),
        (lambda: nn.Conv1d(3, 4, 2, groups=2), "multiples of groups=2"),
        (lambda: nn.ConvTranspose1d(3, 4, 2, padding_mode="reflect"), "padding_mode='reflect'"),
    ],
)  # fmt: skip
def test_errors(call: Any, message: str) -> None:
    with pytest.raises((UserError, ShapeError, TypeError), match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
