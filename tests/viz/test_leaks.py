"""Leaks: all models pass, planted ones are found, with the module where they come in."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx import models, nn, viz
from tinygrad_tx.nn import functional as F  # noqa: N812

V = {"vocab_size": 3000}


def transformer(**settings: Any) -> models.Transformer:
    given = {"vocab_size": 40, "d_model": 16, "n_heads": 2, "d_ff": 16, **settings}
    return models.Transformer(
        models.TransformerConfig(**{"n_encoder_layers": 3, "n_decoder_layers": 3, **given})
    )


def seq2seq(**settings: Any) -> models.Seq2Seq:
    return models.Seq2Seq(models.Seq2SeqConfig(**V, d_model=32, **settings))


def gpt(cls: type[models.GPT] = models.GPT) -> models.GPT:
    return cls(models.GPTConfig(**V, n_layer=3, n_head=4, n_embd=32))


def bert(cls: type[models.BERT] = models.BERT, **settings: Any) -> models.BERT:
    return cls(models.BERTConfig(**V, d_model=24, n_layers=3, n_heads=3, d_ff=8, **settings))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "post-norm": transformer,
    "pre-norm": lambda: transformer(norm="pre", tie_embeddings=False, src_vocab_size=50),
    "marian": lambda: transformer(
        pad_id=39, bos_id=39, eos_id=0, positions="sinusoidal_halves", output_bias=True
    ),
    "no attention": lambda: seq2seq(attention="none", cell="rnn", bidirectional=False),
    "bahdanau": lambda: seq2seq(attention="bahdanau", cell="gru"),
    "luong": lambda: seq2seq(input_feeding=True, score="general", n_layers=2),
    "convs2s": lambda: models.ConvS2S(models.ConvS2SConfig(**V, kernel_size=5)),
    "t5": lambda: models.T5(models.T5Config(**V, d_model=32, d_ff=32)),
    "t5 gated": lambda: models.T5(
        models.T5Config(**V, d_model=32, d_kv=6, d_ff=32, gated=True, tie_embeddings=False)
    ),
    "gpt": gpt,
    "llama": lambda: models.Llama(
        models.LlamaConfig(**V, d_model=32, n_layers=3, n_heads=4, n_kv_heads=2, d_ff=32)
    ),
    "bert": bert,
    "roberta": lambda: bert(skip_padding=True, pad_id=1, mlm=False, pooler=False),
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("kind", MODELS)
def test_no_model_of_ours_leaks(kind: str) -> None:
    model = MODELS[kind]()
    found = viz.dependencies(model)
    assert found.ok and found.leaks == () and found.on_copy, str(found)
    assert bool(found) and np.array_equal(found.rows, np.eye(2))
    for name, matrix in found.matrices.items():
        if name == "target" or (name == "text" and not isinstance(model, models.BERT)):
            wanted = np.tri(*matrix.shape)
        else:  # all of the text, but for its padding
            wanted = np.ones(matrix.shape) * (np.arange(5) < 3)
            if name == "text":  # nobody asks what padding looks at
                matrix, wanted = matrix[:3], wanted[:3]
        if kind == "convs2s" or not wanted.all():
            assert not (matrix & (wanted == 0)).any()
        if kind != "convs2s":  # which sees as far as its layers do
            np.testing.assert_array_equal(matrix, wanted)


def test_nothing_of_the_model_changes() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            self.embed = nn.Embedding(9, 4)
            self.norm, self.dropout = nn.BatchNorm1d(4), nn.Dropout(0.5)

        def forward(self, ids: tx.Tensor) -> tx.Tensor:
            return self.dropout(self.norm(self.embed(ids).transpose(1, 2)).transpose(1, 2))

    model = Own().eval()
    before = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    tx.manual_seed(5)
    wanted = tx.randn(3).numpy()
    tx.manual_seed(5)
    viz.dependencies(model, tx.tensor([[1, 2, 3], [4, 5, 6]]))
    np.testing.assert_array_equal(tx.randn(3).numpy(), wanted)
    assert not any(module.training for module in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])


# Planted leaks -----------------------------------------------------------------------------------


def test_a_missing_causal_mask() -> None:
    class Open(nn.MultiHeadAttention):
        def forward(self, q: Any, k: Any, v: Any, mask: Any = None, is_causal: bool = False) -> Any:
            return super().forward(q, k, v, mask)

    model = transformer()
    model.decoder.layers[2].self_attn = Open(16, 2)
    found = viz.dependencies(model)
    assert not found.ok and not found.on_copy  # a copy would not have that part
    [leak] = found.leaks
    assert (leak.kind, leak.input, leak.output, leak.position) == ("future", "target", 0, 1)
    assert leak.module == "decoder.layers.2.self_attn (Open)" and leak.mode == "evaluation"
    assert np.array_equal(found.matrices["target"], np.ones((4, 4)))
    assert "which comes later; it comes in at decoder.layers.2.self_attn" in str(found)
    assert "x ! ! !" in str(found)


def test_padding_that_is_not_masked() -> None:
    class Unmasked(models.Transformer):
        def encode(self, src: tx.Tensor, mask: tx.Tensor | None = None) -> tx.Tensor:
            return super().encode(src, (src == src).unsqueeze(1).unsqueeze(1))

    found = viz.dependencies(Unmasked(transformer().config))
    assert found.on_copy
    [leak] = found.leaks
    assert (leak.kind, leak.input, leak.row, leak.position) == ("padding", "source", 0, 3)
    assert leak.module == "encoder.layers.0.self_attn (MultiHeadAttention)"

    class Blind(models.BERT):
        def forward(self, ids: Any, attention_mask: Any = None, token_type_ids: Any = None) -> Any:
            return super().forward(ids, None, token_type_ids)

    [leak] = viz.dependencies(bert(Blind)).leaks
    assert (leak.kind, leak.module) == ("padding", "layers.0.self_attn (MultiHeadAttention)")


def test_padding_that_a_recurrent_encoder_reads() -> None:
    class Reads(models.Seq2Seq):
        def encode(self, src: tx.Tensor, lengths: tx.Tensor | None = None) -> Any:
            return super().encode(src, tx.full((src.shape[0],), src.shape[1], dtype=tx.int64))

    config = models.Seq2SeqConfig(**V, d_model=16, attention="none", bidirectional=False)
    leaks = viz.dependencies(Reads(config)).leaks
    assert [leak.kind for leak in leaks] == ["padding"]
    assert leaks[0].module == "encoder.rnn (LSTM)"


def test_a_shift_in_the_wrong_direction() -> None:
    class Shifted(models.GPT):
        def embed(self, ids: tx.Tensor, positions: tx.Tensor) -> tuple[tx.Tensor]:
            [x] = super().embed(ids, positions)
            return (tx.cat([x[:, 1:], x[:, :1]], 1),)

    found = viz.dependencies(gpt(Shifted))
    [leak] = found.leaks
    assert (leak.kind, leak.output, leak.position) == ("future", 0, 1)
    np.testing.assert_array_equal(found.matrices["text"][:4], np.tri(4, 5, 1) - [[1, 0, 0, 0, 0]])

    class Mask(models.GPT):  # one place too far, in an attention of its own
        def head(self, x: tx.Tensor) -> tx.Tensor:
            places = tx.arange(x.shape[1])
            mask = places <= places.unsqueeze(1) + 1
            return super().head(F.scaled_dot_product_attention(x, x, x, mask))

    [leak] = viz.dependencies(gpt(Mask)).leaks
    assert (leak.kind, leak.output, leak.position) == ("future", 0, 1)


class Later(models.GPT):
    """Adds the embedding of the next word: targets that are off by one."""

    def embed(self, ids: tx.Tensor, positions: tx.Tensor) -> tuple[tx.Tensor]:
        [x] = super().embed(ids, positions)
        return (x + self.wte(tx.cat([ids[:, 1:], ids[:, :1]], 1)),)


class Numbers(nn.Module):
    """What a user's own model does with the numbers of words beside looking them up."""

    def __init__(self, way: Callable[..., tx.Tensor]) -> None:
        self.a, self.b, self.way = nn.Embedding(9, 4), nn.Embedding(9, 4), way

    def forward(self, ids: tx.Tensor) -> tx.Tensor:
        return self.a(ids) + self.way(self.b, ids)


