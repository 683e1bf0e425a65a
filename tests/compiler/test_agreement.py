"""What compiled training promises as a whole: eager's losses, whatever the number of threads; and
compiled logits that depend neither on the batch nor on padding."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx.models import Transformer, TransformerConfig

VOCABULARY, LENGTH, BATCH = 61, 9, 6


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = tx.get_num_threads()
    yield
    tx.set_num_threads(before)


def ids(rng: np.random.Generator, rows: int, length: int) -> np.ndarray:
    """Right-padded token ids, from half to full length."""
    out = rng.integers(3, VOCABULARY, (rows, length))
    out[np.arange(length) >= rng.integers(length // 2, length + 1, (rows, 1))] = 0
    return out


def model_of(dtype: tx.DType, **options: float) -> Transformer:
    tx.manual_seed(5)
    config = TransformerConfig(
        VOCABULARY,
        d_model=32,
        n_heads=4,
        d_ff=48,
        n_encoder_layers=2,
        n_decoder_layers=2,
        **options,
    )
    return Transformer(config).to(dtype)


def losses(dtype: tx.DType, steps: int, *, compiled: bool) -> list[float]:
    model = model_of(dtype, dropout=0.2)
    optimizer = tx.optim.Adam(model.parameters(), lr=3e-3, betas=(0.9, 0.98))

    def step(src: tx.Tensor, tgt_in: tx.Tensor, tgt_out: tx.Tensor) -> tx.Tensor:
        loss = model.loss(src, tgt_in, tgt_out, label_smoothing=0.1)
        loss.backward()
        tx.optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    run = tx.compile(step) if compiled else step
    rng = np.random.default_rng(1)
    found = []
    for _ in range(steps):
        src, tgt = ids(rng, BATCH, LENGTH), ids(rng, BATCH, LENGTH + 1)
        batch = (tx.tensor(a.copy()) for a in (src, tgt[:, :-1], tgt[:, 1:]))
        found.append(run(*batch).item())
    return found


@pytest.mark.slow
def test_fifty_steps_in_float64() -> None:
    eager = losses(tx.float64, 50, compiled=False)
    np.testing.assert_allclose(losses(tx.float64, 50, compiled=True), eager, rtol=0, atol=1e-9)
    assert np.mean(eager[-5:]) < np.mean(eager[:5])


def test_twenty_steps_in_float32() -> None:
    eager = losses(tx.float32, 20, compiled=False)
    compiled = losses(tx.float32, 20, compiled=True)
    np.testing.assert_allclose(compiled[:10], eager[:10], rtol=0, atol=1e-4)
    np.testing.assert_allclose(compiled, eager, rtol=0, atol=1e-3)


def test_threads_change_no_bit() -> None:
    found = []
    for n in (1, 2, 4):
        tx.set_num_threads(n)
        found.append(losses(tx.float32, 10, compiled=True))
    assert found[0] == found[1] == found[2]


def test_logits_depend_on_neither_batch_nor_padding() -> None:
    model = model_of(tx.float32)
    model.eval()

    @tx.compile
    def logits(src: tx.Tensor, tgt: tx.Tensor) -> tx.Tensor:
        with tx.no_grad():
            return model(src, tgt)

    rng = np.random.default_rng(2)
    src, tgt = ids(rng, 64, LENGTH), ids(rng, 64, LENGTH)
    whole = logits(tx.tensor(src), tx.tensor(tgt)).numpy()
    wider = np.pad(src, ((0, 0), (0, 7)))  # more padding of the sources
    for rows in (1, 7, 64):
        for source in (src, wider):
            got = logits(tx.tensor(source[:rows].copy()), tx.tensor(tgt[:rows].copy())).numpy()
            np.testing.assert_array_equal(got, whole[:rows])
