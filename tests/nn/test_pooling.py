"""Pooling, interpolation and normalization beyond their values (test_convolution.py has those):
ties, the running statistics as state, layers, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from plan_case import kinds, plan, sizes

import tinygrad_tx as tx
from tinygrad_tx import nn
from tinygrad_tx.errors import ShapeError, UserError
from tinygrad_tx.nn import functional as F  # noqa: N812


def test_of_equal_elements_the_first_gets_the_gradient() -> None:
    x = tx.zeros(1, 3, 3, requires_grad=True)
    F.max_pool2d(x, 2, 1).sum().backward()
    assert x.grad.tolist() == [[[1, 1, 0], [1, 1, 0], [0, 0, 0]]]
    y = F.max_pool1d(tx.tensor([[1.0, float("nan"), 2.0, 3.0]]), 2)
    assert y.isnan().tolist() == [[True, False]]
    whole = F.max_pool1d(tx.tensor([[3, 1, 2]]), 2, padding=1)
    assert whole.tolist() == [[3, 2]] and whole.dtype == tx.int64
    assert F.max_pool1d(-tx.ones(1, 1), 2, padding=1).tolist() == [[-1]]


def test_pooling_copies_no_window() -> None:
    """Each place of a window is a slice that the kernel reads."""
    for f in (F.max_pool2d, F.avg_pool2d):
        found = plan(lambda x, f=f: f(x, 3, 1), tx.zeros(2, 3, 9, 9))
        assert set(kinds(found)) == {"RowProgram"} and sizes(found, "arena")[0] == 2 * 9 * 7 * 3


def test_running_statistics_are_state_of_a_compiled_step() -> None:
    x = tx.randn(6, 3, 5, dtype=tx.float64) * 2 + 1
    for momentum in (0.3, None):
        eager, traced = (nn.BatchNorm1d(3, momentum=momentum, dtype=tx.float64) for _ in range(2))
        step = tx.compile(lambda x, layer=traced: layer(x))
        for i in range(3):
            np.testing.assert_allclose(step(x + i).numpy(), eager(x + i).numpy(), atol=1e-12)
        assert traced.num_batches_tracked.item() == 3
        for name, want in eager.state_dict().items():
            np.testing.assert_allclose(traced.state_dict()[name].numpy(), want.numpy())
        if momentum is None:
            means = [(x + i).mean((0, 2)).numpy() for i in range(3)]
            np.testing.assert_allclose(traced.running_mean.numpy(), np.mean(means, 0))
        before = traced.running_mean.tolist()
        traced.eval(), eager.eval()
        np.testing.assert_allclose(step(x).numpy(), eager(x).numpy(), atol=1e-12)
        assert traced.running_mean.tolist() == before
    eager.reset_running_stats()
    assert eager.running_var.tolist() == [1, 1, 1] and eager.num_batches_tracked.item() == 0


def test_layers() -> None:
    names = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert list(nn.BatchNorm2d(3).state_dict()) == names
    plain = nn.BatchNorm1d(3, affine=False, track_running_stats=False)
    assert not plain.state_dict() and plain.eval()(tx.randn(4, 3)).mean().abs().item() < 1e-6
    assert repr(nn.BatchNorm1d(3)) == (
        "BatchNorm1d(3, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)"
    )
    assert repr(nn.GroupNorm(2, 4, bias=False)) == (
        "GroupNorm(2, 4, eps=1e-05, affine=True, bias=False)"
    )
    x = tx.randn(2, 4, 6, 6)
    shapes = {
        nn.MaxPool2d(3, 2, 1): (2, 4, 3, 3),
        nn.AvgPool2d(2): (2, 4, 3, 3),
        nn.GroupNorm(2, 4): (2, 4, 6, 6),
        nn.Unfold(3): (2, 36, 16),
        nn.Upsample(scale_factor=2, mode="bilinear"): (2, 4, 12, 12),
    }
    for layer, shape in shapes.items():
        assert layer(x).shape == shape
    assert nn.Fold((6, 6), 3)(nn.Unfold(3)(x)).shape == x.shape
    assert nn.MaxPool1d(2)(x[0]).shape == nn.AvgPool1d(2)(x[0]).shape == (4, 6, 3)
    half = nn.BatchNorm2d(4)(x.half())
    assert half.dtype == tx.float16
    assert F.group_norm(x.half() * 100, 2).dtype == tx.float16


X = tx.zeros(2, 3, 5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: F.max_pool1d(X, 2, padding=2), "at most half of kernel_size"),
        (lambda: F.max_pool1d(X, 6), r"no window of \(6,\) fits \(5,\) places"),
        (lambda: F.max_pool1d(X, 2, return_indices=True), "return_indices=True is not supported"),
        (lambda: F.max_pool2d(tx.zeros(5), 2), r"an input must be \(N, C, H, W\)"),
        (lambda: F.avg_pool1d(X.long(), 2), "needs a floating dtype"),
        (lambda: F.avg_pool2d(X, 2, divisor_override=0), "divisor_override must not be 0"),
        (lambda: F.interpolate(X), "give either size or scale_factor"),
        (lambda: F.interpolate(X, 3, mode="bicubic"), "mode='bicubic' is not supported"),
        (lambda: F.interpolate(X, 3, mode="bilinear"), "takes 4 dimensions"),
        (lambda: F.interpolate(X, 3, align_corners=True), "align_corners goes with"),
        (lambda: F.interpolate(X, 3, antialias=True), "antialias=True is not supported"),
        (lambda: F.interpolate(X, scale_factor=0.1), "would become"),
        (lambda: F.batch_norm(X, None, None), "training=False needs running_mean"),
        (lambda: F.batch_norm(X[:1, :, :1], None, None, training=True), "needs 2 values or more"),
        (lambda: F.batch_norm(X, tx.zeros(2), tx.zeros(2)), r"must be \(3,\)"),
        (lambda: F.group_norm(X, 2), "must be a multiple of num_groups=2"),
        (lambda: nn.BatchNorm2d(3)(X), "BatchNorm2d: an input must have 4 dimensions"),
        (lambda: nn.GroupNorm(2, 3), "must be a multiple"),
        (lambda: nn.MaxPool2d(2, return_indices=True), "MaxPool2d: return_indices=True"),
    ],
)  # fmt: skip
def test_errors(call: Any, message: str) -> None:
    with pytest.raises((UserError, ShapeError, TypeError), match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
