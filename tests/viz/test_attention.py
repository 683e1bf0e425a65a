"""Attention maps: the weights are those of the run, and the picture shows all of them."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx import nn, viz
from tinygrad_tx.nn import functional as F  # noqa: N812
from tinygrad_tx.viz.colours import SHARES
from tinygrad_tx.viz.heads import Heads
from tinygrad_tx.viz.raster import _alike
from tinygrad_tx.viz.scene import Cells, Line
from tinygrad_tx.viz.svg import svg

needs_matplotlib = pytest.mark.skipif(find_spec("matplotlib") is None, reason="needs matplotlib")
SRC, TGT = [5, 6, 7, 8, 2, 0, 0], [1, 9, 10, 11, 12]  # two padding tokens at the end of the source


@pytest.fixture(scope="module")
def model() -> tx.models.Transformer:
    tx.manual_seed(3)
    config = tx.models.TransformerConfig(
        vocab_size=16, d_model=16, n_heads=4, d_ff=24, n_encoder_layers=2, n_decoder_layers=2
    )
    return tx.models.Transformer(config)


def test_weights_of_every_head(model: tx.models.Transformer) -> None:
    maps = viz.attention_maps(model, SRC, TGT)
    assert list(maps) == [
        "encoder.layers.0.self_attn",
        "encoder.layers.1.self_attn",
        "decoder.layers.0.self_attn",
        "decoder.layers.0.cross_attn",
        "decoder.layers.1.self_attn",
        "decoder.layers.1.cross_attn",
    ]
    for name, weights in maps.items():
        queries, keys = (7, 7) if "encoder" in name else (5, 7) if "cross" in name else (5, 5)
        assert weights.shape == (4, queries, keys)
        np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
        if keys == 7:  # padding is never looked at, everything else is
            assert not weights[:, :, 5:].any() and (weights[:, :, :5] > 0).all()
        else:  # nor is the future
            assert not np.triu(weights, 1).any() and (np.tril(weights) > 0).sum() == 4 * 15
    assert not np.allclose(
        maps["encoder.layers.0.self_attn"][0], maps["encoder.layers.0.self_attn"][1]
    )


def test_weights_are_those_of_the_run(model: tx.models.Transformer) -> None:
    """Recomputed by hand from the first layer's input, in training mode as the model is."""
    weights = viz.attention_maps(model, SRC, TGT)["encoder.layers.0.self_attn"]
    attention = model.encoder.layers[0].self_attn
    with tx.no_grad():
        x = model.encoder.positions(model.embedding(tx.tensor([SRC])) * 4.0)
        q, k = (p(x).reshape(7, 4, 4).numpy() for p in (attention.q_proj, attention.k_proj))
    scores = np.einsum("qhd,khd->hqk", q, k) / 2
    scores[:, :, 5:] = -np.inf
    e = np.exp(scores)
    np.testing.assert_allclose(weights, e / e.sum(-1, keepdims=True), rtol=1e-4, atol=1e-6)


def test_modes_and_no_grad_are_left_as_they_were(model: tx.models.Transformer) -> None:
    model.decoder.eval()
    modes = [module.training for module in model.modules()]
    assert {True, False} == set(modes)
    with tx.no_grad():
        maps = viz.attention_maps(model, SRC, TGT)
        assert not tx.is_grad_enabled()
    assert [module.training for module in model.modules()] == modes
    again = viz.attention_maps(model.train(), SRC, TGT)  # dropout would make them differ
    np.testing.assert_array_equal(
        again["decoder.layers.1.cross_attn"], maps["decoder.layers.1.cross_attn"]
    )


def test_a_decoder_alone_and_a_module_called_twice() -> None:
    config = tx.models.GPTConfig(vocab_size=16, n_layer=2, n_head=2, n_embd=8, block_size=8)
    maps = viz.attention_maps(tx.models.GPT(config), [1, 2, 3])
    assert {name: w.shape for name, w in maps.items()} == {
        "h.0.attn": (2, 3, 3), "h.1.attn": (2, 3, 3),
    }  # fmt: skip

    class Twice(nn.Module):
        def __init__(self) -> None:
            self.embed = nn.Embedding(9, 8)
            self.attn = nn.MultiHeadAttention(8, 2)

        def forward(self, ids: tx.Tensor) -> tx.Tensor:
            x = self.embed(ids)
            for _ in range(2):
                x = self.attn(x, x, x)
            return x

    maps = viz.attention_maps(Twice(), [1, 2, 3])
    assert list(maps) == ["attn", "attn#2"]
    assert not np.allclose(maps["attn"], maps["attn#2"])


