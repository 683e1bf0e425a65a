"""What a model knows of positions: the numbers, and that they are drawn."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx import models, nn, viz

SMALL = {"vocab_size": 16, "d_model": 8}


def texts(found: viz.Positions) -> list[str]:
    return [t.text or "" for t in ET.fromstring(found.svg).iter("{http://www.w3.org/2000/svg}text")]


def transformer(**settings: object) -> models.Transformer:
    layers = {"n_encoder_layers": 1, "n_decoder_layers": 1, "n_heads": 2, "d_ff": 8}
    return models.Transformer(models.TransformerConfig(**SMALL, **layers, **settings))  # type: ignore[arg-type]


def test_sinusoids_are_drawn_once_for_both_sides() -> None:
    found = viz.positions(transformer(), length=12)
    [(title, table)] = found.tables.items()
    assert title == "sinusoids of encoder.positions and decoder.positions"
    pos, i = np.arange(12)[:, None], np.arange(4)
    angle = pos / 10000 ** (2 * i / 8)
    np.testing.assert_allclose(table[:, ::2], np.sin(angle), atol=1e-6)
    np.testing.assert_allclose(table[:, 1::2], np.cos(angle), atol=1e-6)
    shown = texts(found)
    assert {"dimension 0", "dimension 3", "likeness of positions (cosine), to ±1"} <= {*shown}
    assert found._repr_svg_().startswith("<svg") and repr(found).endswith("(12, 8))")


def test_learned_positions_of_both_sides_and_of_a_table_of_ones_own() -> None:
    model = transformer(positions="learned", max_len=10)
    found = viz.positions(model)
    assert list(found.tables) == [
        "learned positions of encoder.positions", "learned positions of decoder.positions",
    ]  # fmt: skip
    for part, table in zip((model.encoder, model.decoder), found.tables.values(), strict=True):
        np.testing.assert_array_equal(table, part.positions.weight.detach().numpy())  # type: ignore[union-attr]

    class Own(nn.Module):
        def __init__(self) -> None:
            self.words, self.wpe = nn.Embedding(5, 4), nn.Embedding(6, 4)

    assert list(viz.positions(Own()).tables) == ["learned positions of wpe"]


def test_models_with_a_table_of_their_own() -> None:
    gpt = models.GPT(models.GPTConfig(16, n_layer=1, n_head=2, n_embd=8, block_size=9))
    bert = models.BERT(models.BERTConfig(**SMALL, n_layers=1, n_heads=2, d_ff=8, max_len=9))
    conv = models.ConvS2S(models.ConvS2SConfig(**SMALL, n_layers=1, max_len=9))
    shapes = [{t: v.shape for t, v in viz.positions(m).tables.items()} for m in (gpt, bert, conv)]
    assert shapes == [
        {"learned positions of wpe": (9, 8)},
        {"learned positions of embeddings.positions": (9, 8)},
        {"learned positions of src_embedding.positions": (9, 8),
         "learned positions of tgt_embedding.positions": (9, 8)},
    ]  # fmt: skip


def test_rotary_angles() -> None:
    config = models.LlamaConfig(**SMALL, n_layers=1, n_heads=1, d_ff=8, rope_theta=100.0)
    [angles] = viz.positions(models.Llama(config), length=5).tables.values()
    np.testing.assert_allclose(angles, np.arange(5)[:, None] * 100.0 ** -(np.arange(4) / 4), 1e-6)


def test_biases_by_distance() -> None:
    model = models.T5(models.T5Config(**SMALL, n_layers=1, n_heads=2, d_ff=8))
    found = viz.positions(model, length=40)
    assert {t: v.shape for t, v in found.tables.items()} == {
        "biases by distance of encoder.distances": (2, 79),  # behind and ahead
        "biases by distance of decoder.distances": (2, 40),  # behind
    }
    for part, table in zip((model.encoder, model.decoder), found.tables.values(), strict=True):
        bias = part.distances(40, 40).detach().numpy()[0]  # (H, queries, keys)
        np.testing.assert_array_equal(table[:, :40], bias[:, 39])  # the last query sees them all
    assert "head 2" in texts(found)


def test_weights_that_are_not_finite() -> None:
    """A gap in the curve; the picture stays one that can be read."""
    model = transformer(positions="learned", max_len=12)
    weight = next(p for n, p in model.named_parameters() if "positions" in n)
    for value in (float("nan"), float("inf")):
        with tx.no_grad():
            weight[3:5] = value
        found = viz.positions(model).svg
        ET.fromstring(found)
        assert "nan" not in found and "inf" not in found
    with tx.no_grad():
        weight[:] = float("nan")
    assert "nan" not in viz.positions(model).svg


def test_files_and_errors(tmp_path: Path) -> None:
    found = viz.positions(transformer(), length=4)
    found.save(tmp_path / "p.svg")
    with pytest.raises(tx.errors.UserError, match=r"\.svg, \.png, \.pdf"):
        found.save(tmp_path / "p.html")
    seq2seq = models.Seq2Seq(models.Seq2SeqConfig(**SMALL))
    with pytest.raises(tx.errors.UserError, match="Seq2Seq has no positions that are known"):
        viz.positions(seq2seq)
    for length in (1, 10**7, 2.5, True):
        with pytest.raises(tx.errors.UserError, match="must be a whole number from 2 to 4096"):
            viz.positions(transformer(), length=length)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="is no Module"):
        viz.positions("model")  # type: ignore[arg-type]
