"""Saving: a file is replaced whole, or stays as it was and one line says why."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import pytest

import tinygrad_tx as tx
from tinygrad_tx import atomic, locks
from tinygrad_tx.errors import UserError


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def test_new_file_and_replacement(tmp_path: Path) -> None:
    path = tmp_path / "state.bin"
    atomic.write_bytes(path, b"first")
    assert path.read_bytes() == b"first"
    atomic.write_bytes(str(path), b"second")
    assert path.read_bytes() == b"second"
    assert names(tmp_path) == ["state.bin"]


def test_permissions_are_those_of_an_ordinary_file_or_of_the_old_one(tmp_path: Path) -> None:
    ordinary, saved = tmp_path / "ordinary", tmp_path / "saved"
    ordinary.write_bytes(b"")
    atomic.write_bytes(saved, b"x")
    assert saved.stat().st_mode == ordinary.stat().st_mode
    saved.chmod(0o600)
    atomic.write_bytes(saved, b"y")
    assert saved.stat().st_mode & 0o777 == 0o600


def test_a_link_keeps_pointing_at_the_file_that_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    real, link = tmp_path / "disk" / "real", tmp_path / "link"
    real.write_bytes(b"old")
    link.symlink_to(real)
    atomic.write_bytes(link, b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    assert names(tmp_path / "disk") == ["real"]


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyboardInterrupt()])
def test_a_failing_writer_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "state.bin"
    path.write_bytes(b"old")

    def writer(temporary: Path) -> None:
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"half of the n")
        raise error

    with pytest.raises(type(error)):
        atomic.write_with(path, writer)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["state.bin"]


def test_missing_directory_is_named(tmp_path: Path) -> None:
    path = tmp_path / "absent" / "state.bin"
    with pytest.raises(UserError, match=r"cannot write .*absent/state\.bin: No such file"):
        atomic.write_bytes(path, b"x")


def test_a_directory_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "state.bin").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*state\.bin: Is a directory"):
        atomic.write_bytes(tmp_path / "state.bin", b"x")
    assert names(tmp_path) == ["state.bin"]


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models
from tinygrad_tx import atomic
from tinygrad_tx.errors import UserError

sys.dont_write_bytecode = True  # it would be cut off without a word, and kept
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
words = Tokenizer(models.WordLevel({f"word{i}": i for i in range(9_000)}, unk_token="word0"))
path = Path(sys.argv[1])
for write in (
    lambda: atomic.write_bytes(path, bytes(100_000)),
    lambda: atomic.write_with(path, lambda t: save_file({"w": np.zeros(100_000)}, t)),
    lambda: atomic.write_with(path, lambda t: words.save(str(t))),
):
    try:
        write()
    except UserError as error:
        print(error)
"""


@pytest.mark.skipif(find_spec("resource") is None, reason="no limits")
def test_full_disk_names_the_file_and_keeps_the_old_one(tmp_path: Path) -> None:
    """Python, safetensors and tokenizers each report a full disk by an exception of their own."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"old")
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    line = f"cannot write {path}: File too large; what was there is unchanged"
    assert done.stdout.splitlines() == [line] * 3, done.stderr
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["model.safetensors"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_what_is_no_file_is_written_to_as_it_is(tmp_path: Path) -> None:
    """As root, a rename would replace a device. (Never tried on one: on a pipe.)"""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for write in (
        lambda: atomic.write_bytes(pipe, b"bytes"),
        lambda: tx.save({"x": tx.ones(2)}, pipe),
    ):
        read = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        try:
            write()
            found = os.read(read, 1000)
        finally:
            os.close(read)
        assert found == b"bytes" or b"tinygrad_tx" in found
        assert pipe.is_fifo() and names(tmp_path) == ["pipe"]


@pytest.mark.parametrize("name", ["", ".", "/", "a\0b"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(UserError, match=r"cannot write .*: it is no name of a file"):
        atomic.write_bytes(name, b"")


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write .*: File name too long"):
        atomic.write_bytes(tmp_path / ("x" * 300), b"")


@pytest.mark.skipif(os.name == "nt", reason="open files are not removed there")
def test_a_lock_is_not_taken_from_under_its_next_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody comes in just when the file of the last holder is removed."""
    path, close, second = tmp_path / ".lock", os.close, ExitStack()

    def closing(handle: int) -> None:
        monkeypatch.undo()
        second.enter_context(locks.held(path, "second"))
        close(handle)

    with locks.held(path, "first"):
        monkeypatch.setattr(locks.os, "close", closing)
    with second, pytest.raises(UserError, match=r"third: .* is at work"), locks.held(path, "third"):
        pass
    assert not path.exists()
