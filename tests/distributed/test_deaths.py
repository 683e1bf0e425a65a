"""Ranks that die: the others end, in one line, and the run goes on from what is saved."""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from jobs import LIMIT, MPIEXEC, Job, Machines, job, needs_mpi, needs_proc, told, wait_for
from training_runs import SMALL

from tinygrad_tx import serialize

pytestmark = [needs_mpi, needs_proc]

TRAIN = ("train", "--set", *SMALL, "train.checkpoint_every=2", "train.valid_every=8")
LONG = ("train.max_steps=100000", "train.valid_every=100000")

STEPS = """
import sys, time
import tinygrad_tx as tx
from tinygrad_tx.distributed import world

tx.distributed.init_process_group()
world.note("nothing is to be saved")
for n in range(1_000_000):
    tx.distributed.all_reduce(tx.ones(3))
    if n == 3 and tx.distributed.get_rank() == 0:
        open(sys.argv[1], "w").write("begun")
    time.sleep(0.01)
"""


def mpiexec(ranks: int, *given: str) -> list[str]:
    assert MPIEXEC is not None
    return [MPIEXEC, "-n", str(ranks), sys.executable, *given]


def launch(*given: str) -> list[str]:
    return [sys.executable, "-m", "tinygrad_tx", "launch", *given]


@pytest.mark.parametrize(
    ("how", "who", "ranks"),
    [
        (signal.SIGKILL, 0, 2),
        (signal.SIGKILL, 1, 2),
        (signal.SIGSTOP, 0, 2),
        pytest.param(signal.SIGSTOP, 1, 2, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, 1, 3, marks=pytest.mark.slow),
        pytest.param(signal.SIGSTOP, 1, 3, marks=pytest.mark.slow),
    ],
)
def test_a_rank_that_dies_ends_the_job(
    tmp_path: Path, how: signal.Signals, who: int, ranks: int
) -> None:
    begun = tmp_path / "begun"
    with job(mpiexec(ranks, "-c", STEPS, str(begun))) as one:
        wait_for(begun, one)
        os.kill(one.rank(who), how)
        code, _, err = one.ended()
    assert code != 0
    what = "has ended" if how == signal.SIGKILL else "has not answered for 3 s"
    (line,) = told(err)
    assert line.startswith(f"tinygrad-tx: rank {who} of {ranks}, on ")
    assert line.endswith(f", {what}; the job ends; nothing is to be saved")


WAITING = """
import sys, time
import tinygrad_tx as tx

tx.distributed.init_process_group()
tx.distributed.barrier()
try:
    if tx.distributed.get_rank() == int(sys.argv[2]):
        open(sys.argv[1], "w").write("begun")
        tx.distributed.barrier()
    time.sleep(100.0)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("who", [0, 1])
def test_ranks_that_are_interrupted_do_not_wait_for_each_other(tmp_path: Path, who: int) -> None:
    """One of them is in a call to which the other one never comes."""
    begun = tmp_path / "begun"
    with job(mpiexec(2, "-c", WAITING, str(begun), str(who))) as one:
        wait_for(begun, one)
        time.sleep(0.2)
        one.process.send_signal(signal.SIGINT)
        code, _, err = one.ended()
    assert code == 130 and not told(err), err


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(12))
def test_an_interrupt_at_the_start_ends_the_job(tmp_path: Path, moment: int) -> None:
    """Whatever the ranks do: read, learn the vocabulary, compare what they have, compile."""
    out = tmp_path / "run"
    with job(launch("-n", "2", "--", "train", "--out", str(out), "--set", *LONG)) as one:
        time.sleep(0.4 + 0.7 * moment)
        one.process.send_signal(signal.SIGINT)
        code, _, err = one.ended()
    assert code == 130, err
    assert not any("died" in line or "has ended" in line for line in told(err)), err


LAST = """
import sys, time
import tinygrad_tx as tx

tx.distributed.init_process_group()
tx.distributed.barrier()
if tx.distributed.get_rank() == 1:
    open(sys.argv[1], "w").write("begun")
    time.sleep(float(sys.argv[2]))
