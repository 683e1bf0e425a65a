"""Scores of given translations: sums of what the model says of each token, whatever else is
scored."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx.data import Tokenizer
from tinygrad_tx.decoding import Scorer
from tinygrad_tx.errors import UserError

PAIRS = [
    ("the old dog", "el perro viejo"),
    ("a", ""),
    ("", "nada"),
    ("the dog sees the old cats of the house", "el gato"),
    ("cats", "los gatos viejos de la casa que no ve el perro"),
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([text for pair in PAIRS for text in pair], "char", 60, min_frequency=1)


def model(tokenizer: Tokenizer, **more: object) -> tx.models.Transformer:
    tx.manual_seed(1)
    sizes = {"d_model": 16, "n_heads": 2, "d_ff": 32, "n_encoder_layers": 1, "n_decoder_layers": 1}
    config = tx.models.TransformerConfig(tokenizer.vocab_size, **sizes, **more)  # type: ignore[arg-type]
    return tx.models.Transformer(config).eval()


def test_scores_are_sums_of_log_probabilities(tokenizer: Tokenizer) -> None:
    found_by = model(tokenizer)
    found = Scorer(found_by, tokenizer)(PAIRS)
    for (source, text), score in zip(PAIRS, found, strict=True):
        target = [*tokenizer.encode(text), tokenizer.eos_id]
        with tx.no_grad():
            logits = found_by(
                tx.tensor([tokenizer.encode(source, special=True)]),
                tx.tensor([[tokenizer.bos_id, *target[:-1]]]),
            )
        rows = logits.log_softmax(-1).numpy()[0]
        expected = sum(float(rows[t, token]) for t, token in enumerate(target))
        assert score.n_tokens == len(target)
        np.testing.assert_allclose(score.log_prob, expected, rtol=1e-5)


def test_a_score_does_not_depend_on_the_others(tokenizer: Tokenizer) -> None:
    found_by = model(tokenizer)
    together = Scorer(found_by, tokenizer)(PAIRS * 3)
    assert together == [Scorer(found_by, tokenizer)([pair])[0] for pair in PAIRS] * 3
    assert together == Scorer(found_by, tokenizer, max_tokens=1)(PAIRS * 3)
    assert Scorer(found_by, tokenizer)([]) == []


def test_what_cannot_be_scored(tokenizer: Tokenizer) -> None:
    short = Scorer(model(tokenizer, max_len=8, positions="learned"), tokenizer)
    assert len(short([("a", "b"), ("a cat", "seven..")])) == 2
    with pytest.raises(UserError, match="line 12: its source has 12 tokens, of which"):
        short([("a", "b"), ("the old dog", "a")], first_line=11)
    with pytest.raises(UserError, match="line 1: its translation has 9 tokens, of which"):
        short([("a", "eight...")])
    gpt = tx.models.GPT(tx.models.GPTConfig(20, n_layer=1, n_head=2, n_embd=8, block_size=8))
    with pytest.raises(UserError, match="must be one that translates, not a GPT"):
        Scorer(gpt, tokenizer)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no tokenizer"):
        Scorer(short.model, None)
