"""Every command on models of other kinds than the Transformer."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from training_runs import SMALL, rows

import tinygrad_tx as tx
from tinygrad_tx.cli import main
from tinygrad_tx.models.registry import KINDS

_TRANSFORMERS = ("model.n_heads", "model.d_ff", "model.n_encoder", "model.n_decoder")
SETTINGS = [
    *(s for s in SMALL if not s.startswith(_TRANSFORMERS)),
    *("train.max_steps=2", "train.valid_every=2", "train.checkpoint_every=1"),
    *("data.corpus_size=60", "data.valid_size=6", "data.max_tokens=48", "data.max_len=24"),
    "model.dropout=0.1",
]


@pytest.mark.filterwarnings("ignore:Glyph")  # of control characters, which such models translate to
@pytest.mark.parametrize(
    ("kind", "own", "described"),
    [
        (
            "seq2seq",
            ["model.cell=gru", "model.attention=bahdanau"],
            "bidirectional gru, 1 + 1 layers, d_model 16, attention bahd",
        ),
        pytest.param(
            "convs2s",
            ["model.n_layers=1", "model.max_len=40"],
            "convolutions of 3, 1 + 1 layers, d_model 16, dropout 0.1",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_commands(
    kind: str,
    own: list[str],
    described: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, half = tmp_path / "whole", tmp_path / "half"
    settings = ["--set", f"model.kind={kind}", *SETTINGS, *own]
    assert main(["train", "--out", str(whole), *settings]) == 0
    assert f'kind = "{kind}"' in (whole / "config.toml").read_text()

    shutil.copytree(whole, half)
    (half / "checkpoints" / "step-00000002.safetensors").unlink()
    assert main(["train", "--resume", "--out", str(half)]) == 0
    assert "going on from" in capsys.readouterr().err
    assert rows(half) == rows(whole)

    model, _ = tx.models.load(whole)
    assert type(model) is KINDS[kind].model and model.config.dropout == 0.1
    again, _ = tx.models.load(half)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), again.state_dict()[name].numpy())

    (tmp_path / "in").write_text("the dog\na cat\n")
    run = ["--model", str(whole)]
    assert main(["translate", *run, "--beam", "2", str(tmp_path / "in")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    files = ["--src", str(tmp_path / "in"), "--ref", str(tmp_path / "in")]
    assert main(["evaluate", *run, *files, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sentences"] == 2
    assert main(["average", str(whole), "--last", "2"]) == 0
    tx.models.load(whole / "averaged.safetensors")
    capsys.readouterr()
    assert main(["info", str(whole)]) == 0
    assert f"{kind}, {described}" in capsys.readouterr().out
    assert main(["graph", *run, "--out", str(tmp_path / "graph.dot")]) == 0
    assert "attention" in (tmp_path / "graph.dot").read_text()
    if find_spec("matplotlib"):
        picture = tmp_path / "heads.png"
        assert main(["attention", *run, "the dog", "--png", str(picture)]) == 0
        assert picture.read_bytes().startswith(b"\x89PNG")
    other = ["train", "--resume", "--out", str(whole), "--set", "model.kind=transformer"]
    assert main(other) == 1
    assert f"model.kind was {kind}" in capsys.readouterr().err