WAYS: dict[str, Callable[..., tx.Tensor]] = {
    "a second lookup": lambda e, x: e(tx.cat([x[:, 1:], x[:, :1]], 1)),
    "a copy": lambda e, x: e(x.reshape(-1).reshape(x.shape)).sum(1, keepdim=True),
    "a sum of integers": lambda e, x: x.sum(1, keepdim=True)[:, :, None].to(tx.float32),
    "one-hot": lambda e, x: F.one_hot(x, 9).flip(1).to(tx.float32)[:, :, :4],
    "rows": lambda e, x: x.sum(0, keepdim=True)[:, :, None].to(tx.float32),
}


@pytest.mark.parametrize("way", WAYS)
def test_words_that_come_in_by_their_numbers(way: str) -> None:
    """No gradient goes through these."""
    ids = tx.tensor([[1, 2, 3], [4, 5, 6]])
    found = viz.dependencies(Numbers(WAYS[way]), ids, causal=True)
    assert {leak.kind for leak in found.leaks} == ({"rows"} if way == "rows" else {"future"})
    right = Numbers(lambda e, x: e(x).cumsum(1) + x.cumsum(1)[:, :, None].to(tx.float32))
    assert viz.dependencies(right, ids, causal=True).ok


def test_a_second_lookup_in_a_model_of_ours() -> None:
    [leak] = viz.dependencies(gpt(Later)).leaks
    assert (leak.kind, leak.output, leak.position) == ("future", 0, 1)