def test_a_scale_of_ones_own_and_an_additive_mask() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            self.embed = nn.Embedding(9, 3)

        def forward(self, ids: tx.Tensor) -> tx.Tensor:
            x, bias = self.embed(ids), tx.tensor([0.0, 1.0, 2.0, 3.0])
            return tx.ops.ATTENTION(x, x, x, bias, scale=0.25, causal=False)

    model = Odd()
    (weights,) = viz.attention_maps(model, [1, 2, 3, 4]).values()
    x = model.embed(tx.tensor([1, 2, 3, 4])).detach()
    wanted = F.softmax(x @ x.T * 0.25 + tx.arange(4).float())
    np.testing.assert_allclose(weights, wanted.numpy()[None], rtol=1e-5)


def test_a_model_without_recorded_attention(model: tx.models.Transformer) -> None:
    with pytest.raises(tx.errors.UserError, match="no attention is recorded in a run of Embedding"):
        viz.attention_maps(nn.Embedding(20, 2), SRC)


def test_a_frozen_model(model: tx.models.Transformer) -> None:
    wanted = viz.attention_maps(model, SRC, TGT)
    model.requires_grad_(False)
    try:
        found = viz.attention_maps(model, SRC, TGT)
        assert not any(p.requires_grad for p in model.parameters())
    finally:
        model.requires_grad_(True)
    assert list(found) == list(wanted)
    for name, weights in wanted.items():
        np.testing.assert_array_equal(found[name], weights)


# The choice of layers and heads ------------------------------------------------------------------


def test_layers_and_heads(model: tx.models.Transformer) -> None:
    whole = viz.attention(model, SRC, TGT)
    maps = viz.attention_maps(model, SRC, TGT)
    assert [h.name for h in whole.layers] == list(maps)
    assert whole.layers[3].titles == ("head 1", "head 2", "head 3", "head 4")
    assert whole.layers[3].queries == tuple(map(str, TGT))
    assert whole.layers[3].keys == tuple(map(str, SRC))

    def names(layer: int | str) -> list[str]:
        return [h.name for h in viz.attention(model, SRC, TGT, layer=layer).layers]

    assert names(1) == [name for name in maps if "layers.1" in name] == names("layers.1")
    assert names("cross_attn") == [name for name in maps if "cross" in name]
    assert names("decoder.layers.0") == [name for name in maps if "decoder.layers.0" in name]
    assert names("decoder.layers.1.self_attn") == ["decoder.layers.1.self_attn"]
    with pytest.raises(tx.errors.UserError, match=r'layer is called "attn"; there are enc'):
        whole.choose(layer="attn")

    [one] = viz.attention(model, SRC, TGT, layer="decoder.layers.1.cross_attn", head=3).layers
    np.testing.assert_array_equal(one.weights, maps[one.name][2:3])
    assert one.titles == ("head 3",)
    for number in (0, 5):
        with pytest.raises(tx.errors.UserError, match=f"no head {number}: .* from 1 to 4"):
            whole.choose(head=number)
    mean = whole.choose(mean=True)
    assert mean.layers[0].titles == ("mean of 4",)
    np.testing.assert_allclose(mean.layers[2].weights[0], maps[list(maps)[2]].mean(0), rtol=1e-6)
    # A choice is made of the whole run.
    assert len(mean.choose(head=2).layers) == 6
    for both in ({"mean": True, "head": 1}, {"mean": True, "rollout": True}):
        with pytest.raises(tx.errors.UserError, match="exclude each other"):
            whole.choose(**both)  # type: ignore[arg-type]


