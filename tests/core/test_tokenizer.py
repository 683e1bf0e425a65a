"""tokenizer.py: round trips, special tokens, files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_tx.data import Tokenizer
from tinygrad_tx.data.builtin import grammar
from tinygrad_tx.errors import UserError
from tinygrad_tx.tokenizer import SPECIALS, Kind

KINDS: tuple[Kind, ...] = ("bpe", "word", "char")
TEXTS = [side for pair in grammar.pairs("train", 1500) for side in pair]


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Tokenizer]:
    return {kind: Tokenizer.train(TEXTS, kind=kind, vocab_size=1000) for kind in KINDS}


HARD = [
    "",
    " ",
    "  two  spaces ",
    "tab\tline\nfeed\r\n",
    "▁ Ġ ␣ · ⁇",
    "a\u2028b\x85c\x00d",
    "e\u0301 ñ 日本語 🙂👩‍👩‍👧 ﷽",
    "¿Qué? ¡Ya! «so» (12.5 %), don't; the boy's",
    "<pad> </s> <s> <unk> <0x41>",
    "x" * 5000,
    "1234567890" * 50,
]


@pytest.mark.parametrize("text", HARD)
def test_bpe_gives_every_text_back(tokenizers: dict[str, Tokenizer], text: str) -> None:
    tokenizer = tokenizers["bpe"]
    assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_bpe_gives_any_text_back(text: str) -> None:
    ids = BYTES.encode(text)
    assert BYTES.decode(ids) == text
    assert min(ids, default=4) > 3


BYTES = Tokenizer.train([], vocab_size=260)


@pytest.mark.parametrize("kind", KINDS)
def test_known_text_comes_back(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    tokenizer = tokenizers[kind]
    ids = tokenizer.encode_batch(TEXTS)
    assert ids == [tokenizer.encode(text) for text in TEXTS]
    known = [(row, text) for row, text in zip(ids, TEXTS, strict=True) if 3 not in row]
    assert len(known) > (0.5 if kind == "word" else 0.99) * len(TEXTS)
    for row, text in known:
        assert tokenizer.decode(row) == text


@pytest.mark.parametrize("kind", KINDS)
def test_ids_and_sizes(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    tokenizer = tokenizers[kind]
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id) == (0, 1, 2, 3)
    used = {token for row in tokenizer.encode_batch(TEXTS) for token in row}
    assert max(used) < tokenizer.vocab_size <= 1000
    assert not used & {0, 1, 2}
    if kind != "char":
        assert tokenizer.vocab_size == 1000


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("special", SPECIALS)
def test_text_never_becomes_special(kind: Kind, special: str) -> None:
    """Not even where the special tokens' names are the most frequent words there are."""
    text = f"{special} a{special}b {special}{special}"
    tokenizer = Tokenizer.train([text] * 50, kind=kind, vocab_size=400, min_frequency=1)
    ids = tokenizer.encode(text)
    assert min(ids) > 3
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("kind", KINDS)
def test_decode_leaves_specials_out(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    tokenizer = tokenizers[kind]
    ids = tokenizer.encode("The boy sees the girl.")
    assert tokenizer.decode([1, *ids, 2, 0, 0]) == "The boy sees the girl."
    assert tokenizer.decode([1, 2, 0]) == ""


def test_unknown(tokenizers: dict[str, Tokenizer]) -> None:
    word = tokenizers["word"]
    ids = word.encode("The boy sees the zyzzyva.")
    assert ids.count(3) == 1
    assert word.decode(ids) == "The boy sees the ⁇."
    assert word.decode([3]) == "⁇"
    char = tokenizers["char"]
    assert char.decode(char.encode("The 日 boy")) == "The ⁇ boy"
    assert 3 not in tokenizers["bpe"].encode("zyzzyva 日")


def test_broken_bytes_are_shown(tokenizers: dict[str, Tokenizer]) -> None:
    ids = BYTES.encode("日")
    assert "\ufffd" in BYTES.decode(ids[:-1])


def test_pieces(tokenizers: dict[str, Tokenizer]) -> None:
    bpe = tokenizers["bpe"]
    ids = bpe.encode("The boys, boyzz!")
    pieces = bpe.tokens([1, *ids, 2, 0])
    assert len(pieces) == len(ids) + 3
    assert (pieces[0], pieces[-2], pieces[-1]) == ("<s>", "</s>", "<pad>")
    assert pieces[1:-2] == ["The", "boys", ",", "boy", "·z", "·z", "!"]
    assert bpe.tokens(bpe.encode("a  日")[1:]) == ["␣", "␣", *"\ufffd" * 3]
    assert tokenizers["word"].tokens(tokenizers["word"].encode("The boys.")) == ["The", "boys", "."]
    assert tokenizers["char"].tokens(tokenizers["char"].encode("a b")) == ["a", "␣", "b"]


def test_words_are_whole_and_the_same_anywhere(tokenizers: dict[str, Tokenizer]) -> None:
    """A first word is the same piece as one in the middle, and pieces never span words."""
    bpe = tokenizers["bpe"]
    assert bpe.encode("boy")[0] == bpe.encode("the boy")[1]
    spanning = Tokenizer.train(["of the, of the, 12 12 12 !! !!"] * 100, vocab_size=400)
    assert spanning.tokens(spanning.encode("of the, 12!!")) == [
        "of",
        "the",
        ",",
        "1",
        "·2",
        "!",
        "!",
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_lowercase(kind: Kind) -> None:
    tokenizer = Tokenizer.train(TEXTS, kind=kind, vocab_size=1000, lowercase=True)
    assert tokenizer.decode(tokenizer.encode("The Boys ARE tired.")) == "the boys are tired."
    assert tokenizer.encode("THE BOY") == tokenizer.encode("the boy")


@pytest.mark.parametrize("kind", KINDS)
def test_save_and_load(tokenizers: dict[str, Tokenizer], kind: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    tokenizers[kind].save(path)
    loaded = Tokenizer.load(path)
    assert loaded.vocab_size == tokenizers[kind].vocab_size
    texts = [text for text in (*TEXTS[:50], *HARD) if text]
    assert loaded.encode_batch(texts) == tokenizers[kind].encode_batch(texts)
    ids = loaded.encode(TEXTS[0])
    assert loaded.decode(ids) == TEXTS[0]
    assert loaded.tokens(ids) == tokenizers[kind].tokens(ids)
    assert [file.name for file in tmp_path.iterdir()] == ["tokenizer.json"]
    again = tmp_path / "again.json"
    loaded.save(again)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_deterministic(kind: Kind, tmp_path: Path) -> None:
    files = set()
    for _ in range(3):
        Tokenizer.train(iter(TEXTS), kind=kind, vocab_size=700).save(tmp_path / "t.json")
        files.add((tmp_path / "t.json").read_bytes())
    assert len(files) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_min_frequency(kind: Kind) -> None:
    texts = ["abcabc abcabc", "xyzxyz"]
    rare = Tokenizer.train(texts, kind=kind, vocab_size=500, min_frequency=1)
    frequent = Tokenizer.train(texts, kind=kind, vocab_size=500, min_frequency=2)
    assert frequent.vocab_size < rare.vocab_size or kind == "char"
    assert len(rare.encode("xyzxyz")) <= len(frequent.encode("xyzxyz"))


def test_damaged_and_foreign_files(tokenizers: dict[str, Tokenizer], tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    tokenizers["bpe"].save(path)
    whole = path.read_bytes()
    foreign = json.loads(whole)
    foreign["model"]["vocab"]["<pad>"] = 17
    for data, expected in (
        (whole[: len(whole) // 2], "damaged"),
        (b"", "damaged"),
        (b"{}", "damaged"),
        (b"\xff\xfe", "not UTF-8"),
        (json.dumps(foreign).encode(), "another program"),
    ):
        path.write_bytes(data)
        with pytest.raises(UserError, match=expected) as error:
            Tokenizer.load(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
    for bad in (tmp_path / "missing.json", tmp_path):
        with pytest.raises(UserError, match="cannot read the tokenizer"):
            Tokenizer.load(bad)


def test_bad_arguments() -> None:
    with pytest.raises(UserError, match="choose from bpe, word, char"):
        Tokenizer.train(TEXTS, kind="wordpiece")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="vocab_size 259 is too small: bpe needs 260"):
        Tokenizer.train(TEXTS, vocab_size=259)
    with pytest.raises(UserError, match="word needs 5"):
        Tokenizer.train(TEXTS, kind="word", vocab_size=4)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_no_warning_after_a_fork() -> None:
    """The library is imported when it is needed, and does not complain of processes that fork."""
    code = (
        "import sys, os\n"
        "from tinygrad_tx.data import Tokenizer\n"
        "assert 'tokenizers' not in sys.modules\n"
        "t = Tokenizer.train(['a b c'] * 9, vocab_size=300)\n"
        "t.encode_batch(['a b'] * 99)\n"
        "pid = os.fork()\n"
        "t.encode_batch(['a b'] * 99)\n"
        "os._exit(0) if pid == 0 else os.waitpid(pid, 0)\n"
    )
    environment = {
        key: value for key, value in os.environ.items() if key != "TOKENIZERS_PARALLELISM"
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=environment, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, b"")
