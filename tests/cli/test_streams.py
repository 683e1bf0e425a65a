"""The command line among other programs: streams that are closed, full or left by their reader,
terminals that draw nothing, signals. Training ends with its results saved, whatever happens to its
progress; results that cannot be written are said to be lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from training_runs import SMALL, Watch, outcome, rows

from tinygrad_tx.training import Stopped, apply_overrides, preset, train

pty = pytest.importorskip("pty")  # what follows is of POSIX

ROOT = Path(__file__).parents[2]
EAGERLY = {"TX_COMPILE": "0"}  # for speed: how steps are computed does not matter here
ENVIRONMENT = {**os.environ, **EAGERLY, "PYTHONPATH": str(ROOT)}
PROGRAM = [sys.executable, "-m", "tinygrad_tx"]
TX = f"{sys.executable} -m tinygrad_tx"
CONFIG = apply_overrides(preset("tiny"), SMALL)  # what the program makes of SET
SET = "--set " + " ".join(SMALL)


def shell(script: str, **more: str) -> subprocess.CompletedProcess[str]:
    """What bash says of a script; $TX is the program, $SET makes a run small."""
    if "/dev/full" in script and not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    return subprocess.run(
        ["bash", "-c", script],
        env={**ENVIRONMENT, "TX": TX, "SET": SET, **more},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def eagerly() -> Iterator[None]:
    with mock.patch.dict(os.environ, EAGERLY):
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "run"
    train(CONFIG, out, progress=Watch())
    return out


@pytest.mark.parametrize(
    ("redirected", "code"),
    [
        ("0<&- >&- 2>&-", 1),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("2>/dev/full", 0),
                (">/dev/full", 1),
                ("2>&1 | head -1", 0),
                ("2>&-", 0),
                ("0<&-", 0),
                ("2> >(head -1 >/dev/null)", 0),
                (">&-", 1),
                (">/dev/full 2>&1", 1),
            )
        ),
    ],
)
def test_a_run_whose_progress_cannot_be_written(
    made: Path, tmp_path: Path, redirected: str, code: int
) -> None:
    out = tmp_path / "run"
    done = shell(f"$TX train --out {out} $SET {redirected}; exit ${{PIPESTATUS[0]}}")
    assert outcome(out) == outcome(made)
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    assert done.returncode == code, done.stderr
    if code and "2>" not in redirected:
        last = done.stderr.splitlines()[-1]
        assert last.startswith("tinygrad-tx: cannot write to standard output: ")
        assert last.endswith(f"; training is done, and its report is in {out}")


@pytest.mark.one_in(2)
@pytest.mark.parametrize("stream", ["/dev/full", "&-"])
@pytest.mark.parametrize(
    "command", ["translate --model {run} {file}", "info {run}", "--help", "doctor --help"]
)
def test_results_that_cannot_be_written(
    made: Path, tmp_path: Path, command: str, stream: str
) -> None:
    file = tmp_path / "in"
    file.write_text("the dog\n" * 3)
    done = shell(f"$TX {command.format(run=made, file=file)} >{stream}")
    reason = "Bad file descriptor" if stream == "&-" else "No space left on device"
    assert done.stderr == f"tinygrad-tx: cannot write to standard output: {reason}\n"
    assert done.returncode == 1


def test_closed_input_is_not_empty(made: Path) -> None:
    done = shell(f"$TX translate --model {made} <&-")
    assert done.stderr == "tinygrad-tx: cannot read standard input: Bad file descriptor\n"
    assert done.returncode == 1 and not done.stdout


@pytest.mark.slow
def test_errors_that_nobody_can_read_keep_their_code(tmp_path: Path) -> None:
    for stream in ("/dev/full", "&-"):
        assert shell(f"$TX info {tmp_path} 2>{stream}").returncode == 1
        assert shell(f"$TX nonsense 2>{stream}").returncode == 2


def test_a_reader_of_results_that_leaves(made: Path) -> None:
    done = shell(f"yes 'the dog' | head -3000 | $TX translate --model {made} | head -1; "
                 "echo ${PIPESTATUS[2]}")  # fmt: skip
    assert done.stdout.splitlines()[-1] == "0" and not done.stderr


def on_a_terminal(out: Path, **environment: str) -> str:
    """What a terminal shows of a run."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, "train", "--out", str(out), "--set", *SMALL],
        env={**ENVIRONMENT, **environment}, stdout=subprocess.DEVNULL, stderr=follower,
    )  # fmt: skip
    os.close(follower)
    shown = b""
    while True:
        try:
            read = os.read(leader, 65536)
        except OSError:  # how Linux says that the other side is closed
            break
        if not read:
            break
        shown += read
    os.close(leader)
    assert process.wait() == 0
    return shown.decode()


