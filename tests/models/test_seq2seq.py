"""Seq2Seq: its logits by hand, padding, steps, the search, attention weights, and a toy task."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from decoding_case import reference, same, whole_prefixes

import tinygrad_tx as tx
from tinygrad_tx.errors import ShapeError, UserError
from tinygrad_tx.models import Seq2Seq, Seq2SeqConfig
from tinygrad_tx.models.seq2seq import ATTENTIONS, CELLS
from tinygrad_tx.viz import attention_maps

Array = np.ndarray[Any, Any]
CONFIG = Seq2SeqConfig(20, d_model=8)
VARIANTS = {
    "rnn none": replace(CONFIG, cell="rnn", attention="none", bidirectional=False),
    "lstm none": replace(CONFIG, attention="none", n_layers=2, src_vocab_size=23),
    "gru bahdanau": replace(CONFIG, cell="gru", attention="bahdanau"),
    "lstm bahdanau": replace(CONFIG, attention="bahdanau", n_layers=2),
    "lstm luong": CONFIG,
    "gru luong general": replace(CONFIG, cell="gru", score="general"),
    "rnn luong concat": replace(CONFIG, cell="rnn", score="concat"),
    "lstm luong fed": replace(CONFIG, input_feeding=True, score="general", n_layers=2),
}


def build(config: Seq2SeqConfig, dtype: Any = tx.float32) -> Seq2Seq:
    """A model whose words are apart."""
    tx.manual_seed(0)
    model = Seq2Seq(config)
    with tx.no_grad():
        for p in model.parameters():
            p.assign(p * 2 + 0.1 * tx.randn(p.shape))
    return model.to(dtype)


def batch() -> tuple[tx.Tensor, tx.Tensor, tx.Tensor]:
    """Three pairs, padded: src (3, 5), tgt_in and tgt_out (3, 4)."""
    rng = np.random.default_rng(0)
    src, tgt = rng.integers(3, 20, (3, 5)), rng.integers(3, 20, (3, 3))
    src[1, 4:] = src[2, 2:] = 0
    tgt_in, tgt_out = np.zeros((3, 4), int), np.zeros((3, 4), int)
    for i, n in enumerate((3, 1, 2)):
        tgt_in[i, : n + 1] = [1, *tgt[i, :n]]
        tgt_out[i, : n + 1] = [*tgt[i, :n], 2]
    return tx.tensor(src), tx.tensor(tgt_in), tx.tensor(tgt_out)


# By hand ------------------------------------------------------------------------------------------


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def cell(kind: str, x: Array, state: list[Array], w: list[Array]) -> list[Array]:
    """One step of one layer; w: the matrices and biases, state: [h] or [h, c]."""
    w_ih, w_hh, b_ih, b_hh = w
    a, b, h = w_ih @ x + b_ih, w_hh @ state[0] + b_hh, state[0]
    if kind == "rnn":
        return [np.tanh(a + b)]
    if kind == "lstm":
        i, f, g, o = np.split(a + b, 4)
        c = sigmoid(f) * state[1] + sigmoid(i) * np.tanh(g)
        return [sigmoid(o) * np.tanh(c), c]
    (ar, az, an), (br, bz, bn) = np.split(a, 3), np.split(b, 3)
    z = sigmoid(az + bz)
    return [(1 - z) * np.tanh(an + sigmoid(ar + br) * bn) + z * h]


def by_hand(model: Seq2Seq, src: Array, tgt: Array) -> Array:
    """The logits of one pair, position by position; it needs no padding mask."""
    c, p = model.config, {k: v.numpy() for k, v in model.named_parameters()}
    src, n_states = src[src != 0], 2 if c.cell == "lstm" else 1

    def weights(side: str, suffix: str) -> list[Array]:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return [p[f"{side}.rnn.{name}_{suffix}"] for name in names]

    xs = [p["src_embedding.weight"][i] for i in src]
    state: list[list[Array]] = []  # of each layer
    for layer in range(c.n_layers):
        ways: list[list[Array]] = []
        ends = []
        for way in ("", "_reverse")[: 1 + c.bidirectional]:
            last, ys = [np.zeros(c.d_model)] * n_states, []
            for x in xs[::-1] if way else xs:
                last = cell(c.cell, x, last, weights("encoder", f"l{layer}{way}"))
                ys.append(last[0])
            ways.append(ys[::-1] if way else ys)
            ends.append(last)
        xs = [np.concatenate(parts) for parts in zip(*ways, strict=True)]
        state.append([np.concatenate(parts) for parts in zip(*ends, strict=True)])
    if c.bidirectional:
        if "encoder.proj.weight" in p:
            xs = [p["encoder.proj.weight"] @ x + p["encoder.proj.bias"] for x in xs]
        for parts in state:
            for i, part in enumerate(parts):
                name = f"encoder.bridge.{i}."
                part = p[name + "weight"] @ part + p[name + "bias"]
                parts[i] = np.tanh(part) if i == 0 else part

    def context(query: Array) -> Array:
        key = p.get("decoder.attention.key.weight", np.eye(c.d_model))
        if "decoder.attention.v" in p:
            q = p["decoder.attention.query.weight"] @ query
            scores = [p["decoder.attention.v"] @ np.tanh(q + key @ x) for x in xs]
        else:
            scores = [query @ key @ x for x in xs]
        e = np.exp(scores)
        found: Array = e @ np.array(xs) / e.sum()
        return found

    def combined(h: Array, looked: Array) -> Array:
        return np.tanh(p["decoder.combine.weight"] @ np.concatenate([h, looked]))

    logits, fed = [], np.zeros(c.d_model)
    for token in tgt:
        x = p["tgt_embedding.weight"][token]
        looked = context(state[-1][0]) if c.attention == "bahdanau" else fed
        if c.attention == "bahdanau" or c.input_feeding:
            x = np.concatenate([x, looked])
        for layer in range(c.n_layers):
            state[layer] = cell(c.cell, x, state[layer], weights("decoder", f"l{layer}"))
            x = state[layer][0]
        if c.attention == "luong":
            x = fed = combined(x, context(x))
        elif c.attention == "bahdanau":
            x = combined(x, looked)
        logits.append(p["lm_head.weight"] @ x)
    return np.array(logits)


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_as_by_hand(variant: str) -> None:
    model = build(VARIANTS[variant], tx.float64)
    src, tgt_in, _ = batch()
    got = model(src, tgt_in).numpy()
    for i in range(3):
        wanted = by_hand(model, src.numpy()[i], tgt_in.numpy()[i])
        np.testing.assert_allclose(got[i], wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    "variant", [pytest.param("gru bahdanau", marks=pytest.mark.slow), "lstm luong fed"]
)
def test_compiled_steps_are_the_eager_ones(variant: str) -> None:
    model = build(VARIANTS[variant])

    def step(*ids: tx.Tensor) -> list[tx.Tensor]:
        loss = model.loss(*ids, label_smoothing=0.1)
        loss.backward()
        found = [loss, *(p.grad for p in model.parameters())]
        model.zero_grad()
        return found

    for got, want in zip(tx.compile(step)(*batch()), step(*batch()), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


@pytest.mark.cpu
@pytest.mark.parametrize(
    "variant", ["gru bahdanau", pytest.param("lstm none", marks=pytest.mark.slow)]
)
def test_source_padding_changes_no_bit(variant: str) -> None:
    """Of a row's logits, be it longer, or the row all padding; also where nothing else is."""
    model = build(VARIANTS[variant])
    run = tx.compile(model.forward)
    src, tgt_in, tgt_out = batch()
    wanted = run(src, tgt_in).numpy()
    longer = tx.cat([src, tx.zeros(3, 4, dtype=tx.int64)], 1)
    np.testing.assert_array_equal(run(longer, tgt_in).numpy(), wanted)
    none = tx.zeros(1, 5, dtype=tx.int64)
    filled = run(tx.cat([src, none]), tx.cat([tgt_in, tgt_in[:1]])).numpy()
    np.testing.assert_array_equal(filled[:3], wanted)
    assert np.isfinite(filled).all()
    loss = model.loss(
        tx.cat([src, none]), tx.cat([tgt_in, none[:, :4]]), tx.cat([tgt_out, none[:, :4]])
    )
    assert loss.item() == pytest.approx(model.loss(src, tgt_in, tgt_out).item(), rel=1e-5)
    loss.backward()
    assert all(np.isfinite(p.grad.numpy()).all() for p in model.parameters())


