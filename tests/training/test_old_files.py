"""What the first format wrote (tests/fixtures/format1, made at commit 3f47330) is read as it was
meant then: runs go on and end as they ended, models translate the same, states load."""

from __future__ import annotations

import base64
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_runs import Watch, rows

import tinygrad_tx as tx
from tinygrad_tx import serialize
from tinygrad_tx.decoding import translate
from tinygrad_tx.training import load, train

OLD = Path(__file__).parents[1] / "fixtures" / "format1"
KINDS = ("sgd", "momentum", "adam", "adamw")
SCHEDULES = ("noam", "inverse_sqrt", "constant", "linear", "cosine")

# Another order of summation moves the last bits of a float32; Adam carries them on.
CLOSE: Any = {"rtol": 1e-4, "atol": 1e-4}


def copied(name: str, to: Path) -> tuple[Path, dict[str, Any]]:
    """A copy of an old run, its data where they lie here, and what it came to."""
    run = Path(shutil.copytree(OLD / name / "run", to / "run"))
    config = run / "config.toml"
    text = config.read_text()
    for side in ("src", "tgt"):
        text = text.replace(f'"{side.upper()}"', json.dumps(str(OLD / name / side)))
    config.write_text(text)
    return run, json.loads((OLD / name / "ended.json").read_text())


def close(found: dict[str, tx.Tensor], packed: dict[str, Any], names: set[str]) -> None:
    for name in names:
        shape, dtype, data = packed[name]
        wanted = np.frombuffer(base64.b64decode(data), dtype).reshape(shape)
        np.testing.assert_allclose(found[name].numpy(), wanted, **CLOSE, err_msg=name)


@pytest.mark.parametrize("name", ["builtin", "files"])
def test_a_model_translates_as_it_did(name: str, tmp_path: Path) -> None:
    run, ended = copied(name, tmp_path)
    for file, wanted in ended["translations"].items():
        model, tokenizer = tx.models.load(run / file)
        assert translate(model, tokenizer, ended["lines"], beam_size=2) == wanted


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", ["builtin", "files"])
def test_a_run_goes_on_and_ends_as_it_ended(name: str, tmp_path: Path) -> None:
    run, ended = copied(name, tmp_path)
    watch = Watch()
    train(load(run / "config.toml"), run, resume=True, progress=watch)
    assert len(watch.losses) == 6, "steps 11 to 16"
    found = rows(run)
    assert [row["step"] for row in found] == [row["step"] for row in ended["rows"]]
    for row, wanted in zip(found, ended["rows"], strict=True):
        plain = {"cross_entropy"} if "loss" in row and row["step"] > 10 else set()
        assert row.keys() == (wanted.keys() | plain) - {"tokens_per_s"}
        for key in row.keys() - {"of", "bleu", "chrf"} - plain:
            assert row[key] == pytest.approx(wanted[key], rel=1e-4), (row["step"], key)
    assert (run / "translations.txt").read_text() == ended["translations.txt"]
    model, packed = serialize.load(run / "model.safetensors"), ended["model"]
    assert model.keys() == packed.keys()
    close(model, packed, set(packed))
    checkpoint = serialize.load(run / "checkpoints" / "step-00000016.safetensors")
    # The optimizer's own may have changed their names since; those of the others have not.
    parts = ("model.", "ema.")
    close(checkpoint, ended["checkpoint"], {n for n in ended["checkpoint"] if n.startswith(parts)})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_optimizers_and_schedules_go_on(kind: str, schedule: str) -> None:
    spec = importlib.util.spec_from_file_location("format1_make", OLD / "make.py")
    assert spec is not None and spec.loader is not None
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    tensors, metadata = serialize.load_with_metadata(OLD / "optimizers.safetensors")
    start = f"{kind}.{schedule}."
    own = {k.removeprefix(start): t for k, t in tensors.items() if k.startswith(start)}

    def part(name: str) -> dict[str, tx.Tensor]:
        prefix = f"{name}."
        return {k.removeprefix(prefix): t for k, t in own.items() if k.startswith(prefix)}

    parameters, optimizer, planned = make.problem(kind, schedule)
    for i, value in part("model").items():
        with tx.no_grad():
            parameters[int(i)].assign(value)
    optimizer.load_state_dict(part("optimizer"))
    planned.load_state_dict(part("schedule"))
    make.steps(parameters, optimizer, planned, 30, 40)
    rate = json.loads(metadata["rates"])[start.removesuffix(".")]
    assert optimizer.param_groups[0]["lr"].item() == pytest.approx(rate, rel=1e-12)
    for i, wanted in part("ended").items():
        np.testing.assert_allclose(
            parameters[int(i)].detach().numpy(), wanted.numpy(), rtol=1e-5, atol=1e-6
        )


def test_tensors() -> None:
    found, metadata = serialize.load_with_metadata(OLD / "tensors.safetensors")
    assert metadata == {"note": "naïve"}
    x = np.arange(12.0).reshape(3, 4) / 7
    wanted: dict[str, Any] = {
        "float64": x, "float32": x.astype(np.float32), "naïve name": x.T,
        "float16": x.astype(np.float32).astype(np.float16),
        "int64": np.int64(2**40), "int32": np.array([1, -2], np.int32),
        "bool": np.array([True, False]), "empty": np.zeros((0, 3), np.float32),
    }  # fmt: skip
    for name, value in wanted.items():
        assert found[name].numpy().dtype == value.dtype
        np.testing.assert_array_equal(found[name].numpy(), value)
    assert found["bfloat16"].dtype == tx.bfloat16
    np.testing.assert_allclose(found["bfloat16"].float().numpy(), x, rtol=2**-8)
    assert found.keys() == {*wanted, "bfloat16"}
