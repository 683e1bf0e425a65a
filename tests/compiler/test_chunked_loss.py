"""A projection with its loss by chunks of rows: the same bits in less memory."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx.backends.kernels.kinds import Matmul
from tinygrad_tx.compiler.schedule import chunked_loss
from tinygrad_tx.nn import functional as F  # noqa: N812

ROWS, CLASSES, WIDTH = 600, 304, 24


def trained(
    precision: str = "fp32", smoothing: float = 0.1
) -> tuple[list[np.ndarray], int, list[bool]]:
    """Loss and gradients of one step; its peak bytes; for each product whether it accumulates."""
    tx.manual_seed(1)
    hidden = tx.nn.Linear(WIDTH, WIDTH)
    projection = tx.nn.Linear(WIDTH, CLASSES, bias=False)
    x = tx.randn(ROWS, WIDTH)
    targets = tx.randint(0, CLASSES, (ROWS,))

    @tx.compile
    def step(x: tx.Tensor, targets: tx.Tensor) -> tx.Tensor:
        with tx.autocast(precision):
            logits = projection(F.layer_norm(hidden(x), WIDTH).relu())
            loss = F.cross_entropy(logits, targets, ignore_index=3, label_smoothing=smoothing)
        loss.backward()
        return loss

    loss = step(x, targets)
    grads = [p.grad for p in (projection.weight, hidden.weight, hidden.bias)]
    plan = step._last.plan
    kernels = [c.kernel for launch in plan.launches() for c in launch.calls]
    products = [k.accumulate for k in kernels if isinstance(k, Matmul)]
    return [t.numpy() for t in (loss, *grads)], step.stats()["peak_bytes"], products


@pytest.mark.parametrize("mode", ["native", "interp"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_chunks_change_no_bit(mode: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In 16 bits neither, for the sums of chunks are rounded when they are finished."""
    monkeypatch.setenv("TX_COMPILE", mode)
    size = 4 if precision == "fp32" else 2
    whole, all_bytes, products = trained(precision)
    assert not any(products)
    monkeypatch.setattr(chunked_loss, "CHUNK_BYTES", 256 * CLASSES * size)
    cut, fewer_bytes, products = trained(precision)
    assert sum(products) == 2  # 600 rows in three chunks: the second and third add to the first
    for a, b in zip(whole, cut, strict=True):
        if mode == "native":
            np.testing.assert_array_equal(a, b)
        else:  # NumPy's products depend on the number of rows
            np.testing.assert_allclose(a, b, rtol=1e-4 if size == 4 else 0.02, atol=1e-6)
    assert fewer_bytes < all_bytes - 200 * CLASSES * size  # a third of the rows


def test_logits_that_somebody_else_reads_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked_loss, "CHUNK_BYTES", 256 * CLASSES * 4)
    weight = tx.randn(CLASSES, WIDTH).requires_grad_()

    @tx.compile
    def step(x: tx.Tensor, targets: tx.Tensor) -> tuple[tx.Tensor, tx.Tensor]:
        logits = x @ weight.T
        F.cross_entropy(logits, targets).backward()
        return logits, logits.max()

    x = tx.randn(ROWS, WIDTH)
    logits, top = step(x, tx.randint(0, CLASSES, (ROWS,)))
    np.testing.assert_allclose(logits.numpy(), (x @ weight.T).numpy(), rtol=1e-4, atol=1e-4)
    assert top.item() == logits.numpy().max()
