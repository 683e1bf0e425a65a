"""MPI: ranks that mpiexec starts. A few runs, for each takes a second to begin."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from training_runs import SMALL, rows

from tinygrad_tx.distributed.launcher import Launched, launched

BIN = Path(sys.executable).parent
MPIEXEC = shutil.which("mpiexec", path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
needs_mpi = pytest.mark.skipif(
    MPIEXEC is None or importlib.util.find_spec("mpi4py") is None,
    reason='mpi4py or mpiexec is missing: pip install "tinygrad_tx[mpi]"',
)
TRAIN = ("-m", "tinygrad_tx", "train")
ASKED = [*SMALL, "model.dropout=0.2", "train.max_steps=4"]


def command(ranks: int, *given: str) -> list[str]:
    assert MPIEXEC is not None
    return [MPIEXEC, "-n", str(ranks), sys.executable, *given]


def started(ranks: int, *given: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(ranks, *given), capture_output=True, text=True, timeout=120, check=False
    )


def wait_for(path: Path, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not path.exists() or not path.stat().st_size:
        assert time.monotonic() < end, f"{path} does not come"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, None),
        ({"PMI_RANK": "2", "PMI_SIZE": "4"}, Launched(2, 4, "mpiexec")),
        ({"PMI_RANK": "0", "PMI_SIZE": "1"}, None),
        (
            {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "3"},
            Launched(1, 3, "Open MPI's mpiexec"),
        ),
        ({"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8"}, Launched(5, 8, "srun")),
        # A batch script, which srun has not started.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, None),
        ({"PMI_RANK": "x", "PMI_SIZE": "4"}, None),
    ],
)
def test_the_launcher(environment: dict[str, str], wanted: Launched | None) -> None:
    assert launched(environment) == wanted


ALL = """
import json, os
import numpy as np
import tinygrad_tx as tx
from tinygrad_tx.distributed import functional, world

tx.distributed.init_process_group()
rank, size = tx.distributed.get_rank(), tx.distributed.get_world_size()
x = tx.tensor(np.arange(30_000.0) % 97 + rank)
found = [functional.all_reduce(x).sum().item()]
found.append(functional.scattered(x.reshape(size, -1)).sum().item())
found += [functional.stacked(x)[-1, 0].item(), functional.broadcast(x, 1)[3].item()]
twice = tx.compile(lambda x: functional.all_reduce(x * 2))
found += [twice(x).sum().item() for _ in range(3)][-1:]
tx.distributed.barrier()
cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
found.append(tx.get_num_threads() == max(1, cores // size))
every = world.current().all_gather(np.array(found[:1]))
if rank == 0:
    print(json.dumps([size, *found, len(set(every.reshape(-1).tolist()))]))
"""


@needs_mpi
def test_collectives() -> None:
    done = started(3, "-c", ALL)
    assert done.returncode == 0, done.stderr
    total = sum(i % 97 for i in range(30_000))
    first = sum(i % 97 for i in range(10_000))
    wanted = [3, 3 * total + 90_000, 3 * first + 30_000, 2.0, 4.0, 6 * total + 180_000, True, 1]
    assert json.loads(done.stdout) == wanted


@needs_mpi
def test_training(tmp_path: Path) -> None:
    """The command: losses are those of one rank, and one rank alone talks and writes."""
    ask = [*TRAIN, "--set", *ASKED, "--out"]
    done = started(2, *ask, str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("The run is in") == 1
    assert done.stderr.count("making the model") == 1
    alone = subprocess.run(
        [sys.executable, *ask, str(tmp_path / "one")], capture_output=True, timeout=120, check=False
    )
    assert alone.returncode == 0
    for a, b in zip(rows(tmp_path / "two"), rows(tmp_path / "one"), strict=True):
        for name, value in b.items():
            if isinstance(value, float):
                assert a[name] == pytest.approx(value, rel=1e-4), name
            else:
                assert a[name] == value
    again = started(2, *ask, str(tmp_path / "two"))
    assert again.returncode == 1
    said = again.stderr.strip().splitlines()
    assert len(said) == 1 and "holds a run already" in said[0]


@needs_mpi
@pytest.mark.parametrize("who", ["mpiexec", "a rank"])
def test_a_signal_stops_all_and_everything_is_saved(tmp_path: Path, who: str) -> None:
    ask = [*TRAIN, "--set", *SMALL, "train.max_steps=100000", "train.valid_every=100000"]
    ask += ["train.checkpoint_every=100000", "train.log_every=1", "--out", str(tmp_path / "run")]
    pids = tmp_path / "pids"
    pids.mkdir()
    program = (
        "import os, sys, tinygrad_tx.cli as cli\n"
        f"file = os.path.join({str(pids)!r}, os.environ['PMI_RANK'])\n"
        "open(file, 'w').write(str(os.getpid()))\n"
        f"sys.exit(cli.main({ask[2:]!r}))"
    )
    process = subprocess.Popen(
        command(2, "-c", program), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for(tmp_path / "run/metrics.jsonl")
        if who == "mpiexec":
            process.send_signal(signal.SIGINT)
        else:
            os.kill(int((pids / "1").read_text()), signal.SIGTERM)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, told
    assert told.count("interrupted: step") == 1 and "is saved; go on by" in told
    [saved] = (tmp_path / "run/checkpoints").iterdir()
    assert f"step {int(saved.stem.removeprefix('step-'))} is saved" in told


FAILS = """
import tinygrad_tx as tx
tx.distributed.init_process_group()
if tx.distributed.get_rank() == 1:
    raise ValueError("a fault of one")
tx.distributed.all_reduce(tx.ones(3))
"""


@needs_mpi
def test_an_error_of_one_rank_ends_all() -> None:
    begun: Any = time.monotonic()
    done = started(2, "-c", FAILS)
    assert done.returncode != 0 and time.monotonic() - begun < 30
    assert done.stderr.count("rank 1 of 2") == 1 and "a fault of one" in done.stderr
