"""tx.save and tx.load."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx import nn
from tinygrad_tx.errors import UserError
from tinygrad_tx.serialize import load_with_metadata


def test_every_dtype_goes_round(tmp_path: Path) -> None:
    state = {
        "f64": tx.randn(2, 3, dtype=tx.float64),
        "f32": tx.randn(4),
        "f16": tx.randn(2, 2).half(),
        "i64": tx.tensor(7),
        "i32": tx.tensor([1, -2], dtype=tx.int32),
        "bool": tx.tensor([True, False]),
        "empty": tx.zeros(0, 3),
    }
    tx.save(state, tmp_path / "x.safetensors")
    loaded = tx.load(tmp_path / "x.safetensors")
    assert loaded.keys() == state.keys()
    for name, value in state.items():
        assert loaded[name].dtype == value.dtype and loaded[name].shape == value.shape
        np.testing.assert_array_equal(loaded[name].numpy(), value.numpy())


def test_bfloat16(tmp_path: Path) -> None:
    pytest.importorskip("ml_dtypes")
    x = tx.randn(3, 2).to(tx.bfloat16)
    tx.save({"x": x}, tmp_path / "x.safetensors")
    loaded = tx.load(tmp_path / "x.safetensors")["x"]
    assert loaded.dtype == tx.bfloat16
    np.testing.assert_array_equal(loaded.float().numpy(), x.float().numpy())


def test_views_are_saved_as_they_read(tmp_path: Path) -> None:
    x = tx.arange(12).reshape(3, 4)
    views = {"t": x.T, "part": x[1:, ::2], "back": x.flip(0), "wide": x[:1].expand(3, 4)}
    tx.save(views, tmp_path / "x.safetensors")
    for name, value in tx.load(tmp_path / "x.safetensors").items():
        np.testing.assert_array_equal(value.numpy(), views[name].numpy())


def test_metadata_and_model(tmp_path: Path) -> None:
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    tx.save(model.state_dict(), tmp_path / "m.safetensors", {"step": "12", "note": "naïve"})
    state, text = load_with_metadata(tmp_path / "m.safetensors")
    assert text == {"step": "12", "note": "naïve"}
    other.load_state_dict(state)
    np.testing.assert_array_equal(other.weight.numpy(), model.weight.numpy())
    assert not state["weight"].requires_grad
    tx.save(model.state_dict(), tmp_path / "m.safetensors")
    assert load_with_metadata(tmp_path / "m.safetensors")[1] == {}


def test_other_programs_read_it(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    tx.save({"x": tx.ones(2), "y": np.arange(3)}, str(tmp_path / "x.safetensors"))
    read = load_file(tmp_path / "x.safetensors")
    np.testing.assert_array_equal(read["x"], [1, 1])
    np.testing.assert_array_equal(read["y"], [0, 1, 2])


def test_a_damaged_file_is_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    tx.save({"x": tx.ones(1000)}, path)
    whole = path.read_bytes()
    for damage in (b"", whole[:4], whole[:30], whole[:-5], b"PK\3\4" * 20, whole + b"x"):
        path.write_bytes(damage)
        with pytest.raises(UserError, match="no safetensors file, or a damaged one") as error:
            tx.load(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        tx.load(tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="is a directory"):
        tx.load(tmp_path)
    with pytest.raises(UserError, match="cannot write"):
        tx.save({"x": tx.ones(1)}, tmp_path / "no" / "x.safetensors")
    with pytest.raises(UserError, match="entry x: no tensor dtype uint8"):
        tx.save({"x": np.zeros(2, np.uint8)}, tmp_path / "x.safetensors")
    from safetensors.numpy import save_file

    save_file({"x": np.zeros(2, np.int8)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="entry x: no tensor dtype int8"):
        tx.load(tmp_path / "x.safetensors")


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # it would be cut off, and kept
    path = tmp_path / "x.safetensors"
    tx.save({"x": tx.ones(4)}, path)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, old[1]))
    try:
        with pytest.raises(UserError, match=r"cannot write .*x\.safetensors"):
            tx.save({"x": tx.ones(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    np.testing.assert_array_equal(tx.load(path)["x"].numpy(), np.ones(4))
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_files_of_other_programs(tmp_path: Path) -> None:
    """Any byte but 0 is true; a type that NumPy lacks is named."""

    def write(code: str, data: bytes) -> Path:
        entry = {"x": {"dtype": code, "shape": [len(data)], "data_offsets": [0, len(data)]}}
        header = json.dumps(entry).encode()
        path = tmp_path / "x.safetensors"
        path.write_bytes(len(header).to_bytes(8, "little") + header + data)
        return path

    x = tx.load(write("BOOL", bytes([0, 1, 2, 255])))["x"]
    assert x.sum().item() == 3 and (x == tx.tensor([False, True, True, True])).all().item()
    with pytest.raises(UserError, match=r"cannot load .*: it holds a dtype unknown to NumPy: .*8"):
        tx.load(write("F8_E4M3", bytes(4)))
    for path in (None, 3, b"x"):
        with pytest.raises(TypeError, match="load: path must be a str or a Path, not a"):
            tx.load(path)  # type: ignore[arg-type]


def test_any_path_will_do(tmp_path: Path) -> None:
    class Place:
        def __fspath__(self) -> str:
            return str(tmp_path / "x.safetensors")

    tx.save({"x": tx.ones(2)}, Place())
    assert tx.load(Place())["x"].tolist() == [1, 1]
