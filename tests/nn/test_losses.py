"""Losses as modules, in 16 bits, and what they refuse; their values: test_torch_values.py."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx import nn
from tinygrad_tx.nn import functional as F  # noqa: N812

X, Y, Z = (tx.randn(3, 4) for _ in range(3))
P, Q = X.sigmoid(), Y.sigmoid()
IDS, W = tx.tensor([0, 3, 1]), tx.tensor([1.0, 2.0, 0.5, 1.5])
SIGNS = tx.tensor([1.0, -1.0, 1.0])
MODULES: list[tuple[nn.Module, tuple[Any, ...], tx.Tensor]] = [
    (nn.CrossEntropyLoss(W, label_smoothing=0.1), (X, IDS),
     F.cross_entropy(X, IDS, W, label_smoothing=0.1)),
    (nn.CrossEntropyLoss(ignore_index=3, reduction="sum"), (X, IDS),
     F.cross_entropy(X, IDS, ignore_index=3, reduction="sum")),
    (nn.NLLLoss(W, ignore_index=3), (X, IDS), F.nll_loss(X, IDS, W, ignore_index=3)),
    (nn.BCELoss(W), (P, Q), F.binary_cross_entropy(P, Q, W)),
    (nn.BCEWithLogitsLoss(W, pos_weight=W, reduction="none"), (X, Q),
     F.binary_cross_entropy_with_logits(X, Q, W, pos_weight=W, reduction="none")),
    (nn.MSELoss(reduction="sum"), (X, Y), F.mse_loss(X, Y, reduction="sum")),
    (nn.L1Loss(), (X, Y), F.l1_loss(X, Y)),
    (nn.SmoothL1Loss(beta=0.5), (X, Y), F.smooth_l1_loss(X, Y, beta=0.5)),
    (nn.HuberLoss("sum", 0.5), (X, Y), F.huber_loss(X, Y, "sum", 0.5)),
    (nn.KLDivLoss(reduction="batchmean", log_target=True), (X, Y),
     F.kl_div(X, Y, reduction="batchmean", log_target=True)),
    (nn.PoissonNLLLoss(False, True, eps=0.1), (P, Q),
     F.poisson_nll_loss(P, Q, False, True, eps=0.1)),
    (nn.GaussianNLLLoss(full=True, eps=0.7), (X, Y, Q), F.gaussian_nll_loss(X, Y, Q, True, 0.7)),
    (nn.CosineSimilarity(0, 2.0), (X, Y), F.cosine_similarity(X, Y, 0, 2.0)),
    (nn.PairwiseDistance(1.0, 0.1, True), (X, Y), F.pairwise_distance(X, Y, 1.0, 0.1, True)),
    (nn.SoftMarginLoss(), (X, SIGNS.unsqueeze(1)), F.soft_margin_loss(X, SIGNS.unsqueeze(1))),
    (nn.CosineEmbeddingLoss(0.2), (X, Y, SIGNS), F.cosine_embedding_loss(X, Y, SIGNS, 0.2)),
    (nn.MarginRankingLoss(0.2), (X[0, :3], Y[0, :3], SIGNS),
     F.margin_ranking_loss(X[0, :3], Y[0, :3], SIGNS, 0.2)),
    (nn.HingeEmbeddingLoss(2.0), (P[0, :3], SIGNS), F.hinge_embedding_loss(P[0, :3], SIGNS, 2.0)),
    (nn.TripletMarginLoss(2.0, 1, 0.1, True), (X, Y, Z),
     F.triplet_margin_loss(X, Y, Z, 2.0, 1, 0.1, True)),
]  # fmt: skip


def test_modules_do_what_the_functions_do() -> None:
    for module, given, wanted in MODULES:
        assert module(*given).tolist() == wanted.tolist(), module


def test_weights_are_buffers() -> None:
    loss = nn.BCEWithLogitsLoss(pos_weight=W)
    assert list(loss.state_dict()) == ["pos_weight"] and not list(loss.parameters())
    assert loss.to(tx.float64).pos_weight.dtype == tx.float64


@pytest.mark.parametrize("dtype", [tx.float16, tx.bfloat16])
def test_half_precision(dtype: tx.DType) -> None:
    for f, a, b in [
        (F.l1_loss, X, Y), (F.huber_loss, X, Y), (F.binary_cross_entropy, P, Q),
        (F.binary_cross_entropy_with_logits, X * 100, Q), (F.kl_div, X, Q),
        (F.cosine_similarity, X, Y), (F.nll_loss, X, IDS),
    ]:  # fmt: skip
        a, b = a.to(dtype), b if b is IDS else b.to(dtype)
        got = f(a, b)
        wanted = f(a.float(), b if b is IDS else b.float())
        assert got.dtype == dtype
        np.testing.assert_allclose(got.float().numpy(), wanted.numpy(), 2e-2, 2e-2)


def test_nothing_to_average() -> None:
    empty = tx.zeros(0, 4)
    for f in (F.l1_loss, F.binary_cross_entropy, F.kl_div):
        assert f(empty, empty).isnan().item() and f(empty, empty, reduction="sum").item() == 0
    assert F.nll_loss(X, IDS * 0, ignore_index=0).isnan().item()


WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: F.l1_loss(X, Y[0]), "l1_loss: (3, 4) and (4,) differ; reshape or expand"),
    (lambda: F.smooth_l1_loss(X, Y, beta=-1), "smooth_l1_loss: beta = -1 must be 0 or more"),
    (lambda: F.huber_loss(X, Y, delta=0), "huber_loss: delta = 0 must be positive"),
    (lambda: F.binary_cross_entropy(P, Q[0]), "binary_cross_entropy: input (3, 4) and target (4,)"),
    (lambda: F.binary_cross_entropy_with_logits(X, X > 0), "target must be floating, not bool"),
    (lambda: F.nll_loss(X, IDS[:2]), "nll_loss: an input (3, 4) wants targets (3,), int32"),
    (lambda: F.nll_loss(X, IDS + 1).numpy(), "nll_loss: index 4 is outside"),
    (lambda: F.nll_loss(X, IDS, W[:2]), "nll_loss: weight (2,) must be (4,), one for each class"),
    (lambda: F.kl_div(X, Q, reduction="x"), 'reduction must be "batchmean", "mean", "sum" or'),
    (lambda: F.l1_loss(X, Y, reduction="x"), 'l1_loss: reduction must be "mean", "sum" or "none"'),
    (lambda: F.kl_div(X, Q, False), "kl_div: size_average=False is not supported"),
    (lambda: nn.MSELoss(reduce=True), "MSELoss: reduce=True is not supported"),
    (lambda: F.gaussian_nll_loss(X, Y, W[:2]), "gaussian_nll_loss: var (2,) must be (3, 4)"),
    (lambda: F.cosine_embedding_loss(X, Y, W), "want targets (N,), not (3, 4) and (4,)"),
    (lambda: F.cosine_similarity(IDS, IDS), "cosine_similarity needs a floating dtype, not int64"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), WRONG)
def test_errors(call: Callable[[], Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError, IndexError), match=re.escape(message)):
        call()


def test_a_compiled_loss_names_itself_too() -> None:
    with pytest.raises(IndexError, match="nll_loss: index 4 is outside"):
        tx.compile(F.nll_loss)(X, IDS + 1).item()
