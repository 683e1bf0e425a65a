"""Calibration: what this machine takes for the work of a step, learnt from steps of several sizes.

In: nothing, or a file of an earlier time. Out: a Machine (compiler/inspect/machine.py). Each size
is a process of its own, whose memory is its own; together they take half a minute on a machine that
has nothing else to do, and are not begun after LIMIT seconds. What was learnt is kept in the cache
directory, for a machine, its number of threads and this version's code. Called by
`tinygrad-tx plan`, and by `info` and the end of a run, which calibrate nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ..atomic import write_bytes
from ..backends import store
from ..backends.cpu import host, jit
from ..backends.cpu.run.team import get_num_threads
from ..compiler.inspect.loads import KINDS, Load
from ..compiler.inspect.machine import Machine, Sample, fitted, positive
from ..errors import UserError
from . import outlook
from .works import work

LIMIT = 45.0  # seconds after which no other size is begun
_LEAST = 3  # sizes that are measured in any case
_TIMEOUT = 300.0
Run = tuple[Mapping[str, Any], dict[str, Any]]  # the table of a work, and what its steps took
# Steps that have all kinds of kernels, products of few and of many rows, and memory near and far.
SIZES: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("W1", {"width": 96, "hidden": 384, "layers": 1, "vocab": 1500, "batch": 32, "length": 20}),
    ("W4", {"width": 192, "heads": 6, "layers": 2, "vocab": 100, "batch": 8, "length": 128}),
    (
        "W1",
        {"width": 320, "heads": 8, "hidden": 1280, "layers": 1, "vocab": 6000, "batch": 16}
        | {"length": 32},
    ),
    ("W4", {"width": 64, "heads": 2, "layers": 2, "vocab": 50, "batch": 4, "length": 32}),
    ("W4", {"width": 448, "heads": 7, "layers": 1, "vocab": 80, "batch": 4, "length": 256}),
    (
        "W1",
        {"width": 192, "heads": 6, "hidden": 512, "layers": 2, "vocab": 3000, "batch": 24}
        | {"length": 28},
    ),
)


def known() -> Machine | None:
    """What an earlier calibration has learnt of this machine; None if there was none."""
    path = _path()
    if path is None:
        return None
    try:
        found = json.loads(path.read_bytes())
        machine = Machine(**found)
        numbers = [*machine.seconds.values(), machine.wave, machine.step, machine.tensor]
        numbers += [machine.bytes, machine.launch_bytes, machine.making_bytes]
        whole = set(machine.seconds) == set(KINDS) and machine.threads == get_num_threads()
        return machine if whole and all(isinstance(x, (int, float)) for x in numbers) else None
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def calibrate(say: Callable[[str], None] = lambda text: None) -> Machine:
    """Measure this machine, and keep what was learnt. say: told what is going on. UserError where
    no native code runs here."""
    begun = time.perf_counter()
    found = []
    for i, (name, sizes) in enumerate(SIZES):
        if i >= _LEAST and time.perf_counter() - begun > LIMIT:
            break
        say(f"measuring this machine: step {i + 1} of {len(SIZES)}")
        table = {**work(name), **sizes}
        with TemporaryDirectory() as empty:  # the first makes all of its code, whatever is kept
            found.append((table, measured({**table, "timed": True}, "" if i else empty)))
    name, sizes = SIZES[1]  # whose code is there by now: so what making some takes is told apart
    table = {**work(name), **sizes}
    machine = _learnt(found, [*found, (table, measured(table))])
    path = _path()
    if path is not None:
        with suppress(OSError, UserError):
            write_bytes(path, json.dumps(asdict(machine), indent=1).encode())
    return machine


def measured(table: Mapping[str, Any], cache: str = "") -> dict[str, Any]:
    """What steps of a work take, in a process of its own. cache: where it finds code, if that is
    elsewhere."""
    command = [sys.executable, "-m", f"{__package__}.calibrating", json.dumps(dict(table))]
    environment = {**os.environ, "TX_NUM_THREADS": str(get_num_threads())}
    environment |= {"TX_CACHE_DIR": cache} if cache else {}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT, check=False, env=environment
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"a step on this machine was not measured in {_TIMEOUT:.0f} s") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it was killed"])[-1]
        raise UserError(f"this machine could not be measured: {said}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _learnt(found: Sequence[Run], of_memory: Sequence[Run]) -> Machine:
    """What runs tell of time, and what they and another one tell of memory."""
    runs = [run for _, run in found]
    threads = runs[0]["threads"]
    per_run = [
        [
            Sample(tuple(Load(*x) for x in loads), tuple(busy), t)
            for loads, busy, t in run["samples"]
        ]
        for run in runs
    ]
    seconds, wave = fitted([sample for samples in per_run for sample in samples], threads)
    rest = [max(run["rest"], 1e-6) for run in runs]
    step, tensor = positive(np.array([[1, run["tensors"]] for run in runs], float), np.array(rest))
    outlooks = [outlook.of_table("", table, here=True) for table, _ in of_memory]
    beside = [run["peak"] - o.memory.peak for (_, run), o in zip(of_memory, outlooks, strict=True)]
    about = [[1, run["launches"], bool(run["made"])] for _, run in of_memory]
    own = positive(np.array(about, float), np.array(beside, float))
    name = host.described()
    machine = Machine(name, threads, seconds, wave, float(step), float(tensor), *own.tolist())
    # What is usual rather than the least, and what the parts leave out.
    times = [run["seconds"] / o.on(machine) for run, o in zip(runs, outlooks, strict=False)]
    return machine.slower(median(times))


def _path() -> Path | None:
    """The file of this machine, as code is made for it now."""
    directory = store.directory()
    if directory is None:
        return None
    what = [host.described()]
    what += [repr(jit.host_target()), str(get_num_threads()), store.sources("cpu", "llvm")]
    digest = sha256("\0".join(what).encode()).hexdigest()
    return directory / f"machine-{digest[:32]}.json"
