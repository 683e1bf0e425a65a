"""What benchmarks.gpu measures: contenders in processes of their own, compared, then timed.

In: a Run, works and kernels. Out: rows of `Run.found`, each there as soon as it is known. A
contender that cannot be timed has a row that says why, and takes nothing else with it.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from math import inf, isfinite
from pathlib import Path
from statistics import median
from typing import Any

from tinygrad_tx.backends.gpus import GPU
from tinygrad_tx.training import outlook

from .common import Worker, WorkerError, interleave, summary
from .gpu_kernels import TOLERANCE, Case
from .works import OF_GPUS, WORKS

CHECKED, LOSSES = 3, 1e-2  # steps whose losses are compared, and how closely: bf16 has 8 bits
WAITING = 3  # calls in which waits are counted
BUSY = 0.8  # of a call's time: if the host takes as much for it, it is the host that is measured
FULL = "out of memory"
Row = dict[str, Any]


@dataclass
class Run:
    """What is to be done, and what has been: `found`, the result without its head. warm: steps that
    nobody times, for compiling and for graphs (a plan of ours is captured at its second run and
    timed at its third); repeats, turn_s: of the turns; total: rows to come."""

    repeats: int
    turn_s: float
    warm: int
    precision: str
    gpu: GPU | None
    found: dict[str, Any]
    save: Callable[[], Path]
    total: int
    done: int = 0

    def say(self, what: str) -> None:
        """A line for each measurement; the result as far as it goes is on disk."""
        self.done += 1
        self.save()
        print(f"[{self.done}/{self.total}] {what}", file=sys.stderr, flush=True)

    def times(self, workers: Mapping[str, Worker], ours: str) -> dict[str, Row]:
        """Turns of all of them; `host_ms` is how long the host was busy with a call."""
        host: dict[str, list[float]] = {name: [] for name in workers}

        def turns(name: str) -> Callable[[int], list[float]]:
            def turn(count: int) -> list[float]:
                answer = workers[name].do("timed", count=count)
                host[name].append(1e3 * answer["host"])
                return [answer["seconds"]]

            return turn

        runs = {name: turns(name) for name in workers}
        found: dict[str, Row] = summary(interleave(runs, self.repeats, self.turn_s), ours)
        for name, row in found.items():
            row["host_ms"] = round(median(host[name]), 4)
        return found

    def floor(self, n_bytes: float, flops: float, precision: str) -> float | None:
        """The least milliseconds of a kernel."""
        if self.gpu is None:
            return None
        return round(1e3 * self.gpu.seconds(n_bytes, flops, precision), 4)


class RefusedError(Exception):
    """A contender that is not timed, and why. details: what its process said."""

    def __init__(self, why: str, details: str = "") -> None:
        super().__init__(why)
        self.details = details

    def row(self) -> Row:
        return {"refused": str(self), **({"details": self.details} if self.details else {})}


def refused(error: WorkerError) -> RefusedError:
    """A process's failure. Memory is full in the words of CuPy, PyTorch, CUDA or XLA."""
    text = str(error).strip()
    low = text.lower()
    if any(words in low for words in ("out of memory", "resource_exhausted", "memoryerror")):
        return RefusedError(FULL, text)
    return RefusedError(f"failed: {text.splitlines()[-1]}", text)


