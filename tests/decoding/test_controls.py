"""Controls of decoding: repetition penalty, bad words, prefixes, stops, min_p and seeds, against a
search over whole prefixes; and streams of text."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from decoding_case import EOS, Array, Chain, gpt, reference, same, transformer, whole_prefixes

import tinygrad_tx as tx
from tinygrad_tx.decoding import Hypothesis, generate, stream
from tinygrad_tx.errors import UserError

ROWS = [[3, 4, 5], [7], [9, 8, 7, 6, 5, 4, 3], [10, 10], [6, 5, 4, 3]]
MODELS: dict[str, Callable[[], Any]] = {"transformer": transformer, "gpt": gpt}
BAD: list[Any] = [5, [4, 9], [7, 7, 3]]
NEVER = -1e9


def build(kind: str) -> Any:
    tx.manual_seed(2)
    return MODELS[kind]().eval()


def controlled(
    model: Any, row: list[int], penalty: float = 1.0, bad: Any = (), prefix: Any = ()
) -> Callable[[list[list[int]]], Array]:
    """Log-probabilities of what follows prefixes, under control, in NumPy: the penalty acts on
    them as on logits."""
    plain, causal = whole_prefixes(model, row), isinstance(model, tx.models.GPT)

    def of(prefixes: list[list[int]]) -> Array:
        found = plain(prefixes).copy()
        for line, own in zip(found, prefixes, strict=True):
            text = [*row, *own] if causal else [model.config.bos_id, *own]
            seen = list(set(text))
            line[seen] = np.where(line[seen] < 0, line[seen] * penalty, line[seen] / penalty)
            for word in bad:
                *head, last = [word] if isinstance(word, int) else word
                if not head or text[-len(head) :] == head:
                    line[last] = NEVER
            if len(own) < len(prefix):
                line[np.arange(len(line)) != prefix[len(own)]] = NEVER
        return np.where(found == NEVER, NEVER * (1 + np.arange(found.shape[1])), found)  # no ties

    return of


@pytest.mark.one_in(2)
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize(
    "given",
    [
        {"bad_words": BAD, "prefix_tokens": [6]},
        {"bad_words": [8], "prefix_tokens": [[3], [], [4, 4, 4], [9], [10, 3]]},
    ],
    ids=["bad words", "prefixes"],
)
def test_as_over_whole_prefixes(kind: str, beam: int, given: dict[str, Any]) -> None:
    model = build(kind)
    found = generate(model, ROWS, beam_size=beam, max_new_tokens=7, **given)
    for i, (row, own) in enumerate(zip(ROWS, found, strict=True)):
        prefix = given.get("prefix_tokens", ())
        prefix = prefix[i] if prefix and isinstance(prefix[0], list) else prefix
        search = controlled(model, row, bad=given.get("bad_words", ()), prefix=prefix)
        wanted, margin = reference(search, EOS, limit=7, beam=beam)
        assert not margin < 1e-9
        same(own[:1], [h for h in wanted if h.score > NEVER / 2][:1])
        for hypothesis in own:
            assert hypothesis.tokens[: len(prefix)] == list(prefix)


@pytest.mark.parametrize("kind", MODELS)
def test_repetition_penalty(kind: str) -> None:
    """Greedy, step by step, on logits."""
    model = build(kind)
    found = generate(model, ROWS, max_new_tokens=8, repetition_penalty=1.8)
    plain = generate(model, ROWS, max_new_tokens=8)
    assert [h[0].tokens for h in found] != [h[0].tokens for h in plain]
    causal = isinstance(model, tx.models.GPT)
    for row, [hypothesis] in zip(ROWS, found, strict=True):
        tokens: list[int] = []
        while len(tokens) < 8:
            text = [*row, *tokens] if causal else [model.config.bos_id, *tokens]
            given = [tx.tensor([text])] if causal else [tx.tensor([row]), tx.tensor([text])]
            logits = model(*given).detach().numpy()[0, -1].copy()
            seen = list(set(text))
            logits[seen] = np.where(logits[seen] < 0, logits[seen] * 1.8, logits[seen] / 1.8)
            if logits.argmax() == EOS:
                break
            tokens.append(int(logits.argmax()))
        assert hypothesis.tokens == tokens


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("beam", [1, 2])
def test_stops_end_a_row_and_are_left_out(kind: str, beam: int) -> None:
    model = build(kind)
    plain = generate(model, ROWS, max_new_tokens=10, beam_size=1, bad_words=[EOS])
    tokens = [row[0].tokens for row in plain]
    stop = [tokens[0][4], tokens[2][2:4]]
    found = generate(model, ROWS, max_new_tokens=10, beam_size=beam, stop=stop, bad_words=[EOS])
    for row, [best] in zip(tokens, [own[:1] for own in found], strict=True):
        for i in range(len(best.tokens)):
            assert best.tokens[i] != stop[0] and best.tokens[i : i + 2] != stop[1]
        if beam == 1:
            ends = [i for i, token in enumerate(row) if token == stop[0]]
            ends += [i for i in range(len(row)) if row[i : i + 2] == stop[1]]
            assert best.tokens == row[: min(ends, default=10)]


def test_a_stop_that_reaches_back_over_several_tokens() -> None:
    """The chain says 0 1 2 0 1 2 ...; a stop that is no part of it does not end it."""
    chain = Chain(np.roll(np.eye(4) + 1e-9, 1, axis=1))
    chain.config.eos_id = -1
    cases: list[tuple[list[Any], list[int]]] = [
        ([[2, 3, 0]], [1]), ([[3, 1]], [1, 2, 3, 0, 1, 2, 3, 0]), ([[0], [2, 3]], [1]), ([1], [])
    ]  # fmt: skip
    for stop, wanted in cases:
        [[found]] = generate(chain, [[0]], max_new_tokens=8, stop=stop)
        assert found.tokens == wanted
        [[drawn]] = generate(chain, [[0]], max_new_tokens=8, stop=stop, do_sample=True)
        assert drawn.tokens == wanted


def test_min_p_leaves_what_is_probable_enough() -> None:
    probs = np.array([0.5, 0.24, 0.16, 0.06, 0.04])
    chain = Chain(np.tile(probs, (5, 1)))
    chain.config.eos_id = -1
    for min_p, allowed in ((0.5, {0}), (0.4, {0, 1}), (0.1, {0, 1, 2, 3}), (0.0, set(range(5)))):
        [[found]] = generate(chain, [[0]], max_new_tokens=400, do_sample=True, min_p=min_p, seed=3)
        assert set(found.tokens) == allowed
        share = np.bincount(found.tokens, minlength=5) / 400
        kept = np.where([i in allowed for i in range(5)], probs, 0)
        np.testing.assert_allclose(share, kept / kept.sum(), atol=0.08)


def test_seeds() -> None:
    """The same again whatever was drawn before, and others for others; rows differ."""
    model = build("gpt")

    def drawn(seed: int | None) -> list[list[int]]:
        found = generate(
            model, [[3, 4], [3, 4]], do_sample=True, num_return_sequences=3, max_new_tokens=6,
            seed=seed, bad_words=[EOS],
        )  # fmt: skip
        return [h.tokens for row in found for h in row]

    first = drawn(5)
    drawn(None)
    tx.manual_seed(9)
    assert drawn(5) == first != drawn(6)
    assert len({tuple(tokens) for tokens in first}) == 6
    tx.manual_seed(9)
    after = drawn(None)
    tx.manual_seed(9)
    drawn(5)  # takes nothing from the numbers of manual_seed
    assert drawn(None) == after


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"repetition_penalty": 0}, UserError, "repetition_penalty = 0 must be above 0"),
        ({"min_p": 1.5}, UserError, "min_p = 1.5 must be from 0 to 1"),
        ({"bad_words": [11]}, UserError, "bad_words: 11 is no token: they are from 0 to 10"),
        ({"bad_words": "no"}, TypeError, "bad_words must be a list of tokens"),
        ({"bad_words": [[]]}, UserError, "bad_words: a sequence without tokens"),
        ({"stop": [[1.5]]}, TypeError, "stop must be tokens, which are ints, not 1.5"),
        ({"prefix_tokens": [[1]]}, UserError, "prefix_tokens has 1 lists for 5 rows"),
        ({"seed": -1}, UserError, r"seed = -1 must be from 0 to"),
        ({"seed": 1.5}, TypeError, "seed must be an int"),
        ({"bad_words": list(range(11))}, UserError, "row 0: the model gives every continuation"),
    ],
)
def test_bad_settings_get_one_line(settings: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        generate(build("gpt"), ROWS, max_new_tokens=3, **settings)
    assert "\n" not in str(caught.value)


def test_prefixes_of_any_kind() -> None:
    model = build("gpt")
    for given in ([6, 3], np.array([6, 3]), tx.tensor([6, 3]), (6, 3)):
        [[found]] = generate(model, [[3]], max_new_tokens=5, prefix_tokens=given)
        assert found.tokens[:2] == [6, 3]
    both = generate(model, [[3], [4]], max_new_tokens=5, prefix_tokens=np.array([[6, 3], [4, 5]]))
    assert [row[0].tokens[:2] for row in both] == [[6, 3], [4, 5]]
    with pytest.raises(TypeError, match="prefix_tokens must be a list of tokens, not 5"):
        generate(model, [[3]], max_new_tokens=5, prefix_tokens=5)  # type: ignore[arg-type]


def test_a_stop_ends_a_row_whatever_it_must_have() -> None:
    """min_new_tokens is of the end token; greedy search and drawing agree, in scores as well."""
    model = build("gpt")
    [[plain]] = generate(model, [[3, 4]], max_new_tokens=9, bad_words=[EOS])
    settings = {"min_new_tokens": 6, "length_penalty": 0.7, "stop": [plain.tokens[2:4]]}
    [[greedy]] = generate(model, [[3, 4]], max_new_tokens=9, bad_words=[EOS], **settings)
    [[drawn]] = generate(
        model, [[3, 4]], max_new_tokens=9, bad_words=[EOS], do_sample=True, top_k=1, **settings
    )
    assert len(greedy.tokens) <= 2
    same([drawn], [greedy])


# Streams -----------------------------------------------------------------------------------------


class Bytes:
    """A tokenizer of UTF-8 bytes, whose ids begin at 3."""

    def encode(self, text: str) -> list[int]:
        return [byte + 3 for byte in text.encode()]

    def decode(self, ids: list[int]) -> str:
        return bytes(i - 3 for i in ids if i >= 3).decode(errors="replace")


def speaker(text: str) -> Chain:
    """A model that says a text of which no byte follows two others."""
    ids = [*Bytes().encode(text), 2]
    table = np.full((259, 259), 1e-9)
    for a, b in pairwise(ids):
        table[a, b] = 1
    chain = Chain(table)
    chain.config.eos_id, chain.config.n_positions = 2, 10_000
    chain.padding_side = "left"
    return chain


def test_a_stream_gives_whole_characters() -> None:
    text = "aé東z😀!"
    [first, *rest] = text
    pieces = list(stream(speaker(text), Bytes(), first, max_new_tokens=40))
    assert pieces == rest
    for n in range(1, 12):
        found = "".join(stream(speaker(text), Bytes(), first, max_new_tokens=n))
        assert found.rstrip("\ufffd") == text[1:][: len(found.rstrip("\ufffd"))]


@pytest.mark.parametrize(
    ("stop", "wanted"),
    [(["z"], "é東"), (["東z😀"], "é"), (["no", "z!"], "é東z😀!"), (["é"], ""), ([], "é東z😀!")],
)
def test_a_stop_of_a_stream_is_not_shown(stop: list[str], wanted: str) -> None:
    pieces = list(stream(speaker("aé東z😀!"), Bytes(), "a", max_new_tokens=40, stop=stop))
    assert "".join(pieces) == wanted and all(pieces)


@pytest.mark.parametrize("sample", [False, True])
def test_a_stream_is_what_generate_finds(sample: bool) -> None:
    tx.manual_seed(4)
    model = gpt(vocab_size=259, block_size=40).eval()
    settings = {"do_sample": sample, "seed": 7, "bad_words": [0, 1, 2]}
    [[wanted]] = generate(model, [Bytes().encode("ab")], max_new_tokens=20, **settings)
    pieces = list(stream(model, Bytes(), "ab", max_new_tokens=20, **settings))
    assert "".join(pieces) == Bytes().decode(wanted.tokens) and len(pieces) > 1


def test_a_stream_goes_on_beyond_the_positions() -> None:
    tx.manual_seed(4)
    model = gpt(vocab_size=259, block_size=16, pad_id=0).eval()
    settings = {"bad_words": [0, 1, 2, *range(131, 259)]}
    text = "".join(stream(model, Bytes(), "ab", max_new_tokens=50, **settings))
    assert len(text) == 50
    [[first]] = generate(model, [Bytes().encode("ab")], max_new_tokens=15, **settings)
    assert text[:15] == Bytes().decode(first.tokens)
    known = Bytes().encode(text[7:15])  # the last half of what it could see
    [[second]] = generate(model, [known], max_new_tokens=9, **settings)
    assert text[15:24] == Bytes().decode(second.tokens)


def test_a_stream_leaves_modes_alone_between_pieces() -> None:
    tx.manual_seed(4)
    model = gpt(vocab_size=259, block_size=40).train()
    for _ in stream(model, Bytes(), "ab", max_new_tokens=4):
        assert model.training and tx.is_grad_enabled()
    with pytest.raises(UserError, match="beam_size must be 1"):
        stream(model, Bytes(), "ab", beam_size=2)
    with pytest.raises(UserError, match="an empty prompt"):
        stream(model, Bytes(), "")
    with pytest.raises(UserError, match="every continuation allowed probability 0"):
        list(stream(model, Bytes(), "a", bad_words=list(range(259))))


def test_a_prefix_of_a_stream_may_be_longer_than_the_positions() -> None:
    tx.manual_seed(4)
    model = gpt(vocab_size=259, block_size=12, pad_id=0).eval()
    wanted = "so many letters are said first"
    prefix = Bytes().encode(wanted)
    for given in (prefix, [prefix]):
        text = "".join(stream(model, Bytes(), "ab", max_new_tokens=34, prefix_tokens=given))
        assert text.startswith(wanted)


def test_n_best_of_each_prompt() -> None:
    """Distinct, best first, and finished rows leave the batch unseen."""
    model = build("gpt")
    found = generate(model, ROWS, beam_size=4, num_return_sequences=4, max_new_tokens=8)
    for row, own in zip(ROWS, found, strict=True):
        assert len({tuple(h.tokens) for h in own}) == len(own) == 4
        assert [h.score for h in own] == sorted((h.score for h in own), reverse=True)
        alone = generate(model, [row], beam_size=4, num_return_sequences=4, max_new_tokens=8)[0]
        same(own, alone)
    assert isinstance(found[0][0], Hypothesis)
