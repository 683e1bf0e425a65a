"""MPI: ranks that mpiexec starts. A few runs, for each takes a second to begin."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from training_runs import SMALL, Watch, rows

from tinygrad_tx.distributed.launcher import Launched, launched
from tinygrad_tx.training import apply_overrides, preset, train

BIN = Path(sys.executable).parent
MPIEXEC = shutil.which("mpiexec", path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
needs_mpi = pytest.mark.skipif(
    MPIEXEC is None or importlib.util.find_spec("mpi4py") is None,
    reason='mpi4py or mpiexec is missing: pip install "tinygrad_tx[mpi]"',
)
T = TypeVar("T")
ASKED = [*SMALL, "model.dropout=0.2", "train.max_steps=4"]


def command(ranks: int, *given: str) -> list[str]:
    assert MPIEXEC is not None
    return [MPIEXEC, "-n", str(ranks), sys.executable, *given]


def started(ranks: int, *given: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(ranks, *given), capture_output=True, text=True, timeout=120, check=False
    )


def wait_for(what: Callable[[], T], seconds: float = 60.0) -> T:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.05)
    return found


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
    print(json.dumps([size, *found, len(set(every.reshape(-1).tolist()))]), flush=True)
tx.distributed.barrier()
if rank == 1:
    raise ValueError("a fault of one")
tx.distributed.all_reduce(x)
"""


@needs_mpi
def test_collectives_until_one_rank_fails() -> None:
    """Its error ends all, and is told once."""
    begun: Any = time.monotonic()
    done = started(3, "-c", ALL)
    assert done.returncode != 0 and time.monotonic() - begun < 60
    assert done.stderr.count("rank 1 of 3") == 1 and "a fault of one" in done.stderr
    total = sum(i % 97 for i in range(30_000))
    first = sum(i % 97 for i in range(10_000))
    wanted = [3, 3 * total + 90_000, 3 * first + 30_000, 2.0, 4.0, 6 * total + 180_000, True, 1]
    assert json.loads(done.stdout.splitlines()[0]) == wanted


@needs_mpi
def test_training(tmp_path: Path) -> None:
    """The command: losses are those of one rank, and one rank alone talks and writes. Given again,
    it is refused, and one rank alone says so."""
    ask = ["train", "--set", *ASKED, "--out", str(tmp_path / "two")]
    program = (
        "import sys\nfrom tinygrad_tx.cli import main\n"
        f"assert main({ask!r}) == 0\nsys.exit(main({ask!r}))"
    )
    done = started(2, "-c", program)
    assert done.returncode == 1, done.stderr
    assert done.stdout.count("The run is in") == 1
    said = done.stderr.strip().splitlines()
    assert "\n".join(said).count("making the model") == 1
    assert "holds a run already" in said[-1] and done.stderr.count("holds a run already") == 1
    train(apply_overrides(preset("tiny"), ASKED), tmp_path / "one", progress=Watch())
    for a, b in zip(rows(tmp_path / "two"), rows(tmp_path / "one"), strict=True):
        for name, value in b.items():
            if isinstance(value, float):
                assert a[name] == pytest.approx(value, rel=1e-4), name
            else:
                assert a[name] == value


@needs_mpi
def test_a_signal_stops_all_and_everything_is_saved(tmp_path: Path) -> None:
    """Two sittings of the same ranks: a signal to one of them, then Ctrl-C at the launcher."""
    run = tmp_path / "run"
    ask = ["train", "--set", *SMALL, "train.max_steps=100000", "train.valid_every=100000"]
    ask += ["train.checkpoint_every=100000", "train.log_every=1", "--out", str(run)]
    pids, metrics = tmp_path / "pids", run / "metrics.jsonl"
    pids.mkdir()
    program = (
        "import os, sys, tinygrad_tx.cli as cli\n"
        f"file = os.path.join({str(pids)!r}, os.environ['PMI_RANK'])\n"
        "open(file, 'w').write(str(os.getpid()))\n"
        f"assert cli.main({ask!r}) == 130\n"
        f"sys.exit(cli.main({[*ask, '--resume']!r}))"
    )
    process = subprocess.Popen(
        command(2, "-c", program), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for(lambda: metrics.exists() and rows(run))
        os.kill(int((pids / "1").read_text()), signal.SIGTERM)
        wait_for(lambda: len((run / "sittings.jsonl").read_text().splitlines()) == 2)
        step = rows(run)[-1]["step"]
        wait_for(lambda: rows(run)[-1]["step"] > step)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, told
    assert told.count("is saved; go on by") == 2, told
    saved = [int(step) for step in re.findall(r"interrupted: step (\d+) is saved", told)]
    assert saved[0] <= step < saved[1]
    left = [file.name for file in (run / "checkpoints").iterdir()]
    assert left == [f"step-{saved[1]:08}.safetensors"]