@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_rows_that_see_each_other(mode: str) -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            self.embed = nn.Embedding(9, 4)
            self.norm = nn.BatchNorm1d(4, track_running_stats=mode == "training")

        def forward(self, ids: tx.Tensor) -> tx.Tensor:
            return self.norm(self.embed(ids).transpose(1, 2)).transpose(1, 2)

    found = viz.dependencies(Mixed(), tx.tensor([[1, 2, 3], [4, 5, 6]]), causal=False)
    assert found.rows.all()
    assert [(leak.kind, leak.module, leak.mode) for leak in found.leaks] == [
        ("rows", "norm (BatchNorm1d)", mode)
    ]
    assert ("(in training mode)" in str(found)) == (mode == "training")
    both = viz.dependencies(Mixed(), tx.tensor([[1, 2, 3], [4, 5, 6]]))
    assert {leak.kind for leak in both.leaks} == {"rows", "future"}


# Models and inputs of a user's -------------------------------------------------------------------


class Words(nn.Module):
    """Looks words up without nn.Embedding, and adds up those up to each."""

    def __init__(self) -> None:
        self.weight = nn.Parameter(tx.randn(9, 4))

    def forward(self, ids: tx.Tensor) -> tx.Tensor:
        return self.weight[ids].cumsum(1)


def test_inputs_of_a_call(tmp_path: Path) -> None:
    ids = tx.tensor([[1, 2, 3, 0], [4, 5, 6, 7]])
    found = viz.dependencies(Words(), ids, pad_id=0, names=["words"])
    assert found.ok and np.array_equal(found.matrices["words"], np.tri(4))
    assert "no output depends on padding of words" in str(found)
    ET.fromstring(found.save(tmp_path / "d.svg").read_text())
    assert found._repr_svg_().startswith("<svg")
    assert repr(found).startswith("Dependencies(Words: ok")

    vectors = tx.randn(2, 5, 4)
    [matrix] = viz.dependencies(nn.Linear(4, 3), vectors).matrices.values()
    np.testing.assert_array_equal(matrix, np.eye(5))
    assert viz.dependencies(nn.Linear(4, 3), tx.randn(2, 4)).matrices["input"].shape == (1, 1)
    rnn = nn.Sequential(nn.Linear(4, 4))
    assert viz.dependencies(rnn, vectors).ok

    own = viz.dependencies(transformer(), tx.tensor([[5, 6, 2, 0]]), tx.tensor([[1, 7, 8]]))
    assert own.ok and not own.on_copy
    assert own.matrices["input 0"].tolist() == [[True, True, True, False]] * 3
    text, mask = tx.tensor([[5, 6, 0]]), tx.tensor([[True, True, False]])
    assert viz.dependencies(bert(), text, mask).ok


def test_errors() -> None:
    class Hot(nn.Module):
        def __init__(self) -> None:
            self.linear = nn.Linear(9, 4)

        def forward(self, ids: tx.Tensor) -> tx.Tensor:
            return self.linear(F.one_hot(ids, 9).float())

    ids = tx.tensor([[1, 2, 3], [4, 5, 6]])
    with pytest.raises(tx.errors.UserError, match="input is not looked up in an embedding"):
        viz.dependencies(Hot(), ids)
    with pytest.raises(tx.errors.UserError, match="give the inputs of a call of this Words"):
        viz.dependencies(Words())
    with pytest.raises(TypeError, match=r"inputs\[0\] must be a Tensor \(B, n, ...\)"):
        viz.dependencies(Words(), tx.tensor([1, 2]))
    with pytest.raises(TypeError, match="is no Module"):
        viz.dependencies(len)  # type: ignore[arg-type]
    with pytest.raises(tx.errors.UserError, match="must give one floating Tensor"):
        viz.dependencies(nn.Sequential(Words(), Total()), ids)


class Total(nn.Module):
    def forward(self, x: tx.Tensor) -> tx.Tensor:
        return x.sum()
