"""Decoding with a Transformer that has learned to reverse words, and lines of text translated."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from decoding_case import BOS, EOS, padded, reference, same, whole_prefixes

import tinygrad_tx as tx
from tinygrad_tx.data import Tokenizer
from tinygrad_tx.decoding import Translation, Translator, generate, translate
from tinygrad_tx.errors import UserError

LETTERS = "abcdef"


class Trained(NamedTuple):
    model: tx.models.Transformer
    tokenizer: Tokenizer


def words(rng: np.random.Generator, count: int, longest: int = 5) -> list[str]:
    return ["".join(rng.choice(list(LETTERS), rng.integers(1, longest + 1))) for _ in range(count)]


@pytest.fixture(scope="module")
def trained() -> Trained:
    """A Transformer that reverses words, after some seconds."""
    tx.manual_seed(0)
    rng = np.random.default_rng(0)
    tokenizer = Tokenizer.train([LETTERS] * 3, kind="char", vocab_size=20)
    config = tx.models.TransformerConfig(
        tokenizer.vocab_size,
        d_model=32,
        n_heads=4,
        d_ff=64,
        n_encoder_layers=1,
        n_decoder_layers=1,
        dropout=0.0,
        norm="pre",
    )
    model = tx.models.Transformer(config)
    optimizer = tx.optim.Adam(model.parameters(), lr=1e-2, betas=(0.9, 0.98))

    @tx.compile
    def step(src: tx.Tensor, tgt_in: tx.Tensor, tgt_out: tx.Tensor) -> tx.Tensor:
        loss = model.loss(src, tgt_in, tgt_out)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    for i in range(150):
        if i == 75:
            optimizer.param_groups[0]["lr"] = 3e-3
        batch = words(rng, 64)
        sources = [[*ids, EOS] for ids in tokenizer.encode_batch(batch)]
        targets = [ids[-2::-1] for ids in sources]
        step(
            tx.tensor(padded(sources, 6)),
            tx.tensor(padded([[BOS, *ids] for ids in targets], 6)),
            tx.tensor(padded([[*ids, EOS] for ids in targets], 6)),
        )
    return Trained(model, tokenizer)


def test_a_trained_model_gives_the_same_whatever_batch_padding_or_cache(trained: Trained) -> None:
    lines = words(np.random.default_rng(1), 24)
    sources = [[*ids, EOS] for ids in trained.tokenizer.encode_batch(lines)]
    right = 0
    for beam, alpha in ((1, 0.0), (4, 0.6)):
        settings: dict[str, Any] = {"beam_size": beam, "length_penalty": alpha}
        settings["max_new_tokens"] = [len(source) + 6 for source in sources]
        together = generate(trained.model, sources, **settings)
        wide = generate(trained.model, padded(sources, 20), **settings)
        for i, (line, source) in enumerate(zip(lines, sources, strict=True)):
            limit = len(source) + 6
            (alone,) = generate(
                trained.model,
                [source],
                beam_size=beam,
                length_penalty=alpha,
                max_new_tokens=limit,
            )
            assert together[i][0].tokens == wide[i][0].tokens == alone[0].tokens
            if i % 4 == 0:
                slow, _ = reference(
                    whole_prefixes(trained.model, source),
                    EOS,
                    limit=limit,
                    beam=beam,
                    alpha=alpha,
                )
                same(alone, slow[:1], 1e-4)
            right += trained.tokenizer.decode(alone[0].tokens) == line[::-1]
    assert right >= 34, f"{right} of 48: it has not learned to reverse, so this shows little"


def test_lines_are_translated_in_their_order(trained: Trained) -> None:
    lines = ["abc", "", "fedcb", "   ", *words(np.random.default_rng(2), 20), "a"]
    told: list[int] = []
    translator = Translator(*trained, batch_size=3)
    found = translator.n_best(lines, progress=told.append)
    assert sum(told) == len(lines) and len(told) > 6
    assert [best[0].text for best in found] == translate(*trained, lines)
    assert [len(best) for best in found] == [1] * len(lines)
    assert found[1] == found[3] == [Translation("", 0.0)]
    right = sum(best[0].text == line[::-1] for line, best in zip(lines, found, strict=True))
    assert right >= 0.7 * len(lines)
    small = translate(*trained, lines, beam_size=4, batch_size=1)
    assert small == [best[0].text for best in found]


def test_a_stream_is_read_and_answered_in_chunks(trained: Trained) -> None:
    taken = 0

    def lines() -> Any:
        nonlocal taken
        for line in ("ab", "cd", "", "ef", "fa"):
            taken += 1
            yield line

    translator = Translator(*trained, beam_size=2, num_return_sequences=2)
    found = translator.stream(lines(), chunk_size=2)
    assert len(next(found)) == 2 and taken == 2
    assert [best[0].text for best in found] == translate(
        *trained, ["cd", "", "ef", "fa"], beam_size=2
    )
    assert list(translator.stream([])) == []


def test_a_translation_is_one_line_and_a_source_has_a_limit(trained: Trained) -> None:
    class Breaking:
        """A tokenizer whose every token is another way to end a line."""

        eos_id = EOS

        def encode_batch(self, texts: list[str], *, special: bool) -> list[list[int]]:
            return trained.tokenizer.encode_batch(texts, special=special)

        def decode(self, ids: list[int]) -> str:
            return "x\r\ny\u2028z\x0b\x85" * len(ids)

    found = translate(trained.model, Breaking(), ["ab", "cd"])  # type: ignore[arg-type]
    assert all(len(text.splitlines()) == 1 and "\n" not in text for text in found)
    translator = Translator(*trained)
    with pytest.raises(UserError, match="line 3 has 1025 tokens, of which the model takes 1024"):
        list(translator.stream(["ab", "cd", "a" * 1024, "ef"], chunk_size=2))


def test_output_is_at_most_the_source_and_so_many_tokens(trained: Trained) -> None:
    with tx.no_grad():
        kept = trained.model.embedding.weight.clone()
        trained.model.embedding.weight[EOS] = 0.0  # the end token is never the best
        trained.model.embedding.weight[4] = trained.model.embedding.weight[4] * 30
    try:
        (text,) = translate(*trained, ["abc"], beam_size=1, max_extra_tokens=5)
    finally:
        with tx.no_grad():
            trained.model.embedding.weight.assign(kept)
    assert len(text) == 4 + 5
