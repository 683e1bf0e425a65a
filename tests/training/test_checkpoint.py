"""Checkpoints: a run that is killed, at whatever moment, and resumed is the run that never was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from training_runs import Watch, outcome, rows, small

from tinygrad_tx import random, serialize
from tinygrad_tx.errors import UserError
from tinygrad_tx.models.loading import weights
from tinygrad_tx.training import Stopped, checkpoint, dump, train

ROOT = Path(__file__).parents[2]

# Validation with BLEU every 4 steps, checkpoints every 3, dropout, accumulation, a moving average,
# and an average at the end: all that a run can remember.
WHOLE = [
    *("train.valid_bleu=true", "optim.accumulate=2", "optim.ema_decay=0.5"),
    *("train.average_last=2", "train.keep_last=2", "train.compile=true"),
]

# The trainer, as a program that kills itself: argv is the directory, and where. "NAME:N:WHEN" means
# at the N-th time that a file whose name begins with NAME is put in its place: before the rename
# (a temporary file is left) or after it; for metrics, in the middle of a line or after it.
DRIVER = """
import os, signal, sys
from pathlib import Path
from training_runs import Watch
from tinygrad_tx.training import load, log as metrics, train

out, point = Path(sys.argv[1]), sys.argv[2]
name, count, when = point.split(":")
left = int(count)

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def due(target):
    global left
    left -= target.startswith(name)
    return left == 0 and target.startswith(name)

replace, write = Path.replace, metrics.Metrics.write

def replace_and_die(self, target):
    now = due(Path(target).name)
    if now and when == "before":
        die()
    replace(self, target)
    if now:
        die()

def write_and_die(self, row):
    now = due("metrics")
    if now and when == "before":
        os.write(self._file.fileno(), b'{"step": 4, "lo')
        die()
    write(self, row)
    if now:
        die()

Path.replace, metrics.Metrics.write = replace_and_die, write_and_die
train(load(out.parent / "config.toml"), out, resume=(out / "config.toml").exists(),
      progress=Watch())
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train(small(*WHOLE), out, progress=Watch())
    return out


def resumed(out: Path) -> Path:
    train(small(*WHOLE), out, resume=True, progress=Watch())
    return out