"""


@pytest.mark.slow
def test_who_waits_for_the_end_of_others_is_watched_and_watches(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    with job(mpiexec(2, "-c", LAST, str(begun), "8")) as one:
        code, _, err = one.ended()
    assert code == 0 and not told(err), err
    begun.unlink()
    with job(mpiexec(2, "-c", LAST, str(begun), "100")) as one:
        wait_for(begun, one)
        time.sleep(1.0)  # the other one has come to its end
        os.kill(one.rank(1), signal.SIGSTOP)
        code, _, err = one.ended()
    (line,) = told(err)
    assert "rank 1 of 2" in line and "has not answered for 3 s" in line


@pytest.mark.slow
def test_the_line_in_a_file_is_not_written_over(tmp_path: Path) -> None:
    begun, log, program = tmp_path / "begun", tmp_path / "log", tmp_path / "steps.py"
    program.write_text(STEPS)
    line = f"{shlex.join(mpiexec(2, str(program), str(begun)))} > {log} 2>&1"
    with job(["sh", "-c", line]) as one:
        wait_for(begun, one)
        os.kill(one.rank(1), signal.SIGKILL)
        one.ended()
    text = log.read_text()
    assert len(told(text)) == 1 and "signal 9" in text


def require_whole(run: Path) -> None:
    """Every file reads whole, but for one that somebody was about to write."""
    for path in run.rglob("*"):
        if path.name.startswith(".") or path.is_dir():
            continue
        if path.suffix == ".safetensors":
            assert serialize.load(path)  # it has a checksum
        elif path.suffix == ".jsonl":
            *lines, torn = path.read_text().split("\n")
            assert not torn and all(map(json.loads, lines))
        elif path.suffix == ".json":
            assert json.loads(path.read_text())
        else:
            assert path.read_text().strip()


def require_equal(one: Path, other: Path) -> None:
    """Both have come to the same end, to the byte."""
    last = sorted((one / "checkpoints").iterdir())[-1].name
    for name in (f"checkpoints/{last}", "model.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def whole(tmp_path: Path, *ask: str) -> Path:
    """A run of two ranks that nothing disturbs."""
    out = tmp_path / "whole"
    done = subprocess.run(
        mpiexec(2, "-m", "tinygrad_tx", *ask, "--out", str(out)),
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and not told(done.stderr), done.stderr
    return out


def test_a_job_goes_on_from_the_last_checkpoint(tmp_path: Path) -> None:
    """launch --retries: a rank is killed, and the end is that of a job that ran through."""
    ask, out = (*TRAIN, "train.max_steps=8"), tmp_path / "broken"
    with job(launch("-n", "2", "--retries", "2", "--", *ask, "--out", str(out))) as one:
        wait_for(out / "checkpoints", one)
        os.kill(one.rank(1), signal.SIGKILL)
        code, _, err = one.ended()
    assert code == 0, err
    died, again = told(err)
    assert "rank 1 of 2" in died and "has ended; the job ends; step " in died
    assert "attempt 2 of 3, with 2 ranks: tinygrad-tx train --resume" in again
    assert err.count("going on from") == 1
    require_equal(whole(tmp_path, *ask), out)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_whenever_ranks_die_nothing_is_half_written(tmp_path: Path, seed: int) -> None:
    ask, out, dice = (*TRAIN, "train.max_steps=20"), tmp_path / "broken", random.Random(seed)
    begin = mpiexec(2, "-m", "tinygrad_tx", *ask, "--out", str(out))
    again = mpiexec(2, "-m", "tinygrad_tx", "train", "--resume", "--out", str(out))
    metrics, deaths = out / "metrics.jsonl", 0

    def seen() -> tuple[float, list[str]]:
        there = sorted(path.name for path in out.glob("checkpoints/step-*"))
        return metrics.stat().st_mtime_ns if metrics.exists() else 0, there[-1:]

    while deaths < 100:
        before, far = seen(), dice.random() < 0.8  # whether it comes to another checkpoint
        with job(again if metrics.exists() else begin) as one:
            while seen()[far] == before[far] and one.process.poll() is None:
                time.sleep(0.02)  # all ranks are watched then
            time.sleep(dice.uniform(0.0, 1.0))
            who, how = dice.randrange(2), dice.choice((signal.SIGKILL, signal.SIGSTOP))
            limit = 120.0
            with suppress(AssertionError, OSError):  # it has just ended
                os.kill(one.rank(who), how)
                limit = LIMIT
            code, _, err = one.ended(limit)
        require_whole(out)
        if not code:
            break
        deaths += 1
        assert len([line for line in told(err) if "the job ends" in line]) == 1, err
    assert 2 <= deaths < 100
    require_equal(whole(tmp_path, *ask), out)


DIES = """
import os, signal, time
import tinygrad_tx as tx

