"""Directories of others on the command line: a Marian that goes on learning, translates, and is
written again with its tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import tinygrad_tx as tx
from tinygrad_tx.cli import main
from tinygrad_tx.models import Transformer, TransformerConfig

TEXT = [f"{i} dogs see the cat, and {i + 1} cats see the dog." for i in range(60)]
SIZE = 30


def marian(root: Path) -> Path:
    """A small one, whose pieces are learnt here."""
    library = pytest.importorskip("sentencepiece")
    (root / "text").write_text("".join(f"{line}\n" for line in TEXT))
    library.SentencePieceTrainer.train(
        input=str(root / "text"), model_prefix=str(root / "pieces"), vocab_size=SIZE,
        minloglevel=2, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
    )  # fmt: skip
    core = library.SentencePieceProcessor(model_file=str(root / "pieces.model"))
    found = [core.id_to_piece(i) for i in range(SIZE)]
    names = ["</s>", "<unk>", *(piece for piece in found if piece[0] != "<"), "<pad>"]
    pad, out = len(names) - 1, root / "marian"
    config = TransformerConfig(
        len(names), d_model=16, n_heads=2, d_ff=32, n_encoder_layers=1, n_decoder_layers=1,
        activation="silu", attention_bias=True, output_bias=True, positions="sinusoidal_halves",
        pad_id=pad, bos_id=pad, eos_id=0,
    )  # fmt: skip
    Transformer(config).save_pretrained(out)
    (out / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(names)}))
    for side in ("source", "target"):
        shutil.copyfile(root / "pieces.model", out / f"{side}.spm")
    return out


def test_a_marian(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given, run, line = str(marian(tmp_path)), str(tmp_path / "run"), tmp_path / "line"
    text, line = str(tmp_path / "text"), str(line)
    Path(line).write_text("3 dogs see the cat.\n")
    few = ["--set", "data.valid_size=5", "train.valid_every=2", "train.checkpoint_every=2",
           "train.valid_bleu=false", "train.compile=false"]  # fmt: skip
    train = ["train", "--init", given, "--src", text, "--tgt", text, "--out", run]
    assert main([*train, "--max-steps", "2", *few]) == 0
    assert main(["train", "--resume", "--out", run, "--max-steps", "3"]) == 0
    for model in (given, run):
        capsys.readouterr()
        assert main(["translate", "--model", model, line]) == 0
        assert capsys.readouterr().out.count("\n") == 1
    model, tokenizer = tx.models.load(run)
    model.save_pretrained(tmp_path / "again", tokenizer)
    _, again = tx.models.from_pretrained(tmp_path / "again")
    assert again is not None and again.encode(TEXT[3]) == tokenizer.encode(TEXT[3])