KILLS = (
    "tokenizer:1:before",  # at step 0
    "step-:1:after",  # at step 3
    "metrics:2:before",  # at step 4
    "step-:1:before",  # at step 6
    "model:2:before",  # at step 8
    "metrics:4:after",  # after the last step
)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("points", [KILLS[1:4:2], pytest.param(KILLS, marks=pytest.mark.slow)])
def test_killed_again_and_again(points: tuple[str, ...], whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    dump(small(*WHOLE), tmp_path / "config.toml")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'helpers'}"}
    for point in points:
        done = subprocess.run(
            [sys.executable, "-c", DRIVER, str(out), point],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, (point, done.stderr)
        metrics = out / "metrics.jsonl"
        torn = metrics.exists() and metrics.read_bytes()[-1:] not in (b"", b"\n")
        assert (torn or any(out.rglob(".*.tmp"))) == point.endswith("before"), point
    assert outcome(resumed(out)) == outcome(whole)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_interrupted_in_a_step(whole: Path, tmp_path: Path, number: int) -> None:
    out = tmp_path / "run"
    watch = Watch(on_step=lambda step: signal.raise_signal(number) if step == 2 else None)
    handler = signal.getsignal(number)
    with pytest.raises(Stopped, match=r"step 2 is saved; go on by: .* --resume --out .*run"):
        train(small(*WHOLE), out, progress=watch)
    assert signal.getsignal(number) is handler
    assert watch.closed and len(watch.losses) == 2
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-00000002.safetensors"]
    assert rows(out) == rows(whole)[:1]
    assert outcome(resumed(out)) == outcome(whole)


def test_interrupted_in_a_validation(whole: Path, tmp_path: Path) -> None:
    """The validation is given up, and made good when the run goes on; so is that of the end."""
    out = tmp_path / "run"
    for seen in (2, 4):  # steps: the training row comes just before the validation
        watch = Watch(on_row=lambda row, seen=seen: _interrupt(row["step"] == 2 * seen))
        with pytest.raises(Stopped, match=f"step {2 * seen} is saved"):
            train(small(*WHOLE), out, resume=out.exists(), progress=watch)
    assert outcome(resumed(out)) == outcome(whole)


def _interrupt(now: bool) -> None:
    if now:
        signal.raise_signal(signal.SIGINT)


def test_the_second_interrupt_quits_at_once(tmp_path: Path) -> None:
    def twice(step: int) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        train(small(), tmp_path / "run", progress=Watch(on_step=twice))
    assert not isinstance(caught.value, Stopped)
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_a_finished_run_goes_on_for_longer(tmp_path: Path) -> None:
    out, straight = tmp_path / "run", tmp_path / "straight"
    train(small("train.max_steps=4"), out, progress=Watch())
    watch = Watch()
    train(small("train.max_steps=8"), out, resume=True, progress=watch)
    assert len(watch.losses) == 4
    train(small("train.max_steps=8"), straight, progress=Watch())

    last = "checkpoints/step-00000008.safetensors"
    found, wanted = serialize.load(out / last), serialize.load(straight / last)
    assert all(np.array_equal(found[name].numpy(), wanted[name].numpy()) for name in wanted)
    assert rows(out) == rows(straight)


def test_a_run_that_is_done_is_reported_again(whole: Path) -> None:
    before = outcome(whole)
    watch = Watch()
    report = train(small(*WHOLE), whole, resume=True, progress=watch)
    assert not watch.losses and report.steps == 8
    assert outcome(whole) == before


def test_the_last_ones_are_kept(whole: Path) -> None:
    found = sorted(path.name for path in (whole / "checkpoints").iterdir())
    assert found == ["step-00000006.safetensors", "step-00000008.safetensors"]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    out = tmp_path / "run"
    train(small("train.max_steps=4"), out, progress=Watch())
    yield out


def go_on(run: Path, *overrides: str) -> str:
    """The error of resuming."""
    with pytest.raises(UserError) as caught:
        train(small(*overrides), run, resume=True, progress=Watch())
    return str(caught.value)


def test_what_cannot_go_on(run: Path, tmp_path: Path) -> None:
    assert "holds no run" in go_on(tmp_path / "absent")
    assert "model.d_ff was 32 when the run" in go_on(run, "model.d_ff=64")
    assert "train.seed was 0" in go_on(run, "train.seed=1")
    with pytest.raises(UserError, match="holds a run already: go on with it by --resume"):
        train(small(), run, progress=Watch())
    before, last = sorted((run / "checkpoints").iterdir())
    contents = before.read_bytes(), last.read_bytes()
    before.write_bytes(b"")
    last.write_bytes(contents[1][: len(contents[1]) // 2])
    said = go_on(run)
    assert said.startswith(f"none of the 2 checkpoints in {run} can be gone on from: cannot load ")
    assert f"{last}: it is no safetensors file" in said
    serialize.save(weights(run / "model.safetensors"), last)
    assert "is no checkpoint that this version can go on from" in go_on(run)
    for path, content in zip((before, last), contents, strict=True):
        path.write_bytes(content)
    (run / "config.toml").write_text(
        (run / "config.toml").read_text().replace("corpus_size = 120", "corpus_size = 121")
    )
    assert "training data are not those" in go_on(run, "data.corpus_size=121")


def test_random_numbers_are_part_of_it(run: Path) -> None:
    """Dropout draws from the streams that come after those that were drawn."""
    _, metadata = serialize.load_with_metadata(run / "checkpoints" / "step-00000004.safetensors")
    drawn = random.get_state()["cpu"]
    assert drawn[1] > 0
    assert f'"random": {{"cpu": [{drawn[0]}, {drawn[1]}]}}' in metadata["run"]


def test_average_is_the_mean(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.safetensors" for i in range(3)]
    values = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)
    for path, value in zip(paths, values, strict=True):
        serialize.save({"model.w": value, "optimizer.step": np.int64(3)}, path)
    found = checkpoint.average(paths)
    assert list(found) == ["w"] and found["w"].dtype == np.float32
    np.testing.assert_allclose(found["w"], values.astype(np.float64).mean(0), rtol=1e-7)
    serialize.save({"model.w": values[0][:2]}, paths[2])
    with pytest.raises(UserError, match=r"2\.safetensors and .*0\.safetensors are not of the same"):
        checkpoint.average(paths)