tx.distributed.init_process_group()
tx.distributed.barrier()
if tx.distributed.get_rank() == 1:
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(60)
"""


@pytest.mark.slow
def test_retries_are_used_up(tmp_path: Path) -> None:
    program = tmp_path / "dies.py"
    program.write_text(DIES)
    with job(launch("-n", "2", "--retries", "1", "--", str(program))) as one:
        code, _, err = one.ended()
    assert code not in (0, 1, 2)
    first, again, second = told(err)
    assert "attempt 2 of 2" in again
    assert first == second and "rank 1 of 2" in first


def test_what_the_user_did_is_not_tried_again(tmp_path: Path) -> None:
    """An error that every attempt would have, a signal, a wrong option."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/metrics.jsonl").write_text("{}\n")
    several = launch("-n", "2", "--retries", "3", "--")
    with job([*several, "train", "--out", str(tmp_path / "run")]) as one:
        code, _, err = one.ended()
    assert code == 1 and len(told(err)) == 1 and "choose another --out" in err
    with job([*several, "train", "--steps", "3", "--out", "x"]) as one:
        code, _, err = one.ended()
    assert code == 2 and "unrecognized arguments: --steps" in err


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_launch_saves_and_ends(tmp_path: Path, how: signal.Signals) -> None:
    ask, out = (*TRAIN, *LONG), tmp_path / "run"
    with job(launch("-n", "2", "--retries", "3", "--", *ask, "--out", str(out))) as one:
        wait_for(out / "checkpoints", one)
        one.process.send_signal(how)
        code, _, err = one.ended()
    assert code == 130, err
    (line,) = told(err)
    assert "interrupted: step" in line and "is saved" in line


@pytest.mark.slow
def test_the_launcher_itself_is_killed(tmp_path: Path) -> None:
    begun, program = tmp_path / "begun", tmp_path / "steps.py"
    program.write_text(STEPS)
    with job(launch("-n", "2", "--", str(program), str(begun))) as one:
        wait_for(begun, one)
        one.process.kill()
        one.ended()


# Two machines ------------------------------------------------------------------------------------
def ranks_on(machines: Machines, one: Job) -> None:
    assert one.rank(0) != one.rank(1)
    found = {Path(f"/proc/{one.rank(n)}/ns/net").readlink() for n in (0, 1)}
    assert len(found) == 2


@pytest.mark.slow
@pytest.mark.parametrize("how", ["the link is cut", signal.SIGKILL, signal.SIGSTOP])
def test_two_machines(tmp_path: Path, how: str | signal.Signals) -> None:
    """The default limit holds what is promised: 30 seconds."""
    begun, program = tmp_path / "begun", tmp_path / "steps.py"
    program.write_text(STEPS)
    with Machines(tmp_path) as machines:
        spread = ["-hosts", ",".join(machines.addresses), "-ppn", "1"]
        start, *rest = mpiexec(2, str(program), str(begun))
        command = machines.on_first(start, *spread, *rest)
        with job(command, **machines.environment, TX_RANK_TIMEOUT="15") as one:
            wait_for(begun, one)
            ranks_on(machines, one)
            if isinstance(how, signal.Signals):
                os.kill(one.rank(1), how)
            else:
                machines.cut()
            code, _, err = one.ended()
    assert code != 0
    what = "ended" if how == signal.SIGKILL else "not answered for 15 s"
    (line,) = told(err)
    assert line.startswith(f"tinygrad-tx: rank 1 of 2, on {machines.names[1]}, has {what}; ")


@pytest.mark.slow
def test_a_lost_machine_is_done_without(tmp_path: Path) -> None:
    ask, out = (*TRAIN, "train.max_steps=200"), tmp_path / "run"
    with Machines(tmp_path) as machines:
        hosts = ("--hosts", ",".join(machines.addresses), "--min", "1", "--retries", "2")
        command = launch("-n", "2", *hosts, "--", *ask, "--out", str(out))
        with job(machines.on_first(*command), **machines.environment) as one:
            wait_for(out / "checkpoints", one)
            ranks_on(machines, one)
            machines.cut()
            out_text, err = one.process.communicate(timeout=120)
            code, _ = one.process.returncode, one
    assert code == 0, err
    died, again = told(err)
    assert f"rank 1 of 2, on {machines.names[1]}, has not answered for 3 s" in died
    assert "attempt 2 of 3, with 1 ranks" in again and "The run is in" in out_text
    require_whole(out)
