"""Damage and kills at random: every file of a run directory with bits flipped or its end cut off,
under every command that reads it. Never a traceback, never other weights without a word; and a run
that is killed wherever it happens to be goes on to the same end."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from training_runs import SMALL, Watch, outcome

import tinygrad_tx as tx
from tinygrad_tx.cli import main
from tinygrad_tx.errors import UserError
from tinygrad_tx.models.loading import weights
from tinygrad_tx.training import apply_overrides, load, preset, train

ROOT = Path(__file__).parents[2]
TINY = [
    *SMALL,
    *("tokenizer.kind=word", "tokenizer.vocab_size=40", "model.d_model=8", "model.n_heads=2"),
    *("data.corpus_size=40", "train.max_steps=4", "train.checkpoint_every=2"),
    *("train.valid_every=2", "train.log_every=1"),
]
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 4 steps with averaged weights."""
    out = tmp_path_factory.mktemp("made") / "run"
    train(apply_overrides(preset("tiny"), TINY), out, progress=Watch())
    assert main(["average", str(out), "--last", "2"]) == 0
    return out


def spoilt(content: bytes, rng: random.Random) -> bytes:
    """The content with some damage of the kinds that disks and transfers do."""
    at = rng.randrange(len(content))
    match rng.randrange(5):
        case 0:
            return content[:at]
        case 1:
            return content[:at] + bytes(min(512, len(content) - at)) + content[at + 512 :]
        case 2:
            return content[:at] + content[at + 1 :]
        case _:
            bit = bytes([content[at] ^ 1 << rng.randrange(8)])
            return content[:at] + bit + content[at + 1 :]


def damages(made: Path, run: Path, rng: random.Random, times: int) -> Iterator[tuple[Path, bytes]]:
    """Copies of the run, restored before each damage; each file is damaged so often."""
    names = [p.relative_to(made) for p in sorted(made.rglob("*")) if p.is_file()]
    for name in names:
        content = (made / name).read_bytes()
        for _ in range(times):
            shutil.rmtree(run, ignore_errors=True)
            shutil.copytree(made, run)
            found = spoilt(content, rng)
            (run / name).write_bytes(found)
            yield run / name, found


def check(capsys: Capture, arguments: list[str]) -> int:
    capsys.readouterr()
    code = main(arguments)
    err = capsys.readouterr().err
    assert code in (0, 1) and "Traceback" not in err
    if code:
        assert err.splitlines()[-1].startswith("tinygrad-tx: ")
    return code


@pytest.mark.parametrize("times", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_damaged_files(made: Path, tmp_path: Path, capsys: Capture, times: int) -> None:
    run, sentences = tmp_path / "run", tmp_path / "in"
    sentences.write_text("the old man reads the book .\n")
    models = ("model.safetensors", "averaged.safetensors", "checkpoints/step-00000004.safetensors")
    right = {name: {k: t.numpy() for k, t in weights(made / name).items()} for name in models}
    for file, damage in damages(made, run, random.Random(times), times):
        for name in models:
            try:
                model, _ = tx.models.load(run / name)
            except UserError as error:
                assert "\n" not in str(error)
                continue
            for key, t in model.state_dict().items():
                assert np.array_equal(t.numpy(), right[name][key]), (file, damage)
        check(capsys, ["info", str(run)])
        check(capsys, ["translate", "--model", str(run), str(sentences)])
        if check(capsys, ["train", "--resume", "--out", str(run)]) == 0:
            # A changed config.toml may ask for other translations, or for more steps.
            for name in ("checkpoints/step-00000004.safetensors", "translations.txt"):
                if file.name != "config.toml":
                    assert (run / name).read_bytes() == (made / name).read_bytes(), (file, damage)
        check(capsys, ["average", str(run), "--last", "2"])


@pytest.mark.slow  # test_checkpoint.py kills, too
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_killed_at_random(tmp_path: Path) -> None:
    """SIGKILL wherever the run happens to be, again and again; then it is left in peace."""
    straight, out, config = tmp_path / "straight", tmp_path / "run", tmp_path / "config.toml"
    settings = [*TINY, *("train.max_steps=60", "train.checkpoint_every=1", "train.keep_last=5")]
    train(apply_overrides(preset("tiny"), settings), straight, progress=Watch())
    shutil.copy(straight / "config.toml", config)
    rng, kills = random.Random(0), 0
    for _ in range(6):
        more = ["--resume"] if (out / "config.toml").exists() else [str(config)]
        process = subprocess.Popen(
            [sys.executable, "-m", "tinygrad_tx", "train", *more, "--out", str(out)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if "step" in line:
                break
        time.sleep(rng.random() * 0.3)
        process.send_signal(signal.SIGKILL)
        stderr = process.communicate()[1]
        assert "Traceback" not in stderr
        kills += process.returncode == -signal.SIGKILL
    assert kills
    train(load(config), out, resume=True, progress=Watch())
    assert outcome(out) == outcome(straight)
