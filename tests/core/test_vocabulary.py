"""vocabulary.py, and Tokenizer.encode_flat: what is counted by words equals what the library makes
of whole texts; bounded, whatever the texts are."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_tx import vocabulary
from tinygrad_tx.data import Tokenizer
from tinygrad_tx.data.builtin import grammar
from tinygrad_tx.vocabulary import SPECIALS, Kind

KINDS: tuple[Kind, ...] = ("bpe", "word", "char")
TEXTS = [side for pair in grammar.pairs("train", 300) for side in pair]
ODD = [
    *("", " ", "  two  spaces ", "x ", " x", "tab\tline\nfeed\r\n", "a\u2028b\x85c\x00d\u00a0e"),
    *(
        "e\u0301 ñ 日本語の文。次の文。 🙂👩‍👩‍👧 ﷽",
        "¿Qué? ¡Ya! «so» (12.5 %), don't",
        "İSTANBUL ΣΑΣ ǅ ß",
    ),
    *("<pad> </s> <s> <unk>", "x" * 3000, "1234567890" * 50, "Ġ ▁ ␣", "ein  Mann ,  ein Hund ."),
]


def of_the_library(kind: Kind, texts: list[str], size: int, lowercase: bool, least: int) -> object:
    """The model that the library learns of whole texts, by itself."""
    core = vocabulary.pipeline(kind, lowercase)
    from tokenizers import pre_tokenizers, trainers

    common = {
        "vocab_size": size,
        "min_frequency": least,
        "special_tokens": list(SPECIALS),
        "show_progress": False,
    }
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = (
        trainers.BpeTrainer(initial_alphabet=alphabet, **common)
        if kind == "bpe"
        else trainers.WordLevelTrainer(**common)
    )
    core.train_from_iterator(texts, trainer=trainer)
    return json.loads(core.to_str())["model"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize("least", [1, 2, 9])
def test_learnt_is_what_the_library_learns(kind: Kind, lowercase: bool, least: int) -> None:
    texts = TEXTS + ODD * 3
    ours = json.loads(Tokenizer.train(texts, kind, 700, lowercase, least).dumps())["model"]
    assert ours == of_the_library(kind, texts, 700, lowercase, least)


def test_words_are_cut_when_they_become_many(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Tokenizer.train(TEXTS + ODD, "bpe", 500).dumps()
    monkeypatch.setattr(vocabulary, "_CHUNK", 100)
    for name, value in (("_MAX_WORDS", 7), ("_MAX_WORD_CHARACTERS", 50)):
        with monkeypatch.context() as patch:
            patch.setattr(vocabulary, name, value)
            assert Tokenizer.train(TEXTS + ODD, "bpe", 500).dumps() == whole


def test_the_rarest_pieces_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "MAX_PIECES", 100)
    monkeypatch.setattr(vocabulary, "_MAX_WORDS", 150)
    monkeypatch.setattr(vocabulary, "_CHUNK", 100)
    rare = ["".join(random.Random(i).choices("abcdefgh", k=9)) for i in range(1000)]
    counts = vocabulary.PieceCounts(vocabulary.pipeline("word", False), vocabulary.Words(True))
    for word in rare:
        counts.add([word, "common common"])
        assert len(counts.pieces) <= 100
    counts.finish()
    assert counts.pieces[" common"] == 2000
    assert Tokenizer.train(rare + ["common"] * 9, "word", 6).encode("common") == [4]


def test_a_vocabulary_of_many_words_is_learnt_of_the_most_frequent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vocabulary, "LEARNT", 30)
    texts = ["frequent frequent frequent", "another another"] + [f"w{i}" * 3 for i in range(99)]
    tokenizer = Tokenizer.train(texts, vocab_size=1000, min_frequency=1)
    assert len(tokenizer.encode("frequent another")) == 2
    assert len(tokenizer.encode("w50w50w50")) > 3


@pytest.fixture(scope="module")
def trained() -> dict[tuple[Kind, bool], Tokenizer]:
    return {
        (kind, lower): Tokenizer.train(TEXTS + ODD, kind, 600, lower, 1)
        for kind in KINDS
        for lower in (False, True)
    }


def rows(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    ids, lengths = tokenizer.encode_flat(texts)
    assert ids.dtype == np.int32 and len(lengths) == len(texts) and lengths.sum() == len(ids)
    return [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])] if texts else []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lower", [False, True])
def test_encoded_by_words_and_whole(
    trained: dict[tuple[Kind, bool], Tokenizer], kind: Kind, lower: bool
) -> None:
    tokenizer = trained[kind, lower]
    for texts in (ODD, TEXTS, ODD + TEXTS, [""], ["", ""], [" "], ["", "a"], ["a", ""], []):
        expected = [tokenizer.encode(text) for text in texts]
        assert rows(tokenizer, texts) == expected
        assert rows(tokenizer, texts) == expected, "seen words"
        assert tokenizer.encode_batch(texts) == expected


@settings(max_examples=150, deadline=None)
@given(
    texts=st.lists(st.text(st.sampled_from("abñΣİ日\u0301 1,\t\n\u2028\u00a0<")), max_size=5),
    kind=st.sampled_from(KINDS),
    lower=st.booleans(),
)
def test_any_text(
    trained: dict[tuple[Kind, bool], Tokenizer], texts: list[str], kind: Kind, lower: bool
) -> None:
    tokenizer = trained[kind, lower]
    assert rows(tokenizer, texts) == [tokenizer.encode(text) for text in texts]


def test_seen_words_are_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from tinygrad_tx import tokenizer as module

    monkeypatch.setattr(module, "_MAX_WORDS", 20)
    tokenizer = Tokenizer.train(TEXTS, vocab_size=400)
    for text in TEXTS:
        assert rows(tokenizer, [text]) == [tokenizer.encode(text)]
        assert len(tokenizer._words or ()) < 60


def test_a_tokenizer_that_cuts_otherwise() -> None:
    """Words cannot be encoded one by one where pieces may span a space."""
    core = vocabulary.pipeline("bpe", False)
    from tokenizers import pre_tokenizers, trainers

    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=list(SPECIALS), show_progress=False
    )
    core.train_from_iterator(["a b a b a b a b"] * 9, trainer=trainer)
    other = Tokenizer(core)
    assert len(other.encode("a b a b a b a b")) == 1
    texts = ["a b a b", "", "b  a"]
    assert rows(other, texts) == [other.encode(text) for text in texts]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("asked", [None, "true", "false"])
def test_the_environment_decides_about_threads(asked: str | None) -> None:
    """All cores for much text, one for little; the user's word counts; a child works alone."""
    code = (
        "import os\n"
        "from tinygrad_tx import vocabulary as v\n"
        "v.package()\n"
        "e = lambda: os.environ['TOKENIZERS_PARALLELISM']\n"
        "with v.parallel(9): small = e()\n"
        "with v.parallel(99999):\n"
        "    large = e()\n"
        "    if os.fork() == 0: os._exit(0 if e() == 'false' else 7)\n"
        "    child = os.waitstatus_to_exitcode(os.wait()[1])\n"
        "print(small, large, child, e())\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TOKENIZERS_PARALLELISM"}
    if asked:
        environment["TOKENIZERS_PARALLELISM"] = asked
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    expected = {
        None: "false true 0 false",
        "true": "true true 7 true",
        "false": "false false 0 false",
    }
    assert done.stdout.strip() == expected[asked], done.stderr


def test_interrupted_while_it_learns() -> None:
    """A signal is heeded although the library works in native code."""
    code = (
        "from tinygrad_tx.data import Tokenizer\n"
        "import random, signal\n"
        # Ignored where the tests run in the background of a script.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "print('go', flush=True)\n"
        "r = random.Random(0)\n"
        "words = [''.join(r.choices('abcdefghij', k=9)) for _ in range(400)]\n"
        "Tokenizer.train((' '.join(r.choices(words, k=500)) for _ in range(10 ** 9)))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == "go\n"
        time.sleep(0.5)
        child.send_signal(signal.SIGINT)
        try:
            assert "KeyboardInterrupt" in child.communicate(timeout=60)[1]
        finally:
            child.kill()
    assert child.returncode != 0


def test_what_the_library_raises_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    class Waited(Exception):  # noqa: N818 - no error
        pass

    def counted(n: int) -> None:
        raise Waited

    with pytest.raises(Waited):
        Tokenizer.train(TEXTS, counted=counted)
    monkeypatch.setattr(vocabulary, "_RUN", 0)  # range() refuses this step in the library's thread
    with pytest.raises(ValueError, match="zero"):
        Tokenizer.train(TEXTS)
