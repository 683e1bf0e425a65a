"""models.load: what a run directory gives back, and one line for each way that it cannot."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from training_runs import small

import tinygrad_tx as tx
from tinygrad_tx import serialize
from tinygrad_tx.errors import UserError
from tinygrad_tx.models.loading import build, load
from tinygrad_tx.tokenizer import Tokenizer
from tinygrad_tx.training import dump


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory as training leaves it, with a checkpoint and averaged weights."""
    root = tmp_path_factory.mktemp("made") / "run"
    (root / "checkpoints").mkdir(parents=True)
    config = small("model.norm=pre", "model.tie_embeddings=false")
    dump(config, root / "config.toml")
    tokenizer = Tokenizer.train(["one two three", "uno dos tres"], "word", 20, min_frequency=1)
    tokenizer.save(root / "tokenizer.json")
    tx.manual_seed(0)
    state = build(asdict(config.model), tokenizer).state_dict()
    serialize.save(state, root / "model.safetensors")
    serialize.save({n: t * 2 for n, t in state.items()}, root / "averaged.safetensors")
    parts = {f"model.{n}": t * 3 for n, t in state.items()} | {"optimizer.step": tx.tensor(7)}
    serialize.save(parts, root / "checkpoints" / "step-00000007.safetensors")
    return root


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(made, tmp_path / "run"))


def test_a_directory_and_the_files_in_it(made: Path) -> None:
    model, tokenizer = tx.models.load(made)
    assert not model.training
    assert (model.config.norm, model.config.tie_embeddings, model.config.d_model) == (
        *("pre", False, 16),
    )
    assert model.config.vocab_size == tokenizer.vocab_size
    assert (model.config.pad_id, model.config.bos_id, model.config.eos_id) == (0, 1, 2)
    assert tokenizer.decode(tokenizer.encode("two dos")) == "two dos"
    plain = {name: t.numpy() for name, t in model.state_dict().items()}
    for file, factor in (("averaged.safetensors", 2), ("checkpoints/step-00000007.safetensors", 3)):
        found, _ = load(str(made / file))
        for name, t in found.state_dict().items():
            np.testing.assert_array_equal(t.numpy(), factor * plain[name], err_msg=name)


def says(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_run_directory(run: Path, tmp_path: Path) -> None:
    assert says(tmp_path / "absent") == f"there is no {tmp_path / 'absent'}"
    assert "holds no model: there is no" in says(tmp_path)
    lonely = tmp_path / "lonely.safetensors"
    shutil.copy(run / "model.safetensors", lonely)
    assert "lonely.safetensors holds no model" in says(lonely)


def test_missing_files(run: Path) -> None:
    (run / "model.safetensors").unlink()
    assert "has no model.safetensors yet: it is written after the first validation" in says(run)
    (run / "tokenizer.json").unlink()
    assert "cannot read the tokenizer" in says(run / "averaged.safetensors")


@pytest.mark.parametrize("keep", [0, 5, 300, 0.9])
def test_a_truncated_model(run: Path, keep: float) -> None:
    file = run / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content)) if 0 < keep < 1 else int(keep)])
    assert f"cannot load {file}: it is no safetensors file, or a damaged one" in says(run)


def test_files_that_do_not_fit(run: Path) -> None:
    config = small("model.norm=pre", "model.tie_embeddings=false", "model.d_ff=64")
    dump(config, run / "config.toml")
    wrong = says(run)
    assert "model.safetensors is not of the model in" in wrong
    assert "encoder.layers.0.ffn.linear1.weight is (32, 16), wanted (64, 16)" in wrong
    other = replace(config, model=replace(config.model, d_ff=32, norm="post"))
    dump(other, run / "config.toml")
    assert "unexpected: decoder.norm.bias, decoder.norm.weight" in says(run)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[model", "cannot read"),
        ("model = 3", "has no section [model]"),
        ("[model]\nd_modle = 3", "model.d_modle is unknown to this version"),
        ("[model]\nn_heads = 3\nd_model = 16", "d_model = 16 must be a multiple of n_heads, 3"),
    ],
)
def test_spoilt_configurations(run: Path, text: str, message: str) -> None:
    (run / "config.toml").write_text(text)
    assert message in says(run)


def test_a_spoilt_tokenizer(run: Path) -> None:
    (run / "tokenizer.json").write_text("{}")
    assert "tokenizer.json is damaged or no tokenizer" in says(run)
