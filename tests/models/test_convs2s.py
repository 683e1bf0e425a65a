"""ConvS2S: its logits by hand, padding, steps, the search, plans, and a toy task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoding_case import reference, same, whole_prefixes
from plan_case import kinds, plan, sizes

import tinygrad_tx as tx
from tinygrad_tx.errors import ShapeError, UserError
from tinygrad_tx.models import ConvS2S, ConvS2SConfig
from tinygrad_tx.viz import attention_maps

Array = np.ndarray[Any, Any]
CONFIG = ConvS2SConfig(20, d_model=8, n_layers=2, max_len=12)
VARIANTS = {
    "3": CONFIG,
    "even": replace(CONFIG, kernel_size=4, src_vocab_size=23),
    "1": replace(CONFIG, kernel_size=1, n_layers=1),
}


def build(config: ConvS2SConfig, dtype: Any = tx.float32) -> ConvS2S:
    """A model whose words are apart, and whose biases matter."""
    tx.manual_seed(0)
    model = ConvS2S(config)
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


def by_hand(model: ConvS2S, src: Array, tgt: Array) -> Array:
    """The logits of one pair, position by position; it needs no padding mask."""
    c, p = model.config, {k: v.numpy() for k, v in model.named_parameters()}
    src, half, reach = src[src != 0], np.sqrt(0.5), c.kernel_size - 1

    def embedded(side: str, ids: Array) -> Array:
        places = p[f"{side}_embedding.positions.weight"][: len(ids)]
        found: Array = p[f"{side}_embedding.words.weight"][ids] + places
        return found

    def gated(name: str, x: Array, before: int) -> Array:
        x = np.pad(x, ((before, reach - before), (0, 0)))
        windows = (x[i : i + reach + 1] for i in range(len(x) - reach))
        weight, bias = p[f"{name}.conv.weight"], p[f"{name}.conv.bias"]
        y = np.array([np.einsum("ock,kc->o", weight, w) + bias for w in windows])
        a, b = np.split(y, 2, 1)
        found: Array = a / (1 + np.exp(-b))
        return found

    x = e = embedded("src", src)
    for i in range(c.n_layers):
        x = (x + gated(f"encoder.{i}", x, reach - c.kernel_size // 2)) * half
    z, values = x, (x + e) * half
    x = g = embedded("tgt", tgt)
    for i in range(c.n_layers):
        h, query = gated(f"decoder.{i}.conv", x, reach), f"decoder.{i}.attention.query"
        scores = (h @ p[f"{query}.weight"].T + p[f"{query}.bias"] + g) * half @ z.T
        weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        x = (x + (h + np.sqrt(len(src)) * weights @ values) * half) * half
    found: Array = x @ p["lm_head.weight"].T + p["lm_head.bias"]
    return found


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_as_by_hand(variant: str) -> None:
    model = build(VARIANTS[variant], tx.float64)
    src, tgt_in, _ = batch()
    got = model(src, tgt_in).numpy()
    for i in range(3):
        wanted = by_hand(model, src.numpy()[i], tgt_in.numpy()[i])
        np.testing.assert_allclose(got[i], wanted, rtol=1e-9, atol=1e-11)


def test_values_vary_alike_in_all_layers() -> None:
    """The deviation of a deep model's states is that of its embeddings, more or less."""
    tx.manual_seed(0)
    model = ConvS2S(ConvS2SConfig(50, d_model=64, n_layers=8)).eval()
    src = tx.randint(3, 50, (8, 16))
    memory = model.encode(src)
    embedded = model.src_embedding(src).std().item()
    assert 0.1 < embedded < 0.2
    assert 0.5 < memory.keys.std().item() / embedded < 2
    dropped = ConvS2S(ConvS2SConfig(50, d_model=64, n_layers=1, dropout=0.5))
    assert dropped.encoder[0].conv.weight.std().item() == pytest.approx((2 / 192) ** 0.5, rel=0.05)
    assert dropped.lm_head.weight.std().item() == pytest.approx((0.5 / 64) ** 0.5, rel=0.05)