@pytest.mark.parametrize("term", ["dumb", pytest.param("unknown", marks=pytest.mark.slow)])
def test_a_terminal_that_draws_nothing_gets_lines(term: str, tmp_path: Path) -> None:
    assert "step      8  loss" in on_a_terminal(tmp_path / "run", TERM=term)


def test_a_terminal_gets_a_bar(tmp_path: Path) -> None:
    drawn = on_a_terminal(tmp_path / "bar", TERM="xterm", COLUMNS="120")
    assert "step      8  loss" not in drawn and "8/8" in drawn


def test_a_terminal_that_goes_away(made: Path, tmp_path: Path) -> None:
    """With SIGHUP ignored, as `nohup` has it, the run outlives its terminal."""
    leader, follower = pty.openpty()
    out = tmp_path / "run"
    process = subprocess.Popen(
        [*PROGRAM, "train", "--out", str(out), "--set", *SMALL],
        env={**ENVIRONMENT, "TERM": "xterm"}, stdout=subprocess.DEVNULL, stderr=follower,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )  # fmt: skip
    os.close(follower)
    os.read(leader, 10)
    os.close(leader)
    assert process.wait() == 0
    assert outcome(out) == outcome(made)


ENDLESS = ["train.max_steps=100000", "train.valid_every=100000"]

# Signals -----------------------------------------------------------------------------------------


def begun(out: Path, ignored: bool = False) -> subprocess.Popen[str]:
    """A run that would not end, at work."""
    default = signal.SIG_IGN if ignored else signal.SIG_DFL
    process = subprocess.Popen(
        [*PROGRAM, "train", "--out", str(out), "--set", *SMALL, *ENDLESS],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, default),
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if "loss" in line:
            break
    return process


@pytest.mark.one_in(2)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_that_save(tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "run"
    process = begun(out)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"is saved; go on by: tinygrad-tx train --resume --out {out}" in stderr
    assert list((out / "checkpoints").glob("step-*.safetensors")) and not (out / ".lock").exists()


def test_nohup_is_respected(tmp_path: Path) -> None:
    process = begun(tmp_path / "run", ignored=True)
    process.send_signal(signal.SIGHUP)
    assert process.stderr is not None
    for line in process.stderr:  # it goes on
        if "loss" in line:
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 130


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]
)
def test_a_signal_while_the_data_are_read(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """The data are a pipe to which nothing is written yet."""
    os.mkfifo(tmp_path / "src")
    (tmp_path / "tgt").write_text("a\n")
    out = tmp_path / "run"
    process = subprocess.Popen(
        [*PROGRAM, "train", "--out", str(out), "--set", *SMALL, "data.corpus=files"]
        + [f"data.{side}={tmp_path / side}" for side in ("src", "tgt")],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: [signal.signal(n, signal.SIG_DFL) for n in (1, 2)],
    )  # fmt: skip
    for _ in range(600):
        if (out / ".lock").exists():
            break
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert stderr == f"tinygrad-tx: interrupted: {number.name}, before the first step\n"
    assert not stdout and not out.exists()


def test_ignored_signals_stay_ignored() -> None:
    from tinygrad_tx.training.interrupt import Interrupts

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_hangups_in_a_step(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    hang_up = Watch(on_step=lambda step: signal.raise_signal(signal.SIGHUP) if step == 2 else None)
    with pytest.raises(Stopped, match="step 2 is saved"):
        train(CONFIG, out, progress=hang_up)
    train(CONFIG, out, resume=True, progress=Watch())
    assert rows(out) == rows(made)
