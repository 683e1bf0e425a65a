"""The Transformer against the paper: each line of a list of places where popular accounts of it go
wrong (those on decoding are tested with the search), and the examples that they use."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from transformer_case import CONFIG, batch, build

import tinygrad_tx as tx
from tinygrad_tx import nn
from tinygrad_tx.models import Transformer
from tinygrad_tx.node import Graph

# Where popular accounts go wrong ------------------------------------------------------------------


class Spy(nn.Module):
    """Writes down what a module is called with."""

    def __init__(self, inner: nn.Module, name: str, log: list[tuple[str, Any]]) -> None:
        self.inner, self.name, self.log = inner, name, log

    def forward(self, *args: Any, is_causal: bool = False) -> Any:
        options = {"is_causal": True} if is_causal else {}
        out = self.inner(*args, **options)
        self.log.append((self.name, (*args, is_causal, out)))
        return out


def spied(model: Transformer) -> list[tuple[str, Any]]:
    log: list[tuple[str, Any]] = []
    for layer in model.decoder.layers:
        for name in ("self_attn", "cross_attn", "ffn"):
            setattr(layer, name, Spy(getattr(layer, name), name, log))
    return log


def test_1_and_8_cross_attention_asks_the_last_encoder_layer() -> None:
    """Queries are the decoder's; keys and values, in every layer, the encoder's last output."""
    model = build().eval()
    log = spied(model)
    src, tgt_in, _ = batch()
    memory = model.encode(src).numpy()
    model(src, tgt_in)
    calls = [call for name, call in log if name == "cross_attn"]
    assert len(calls) == 2
    for query, key, value, _, _, out in calls:
        assert query.shape == out.shape == (3, 5, 16)
        np.testing.assert_array_equal(key.numpy(), memory)
        np.testing.assert_array_equal(value.numpy(), memory)
    after_self_attention = model.decoder.layers[0].norm1
    x = model.decoder.positions(model.embedding(tgt_in) * 4.0)
    x = after_self_attention(x + model.decoder.layers[0].self_attn(x, x, x, is_causal=True))
    np.testing.assert_allclose(calls[0][0].numpy(), x.numpy(), rtol=1e-5, atol=1e-6)


def test_2_values_are_summed_by_the_similarity_of_queries_and_keys() -> None:
    tx.manual_seed(0)
    layer = nn.MultiHeadAttention(8, 2)
    x, y = tx.randn(1, 3, 8), tx.randn(1, 4, 8)
    before = layer(x, y, y).numpy()
    with tx.no_grad():
        layer.v_proj.weight.assign(layer.v_proj.weight * 2)
    np.testing.assert_allclose(layer(x, y, y).numpy(), 2 * before, rtol=1e-4, atol=1e-6)
    with tx.no_grad():
        layer.q_proj.weight.assign(layer.q_proj.weight * 0)  # all keys alike: the plain mean
    mean = layer.out_proj(layer.v_proj(y).mean(1))
    np.testing.assert_allclose(layer(x, y, y).numpy()[0, 1], mean.numpy()[0], rtol=1e-4, atol=1e-6)


def test_3_masked_scores_are_minus_infinity() -> None:
    """However loud a padded key is, nothing of it is heard."""
    model = build().eval()
    src, tgt_in, _ = batch()
    quiet = model(src, tgt_in).numpy()
    with tx.no_grad():
        model.embedding.weight[0] = 1e4 * tx.randn(16)
    real = tgt_in.numpy() != 0
    loud = model(src, tgt_in).numpy()
    np.testing.assert_allclose(loud[real][:, 1:], quiet[real][:, 1:], rtol=1e-4, atol=1e-5)


def test_4_cross_attention_masks_the_source_padding() -> None:
    model = build().eval()
    log = spied(model)
    src, tgt_in, _ = batch()
    model(src, tgt_in)
    for name, (_, _, *rest) in log:
        if name == "cross_attn":
            mask = rest[1].numpy()
            np.testing.assert_array_equal(mask[:, 0, 0], src.numpy() != 0)
    wider = tx.cat([src, tx.zeros(3, 4, dtype=tx.int64)], 1)
    np.testing.assert_allclose(
        model(wider, tgt_in).numpy(), model(src, tgt_in).numpy(), rtol=1e-4, atol=1e-5
    )


def test_5_padded_queries_are_left_out_of_the_loss_alone() -> None:
    model = build().eval()
    src, tgt_in, tgt_out = batch()
    padding = src.numpy() == 0
    assert np.abs(model.encode(src).numpy()[padding]).min() > 0  # computed like any other row
    wide_in, wide_out = (tx.cat([t, tx.zeros(3, 3, dtype=tx.int64)], 1) for t in (tgt_in, tgt_out))
    wide, narrow = model.loss(src, wide_in, wide_out), model.loss(src, tgt_in, tgt_out)
    assert wide.item() == pytest.approx(narrow.item(), rel=1e-5)
    logits = model(src, tgt_in).log_softmax(-1).numpy()
    real = tgt_out.numpy() != 0
    picked = np.take_along_axis(logits, tgt_out.numpy()[..., None], -1)[..., 0]
    assert narrow.item() == pytest.approx(-picked[real].mean(), rel=1e-5)


def test_6_the_scale_is_of_a_head() -> None:
    model = build()
    src, tgt_in, _ = batch()
    nodes = [n for n in Graph([model(src, tgt_in).node]) if n.op.name == "attention"]
    assert len(nodes) == 6
    assert {n.attrs["scale"] for n in nodes} == {1 / math.sqrt(16 / 4)}


def test_9_a_word_is_predicted_from_those_before() -> None:
    model = build().eval()
    src, tgt_in, _ = batch()
    before = model(src, tgt_in).numpy()
    for j in range(5):
        other = tgt_in.numpy().copy()
        other[:, j] = other[:, j] % 17 + 3
        after = model(src, tx.tensor(other)).numpy()
        np.testing.assert_array_equal(after[:, :j], before[:, :j])
        assert np.abs(after[:, j:] - before[:, j:]).max(-1).min() > 1e-6


def test_10_three_sublayers_in_order() -> None:
    model = build().eval()
    log = spied(model)
    src, tgt_in, _ = batch()
    model(src, tgt_in)
    assert [name for name, _ in log] == ["self_attn", "cross_attn", "ffn"] * 2
    assert [call[-2] for name, call in log if name == "self_attn"] == [True, True]  # causal
    assert "cross_attn" not in repr(model.encoder)


def test_11_sinusoids() -> None:
    d = 16
    table = Transformer(CONFIG).encoder.positions.table(5000, tx.float64, "cpu").numpy()
    pos, i = np.arange(5000)[:, None], np.arange(d // 2)
    angle = pos / 10000 ** (2 * i / d)
    np.testing.assert_allclose(table[:, 0::2], np.sin(angle), atol=1e-9)
    np.testing.assert_allclose(table[:, 1::2], np.cos(angle), atol=1e-9)
    np.testing.assert_allclose(table[:40, 0], np.sin(np.arange(40)), atol=1e-12)
    np.testing.assert_allclose(table[:40, 1], np.cos(np.arange(40)), atol=1e-12)
    assert np.abs(table).max() <= 1
    odd = Transformer(replace(CONFIG, d_model=5, n_heads=1)).encoder.positions
    assert odd.table(3, tx.float32, "cpu").shape == (3, 5)


def test_12_layer_norm_has_the_biased_variance_and_eps_inside_the_root() -> None:
    x = np.array([[1e-3, -1e-3, 2e-3, 0.0]])
    centred = x - x.mean()
    wanted = centred / np.sqrt((centred**2).sum() / 4 + 1e-5)
    got = nn.LayerNorm(4).to(tx.float64)(tx.tensor(x))
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-6)


# The examples of those accounts ------------------------------------------------------------------


def test_seven_positions_ten_thousand_words() -> None:
    model = Transformer(replace(CONFIG, vocab_size=10_000, d_model=8, n_heads=2))
    logits = model(tx.randint(3, 10_000, (1, 7)), tx.randint(3, 10_000, (1, 7)))
    assert logits.shape == (1, 7, 10_000)
    np.testing.assert_allclose(logits.softmax(-1).sum(-1).numpy(), 1, rtol=1e-5)


def test_you_are_welcome() -> None:
    """'You are welcome' -> 'De nada': the loss from the probabilities, by hand."""
    pad, start, end, de, nada = range(5)
    config = replace(CONFIG, vocab_size=5, src_vocab_size=6, tie_embeddings=False)
    model = build(config).eval()
    you, are, welcome = 3, 4, 5
    src = tx.tensor([[you, are, welcome]])
    tgt_in, tgt_out = tx.tensor([[start, de, nada]]), tx.tensor([[de, nada, end]])
    p = model(src, tgt_in).softmax(-1).numpy()[0]
    assert p.shape == (3, 5)
    plain = -(math.log(p[0, de]) + math.log(p[1, nada]) + math.log(p[2, end])) / 3
    assert model.loss(src, tgt_in, tgt_out).item() == pytest.approx(plain, rel=1e-5)
    smooth = 0.9 * plain - 0.1 * np.log(p).mean()
    got = model.loss(src, tgt_in, tgt_out, label_smoothing=0.1)
    assert got.item() == pytest.approx(smooth, rel=1e-5)
    assert pad == config.pad_id


def test_i_am_a_student_is_learned() -> None:
    """A sentence and its translation by heart: each word is then the likeliest."""
    tx.manual_seed(0)
    model = Transformer(replace(CONFIG, d_model=32, n_encoder_layers=1, n_decoder_layers=1))
    optimizer = tx.optim.Adam(model.parameters(), lr=1e-2)
    i, am, a, student, je, suis, etudiant = range(3, 10)
    src = tx.tensor([[i, am, a, student]])
    tgt_in, tgt_out = tx.tensor([[1, je, suis, etudiant]]), tx.tensor([[je, suis, etudiant, 2]])
    for _ in range(25):
        model.loss(src, tgt_in, tgt_out, label_smoothing=0.1).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    state, word, position = model.start(src, max_new_tokens=4)
    said = []
    while word.item() != 2 and len(said) < 4:
        word = model.step(state, word, position).argmax(-1)
        position = position + 1
        said.append(word.item())
    assert said == [je, suis, etudiant, 2]