def loss_and_gradients(model: ConvS2S, *ids: tx.Tensor) -> list[tx.Tensor]:
    loss = model.loss(*ids, label_smoothing=0.1)
    loss.backward()
    found = [loss, *(p.grad for p in model.parameters())]
    model.zero_grad()
    return found


def test_compiled_steps_are_the_eager_ones() -> None:
    """Dropout included."""
    model = build(replace(CONFIG, dropout=0.1))
    results = []
    for run in (loss_and_gradients, tx.compile(loss_and_gradients)):
        tx.manual_seed(1)
        results.append(run(model, *batch()))
    for got, want in zip(*results, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


@pytest.mark.cpu
@pytest.mark.parametrize("variant", ["3", "even"])
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
    padded = (tx.cat([x, none[:, : x.shape[1]]]) for x in (src, tgt_in, tgt_out))
    found = loss_and_gradients(model, *padded)
    for got, want in zip(found, loss_and_gradients(model, src, tgt_in, tgt_out), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def test_later_words_change_no_earlier_logits() -> None:
    model = build(CONFIG).eval()
    src, tgt_in, _ = batch()
    changed = tgt_in.numpy().copy()
    changed[:, 2:] = 7
    before, after = (model(src, ids).numpy() for ids in (tgt_in, tx.tensor(changed)))
    np.testing.assert_array_equal(before[:, :2], after[:, :2])
    assert (before[:, 2:] != after[:, 2:]).any()


@pytest.mark.cpu
def test_no_window_is_copied_and_nothing_is_opaque() -> None:
    """The largest value in between of a training step is the padded gradient of a convolution."""
    model = ConvS2S(ConvS2SConfig(20, d_model=16, n_layers=2, kernel_size=5))
    ids = tx.full((8, 30), 5)
    made = plan(lambda *ids: loss_and_gradients(model, *ids), ids, ids, ids)
    assert not made.refusals and "Opaque" not in kinds(made)
    assert sizes(made, "arena")[0] == 8 * (4 + 30 + 4) * 2 * 16 < 5 * 8 * 30 * 16
    # In decoding weights are packed once, not at each step.
    state, first, position = model.start(ids, max_new_tokens=4, beam=2)
    steps = kinds(plan(model.step, state, first, position))
    assert (steps["Matmul"], steps["Pack"], steps["Opaque"]) == (2 * 2 + 1, 0, 0)


# One token at a time ------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_steps_give_what_forward_gives(variant: str) -> None:
    """Also after hypotheses have changed places, and a sentence has gone. Traced once."""
    model = build(VARIANTS[variant]).eval()
    step = tx.compile(model.step)
    src, tgt_in, _ = batch()
    whole = model(src, tgt_in).numpy()
    state, ids, position = model.start(src, max_new_tokens=8, beam=2)
    np.testing.assert_array_equal(ids.numpy(), np.ones(6))
    for t in range(2):
        ids = np.repeat(tgt_in.numpy()[:, t], 2)
        ids[1::2] = (ids[1::2] * 2) % 17 + 1  # the second one goes elsewhere
        logits = step(state, tx.tensor(ids), position).numpy()
        np.testing.assert_allclose(logits[::2], whole[:, t], rtol=1e-4, atol=1e-5)
        position = position + 1
    assert step.stats()["retraces"] == 0
    state.reorder(tx.tensor([0, 0, 3, 2, 4, 4]))
    kept = state.keep(tx.tensor([2, 0]))
    ids = np.repeat(tgt_in.numpy()[[2, 0], 2], 2)
    logits = model.step(kept, tx.tensor(ids), position).numpy()
    np.testing.assert_allclose(logits, np.repeat(whole[[2, 0], 2], 2, 0), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_search_is_that_of_all_models() -> None:
    model = build(CONFIG, tx.float64).eval()
    src = batch()[0]
    for beam in (1, 2):
        found = tx.decoding.generate(
            model,
            src,
            beam_size=beam,
            num_return_sequences=beam,
            max_new_tokens=3,
            length_penalty=0.6,
        )
        for row, source in zip(found, src.tolist(), strict=True):
            log_probs = whole_prefixes(model, [i for i in source if i])
            wanted, _ = reference(log_probs, 2, limit=3, beam=beam, alpha=0.6)
            same(row, wanted)
    tx.manual_seed(1)
    drawn = tx.decoding.generate(
        model, src, do_sample=True, top_k=3, num_return_sequences=2, max_new_tokens=3
    )
    assert [len(row) for row in drawn] == [2, 2, 2]


def test_attention_rows_add_up_and_leave_padding_out() -> None:
    model = build(CONFIG)
    source, target = [5, 6, 7, 2, 0, 0], [1, 8, 9]
    maps = attention_maps(model, source, target)
    alone = attention_maps(model, source[:4], target)
    assert list(maps) == ["decoder.0.attention", "decoder.1.attention"]
    for name, weights in maps.items():
        assert weights.shape == (1, 3, 6)
        np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)
        assert not weights[..., 4:].any() and weights[..., :4].all()
        np.testing.assert_allclose(weights[..., :4], alone[name], rtol=1e-5)


# What it is for -----------------------------------------------------------------------------------


def test_a_toy_task_is_learnt_and_saved(tmp_path: Path) -> None:
    """Words in reverse order."""
    tx.manual_seed(0)
    rng = np.random.default_rng(0)
    config = ConvS2SConfig(8, d_model=24, n_layers=2, max_len=16)
    model = ConvS2S(config)
    optimizer = tx.optim.Adam(model.parameters(), lr=0.01)

    @tx.compile
    def step(src: tx.Tensor, tgt_in: tx.Tensor, tgt_out: tx.Tensor) -> tx.Tensor:
        loss = model.loss(src, tgt_in, tgt_out)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    for _ in range(150):
        words = rng.integers(3, 8, (32, 4))
        ends = np.full((32, 1), 2)
        src, tgt_in = np.hstack([words, ends]), np.hstack([ends - 1, words[:, ::-1]])
        step(*map(tx.tensor, (src, tgt_in, np.hstack([words[:, ::-1], ends]))))
    words = rng.integers(3, 8, (20, 4))
    source = np.hstack([words, np.full((20, 1), 2)])
    found = tx.decoding.generate(model, source, max_new_tokens=6)
    right = [row[0].tokens == w[::-1].tolist() for row, w in zip(found, words, strict=True)]
    assert np.mean(right) >= 0.9
    tx.save(model.state_dict(), tmp_path / "weights.safetensors")
    again = ConvS2S(config)
    again.load_state_dict(tx.load(tmp_path / "weights.safetensors"))
    assert tx.decoding.generate(again, source, max_new_tokens=6) == found


BAD: list[tuple[dict[str, Any], str]] = [
    ({"kernel_size": 0}, "kernel_size = 0 must be positive"),
    ({"src_vocab_size": 0}, "src_vocab_size = 0 must be positive"),
    ({"dropout": 1.0}, "dropout = 1.0 must be from 0"),
    ({"pad_id": 20}, "pad_id = 20 must be an id below"),
]


@pytest.mark.parametrize(("settings", "says"), BAD)
def test_configurations_that_make_no_sense(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        ConvS2SConfig(20, **settings)


def test_ids_must_fit() -> None:
    model = build(CONFIG)
    src, tgt_in, _ = batch()
    with pytest.raises(ShapeError, match="ConvS2S: source ids must be"):
        model(src[0], tgt_in)
    with pytest.raises(ShapeError, match="as many rows as the source has, 3"):
        model(src, tgt_in[:2])
    with pytest.raises(ShapeError, match=r"13 positions: this model has learned 12 \(max_len\)"):
        model(src, tx.ones(3, 13, dtype=tx.int64))
    assert (model.room(12), model.room(13)) == (12, 0)
    with pytest.raises(UserError, match="row 0: 13 tokens leave room for 0"):
        tx.decoding.generate(model, [[3] * 13], max_new_tokens=4)
