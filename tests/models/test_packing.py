"""Documents side by side in a row say what each says alone: logits, losses, gradients, batches."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx.data import text
from tinygrad_tx.data.windows import IGNORED, Windows
from tinygrad_tx.models import GPT, GPTConfig, Llama, LlamaConfig
from tinygrad_tx.nn import functional as F  # noqa: N812

LENGTHS = [5, 1, 8, 2]
T = sum(LENGTHS)
EDGES = np.cumsum([0, *LENGTHS])
BOUNDS = np.concatenate([np.tile([[a, b]], (b - a, 1)) for a, b in pairwise(EDGES)])
MODELS: dict[str, Any] = {
    "gpt": lambda: GPT(GPTConfig(30, 2, 2, 8, T)),
    "llama": lambda: Llama(LlamaConfig(30, 16, 2, 4, 2, d_ff=24, max_len=T)),
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("kind", MODELS)
def test_as_each_alone(kind: str, compiled: bool) -> None:
    tx.manual_seed(1)
    model = MODELS[kind]().eval()
    rng = np.random.default_rng(0)
    ids, targets = rng.integers(0, 30, (2, T)), rng.integers(0, 30, (2, T))
    bounds = tx.tensor(np.broadcast_to(BOUNDS, (2, T, 2)).copy())
    run = tx.compile(model) if compiled else model
    together = run(tx.tensor(ids), bounds).numpy()
    for begin, end in pairwise(EDGES):
        alone = model(tx.tensor(ids[:, begin:end])).numpy()
        np.testing.assert_allclose(together[:, begin:end], alone, rtol=2e-4, atol=2e-5)

    loss = tx.compile(model.loss) if compiled else model.loss
    model.loss(tx.tensor(ids), tx.tensor(targets), bounds).backward()
    grads = {name: p.grad.numpy() for name, p in model.named_parameters()}
    model.zero_grad()
    total = 0.0
    for begin, end in pairwise(EDGES):
        own = model.loss(tx.tensor(ids[:, begin:end]), tx.tensor(targets[:, begin:end]))
        part = own * ((end - begin) / T)
        part.backward()
        total += part.item()
    assert loss(tx.tensor(ids), tx.tensor(targets), bounds).item() == pytest.approx(total, rel=1e-5)
    for name, p in model.named_parameters():
        np.testing.assert_allclose(grads[name], p.grad.numpy(), rtol=1e-3, atol=1e-6, err_msg=name)


def test_a_window_tells_where_documents_begin_and_end() -> None:
    ids = np.arange(T, dtype=np.int32)
    windows = Windows(text.Text(text.Ragged(ids, EDGES), T), 6, 2, only_once=True)
    seen = []
    for batch in windows.once():
        assert batch.bounds is not None
        for row, targets, bounds in zip(batch.ids, batch.targets, batch.bounds, strict=True):
            for t in range(6):
                if targets[t] == IGNORED:
                    continue
                seen.append(targets[t])
                begin, end = bounds[t]
                document = np.searchsorted(EDGES, row[t], "right") - 1
                assert row[begin] == max(EDGES[document], row[0]) and begin <= t < end
                assert targets[t] < EDGES[document + 1]
    assert seen == [i for i in range(T) if i not in EDGES]


def test_bounds_are_a_mask() -> None:
    q, k, v = (tx.randn(2, 3, T, 4) for _ in range(3))
    places = np.arange(T)
    inside = (places >= BOUNDS[:, :1]) & (places < BOUNDS[:, 1:])
    wanted = F.scaled_dot_product_attention(q, k, v, tx.tensor(inside), is_causal=True)
    for bounds in (tx.tensor(BOUNDS), tx.tensor(BOUNDS.astype(np.int32))):
        found = F.scaled_dot_product_attention(q, k, v, is_causal=True, bounds=bounds)
        np.testing.assert_array_equal(found.numpy(), wanted.numpy())
    dropped = F.scaled_dot_product_attention(q, k, v, None, 0.5, bounds=tx.tensor(BOUNDS))
    assert dropped.shape == wanted.shape
    with pytest.raises(ValueError, match="attn_mask and bounds exclude each other"):
        F.scaled_dot_product_attention(q, k, v, tx.tensor(inside), bounds=tx.tensor(BOUNDS))
    with pytest.raises(TypeError, match="bounds must be integers, not float32"):
        F.scaled_dot_product_attention(q, k, v, bounds=tx.ones(T, 2))
    with pytest.raises(TypeError, match="attn_mask is bool"):
        F.scaled_dot_product_attention(q, k, v, tx.tensor(BOUNDS))


def test_nothing_of_the_size_of_a_square_in_memory() -> None:
    """A step on 2,048 tokens of documents takes less than one matrix of scores would."""
    length = 2048
    tx.manual_seed(0)
    model = GPT(GPTConfig(20, 1, 1, 8, length))
    edges = np.arange(0, length + 1, 128)
    bounds = np.repeat(np.stack([edges[:-1], edges[1:]], -1), 128, 0)[None]

    @tx.compile
    def step(ids: tx.Tensor, targets: tx.Tensor, bounds: tx.Tensor) -> tx.Tensor:
        loss: tx.Tensor = model.loss(ids, targets, bounds)
        loss.backward()
        return loss

    ids = tx.zeros(1, length, dtype=tx.int64)
    step(ids, ids, tx.tensor(bounds))
    assert step.stats()["peak_bytes"] < length * length * 4 / 2
