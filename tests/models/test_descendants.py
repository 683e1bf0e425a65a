"""Llama, BERT, T5: each learns a toy task, compiled as eagerly; what is said of wrong inputs; and
what a step of each costs in kernels."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx.errors import DTypeError, ShapeError, UserError
from tinygrad_tx.models import (
    BERT,
    GPT,
    T5,
    BERTConfig,
    GPTConfig,
    Llama,
    LlamaConfig,
    T5Config,
    Transformer,
    TransformerConfig,
)

Array = np.ndarray[Any, Any]
Batch = tuple[Array, ...]
VOCAB = 24
LLAMA = LlamaConfig(VOCAB, 16, 2, 4, 2, d_ff=40, max_len=32, init_std=0.1)
BERT_CONFIG = BERTConfig(
    VOCAB, 32, 2, 2, 64, 32, dropout=0.0, attention_dropout=0.0, init_std=0.1, mask_id=VOCAB - 1
)
T5_CONFIG = T5Config(VOCAB, 16, 2, 2, 32, dropout=0.0, n_buckets=8, max_distance=16)


def counting(rng: np.random.Generator) -> Batch:
    """Each token is the one before and one more: the next token follows from it."""
    starts = rng.integers(3, VOCAB - 1, (16, 1))
    ids = 3 + (starts - 3 + np.arange(9)) % (VOCAB - 4)
    return ids[:, :-1], ids[:, 1:]


def masked(rng: np.random.Generator) -> Batch:
    """The same from one of four beginnings, two tokens masked, padded at the end: any other token
    and its position say which they are."""
    ids = 3 + (5 * rng.integers(4, size=(16, 1)) + np.arange(8)) % (VOCAB - 4)
    targets = np.full(ids.shape, -100)
    for row, target in zip(ids, targets, strict=True):
        for place in rng.choice(6, 2, replace=False):
            target[place], row[place] = row[place], VOCAB - 1
    ids[:, 6:] = 0
    return ids, targets, (np.arange(8) < 6) * np.ones((16, 1), np.int64)


def spans(rng: np.random.Generator) -> Batch:
    """The same with a span cut out, which is to be said."""
    ids, _ = counting(rng)
    cut = ids[:, 3:5].copy()
    src = np.concatenate([ids[:, :3], np.full((16, 1), VOCAB - 1), ids[:, 5:]], 1)
    tgt = np.concatenate([cut, np.ones((16, 1), int)], 1)
    return src, np.concatenate([np.zeros((16, 1), int), tgt[:, :-1]], 1), tgt


TASKS: dict[str, tuple[Callable[[], Any], Callable[[np.random.Generator], Batch], float]] = {
    "llama": (lambda: Llama(LLAMA), counting, 0.1),
    "llama, own heads": (
        lambda: Llama(replace(LLAMA, n_kv_heads=None, tie_embeddings=True)),
        counting,
        0.1,
    ),
    "bert": (lambda: BERT(BERT_CONFIG), masked, 0.3),
    "roberta": (
        lambda: BERT(replace(BERT_CONFIG, skip_padding=True, type_vocab_size=0)),
        masked,
        0.3,
    ),
    "t5": (lambda: T5(T5_CONFIG), spans, 0.3),
    "t5, gated": (
        lambda: T5(
            replace(T5_CONFIG, gated=True, activation="gelu_tanh", tie_embeddings=False, d_kv=6)
        ),
        spans,
        0.3,
    ),
    "marian": (
        lambda: Transformer(
            TransformerConfig(
                VOCAB, d_model=16, n_heads=2, d_ff=32, n_encoder_layers=1, n_decoder_layers=1,
                dropout=0.0, activation="silu", attention_bias=True, output_bias=True,
                positions="sinusoidal_halves", pad_id=0, bos_id=0, eos_id=1,
            )
        ),
        spans,
        0.5,
    ),
}  # fmt: skip
VARIANTS = ("llama, own heads", "roberta", "t5, gated")


def run(build: Callable[[], Any], task: Callable[..., Batch], steps: int, compiled: bool) -> Any:
    """The losses of some steps of Adam."""
    tx.manual_seed(0)
    model = build()
    optimizer = tx.optim.Adam(model.parameters(), lr=0.01)

    def step(*batch: tx.Tensor) -> tx.Tensor:
        loss: tx.Tensor = model.loss(*batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    run = tx.compile(step) if compiled else step
    rng = np.random.default_rng(0)
    return model, [run(*map(tx.tensor, task(rng))).item() for _ in range(steps)]


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in VARIANTS else n for n in TASKS],
)
def test_learns_compiled_as_eagerly(name: str) -> None:
    build, task, goal = TASKS[name]
    _, eager = run(build, task, 4, compiled=False)
    _, losses = run(build, task, 200, compiled=True)
    np.testing.assert_allclose(losses[:4], eager, rtol=1e-4)
    assert np.mean(losses[-10:]) < goal


def test_llama_goes_on_as_it_has_learnt() -> None:
    model, _ = run(*TASKS["llama"][:2], 300, compiled=True)
    found = tx.decoding.generate(model, [[5, 6, 7], [9]], max_new_tokens=4)
    assert [row[0].tokens for row in found] == [[8, 9, 10, 11], [10, 11, 12, 13]]


def test_a_cache_says_what_the_whole_says() -> None:
    """Logits of each step, of prompts of unequal lengths, with grouped queries and scaling."""
    tx.manual_seed(3)
    scaling = {"rope_type": "linear", "factor": 2.0}
    model = Llama(replace(LLAMA, rope_scaling=scaling)).eval()
    rng = np.random.default_rng(0)
    rows = [rng.integers(3, VOCAB, n).tolist() for n in (1, 4, 6)]
    found = tx.decoding.generate(model, rows, max_new_tokens=5)
    for row, [hypothesis] in zip(rows, found, strict=True):
        text = list(row)
        for token in hypothesis.tokens:
            logits = model(tx.tensor([text])).numpy()[0, -1]
            assert logits.argmax() == token
            text.append(token)


def test_bert_masks() -> None:
    """int and bool say the same; what is masked is not seen; kinds of segments matter."""
    tx.manual_seed(0)
    model = BERT(BERT_CONFIG)
    ids, mask = tx.tensor([[4, 5, 6, 7], [8, 9, 0, 0]]), np.array([[1, 1, 1, 1], [1, 1, 0, 0]])
    hidden = model(ids, tx.tensor(mask)).numpy()
    np.testing.assert_array_equal(hidden, model(ids, tx.tensor(mask == 1)).numpy())
    short = model(tx.tensor([[8, 9]])).numpy()
    np.testing.assert_allclose(hidden[1, :2], short[0], rtol=1e-4, atol=1e-5)
    kinds = tx.tensor([[0, 0, 1, 1], [0, 1, 1, 1]])
    assert not np.allclose(model(ids, tx.tensor(mask), kinds).numpy(), hidden)
    assert model.pooled(ids, token_type_ids=kinds).shape == (2, 32)
    assert model.logits(ids, tx.tensor(mask)).shape == (2, 4, VOCAB)
    with pytest.raises(DTypeError, match="attention_mask must be int or bool, not float32"):
        model(ids, tx.ones(2, 4))
    with pytest.raises(ShapeError, match=r"attention_mask \(2, 3\) must be like ids, \(2, 4\)"):
        model(ids, tx.ones(2, 3, dtype=tx.int64))
    with pytest.raises(ShapeError, match="33 positions, but this model has max_len = 32"):
        model(tx.zeros(1, 33, dtype=tx.int64))
    with pytest.raises(ShapeError, match="no pooler"):
        BERT(replace(BERT_CONFIG, pooler=False)).pooled(ids)


@pytest.mark.parametrize(
    ("config", "settings", "said"),
    [
        (LLAMA, {"n_kv_heads": 3}, "n_kv_heads = 3 must be a divisor of n_heads, 4"),
        (LLAMA, {"head_dim": 5}, "head_dim = 5 must be even"),
        (LLAMA, {"rope_scaling": {"rope_type": "x"}}, "rope_type is 'x'; those that there are"),
        (LLAMA, {"rope_scaling": {"rope_type": "linear"}}, "factor is None"),
        (BERT_CONFIG, {"d_model": 33}, "d_model = 33 must be a multiple of n_heads, 2"),
        (BERT_CONFIG, {"mask_id": 99}, "mask_id = 99 must be an id below vocab_size, 24"),
        (T5_CONFIG, {"n_buckets": 3}, "n_buckets = 3 must be even"),
        (T5_CONFIG, {"max_distance": 4}, "max_distance = 4 must be above 4"),
    ],
)
def test_configurations_that_make_no_sense(config: Any, settings: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        replace(config, **settings)


def kernels(model: Any, ids: tx.Tensor) -> int:
    optimizer = tx.optim.AdamW(model.parameters(), lr=1e-3)

    @tx.compile
    def step(ids: tx.Tensor, targets: tx.Tensor) -> tx.Tensor:
        loss: tx.Tensor = model.loss(ids, targets)
        loss.backward()
        tx.optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    step(ids, ids)
    found: int = step.stats()["kernels"]
    return found


@pytest.mark.cpu
def test_a_step_of_a_llama_has_hardly_more_launches_than_of_a_gpt() -> None:
    """RMSNorm, rotary positions and grouped queries stay inside row and attention kernels."""
    ids = tx.zeros(12, 64, dtype=tx.int64)
    gpt = kernels(GPT(GPTConfig(65, 4, 4, 128, 64)), ids)
    llama = kernels(Llama(LlamaConfig(65, 128, 4, 4, 2, d_ff=344, max_len=64)), ids)
    assert llama <= 1.15 * gpt


@pytest.mark.cpu
def test_relative_positions_stay_inside_attention_kernels() -> None:
    """A T5's step has as many kernels of attention as attentions, forward and backward: scores,
    with what distances add to them, are softmaxed nowhere else."""
    model = T5(replace(T5_CONFIG, n_layers=3))

    @tx.compile
    def step(src: tx.Tensor, tgt: tx.Tensor) -> tx.Tensor:
        loss: tx.Tensor = model.loss(src, tgt, tgt)
        loss.backward()
        return loss

    ids = tx.ones(2, 64, dtype=tx.int64)
    step(ids, ids)
    lines = [line.split() for line in step.explain().splitlines()]
    kinds = [words[1] for words in lines if len(words) > 1]
    assert kinds.count("attention") == kinds.count("attentiongrad") == 9


def test_layers_by_checkpoints() -> None:
    """The same gradients to the bit, from less memory."""
    tx.manual_seed(0)
    model = GPT(GPTConfig(VOCAB, 4, 2, 16, 64))
    ids = tx.tensor(np.random.default_rng(0).integers(0, VOCAB, (8, 64)))

    def loss_by(checkpoints: bool) -> Any:
        def step(ids: tx.Tensor) -> tx.Tensor:
            (x,) = model.embed(ids, tx.arange(64))
            for block in model.blocks():
                x = (tx.checkpoint(block) if checkpoints else block)(x)
            loss: tx.Tensor = model.head(x).reshape(-1, VOCAB).log_softmax(-1).square().mean()
            loss.backward()
            return loss

        run = tx.compile(step)
        run(ids)
        found = [p.grad.numpy() for p in model.parameters() if p.grad is not None]
        model.zero_grad()
        return found, run.stats()["peak_bytes"]

    (plain, much), (again, less) = loss_by(False), loss_by(True)
    assert less < 0.7 * much
    for a, b in zip(plain, again, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh", "silu"])
def test_models_are_pickled(activation: str) -> None:
    for model in (
        GPT(GPTConfig(VOCAB, 1, 2, 8, 8, activation=activation)),
        Llama(replace(LLAMA, activation=activation)),
        BERT(replace(BERT_CONFIG, activation=activation)),
        T5(replace(T5_CONFIG, activation=activation)),
    ):
        again = pickle.loads(pickle.dumps(model))
        assert again.config == model.config
        for a, b in zip(model.parameters(), again.parameters(), strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())
