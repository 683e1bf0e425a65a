"""Tokenizers of SentencePiece, of models that are learnt here, in the directories of T5, Llama and
Marian; and tokenizers of our own that such directories carry."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tinygrad_tx.errors import UserError
from tinygrad_tx.models import GPT, GPTConfig, from_pretrained
from tinygrad_tx.models.pieces import MarianTokenizer, PieceTokenizer
from tinygrad_tx.tokenizer import Tokenizer

TEXT = [f"{i} dogs see the cat, and {i + 1} cats see the dog." for i in range(200)]
SIZE = 45


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """spiece.model, with T5's special tokens."""
    library = pytest.importorskip("sentencepiece")
    root = tmp_path_factory.mktemp("pieces")
    (root / "text").write_text("\n".join(TEXT))
    library.SentencePieceTrainer.train(
        input=str(root / "text"), model_prefix=str(root / "spiece"), vocab_size=SIZE,
        minloglevel=2, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
    )  # fmt: skip
    return root / "spiece.model"


def config(**ids: Any) -> Any:
    return SimpleNamespace(
        **{"vocab_size": SIZE + 100, "pad_id": 0, "bos_id": 0, "eos_id": 1} | ids
    )


def test_t5(model: Path, tmp_path: Path) -> None:
    own = PieceTokenizer(model, config())
    ids = own.encode("the dog")
    assert ids[-1] == 1 and own.encode("the dog", special=False) == ids[:-1]
    assert own.decode(ids) == "the dog"
    assert own.encode_batch(["the dog", "the cat"])[0] == ids
    first, *_, last, end = own.encode("<extra_id_0> see <extra_id_99>")
    assert (first, last, end) == (SIZE + 99, SIZE, 1)  # they count from the end
    assert own.tokens([first, last]) == ["<extra_id_0>", "<extra_id_99>"]
    assert own.encode("") == [1] and own.frame == ()
    own.save(tmp_path / "tokenizer.json")
    own.save(model.parent / "tokenizer.json")  # beside itself
    again = PieceTokenizer(tmp_path / "spiece.model", config())
    assert again.dumps() == own.dumps() and again.encode("the dog") == ids


def test_llama(model: Path, tmp_path: Path) -> None:
    shutil.copyfile(model, tmp_path / "tokenizer.model")
    own = PieceTokenizer(tmp_path / "tokenizer.model", config(bos_id=5))
    assert own.encode("the dog")[0] == 5 and own.decode(own.encode("the dog")) == "the dog"


def test_marian(model: Path, tmp_path: Path) -> None:
    import sentencepiece

    core = sentencepiece.SentencePieceProcessor(model_file=str(model))
    pieces = [core.id_to_piece(i) for i in range(SIZE)]
    names = ["</s>", "<unk>", ">>fra<<", *(p for p in pieces if p[0] != "<"), "<pad>"]
    (tmp_path / "vocab.json").write_text(json.dumps({p: i for i, p in enumerate(names)}))
    for side in ("source", "target"):
        shutil.copyfile(model, tmp_path / f"{side}.spm")
    pad = len(names) - 1
    own = MarianTokenizer(tmp_path, config(vocab_size=len(names), pad_id=pad, bos_id=pad, eos_id=0))
    ids = own.encode("the dog")
    assert ids[-1] == 0 and own.target.encode("the dog") == ids
    assert own.encode(">>fra<< the dog") == [2, *ids]
    assert own.decode([pad, *ids]) == "the dog"
    assert own.encode("the ?")[-2] == 1  # <unk>
    (tmp_path / "copy").mkdir()
    own.save(tmp_path / "copy" / "tokenizer.json")
    again = MarianTokenizer(tmp_path / "copy", config(eos_id=0))
    assert again.dumps() == own.dumps()


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    (tmp_path / "spiece.model").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"pip install 'tinygrad_tx\[sentencepiece\]'"):
        PieceTokenizer(tmp_path / "spiece.model", config())


def test_what_is_no_model(tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece")
    (tmp_path / "spiece.model").write_bytes(b"no model")
    with pytest.raises(UserError, match="is damaged or no model of SentencePiece"):
        PieceTokenizer(tmp_path / "spiece.model", config())


def test_a_tokenizer_of_our_own(tmp_path: Path) -> None:
    own = Tokenizer.train(TEXT, vocab_size=300)
    settings = GPTConfig(own.vocab_size, 1, 2, 8, 16, bias=True, pad_id=0, eos_id=own.eos_id)
    GPT(settings).save_pretrained(tmp_path, own)
    _, again = from_pretrained(tmp_path)
    assert again is not None and again.eos_id == own.eos_id
    for text in (TEXT[3], "unseen wörds", ""):
        assert again.encode(text) == own.encode(text)
        assert again.decode([*again.encode(text), own.eos_id]).strip() == own.decode(
            own.encode(text)
        )
    said = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert said == {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 16,
        "pad_token": "<pad>", "eos_token": said["eos_token"],
    }  # fmt: skip
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="is damaged or no tokenizer"):
        from_pretrained(tmp_path)
