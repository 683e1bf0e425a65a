"""Run directories in a state that nobody planned: files that are directories or links to nothing,
metrics that are gone, checkpoints that were removed. A run goes on, and says what it lost."""

from __future__ import annotations

import gc
import os
import pickle
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from training_runs import Watch, outcome, rows, small

import tinygrad_tx as tx
from tinygrad_tx import serialize
from tinygrad_tx.cli import main
from tinygrad_tx.errors import DamagedError, UserError
from tinygrad_tx.training import train
from tinygrad_tx.training.interrupt import Interrupted, Interrupts

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 4 steps, with checkpoints of steps 2 and 4."""
    out = tmp_path_factory.mktemp("made") / "run"
    train(small(*STEPS), out, progress=Watch())
    return out


STEPS = ("train.max_steps=4", "train.checkpoint_every=2")


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(made, tmp_path / "run"))


def go_on(run: Path) -> list[str]:
    """What is said of going on."""
    watch = Watch()
    train(small(*STEPS), run, resume=True, progress=watch)
    return watch.said[1:]


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "what.else").write_text("mine")


def _link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_directory, "it is a directory"),
        pytest.param(
            _link, "it is no file, or a link to none",
            marks=pytest.mark.skipif(os.name == "nt", reason="links need rights"),
        ),
        pytest.param(
            _pipe, "it is no file, or a link to none",
            marks=pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes"),
        ),
    ],
)  # fmt: skip
def test_a_checkpoint_that_is_no_file(
    made: Path, run: Path, spoil: Callable[[Path], None], says: str
) -> None:
    before, last = sorted((run / "checkpoints").iterdir())
    spoil(last)
    with pytest.raises(DamagedError, match=says):
        serialize.load(last)
    assert go_on(run) == [
        f"cannot load {last}: {says}; it is called {last.name}.damaged now",
        f"going on from {before}",
    ]
    aside = last.with_name(f"{last.name}.damaged")
    assert aside.is_symlink() or not aside.is_file()
    shutil.rmtree(aside) if aside.is_dir() else aside.unlink()
    assert outcome(run) == outcome(made)


def test_every_damaged_checkpoint_is_kept(made: Path, run: Path) -> None:
    *_, last = sorted((run / "checkpoints").iterdir())
    whole = last.read_bytes()
    aside = [last.with_name(f"{last.name}.damaged{n}") for n in ("", "-2", "-3")]
    aside[1].mkdir()
    for length, name in ((100, aside[0]), (200, aside[2])):
        last.write_bytes(whole[:length])
        *_, renamed, _ = go_on(run)
        assert renamed.endswith(f"; it is called {name.name} now")
    assert [len(path.read_bytes()) for path in aside[::2]] == [100, 200]
    for path in aside:
        path.rmdir() if path.is_dir() else path.unlink()
    assert outcome(run) == outcome(made)


def test_info_of_a_damaged_model(run: Path, capsys: Capture) -> None:
    model = run / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-1])
    assert main(["info", str(run)]) == 0
    out, err = capsys.readouterr()
    assert f"model.safetensors    cannot load {model}: " in out
    assert "checkpoints          steps 2, 4" in out and not err


def test_a_file_that_is_not_there_is_not_damaged(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such file") as caught:
        serialize.load(tmp_path / "x")
    assert not isinstance(caught.value, DamagedError)


def test_a_run_without_checkpoints_says_that_it_begins_anew(made: Path, run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    before = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"has no checkpoint.*has come to step 4: put them back"):
        go_on(run)
    assert (run / "metrics.jsonl").read_bytes() == before
    (run / "metrics.jsonl").unlink()
    assert f"{run} has no checkpoint to go on from: it begins anew" in go_on(run)
    assert outcome(run) == outcome(made)


def test_a_run_may_be_called_checkpoints(made: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(made, tmp_path / "checkpoints"))
    assert tx.models.load(run)[1].vocab_size == tx.models.load(made)[1].vocab_size
    assert tx.models.load(run / "checkpoints" / "step-00000002.safetensors")


def test_files_of_others_stay(tmp_path: Path) -> None:
    strange = [tmp_path / name for name in (".tmpZZ9zZ9", ".notes.0123abcd.tmp")]
    for path in strange:
        path.write_text("mine")
    with pytest.raises(UserError):
        train(small("data.corpus=files", "data.src=nosuch", "data.tgt=nosuch"), tmp_path)
    assert all(path.read_text() == "mine" for path in strange)
    for name in ("metrics.jsonl", "translations.txt", "tokenizer.json", "averaged.safetensors"):
        other = tmp_path / name.partition(".")[0]
        other.mkdir()
        (other / name).write_text("mine")
        with pytest.raises(UserError, match=rf"holds {name} of a run, but no config.toml"):
            train(small(*STEPS), other)
        assert (other / name).read_text() == "mine"


@pytest.mark.parametrize("key", ["activation", "norm"])
def test_a_model_whose_settings_are_gone_is_refused(run: Path, key: str) -> None:
    config = run / "config.toml"
    kept = [line for line in config.read_text().splitlines() if not line.startswith(f"{key} =")]
    config.write_text("\n".join(kept))
    with pytest.raises(UserError, match=rf"model.{key} was .*, and is not set there"):
        tx.models.load(run)


@pytest.mark.parametrize("said", ["[]", "{}", "3", '{"tokenizer": "0"}', '{"model": []}'])
def test_metadata_of_another_program(run: Path, said: str) -> None:
    model = run / "model.safetensors"
    serialize.save(serialize.load(model), model, {"trained_with": said})
    assert tx.models.load(run)


def test_checkpoints_that_cannot_be_listed(
    run: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not taken for none, with which a run begins anew and cuts its metrics."""
    metrics, listed = (run / "metrics.jsonl").read_bytes(), Path.iterdir

    def refused(path: Path) -> Iterator[Path]:
        if path.name == "checkpoints":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    for says in ("Permission denied", "Not a directory"):
        with monkeypatch.context() as patch:
            if says == "Permission denied":
                patch.setattr(Path, "iterdir", refused)
            else:
                shutil.rmtree(run / "checkpoints")
                (run / "checkpoints").write_text("mine")
            for command in (["train", "--resume", "--out"], ["info"]):
                assert main([*command, str(run)]) == 1
                line = capsys.readouterr().err.splitlines()[-1]
                assert line == f"tinygrad-tx: cannot read {run / 'checkpoints'}: {says}"
        assert (run / "metrics.jsonl").read_bytes() == metrics


