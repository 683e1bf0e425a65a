"""Attention maps: the weights are those of the run, and the picture shows all of them."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx import nn, viz
from tinygrad_tx.nn import functional as F  # noqa: N812

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


# The picture -------------------------------------------------------------------------------------


@needs_matplotlib
def test_the_picture(model: tx.models.Transformer, tmp_path: Path) -> None:
    src, tgt = ["ein", "$haus$", "&", "<b>", "</s>", "", ""], ["<s>", "a", "$", "house", "."]
    maps = viz.attention_maps(model, SRC, TGT)
    chosen = [f"{coder}.layers.0.self_attn" for coder in ("encoder", "decoder")]
    chosen.append("decoder.layers.1.cross_attn")
    path = viz.draw_attention({n: maps[n] for n in chosen}, src, tgt, tmp_path / "a.svg")
    svg = path.read_text()  # letters are outlines; each text stands beside them as a comment
    assert [svg.count(f"<!-- {name} -->") for name in chosen] == [1, 1, 1]
    assert [svg.count(f"<!-- head {i} -->") for i in (1, 4, 5)] == [3, 3, 0]
    # Keys under each of four heads, queries on the left of them.
    assert svg.count("<!-- house -->") == (4 + 1) + 1
    assert svg.count("<!-- $haus$ -->") == (4 + 1) + 4
    png = viz.draw_attention({"h.0.attn": np.eye(2)[None]}, [], ["a", "b"], str(tmp_path / "a.png"))
    assert png.read_bytes().startswith(b"\x89PNG")


@needs_matplotlib
def test_tokens_must_fit(model: tx.models.Transformer, tmp_path: Path) -> None:
    maps = viz.attention_maps(model, SRC, TGT)
    with pytest.raises(tx.errors.UserError, match="7 queries and 7 keys, but 6 and 6 tokens"):
        viz.draw_attention(maps, list("abcdef"), list("abcde"), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_errors_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = {"h.0.attn": np.ones((1, 1, 1))}
    with pytest.raises(tx.errors.UserError, match=r"\.png, \.svg, \.pdf"):
        viz.draw_attention(maps, [], ["a"], tmp_path / "a.gif")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(tx.errors.UserError, match="pip install matplotlib"):
        viz.draw_attention(maps, [], ["a"], tmp_path / "a.png")
