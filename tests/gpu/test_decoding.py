"""Decoding on device "cuda": greedy and beam search, sampling, controls, streams, translation and
embedding give the CPU's tokens and scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from decoding_case import gpt, transformer
from device_case import DEVICES, same_on_both
from device_models import MODELS

import tinygrad_tx as tx
from tinygrad_tx import backends
from tinygrad_tx.data import Tokenizer
from tinygrad_tx.decoding import Embedder, Score, Scorer, Translator, generate, stream, translate

pytestmark = pytest.mark.gpu
ROWS = [[3, 4, 5], [6], [7, 8, 9, 10, 3]]
OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beam": {"beam_size": 3, "length_penalty": 0.6, "num_return_sequences": 2},
    "limits": {"beam_size": 2, "max_new_tokens": [2, 7, 4], "min_new_tokens": 2},
    "top_k": {"do_sample": True, "top_k": 5, "num_return_sequences": 2},
    "top_p": {"do_sample": True, "top_p": 0.8, "temperature": 0.7, "seed": 5},
    "min_p": {"do_sample": True, "min_p": 0.1},
    "penalty": {"repetition_penalty": 1.4, "bad_words": [[5], [6, 7], 8]},
    "prefix and stop": {"prefix_tokens": [[3, 4], [], [5]], "stop": [9, [4, 4]], "beam_size": 2},
}


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    backends.get("cuda")  # conftest.py has chosen what must work, or skipped


@pytest.mark.one_in(4)
@pytest.mark.parametrize("build", [transformer, gpt], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", OPTIONS)
def test_generate(name: str, build: Any) -> None:
    """In float64, where nothing is decided by a rounding."""

    def run(device: str) -> list[Any]:
        model = build().to(device)
        tx.manual_seed(4)
        found = generate(model, ROWS, **{"max_new_tokens": 7, **OPTIONS[name]})
        return [(h.tokens, h.score) for row in found for h in row]

    same_on_both(run)


def tokenizer() -> Tokenizer:
    """Of letters; as many tokens as the models of device_models.py have, or fewer."""
    return Tokenizer.train(["abcdef abcdef"] * 3, kind="char", vocab_size=19)


def test_a_stream() -> None:
    """Longer than the model has positions."""

    def run(device: str) -> list[Any]:
        model = MODELS["GPT"].make().to(tx.float64).to(device)
        greedy = [*stream(model, tokenizer(), "abc", max_new_tokens=30)]
        drawn = [*stream(model, tokenizer(), "fed", max_new_tokens=9, do_sample=True, seed=1)]
        return [greedy, drawn]

    same_on_both(run)


def test_lines_are_translated() -> None:
    def run(device: str) -> list[Any]:
        model = MODELS["Transformer"].make().to(tx.float64).to(device)
        lines = ["abc", "", "fedcba abc", "a"]
        scored = Translator(model, tokenizer(), max_extra_tokens=4, num_return_sequences=2)
        best = translate(model, tokenizer(), lines, max_extra_tokens=4)
        return [[(t.text, t.score) for t in row] for row in scored.n_best(lines)] + [best]

    same_on_both(run)


def test_translations_are_scored() -> None:
    """By a model on the GPU, whatever the default device is."""
    found: list[list[Score]] = []
    for device in DEVICES:
        tx.manual_seed(3)
        model = MODELS["Transformer"].make().to(device)
        found.append(Scorer(model, tokenizer())([("abc", "fed"), ("", "a"), ("f", "")]))
    assert found[1] == [Score(pytest.approx(p, rel=1e-5), n) for p, n in found[0]]  # type: ignore[arg-type]


def test_lines_are_embedded() -> None:
    """By a model on the GPU, whatever the default device is."""
    found = []
    for device in DEVICES:
        tx.manual_seed(3)
        model = MODELS["BERT"].make().to(device)
        found.append(Embedder(model, tokenizer())(["abc", "", "fed cba", "a" * 40]))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5, atol=1e-6)
