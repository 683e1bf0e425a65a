"""tx.nn.functional against NumPy, and against PyTorch where it is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_tx as tx
import tinygrad_tx.nn.functional as F  # noqa: N812
from tinygrad_tx.errors import DTypeError, ShapeError, UserError

rng = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray[Any, Any]:
    return rng.standard_normal(shape)


def softmax(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


# Against PyTorch: the same call, values and gradients, in float64 ---------------------------------

CASES: dict[str, tuple[Callable[..., Any], list[np.ndarray[Any, Any]]]] = {
    "softmax": (lambda f, x: f.softmax(x, 1), [normal(3, 4, 5)]),
    "log_softmax": (lambda f, x: f.log_softmax(x, -1), [normal(3, 4)]),
    "relu": (lambda f, x: f.relu(x), [normal(3, 4)]),
    "gelu": (lambda f, x: f.gelu(x), [normal(3, 4)]),
    "gelu_tanh": (lambda f, x: f.gelu(x, approximate="tanh"), [normal(3, 4)]),
    "silu": (lambda f, x: f.silu(x), [normal(3, 4)]),
    "tanh": (lambda f, x: f.tanh(x), [normal(3, 4)]),
    "sigmoid": (lambda f, x: f.sigmoid(x), [normal(3, 4)]),
    "linear": (lambda f, x, w, b: f.linear(x, w, b), [normal(2, 3, 4), normal(5, 4), normal(5)]),
    "linear_no_bias": (lambda f, x, w: f.linear(x, w), [normal(4), normal(5, 4)]),
    "layer_norm": (
        lambda f, x, w, b: f.layer_norm(x, (5,), w, b, 1e-6),
        [normal(3, 4, 5), normal(5), normal(5)],
    ),
    "layer_norm_two_axes": (
        lambda f, x, w, b: f.layer_norm(x, (4, 5), w, b),
        [normal(3, 4, 5), normal(4, 5), normal(4, 5)],
    ),
    "layer_norm_plain": (lambda f, x: f.layer_norm(x, (5,)), [normal(3, 5)]),
    "layer_norm_bias": (
        lambda f, x, b: f.layer_norm(x, (5,), bias=b),
        [normal(3, 5), normal(5)],
    ),
    "rms_norm": (lambda f, x, w: f.rms_norm(x, (5,), w, 1e-6), [normal(3, 4, 5), normal(5)]),
    "rms_norm_plain": (lambda f, x: f.rms_norm(x, (4, 5)), [normal(3, 4, 5)]),
    "pad": (lambda f, x: f.pad(x, (1, 2, 0, 3), value=2.5), [normal(2, 3, 4)]),
    "mse_loss": (lambda f, x, y: f.mse_loss(x, y), [normal(3, 4), normal(3, 4)]),
    "mse_loss_sum": (lambda f, x, y: f.mse_loss(x, y, reduction="sum"), [normal(3), normal(3)]),
    "attention": (
        lambda f, q, k, v: f.scaled_dot_product_attention(q, k, v),
        [normal(2, 3, 4, 8), normal(2, 3, 5, 8), normal(2, 3, 5, 6)],
    ),
    "attention_causal": (
        lambda f, q, k, v: f.scaled_dot_product_attention(q, k, v, is_causal=True),
        [normal(2, 4, 8), normal(2, 6, 8), normal(2, 6, 8)],
    ),
    "attention_additive": (
        lambda f, q, k, v, m: f.scaled_dot_product_attention(q, k, v, attn_mask=m),
        [normal(2, 3, 4, 8), normal(2, 3, 5, 8), normal(2, 3, 5, 8), normal(2, 1, 4, 5)],
    ),
}


def same_as_torch(
    call: Callable[..., Any], inputs: list[np.ndarray[Any, Any]], data: tuple[Any, ...] = ()
) -> None:
    """call(F, *inputs, *data) and its gradients, here and in PyTorch."""
    torch = pytest.importorskip("torch")
    ours = [tx.tensor(x, requires_grad=True) for x in inputs]
    theirs = [torch.tensor(x, requires_grad=True) for x in inputs]
    y = call(F, *ours, *(tx.tensor(d) for d in data))
    t = call(torch.nn.functional, *theirs, *(torch.tensor(d) for d in data))
    np.testing.assert_allclose(y.numpy(), t.detach().numpy(), rtol=1e-9, atol=1e-12)
    g = np.random.default_rng(1).standard_normal(y.shape)
    y.backward(tx.tensor(g))
    t.backward(torch.tensor(g))
    for a, b in zip(ours, theirs, strict=True):
        assert a.grad is not None
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_same_as_torch(name: str) -> None:
    same_as_torch(*CASES[name])


LOGITS = {"nc": (6, 5), "c": (5,), "ncd": (4, 5, 3), "ncdd": (2, 5, 3, 4)}


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("layout", LOGITS)
def test_cross_entropy_as_torch(layout: str, smoothing: float, reduction: str) -> None:
    shape = LOGITS[layout]
    targets = np.array(rng.integers(0, 5, shape[:1] + shape[2:] if len(shape) > 1 else ()))
    if targets.ndim:
        targets.ravel()[::3] = 3
    same_as_torch(
        lambda f, x, t: f.cross_entropy(
            x, t, ignore_index=3, label_smoothing=smoothing, reduction=reduction
        ),
        [normal(*shape)],
        (targets if targets.ndim else np.array(2),),
    )


@pytest.mark.parametrize("causal", [False, True])
def test_boolean_masks_as_torch(causal: bool) -> None:
    mask = rng.random((2, 1, 4, 5)) < 0.6
    mask[..., 0] = True
    if causal:
        mask &= np.tril(np.ones((4, 5), bool))
    same_as_torch(
        lambda f, q, k, v, m: f.scaled_dot_product_attention(q, k, v, attn_mask=m),
        [normal(2, 3, 4, 8), normal(2, 3, 5, 8), normal(2, 3, 5, 8)],
        (mask,),
    )


def test_nothing_counts_as_torch() -> None:
    """The mean over no target is NaN, the sum 0."""
    targets = tx.tensor([-100, -100])
    assert np.isnan(F.cross_entropy(tx.randn(2, 3), targets).item())
    assert F.cross_entropy(tx.randn(2, 3), targets, reduction="sum").item() == 0


# Against formulas ---------------------------------------------------------------------------------


def test_cross_entropy_by_hand() -> None:
    """Smoothing takes eps from the target and spreads it over all V classes."""
    x, t, eps = normal(4, 3), np.array([0, 2, -100, 1]), 0.1
    logp = np.log(softmax(x))
    wanted = np.full((4, 3), eps / 3) + (1 - eps) * np.eye(3)[np.where(t < 0, 0, t)]
    rows = -(wanted * logp).sum(1) * (t >= 0)
    got = F.cross_entropy(tx.tensor(x), tx.tensor(t), label_smoothing=eps)
    assert got.item() == pytest.approx(rows.sum() / 3, rel=1e-12)


def test_attention_by_hand() -> None:
    q, k, v = normal(2, 4, 8), normal(2, 5, 8), normal(2, 5, 3)
    weights = softmax(q @ k.swapaxes(-1, -2) / np.sqrt(8))
    got = F.scaled_dot_product_attention(*map(tx.tensor, (q, k, v)))
    np.testing.assert_allclose(got.numpy(), weights @ v, rtol=1e-10)
    got = F.attention_weights(tx.tensor(q), tx.tensor(k))
    np.testing.assert_allclose(got.numpy(), weights, rtol=1e-10)


@pytest.mark.parametrize("additive", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_weights_are_what_attention_uses(additive: bool, causal: bool, masked: bool) -> None:
    q, k = tx.tensor(normal(2, 4, 8)), tx.tensor(normal(2, 4, 8))
    mask = None
    if masked:
        keep = rng.random((2, 4, 4)) < 0.5
        keep[:, :, 0] = additive  # without a key a boolean row is zero, an additive one NaN
        mask = tx.tensor(np.where(keep, 0.0, -np.inf) if additive else keep)
    weights = F.attention_weights(q, k, mask, causal)
    eye = tx.eye(4, dtype=tx.float64).broadcast_to((2, 4, 4))
    attention = F.scaled_dot_product_attention(q, k, eye, mask, is_causal=causal)
    np.testing.assert_allclose(weights.numpy(), attention.numpy(), rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("dropout_p", [0.0, 1e-9])
def test_fully_masked_rows(dropout_p: float) -> None:
    """Zeros, and no NaN in any gradient, where the mask is boolean; NaN where it is additive."""
    q, k, v = (tx.tensor(normal(1, 3, 4), requires_grad=True) for _ in range(3))
    keep = tx.tensor([[True, True, False], [False, False, False], [True, False, False]])
    y = F.scaled_dot_product_attention(q, k, v, keep, dropout_p=dropout_p)
    assert np.all(y.numpy()[0, 1] == 0)
    assert np.all(y.numpy()[0, 0] != 0)
    y.sum().backward()
    for x in (q, k, v):
        assert x.grad is not None
        assert np.isfinite(x.grad.numpy()).all()
    added = tx.zeros(3, 3, dtype=tx.float64).masked_fill(~keep, -np.inf)
    y = F.scaled_dot_product_attention(q, k, v, added, dropout_p=dropout_p)
    assert np.isnan(y.numpy()[0, 1]).all()
    assert np.isfinite(y.numpy()[0, [0, 2]]).all()
    assert np.isnan(F.softmax(tx.full((3,), -np.inf)).numpy()).all()


def test_dropout() -> None:
    tx.manual_seed(3)
    x = tx.ones(200, 500, requires_grad=True)
    y = F.dropout(x, 0.25)
    values, counts = np.unique(y.numpy(), return_counts=True)
    np.testing.assert_allclose(values, [0, 1 / 0.75], rtol=1e-6)
    assert counts[0] / y.numel() == pytest.approx(0.25, abs=0.01)
    y.sum().backward()
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.numpy(), y.numpy())
    tx.manual_seed(3)
    np.testing.assert_array_equal(F.dropout(x, 0.25).numpy(), y.numpy())
    assert F.dropout(x, 0.25, training=False) is x
    assert F.dropout(x, 0.0) is x
    assert not F.dropout(tx.full((3,), np.inf), 1.0).numpy().any()


def test_attention_dropout_is_on_the_weights() -> None:
    tx.manual_seed(0)
    q, k = tx.randn(1, 50, 4), tx.randn(1, 50, 4)
    weights = F.attention_weights(q, k).numpy()
    got = F.scaled_dot_product_attention(q, k, tx.eye(50).unsqueeze(0), dropout_p=0.5).numpy()
    kept = got != 0
    np.testing.assert_allclose(got[kept], 2 * weights[kept], rtol=1e-5)
    assert kept.mean() == pytest.approx(0.5, abs=0.05)


def test_embedding_and_its_gradient() -> None:
    weight = tx.tensor(normal(5, 3), requires_grad=True)
    ids = tx.tensor([[1, 4], [1, 1]])
    np.testing.assert_array_equal(F.embedding(ids, weight).numpy(), weight.numpy()[ids.numpy()])
    F.embedding(ids, weight).sum().backward()
    assert weight.grad is not None
    np.testing.assert_array_equal(weight.grad.numpy()[:, 0], [0, 3, 0, 0, 1])


def test_one_hot_and_write_at() -> None:
    np.testing.assert_array_equal(F.one_hot(tx.tensor([2, 0]), 3).numpy(), np.eye(3)[[2, 0]])
    x = F.write_at(tx.zeros(2, 4), tx.ones(2, 2), tx.tensor(1), -1)
    np.testing.assert_array_equal(x.numpy(), [[0, 1, 1, 0]] * 2)
    with pytest.raises(IndexError, match="position 3"):
        F.write_at(tx.zeros(2, 4), tx.ones(2, 2), tx.tensor(3), 1).numpy()


# Errors -------------------------------------------------------------------------------------------

X, W = tx.zeros(2, 4), tx.zeros(4, 3)
ERRORS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: F.linear(X, W), ShapeError, r"\(2, 4\).*\(4, 3\).*did you mean weight.T"),
    (lambda: F.linear(X, W.T, tx.zeros(4)), ShapeError, r"bias \(4,\).*must be \(3,\)"),
    (lambda: F.embedding(X, W), DTypeError, r"ids must be int32 or int64.*\.long"),
    (lambda: F.embedding(tx.tensor([4]), W).numpy(), IndexError, "index 4"),
    (lambda: F.embedding(tx.tensor([1]), X[0]), ShapeError, "weight must be"),
    (lambda: F.one_hot(X, 3), DTypeError, "one_hot"),
    (lambda: F.pad(X, (1, 2, 3)), ShapeError, "pad"),
    (lambda: F.layer_norm(X, 3), ShapeError, r"layer_norm.*\(3,\).*\(2, 4\)"),
    (lambda: F.layer_norm(X, 4, W[0]), ShapeError, r"must be \(4,\), not \(3,\)"),
    (lambda: F.rms_norm(X, (4, 2)), ShapeError, "rms_norm"),
    (lambda: F.gelu(X, "fast"), ValueError, "approximate"),
    (lambda: F.dropout(X, 1.5), ValueError, "between 0 and 1"),
    (lambda: F.mse_loss(X, X[0]), ShapeError, r"\(2, 4\) and \(4,\)"),
    (lambda: F.mse_loss(X, X, reduction="max"), ValueError, "max"),
    (lambda: F.cross_entropy(X, tx.tensor([1])), ShapeError, r"targets \(2,\), not \(1,\)"),
    (lambda: F.cross_entropy(X, tx.tensor([1, 4])).numpy(), IndexError, "index 4"),
    (lambda: F.cross_entropy(X, tx.tensor([1.0, 2.0])), DTypeError, "int32 or int64"),
    (lambda: F.cross_entropy(X, tx.tensor([1, 2]), label_smoothing=2), ValueError, "smoothing"),
    (
        lambda: F.cross_entropy(tx.zeros(2, 3, 4), tx.zeros(2, 3, dtype=tx.int64)),
        ShapeError,
        "flatten both",
    ),
    (
        lambda: F.scaled_dot_product_attention(X, X, X, tx.zeros(2, 2, dtype=tx.int64)),
        DTypeError,
        "mask is bool",
    ),
    (lambda: F.activation("swish"), UserError, "relu, gelu, gelu_tanh, silu"),
]


@pytest.mark.parametrize("i", range(len(ERRORS)))
def test_errors_say_what_is_wrong(i: int) -> None:
    call, kind, text = ERRORS[i]
    with pytest.raises(kind, match=text):
        call()