def test_a_loop_is_compiled_without_gradients() -> None:
    model = build(VARIANTS["gru bahdanau"])
    with tx.no_grad():
        loss = tx.compile(model.loss)(*batch())
    assert loss.item() == pytest.approx(model.loss(*batch()).item(), rel=1e-5)


# One token at a time ------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_steps_give_what_forward_gives(variant: str) -> None:
    """Also after hypotheses have changed places, and a sentence has gone."""
    model = build(VARIANTS[variant]).eval()
    src, tgt_in, _ = batch()
    whole = model(src, tgt_in).numpy()
    state, ids, position = model.start(src, max_new_tokens=8, beam=2)
    np.testing.assert_array_equal(ids.numpy(), np.ones(6))
    for t in range(2):
        ids = np.repeat(tgt_in.numpy()[:, t], 2)
        ids[1::2] = (ids[1::2] * 2) % 17 + 1  # the second one goes elsewhere
        logits = model.step(state, tx.tensor(ids), position).numpy()
        np.testing.assert_allclose(logits[::2], whole[:, t], rtol=1e-4, atol=1e-5)
        position = position + 1
    state.reorder(tx.tensor([0, 0, 3, 2, 4, 4]))
    kept = state.keep(tx.tensor([2, 0]))
    ids = np.repeat(tgt_in.numpy()[[2, 0], 2], 2)
    logits = model.step(kept, tx.tensor(ids), position).numpy()
    np.testing.assert_allclose(logits, np.repeat(whole[[2, 0], 2], 2, 0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", ["gru bahdanau", "rnn none"])
def test_the_search_is_that_of_all_models(variant: str) -> None:
    model = build(VARIANTS[variant], tx.float64).eval()
    src = batch()[0]
    found = tx.decoding.generate(
        model, src, beam_size=2, num_return_sequences=2, max_new_tokens=3, length_penalty=0.6
    )
    for row, source in zip(found, src.tolist(), strict=True):
        log_probs = whole_prefixes(model, [i for i in source if i])
        wanted, _ = reference(log_probs, 2, limit=3, beam=2, alpha=0.6)
        same(row, wanted)
    tx.manual_seed(1)
    drawn = tx.decoding.generate(
        model, src, do_sample=True, top_k=3, num_return_sequences=2, max_new_tokens=3
    )
    assert [len(row) for row in drawn] == [2, 2, 2]


# Attention ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["gru bahdanau", "lstm luong", "lstm luong fed"])
def test_attention_rows_add_up_and_leave_padding_out(variant: str) -> None:
    model = build(VARIANTS[variant])
    source, target = [5, 6, 7, 2, 0, 0], [1, 8, 9]
    maps = attention_maps(model, source, target)
    assert list(maps) == ["decoder.attention"]
    weights = maps["decoder.attention"]
    assert weights.shape == (1, 3, 6)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)
    assert not weights[..., 4:].any() and weights[..., :4].all()
    alone = attention_maps(model, source[:4], target)["decoder.attention"]
    np.testing.assert_allclose(weights[..., :4], alone, rtol=1e-5)
    with pytest.raises(UserError, match="no attention"):
        attention_maps(build(VARIANTS["rnn none"]), source, target)


# What it is for -----------------------------------------------------------------------------------

_SOME = {("gru", "bahdanau"), ("rnn", "none")}
TOYS = [
    pytest.param(c, a, marks=[] if (c, a) in _SOME else pytest.mark.slow)
    for c in CELLS
    for a in ATTENTIONS
]


@pytest.mark.parametrize(("cell", "attention"), TOYS)
def test_a_toy_task_is_learnt(cell: str, attention: str) -> None:
    """Words in reverse order."""
    tx.manual_seed(0)
    rng = np.random.default_rng(0)
    model = Seq2Seq(Seq2SeqConfig(8, cell=cell, attention=attention, d_model=24))
    optimizer = tx.optim.Adam(model.parameters(), lr=0.02)

    @tx.compile
    def step(src: tx.Tensor, tgt_in: tx.Tensor, tgt_out: tx.Tensor) -> tx.Tensor:
        loss = model.loss(src, tgt_in, tgt_out)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    for _ in range(100):
        words = rng.integers(3, 8, (32, 2))
        ends = np.full((32, 1), 2)
        src, tgt_in = np.hstack([words, ends]), np.hstack([ends - 1, words[:, ::-1]])
        step(*map(tx.tensor, (src, tgt_in, np.hstack([words[:, ::-1], ends]))))
    words = rng.integers(3, 8, (20, 2))
    found = tx.decoding.generate(model, np.hstack([words, np.full((20, 1), 2)]), max_new_tokens=5)
    right = [row[0].tokens == w[::-1].tolist() for row, w in zip(found, words, strict=True)]
    assert np.mean(right) >= 0.8


BAD: list[tuple[dict[str, Any], str]] = [
    ({"cell": "elman"}, "cell = 'elman' must be one of rnn, lstm, gru"),
    ({"attention": "self"}, "attention = 'self' must be one of none, bahdanau, luong"),
    ({"score": "cosine"}, "score = 'cosine' must be one of dot, general, concat"),
    (
        {"attention": "bahdanau", "input_feeding": True},
        "input_feeding = True must be False without",
    ),
    ({"d_model": 0}, "d_model = 0 must be positive"),
    ({"dropout": 1.0}, "dropout = 1.0 must be from 0"),
    ({"eos_id": 20}, "eos_id = 20 must be an id below"),
]


@pytest.mark.parametrize(("settings", "says"), BAD)
def test_configurations_that_make_no_sense(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        Seq2SeqConfig(20, **settings)


def test_ids_must_fit() -> None:
    model = build(CONFIG)
    src, tgt_in, _ = batch()
    with pytest.raises(ShapeError, match="Seq2Seq: source ids must be"):
        model(src[0], tgt_in)
    with pytest.raises(ShapeError, match="as many rows as the source has, 3"):
        model(src, tgt_in[:2])