def test_rollout_of_the_encoder(model: tx.models.Transformer) -> None:
    """Equation 1 of Abnar and Zuidema by hand."""
    maps = viz.attention_maps(model, SRC, TGT)
    wanted = np.eye(7)
    for i in range(2):
        wanted = (0.5 * maps[f"encoder.layers.{i}.self_attn"].mean(0) + 0.5 * np.eye(7)) @ wanted
        found = viz.attention(model, SRC, TGT, rollout=True, layer=f"encoder.layers.{i}")
        assert [h.titles for h in found.layers] == [("rollout",)]
        np.testing.assert_allclose(found.layers[0].weights[0], wanted, atol=1e-6)


def test_rollout_of_the_decoder(model: tx.models.Transformer) -> None:
    """As one large matrix on source and target together, which rows of both go through."""
    maps = viz.attention_maps(model, SRC, TGT)
    state = np.eye(12)  # 7 source positions, then 5 target positions
    for name, weights in maps.items():
        mean, mixing = weights.mean(0), np.eye(12)
        if name.startswith("encoder"):
            mixing[:7, :7] = 0.5 * mean + 0.5 * np.eye(7)
        elif name.endswith("self_attn"):
            mixing[7:, 7:] = 0.5 * mean + 0.5 * np.eye(5)
        else:
            mixing[7:, :7], mixing[7:, 7:] = 0.5 * mean, 0.5 * np.eye(5)
        state = mixing @ state
    of_source, of_target, from_source = viz.attention(model, SRC, TGT, rollout=True).layers
    np.testing.assert_allclose(of_source.weights[0], state[:7, :7], atol=1e-6)
    np.testing.assert_allclose(of_target.weights[0], state[7:, 7:], atol=1e-6)
    np.testing.assert_allclose(from_source.weights[0], state[7:, :7], atol=1e-6)
    assert from_source.keys == tuple(map(str, SRC)) and of_target.queries == from_source.queries
    np.testing.assert_allclose(state.sum(-1), 1)


def test_rollout_needs_self_attention() -> None:
    config = tx.models.Seq2SeqConfig(vocab_size=16, d_model=8)
    with pytest.raises(tx.errors.UserError, match="follows self-attention from layer to layer"):
        viz.attention(tx.models.Seq2Seq(config), SRC, TGT, rollout=True)


# Models and inputs -------------------------------------------------------------------------------

