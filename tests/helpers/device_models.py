"""Every model, as small as it can be and with dropout, for tests that train it on two devices.

What goes out: MODELS, held complete by gpu/test_models.py, and `train`. A model is made on the CPU
and moved; what it makes of its inputs must follow them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from device_case import numbers

import tinygrad_tx as tx
from tinygrad_tx import models, nn

V = 19  # tokens; 0 is padding, 1 begins a target, 2 ends it
Array = np.ndarray[Any, Any]
Rng = np.random.Generator


class Case(NamedTuple):
    """A model, batches for its loss, and whether it writes text: then, of what."""

    make: Callable[[], Any]
    batch: Callable[[Rng], tuple[Array, ...]]
    decodes: bool = True


def pairs(rng: Rng) -> tuple[Array, ...]:
    """Sources (4, 7), padded at their ends; targets moved by one, and targets (4, 6)."""
    source, target = rng.integers(3, V, (4, 7)), rng.integers(3, V, (4, 6))
    for i, row in enumerate(source):
        row[7 - i :] = 0
    target[1, 4:] = 0
    return source, np.concatenate([np.ones((4, 1), int), target[:, :-1]], 1), target


def texts(rng: Rng) -> tuple[Array, ...]:
    ids = rng.integers(3, V, (3, 9))
    return ids[:, :-1], ids[:, 1:]


def packed(rng: Rng) -> tuple[Array, ...]:
    """Documents of 3, 1 and 4 tokens side by side."""
    edges = np.array([0, 3, 4, 8])
    bounds = np.repeat(np.stack([edges[:-1], edges[1:]], 1), np.diff(edges), 0)
    return (*texts(rng), np.broadcast_to(bounds, (3, 8, 2)).copy())


def masked(rng: Rng) -> tuple[Array, ...]:
    ids = rng.integers(3, V - 1, (3, 8))
    targets = np.where(rng.random((3, 8)) < 0.4, ids, -100)
    ids[targets > 0] = V - 1
    ids[1, 6:] = 0
    return ids, targets, (ids != 0).astype(np.int64)


def images(rng: Rng) -> tuple[Array, ...]:
    return ((rng.random((5, 1, 5, 4)) > 0.5).astype(np.float32),)


def _transformer(**more: Any) -> models.Transformer:
    sizes = {"d_model": 16, "n_heads": 2, "d_ff": 24, "n_encoder_layers": 1, "n_decoder_layers": 1}
    return models.Transformer(models.TransformerConfig(V, **{**sizes, **more}))


def _seq2seq(**more: Any) -> models.Seq2Seq:
    return models.Seq2Seq(models.Seq2SeqConfig(V, d_model=8, dropout=0.2, **more))


def _gpt(**more: Any) -> models.GPT:
    return models.GPT(models.GPTConfig(V, 1, 2, 16, 24, dropout=0.1, eos_id=2, **more))


def _llama(**more: Any) -> models.Llama:
    sizes = {"d_model": 16, "n_layers": 1, "n_heads": 4, "d_ff": 24, "max_len": 24, "eos_id": 2}
    settings = {**sizes, "n_kv_heads": 2, "dropout": 0.1, **more}
    return models.Llama(models.LlamaConfig(V, **settings))


def _bert(**more: Any) -> models.BERT:
    return models.BERT(models.BERTConfig(V, 16, 1, 2, 24, 12, mask_id=V - 1, **more))


def _t5(**more: Any) -> models.T5:
    return models.T5(models.T5Config(V, 16, 1, 2, 24, n_buckets=8, max_distance=16, **more))


def _adapted() -> models.GPT:
    model = _gpt()
    nn.lora(model, 2, ["c_attn", "*.mlp.*"], dropout=0.1)
    return model


SHAPE = (1, 5, 4)
MODELS: dict[str, Case] = {
    "Transformer": Case(_transformer, pairs),
    "Transformer, pre": Case(
        lambda: _transformer(
            norm="pre", tie_embeddings=False, positions="learned", activation="gelu", max_len=24,
            attention_bias=True, attention_dropout=0.1, activation_dropout=0.1, src_vocab_size=V,
        ),
        pairs,
    ),
    "Transformer, Marian": Case(
        lambda: _transformer(
            activation="silu", attention_bias=True, output_bias=True, positions="sinusoidal_halves"
        ),
        pairs,
    ),
    "Seq2Seq": Case(lambda: _seq2seq(n_layers=2), pairs),
    "Seq2Seq, Bahdanau": Case(lambda: _seq2seq(cell="gru", attention="bahdanau"), pairs),
    "Seq2Seq, fed": Case(
        lambda: _seq2seq(cell="rnn", score="concat", input_feeding=True, bidirectional=False), pairs
    ),
    "Seq2Seq, alone": Case(lambda: _seq2seq(attention="none"), pairs),
    "ConvS2S": Case(
        lambda: models.ConvS2S(models.ConvS2SConfig(V, None, 8, 2, 3, dropout=0.1, max_len=24)),
        pairs,
    ),
    "T5": Case(_t5, pairs),
    "T5, gated": Case(
        lambda: _t5(gated=True, activation="gelu_tanh", tie_embeddings=False, d_kv=6), pairs
    ),
    "GPT": Case(_gpt, texts),
    "GPT, biased": Case(lambda: _gpt(bias=True, activation="gelu_tanh"), packed),
    "GPT, adapted": Case(_adapted, texts),
    "Llama": Case(_llama, texts),
    "Llama, packed": Case(
        lambda: _llama(
            attention_bias=True, mlp_bias=True, tie_embeddings=True,
            rope_scaling={"rope_type": "linear", "factor": 2.0},
        ),
        packed,
    ),
    "BERT": Case(_bert, masked, decodes=False),
    "BERT, RoBERTa": Case(lambda: _bert(skip_padding=True, type_vocab_size=0), masked, False),
    "Autoencoder": Case(
        lambda: models.Autoencoder(models.AutoencoderConfig(SHAPE, 3, (8,))), images, False
    ),
    "ConvAutoencoder": Case(
        lambda: models.ConvAutoencoder(models.ConvAutoencoderConfig(SHAPE, 3, (2, 3), loss="bce")),
        images,
        False,
    ),
    "VariationalAutoencoder": Case(
        lambda: models.VariationalAutoencoder(
            models.VariationalAutoencoderConfig(SHAPE, 3, (8,), "gelu")
        ),
        images,
        False,
    ),
}  # fmt: skip
COLUMNS = numbers(3)  # a code of an autoencoder


def train(name: str, device: str, steps: int, *, compiled: bool = False) -> tuple[Any, list[float]]:
    """The model after some steps of AdamW with clipping, and each step's loss and norm. What has no
    gradient but for roundings stays where it is: eps is above them."""
    case = MODELS[name]
    model = case.make().to(device)
    learnt = [p for p in model.parameters() if p.requires_grad]
    optimizer = tx.optim.AdamW(learnt, lr=1e-2, eps=1e-4)
    rng = np.random.default_rng(0)

    def step(*batch: tx.Tensor) -> tuple[tx.Tensor, tx.Tensor]:
        loss = model.loss(*batch)
        loss.backward()
        norm = tx.optim.clip_grad_norm_(learnt, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach(), norm

    run = tx.compile(step) if compiled else step
    found: list[float] = []
    for _ in range(steps):
        batch = (tx.tensor(a, device=device) for a in case.batch(rng))
        found += (x.item() for x in run(*batch))
    return model, found