@contextmanager
def on_gpu(*names: str) -> Iterator[dict[str, Worker]]:
    """A process for each contender. JAX takes memory as it needs it, not most of it at once."""
    extra = {
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0"),
        "JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", ""),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    threads = min(8, os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        found = {}
        for name in names:
            worker = Worker(name, threads, Path(directory), extra, program="benchmarks.gpu_worker")
            stack.callback(worker.close)
            found[name] = worker
        yield found


# Steps -----------------------------------------------------------------------------------------


def steps(run: Run, name: str, names: Sequence[str], changes: Mapping[str, int]) -> None:
    """A work by each contender."""
    work = replace((OF_GPUS | WORKS)[name], **changes)
    rows: dict[str, Row] = {}
    run.found["steps"][name] = record = {
        "batch": work.batch,
        "length": work.length,
        "tokens": work.batch * work.length,
        "floor_ms": None,
        "contenders": rows,
    }
    if run.gpu is not None:
        planned = outlook.of_work(name, batch=work.batch, precision=run.precision)
        record["floor_ms"] = round(1e3 * planned.seconds(run.gpu), 4)
    contest = Contest(run, {"work": name, "changes": dict(changes)}, work.dropout)
    try:
        for contender in names:
            try:
                row = contest.row(contender)
                row["tokens_per_s"] = round(1e3 * record["tokens"] / row["median_ms"])
            except RefusedError as why:
                row = why.row()
            rows[contender] = row
            run.say(f"{name}: {contender}: {line(row)}")
    finally:
        contest.close()


class Contest:
    """Contenders of one work. Ours stays, so that the others take turns with it."""

    def __init__(self, run: Run, sizes: dict[str, Any], dropout: float) -> None:
        self._run, self._sizes, self._dropout = run, sizes, dropout
        self._stack, self._ours = ExitStack(), None
        self._losses: dict[str, list[float]] = {}  # the others are held to those of the first
        self._alone: float | None = None  # our median, with nobody else on the GPU

    def close(self) -> None:
        self._stack.close()
        self._ours = None

    def row(self, name: str) -> Row:
        """The numbers of a contender; RefusedError where there are none."""
        if name == "tx":
            row = self._whole(name, beside=False)
            self._alone = row["median_ms"]
            return row
        if self._alone is not None:
            try:
                return self._whole(name, beside=True)
            except RefusedError as why:
                if str(why) != FULL:
                    raise
        self.close()  # perhaps there is room for one
        row = self._whole(name, beside=False)
        row["alone"] = True
        row["ratio"] = round(row["median_ms"] / self._alone, 3) if self._alone else None
        return row

    def _whole(self, name: str, beside: bool) -> Row:
        """A contender prepared and timed. beside: in turns with ours."""
        try:
            with ExitStack() as stack:
                workers = {"tx": self._with_ours()} if beside or name == "tx" else {}
                if name != "tx":
                    workers |= stack.enter_context(on_gpu(name))
                    self._prepare(workers[name])
                row = self._run.times(workers, next(iter(workers)))[name]
                row["waits"] = workers[name].do("waits", count=WAITING)
                row["held_gb"] = round(workers[name].do("held") / 1e9, 6)
                row["losses"] = self._losses[name]
                row["losses_apart"] = self._apart(name)
                return row
        except WorkerError as error:
            self.close()
            raise refused(error) from None

    def _with_ours(self) -> Worker:
        if self._ours is None:
            self._ours = self._stack.enter_context(on_gpu("tx"))["tx"]
            self._prepare(self._ours)
        return self._ours

    def _prepare(self, worker: Worker) -> None:
        """Compare a contender's first losses with those of the first one, and warm it up."""
        train = {**self._sizes, "precision": self._run.precision}
        worker.do("train", dropout=0.0, **train)
        losses = worker.do("losses", count=CHECKED)
        if not all(map(isfinite, losses)):
            raise RefusedError(f"its losses are {losses}")
        self._losses[worker.name] = losses
        if self._apart(worker.name) > LOSSES:
            first, wanted = next(iter(self._losses.items()))
            del self._losses[worker.name]
            raise RefusedError(f"its losses are {losses} where those of {first} are {wanted}")
        if self._dropout:
            worker.do("train", dropout=self._dropout, **train)
        worker.do("timed", count=self._run.warm)

    def _apart(self, name: str) -> float:
        """How far a contender's losses are from those of the first one, at most, of these."""
        first = next(iter(self._losses.values()))
        return max(abs(a - b) / abs(b) for a, b in zip(self._losses[name], first, strict=True))


def line(row: Mapping[str, Any]) -> str:
    """A row in a few words."""
    if "refused" in row:
        return str(row["refused"])
    ratio = "" if row["ratio"] is None else f", {row['ratio']} times ours"
    return f"{row['median_ms']:.4g} ms{ratio}"


# Kernels ---------------------------------------------------------------------------------------


def kernels(run: Run, cases: Sequence[Case], names: Sequence[str]) -> None:
    """Each kernel by each contender."""
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for case in cases:
            for name in names:  # in their order, for all are held to the first
                worker = workers.pop(name, None)
                workers[name] = worker or stack.enter_context(on_gpu(name))[name]
            rows = _kernel(run, case, workers)
            run.found["kernels"].append(
                {
                    "kernel": case.title,
                    "bytes": case.bytes,
                    "flops": case.flops,
                    "floor_ms": run.floor(case.bytes, case.flops, case.precision),
                    "contenders": {name: rows[name] for name in names},
                }
            )
            said = ", ".join(f"{name} {line(rows[name])}" for name in names)
            run.say(f"{case.title}: {said}")


def _kernel(run: Run, case: Case, workers: dict[str, Worker]) -> dict[str, Row]:
    """One kernel: results compared, then times. A contender that fails is left out, and the others
    begin again; its process, which may have ended or lost the GPU, is taken out of `workers`."""
    rows: dict[str, Row] = {}
    while left := {name: worker for name, worker in workers.items() if name not in rows}:
        results: dict[str, list[float]] = {}
        try:
            for name, worker in left.items():
                worker.do("kernel", name=case.kernel, precision=case.precision, shapes=case.shapes)
                results[name] = worker.do("numbers")
                first = results[next(iter(results))]
                if not (apart := _apart(results[name], first)) < TOLERANCE[case.precision]:
                    raise WorkerError(f"{name}: its results are {apart:.1e} apart from ours")
            times = run.times(left, next(iter(left)))
            for row in times.values():
                row["host_bound"] = row["host_ms"] > BUSY * row["median_ms"]
            rows |= times
        except WorkerError as error:
            guilty = str(error).partition(":")[0]
            rows[guilty] = refused(error).row()
            workers.pop(guilty).close()
        for worker in workers.values():
            worker.do("forget")
    return rows


def _apart(a: Sequence[float], b: Sequence[float]) -> float:
    """The largest difference, of the largest number; inf where a number is none or infinite."""
    if not all(map(isfinite, (*a, *b))):
        return inf
    largest = max(map(abs, b), default=0.0) or 1.0
    return max((abs(x - y) for x, y in zip(a, b, strict=True)), default=0.0) / largest
