"""data/text.py and data/windows.py: chunks give the tokens of the whole, windows cover the text."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_tx.data import Tokenizer, text
from tinygrad_tx.data.text import Text, chunks
from tinygrad_tx.data.windows import IGNORED, MaskedWindows, Windows
from tinygrad_tx.errors import UserError
from tinygrad_tx.vocabulary import Kind

KINDS: tuple[Kind, ...] = ("bpe", "word", "char")
SAID = "The dog  sleeps.\nA cat,\tnot a dog,\n\n sleeps too. "


def tokenizer(kind: Kind = "bpe") -> Tokenizer:
    return Tokenizer.train([SAID], kind, 300, min_frequency=1)


def numbers(n: int) -> Text:
    """A text of the ids 0 to n - 1."""
    ids = np.arange(n, dtype=np.int32)
    return Text(text.Ragged(ids, np.array([0, n])), n)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, deadline=None)
@given(said=st.text(st.sampled_from("ab \n.\t"), min_size=1, max_size=60), size=st.integers(1, 9))
def test_chunks_change_no_token(kind: Kind, said: str, size: int) -> None:
    own = tokenizer(kind)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "_CHARACTERS", 8)
        patch.setattr(text, "_LONGEST", 10_000)
        parts = [said[i : i + size] for i in range(0, len(said), size)]
        found = list(chunks(parts, own.words()))
        assert "".join(chunk.text for chunk in found) == said
        ids = Text.from_documents([parts], own).ids
    np.testing.assert_array_equal(ids, own.encode(said))


def test_documents_end_with_their_token(tmp_path: object) -> None:
    own = tokenizer()
    found = Text.from_documents([["a dog"], ["a ", "cat"]], own, own.eos_id)
    wanted = [*own.encode("a dog"), own.eos_id, *own.encode("a cat"), own.eos_id]
    assert found.ids.tolist() == wanted and found.n_bytes == 10
    assert found.documents[1].tolist() == [*own.encode("a cat"), own.eos_id]
    assert "2 documents" in found.summary()


def test_kept_on_disk() -> None:
    own = tokenizer()
    found = Text.from_documents([[SAID]], own, on_disk=True)
    found.keep("0" * 64)
    again = Text.kept("0" * 64)
    assert again is not None and again.fingerprint == found.fingerprint
    assert again.n_bytes == len(SAID.encode())
    np.testing.assert_array_equal(again.ids, found.ids)


@pytest.mark.parametrize(("n", "length", "rows"), [(100, 7, 3), (9, 8, 4), (64, 8, 2), (8, 7, 1)])
def test_windows_are_runs_of_the_text(n: int, length: int, rows: int) -> None:
    windows = Windows(numbers(n), length, rows, seed=3)
    for batch in islice(windows, 3 * windows.batches_per_epoch):
        assert batch.ids.shape == batch.targets.shape == (windows.rows, length)
        np.testing.assert_array_equal(batch.ids + 1, batch.targets)
        np.testing.assert_array_equal(batch.ids[:, 1:], batch.targets[:, :-1])
        assert batch.n_tokens == batch.ids.size


def test_an_epoch_repeats_no_token_and_every_one_begins_elsewhere() -> None:
    windows = Windows(numbers(1000), 10, 4, seed=1)
    firsts = set()
    for _ in range(4):
        batches = [next(windows).ids for _ in range(windows.batches_per_epoch)]
        seen = np.concatenate(batches).ravel()
        assert len(set(seen.tolist())) == len(seen) > 900
        firsts.add(int(seen.min()) % 10)
    assert len(firsts) > 1


def test_going_on_anywhere() -> None:
    one = Windows(numbers(300), 8, 3, seed=2)
    for _ in range(one.batches_per_epoch + 5):
        next(one)
    other = Windows(numbers(300), 8, 3, seed=2)
    other.restore(one.state())
    np.testing.assert_array_equal(next(one).ids, next(other).ids)


@pytest.mark.parametrize("n", [2, 7, 8, 9, 30])
def test_once_asks_for_every_token_but_the_first(n: int) -> None:
    windows = Windows(numbers(n), 7, 3, only_once=True)
    asked = np.concatenate([batch.targets for batch in windows.once()]).ravel()
    assert asked[asked != IGNORED].tolist() == list(range(1, n))
    assert {batch.ids.shape for batch in windows.once()} == {(windows.rows, 7)}


def test_too_short() -> None:
    with pytest.raises(UserError, match="7 tokens, which is too short for one window of 7"):
        Windows(numbers(7), 7, 2)


@pytest.mark.parametrize("frame", [(), (1, 2)])
def test_masked_words(frame: tuple[int, ...]) -> None:
    own = numbers(4000)
    windows = MaskedWindows(own, 32, 8, 5, mask_id=9000, vocab_size=4000, frame=frame)
    batches = [next(windows) for _ in range(windows.batches_per_epoch)]
    ids, targets = (np.concatenate([getattr(b, n) for b in batches]) for n in ("ids", "targets"))
    if frame:
        assert (ids[:, 0] == 1).all() and (ids[:, -1] == 2).all()
        assert (targets[:, [0, -1]] == IGNORED).all()
        ids, targets = ids[:, 1:-1], targets[:, 1:-1]
    asked = targets != IGNORED
    assert asked.any(1).all() and 0.1 < asked.mean() < 0.2
    masked, kept = (ids == 9000)[asked].mean(), (ids == targets)[asked].mean()
    assert 0.7 < masked < 0.9 and 0.05 < kept < 0.15
    whole = np.where(asked, targets, ids)
    np.testing.assert_array_equal(np.diff(whole, axis=1), 1)  # what is not asked for is the text
    assert sum(b.n_tokens for b in batches) == asked.sum()
    again = MaskedWindows(own, 32, 8, 5, mask_id=9000, vocab_size=4000, frame=frame)
    np.testing.assert_array_equal(next(again).ids, batches[0].ids)
    one, other = next(windows.once()), next(windows.once())
    np.testing.assert_array_equal(one.targets, other.targets)