SMALL = {"vocab_size": 16, "d_model": 8}
KINDS = {
    "seq2seq": lambda: tx.models.Seq2Seq(tx.models.Seq2SeqConfig(**SMALL, attention="bahdanau")),
    "convs2s": lambda: tx.models.ConvS2S(tx.models.ConvS2SConfig(**SMALL, n_layers=2)),
    "t5": lambda: tx.models.T5(tx.models.T5Config(**SMALL, n_heads=2, d_ff=8, n_layers=1)),
    "marian": lambda: tx.models.Transformer(
        tx.models.TransformerConfig(
            **SMALL, n_heads=2, d_ff=8, n_encoder_layers=1, n_decoder_layers=1, pad_id=15,
            bos_id=15, eos_id=0, positions="sinusoidal_halves", output_bias=True,
        )
    ),
    "gpt": lambda: tx.models.GPT(tx.models.GPTConfig(16, n_layer=2, n_head=2, n_embd=8)),
    "llama": lambda: tx.models.Llama(
        tx.models.LlamaConfig(**SMALL, n_layers=1, n_heads=4, n_kv_heads=2, d_ff=8)
    ),
    "bert": lambda: tx.models.BERT(tx.models.BERTConfig(**SMALL, n_layers=2, n_heads=2, d_ff=8)),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_of_model(kind: str) -> None:
    built = KINDS[kind]()
    inputs = [SRC[:5], TGT] if kind in ("seq2seq", "convs2s", "t5", "marian") else [SRC[:5]]
    found = viz.attention(built, *inputs)
    count = {"seq2seq": 1, "convs2s": 2, "t5": 3, "marian": 3, "gpt": 2, "llama": 1, "bert": 2}
    assert len(found.layers) == count[kind]
    for heads in found.layers:
        np.testing.assert_allclose(heads.weights.sum(-1), 1, rtol=1e-5)
    ET.fromstring(found.svg)
    if len(inputs) == 2:  # without a target, the model's own translation
        own = viz.attention(built, inputs[0]).layers[-1].queries
        assert own[0] == str(built.config.bos_id) and len(own) > 1


def test_a_model_with_names_of_its_own() -> None:
    """Tokens are those that fit."""

    class Pair(nn.Module):
        def __init__(self) -> None:
            self.embed = nn.Embedding(16, 8)
            self.reads, self.writes = nn.MultiHeadAttention(8, 2), nn.MultiHeadAttention(8, 2)

        def forward(self, src: tx.Tensor, tgt: tx.Tensor) -> tx.Tensor:
            x = self.embed(src)
            memory = self.reads(x, x, x)
            return self.writes(self.embed(tgt), memory, memory)

    found = viz.attention(Pair(), SRC, TGT)
    assert [h.role for h in found.layers] == ["encoder", "cross"]
    assert found.layers[1].queries == tuple(map(str, TGT))
    assert len(found.choose(rollout=True).layers) == 2


def test_long_texts_have_no_room_for_tokens() -> None:
    words = tuple(f"w{i}" for i in range(400))
    heads = Heads("h", np.eye(400, dtype=np.float32)[None], words, words, ("head 1",))
    scene = viz.Attention([heads]).scene()
    assert scene.width < 1700 and "w3" not in texts(svg(scene))


def test_texts_and_tokens(model: tx.models.Transformer) -> None:
    tokenizer = tx.data.Tokenizer.train(["ein haus", "a house"], "char", min_frequency=1)
    config = tx.models.TransformerConfig(
        vocab_size=tokenizer.vocab_size, d_model=8, n_heads=2, d_ff=8, n_encoder_layers=1,
        n_decoder_layers=1,
    )  # fmt: skip
    small = tx.models.Transformer(config)
    found = viz.attention(small, "ein haus", "a house", tokenizer=tokenizer)
    assert found.layers[0].keys[-1] == "</s>" and found.layers[1].queries[0] == "<s>"
    assert "".join(found.layers[0].keys).replace("·", "").startswith("ein")
    for wrong, says in (
        ((" ",), "blank"), (([],), "no tokens"), ((), "0 sentences are given"),
        ((SRC, TGT, TGT), "3 sentences"), (([SRC, SRC],), "not a batch of 2"),
    ):  # fmt: skip
        with pytest.raises(tx.errors.UserError, match=says):
            viz.attention(small, *wrong, tokenizer=tokenizer)  # type: ignore[arg-type]
    with pytest.raises(tx.errors.UserError, match="a text needs tokenizer="):
        viz.attention(model, "ein haus")
    with pytest.raises(TypeError, match=r"token ids are integers, not 1\.5"):
        viz.attention(model, [1.5], TGT)  # type: ignore[list-item]
    batch = viz.attention(model, tx.tensor([SRC]), tx.tensor(TGT))
    assert batch.layers[0].keys == tuple(map(str, SRC))


# The picture -------------------------------------------------------------------------------------

SVG = "{http://www.w3.org/2000/svg}"
LONG = "Donaudampfschifffahrtsgesellschaftskapitän"
WORDS = ["ein", "$haus$", "שלום", "<b>", "</s>", LONG, "a\n\u202eb"]


def texts(svg: str) -> list[str]:
    return [t.text or "" for t in ET.fromstring(svg).iter(f"{SVG}text")]


def test_maps(model: tx.models.Transformer, tmp_path: Path) -> None:
    maps = viz.attention_maps(model, SRC, TGT)
    name = "decoder.layers.1.cross_attn"
    words = ["<s>", "a", "$", "house", "."]
    path = viz.draw_attention({name: maps[name]}, WORDS, words, tmp_path / "a.svg")
    found = texts(path.read_text(encoding="utf-8"))
    assert found.count(name) == 1 and found.count("head 4") == 1
    assert found.count("$haus$") == 4 and found.count("house") == 1  # under each; on the left once
    assert found.count("a·b") == 4 and found.count("שלום") == 4
    assert LONG not in found and sum(t.endswith("…") for t in found) == 4
    titles = [t.text for t in ET.parse(path).iter(f"{SVG}title")]
    assert titles.count(LONG) == 4  # a hover tells all of it
    # Every cell has the colour of its weight: padding, the last two columns, is white.
    wide = float(next(ET.parse(path).iter(f"{SVG}rect")).attrib["width"])
    assert wide < 1640


def test_cells_have_the_colours_of_their_weights() -> None:
    weights = np.array([[[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]]], np.float32)
    heads = Heads("h", weights, ("x", "y"), ("a", "b", "c"), ("head 1",))
    scene = viz.Attention([heads]).scene()
    cells = next(shape for shape in scene.shapes if isinstance(shape, Cells))
    assert cells.levels.tolist() == [[32, 0, 0], [0, 16, 16]]
    x, y = cells.x, cells.y
    path = f'fill="{SHARES[16]}" shape-rendering="crispEdges" d="M{x + 13:g} {y + 13:g}h26v13h-26z"'
    assert path in svg(scene)


def test_arcs() -> None:
    weights = np.array([[[0.9, 0.09, 0.01], [0.0, 0.5, 0.5]]], np.float32)
    heads = Heads("h", weights, ("x", "y"), ("a", "b", "c"), ("head 1",))
    scene = viz.Attention([heads]).choose(arcs=True).scene()
    lines = [shape for shape in scene.shapes if isinstance(shape, Line)]
    says = {line.hover: line.width for line in lines}
    assert set(says) == {"x → a: 0.90", "x → b: 0.09", "y → b: 0.50", "y → c: 0.50"}
    assert says["x → a: 0.90"] > says["y → b: 0.50"] > says["x → b: 0.09"]
    assert texts(svg(scene)).count("x") == 1


def test_a_notebook_shows_it_and_all_suffixes(model: tx.models.Transformer, tmp_path: Path) -> None:
    found = viz.attention(model, SRC, TGT, layer=0)
    assert found._repr_svg_().startswith("<svg")
    assert set(found._repr_mimebundle_()) == {"image/svg+xml", "text/plain"}
    assert repr(found) == "Attention(3 layers, 12 heads)"
    page = found.save(tmp_path / "a.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and "decoder.layers.0.cross_attn" in page
    if find_spec("matplotlib"):
        assert found.save(tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
        assert found.save(tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(tx.errors.UserError, match=r"\.svg, \.html, \.png, \.pdf"):
        found.save(tmp_path / "a.gif")


def test_a_page_escapes_its_words() -> None:
    heads = Heads("h", np.ones((1, 1, 1)), ("</script><b>",), ("<!--",), ("head 1",))
    page = viz.Attention([heads]).html
    assert "</script><b>" not in page and "<!--" not in page


def test_the_work_of_a_picture_is_bounded() -> None:
    """26 tokens and 24 heads: few shapes, and few runs, each of which costs time in a PNG."""
    words = tuple(f"w{i}" for i in range(26))
    weights = np.random.default_rng(0).dirichlet(np.ones(26), (24, 26)).astype(np.float32)
    titles = tuple(f"head {i}" for i in range(1, 25))
    found = viz.Attention([Heads("h", weights, words, words, titles)])
    for arcs, most in ((False, 24 * 29 + 6 * 26 + 10), (True, 24 * (2 * 26 + 26 * 26))):
        shapes = found.choose(arcs=arcs).scene().shapes
        assert len(shapes) < most
        assert len([*groupby(shapes, _alike)]) < 24 * 4 + 6


@needs_matplotlib
def test_tokens_must_fit(model: tx.models.Transformer, tmp_path: Path) -> None:
    maps = viz.attention_maps(model, SRC, TGT)
    with pytest.raises(tx.errors.UserError, match="7 queries and 7 keys, but 6 and 6 tokens"):
        viz.draw_attention(maps, list("abcdef"), list("abcde"), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_errors_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = {"h.0.attn": np.ones((1, 1, 1))}
    with pytest.raises(tx.errors.UserError, match=r"must end in one of \.svg"):
        viz.draw_attention(maps, [], ["a"], tmp_path / "a.gif")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(tx.errors.UserError, match=r"pip install \"tinygrad_tx\[plots\]\""):
        viz.draw_attention(maps, [], ["a"], tmp_path / "a.png")
    viz.draw_attention(maps, [], ["a"], tmp_path / "a.svg")