# metrics.jsonl -----------------------------------------------------------------------------------

LOST: dict[str, tuple[Callable[[bytes], bytes | None], int]] = {
    "gone": (lambda content: None, 3),
    "empty": (lambda content: b"", 3),
    "zeros": (lambda content: bytes(len(content)), 3),
    "torn": (lambda content: content[: content.rindex(b"{") + 9], 1),
    "one line": (lambda content: content.replace(b'"loss"', b'"loss', 1), 1),
    "none": (lambda content: content + b'{"step": 9, "lo', 0),
}


@pytest.mark.parametrize("damage", LOST)
def test_lost_rows_are_said_to_be_lost(run: Path, damage: str) -> None:
    path = run / "metrics.jsonl"
    content = b"".join(path.read_bytes().splitlines(keepends=True)[:3])  # as step 4 was saved
    spoil, n = LOST[damage]
    spoilt = spoil(content)
    path.unlink()
    if spoilt is not None:
        path.write_bytes(spoilt)
    said = [line for line in go_on(run) if "metrics" in line]
    assert said == [f"{path} is damaged: {n} of its 3 rows are lost"] * (n > 0)
    if damage != "one line":
        assert rows(run)[-1]["beam"] == 1


def test_no_file_stays_open(tmp_path: Path) -> None:
    """Windows removes no directory in which there is one."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        train(small("train.max_steps=1"), tmp_path / "run", progress=Watch())
        gc.collect()
    assert not [str(w.message) for w in said if str(tmp_path) in str(w.message)]


# Signals -----------------------------------------------------------------------------------------


def test_a_second_signal_says_what_it_means() -> None:
    import signal

    with pytest.raises(Interrupted) as caught, Interrupts() as interrupts:
        interrupts.can_save = True
        signal.raise_signal(signal.SIGINT)
        assert interrupts.requested
        signal.raise_signal(signal.SIGTERM)
    assert str(caught.value) == (
        "SIGTERM, without saving; --resume goes on from the last checkpoint"
    )
    assert caught.value.number == signal.SIGTERM
    sent = pickle.loads(pickle.dumps(caught.value))  # to the other ranks
    assert (str(sent), sent.number) == (str(caught.value), signal.SIGTERM)
