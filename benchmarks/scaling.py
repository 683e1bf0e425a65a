"""Steps of training on several ranks of this machine, beside what a model on paper says of them:
python -m benchmarks.scaling --help

Each number of ranks is a job of mpiexec; the jobs take turns. All take the same steps on the same
batches, dropout included, each rank with its rows of them, and their first losses must agree. Every
rank has so many threads, of which the machine is measured first. Where there are more threads than
cores, the machine is oversubscribed, and what the model says of that is reported only.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import tinygrad_tx as tx
from tinygrad_tx.backends.cpu import host
from tinygrad_tx.compiler.inspect.estimate import Work
from tinygrad_tx.compiler.inspect.machine import Machine
from tinygrad_tx.distributed.paper import Network
from tinygrad_tx.training import calibration, outlook
from tinygrad_tx.training.ranks import Share, Timing, shares

from .common import (
    ROOT,
    WorkerError,
    add_choice,
    add_repeats,
    busy,
    command,
    counts,
    parser,
    show,
    write,
)
from .works import WORKS

EXAMPLES = """\
  python -m benchmarks.scaling
  python -m benchmarks.scaling --work W3 --ranks 1,2 --threads 1 --repeats 5"""
MEASURED = ("W1", "W3")
TURNS, SECONDS = 3, 1.0  # of a job
TOLERANCE = 1e-3  # of losses, relative
WITHIN = 0.2  # of the time of a step, relative
Job = Mapping[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    options = parser("Steps on several ranks, measured and on paper.", EXAMPLES, "")
    options.set_defaults(threads=[1])
    add_choice(options, "--work", WORKS, MEASURED)
    options.add_argument(
        "--ranks", type=counts, default=[1, 2, 4], metavar="N,...", help="(default: 1,2,4)"
    )
    add_repeats(options, 3)
    args = options.parse_args(argv)
    agree, machines = True, {}
    for threads in args.threads:
        tx.set_num_threads(threads)
        machines[threads] = calibration.calibrate(print)
    for name in args.work:
        if max(args.ranks) > WORKS[name].batch:
            raise WorkerError(f"{name} has batches of {WORKS[name].batch} rows: take fewer ranks")
        runs = []
        for threads in args.threads:
            run = measure(name, args.ranks, machines[threads], args.repeats)
            report(name, run)
            runs.append(run)
            agree = agree and run["agree"]
        print(write("scaling", name, ["tx"], {"runs": runs}, args.out))
    return 0 if agree else 1


def measure(name: str, ranks: Sequence[int], machine: Machine, repeats: int) -> dict[str, Any]:
    """Steps of a work on each number of ranks, and what the model says of them."""
    others, threads = busy(), machine.threads
    tx.set_num_threads(threads)
    found: dict[int, list[Job]] = {n: [] for n in ranks}
    for _ in range(repeats):
        for n in ranks:
            found[n].append(_job(name, n, threads))
    rows = [row(name, n, machine, jobs) for n, jobs in found.items()]
    losses = [job["losses"] for jobs in found.values() for job in jobs]
    agree = all(
        abs(a - b) <= TOLERANCE * abs(a)
        for other in losses
        for a, b in zip(losses[0], other, strict=True)
    )
    for each in rows:
        each["times_first"] = round(rows[0]["median_ms"] / each["median_ms"], 3)
    return {"threads": threads, "busy_cores_before": others, "agree": agree, "rows": rows}


def row(name: str, n: int, machine: Machine, jobs: Sequence[Job]) -> dict[str, Any]:
    """What so many ranks took, and what the model says, of the parts too."""
    took = median(t for job in jobs for turn in job["turns"] for t in turn)
    share = on_paper(name, n, machine, jobs)
    cost = share.cost
    measured = {key: median(job[key] for job in jobs) for key in ("sent_ms", "exposed_ms")}
    return {
        "ranks": n,
        "oversubscribed": n * machine.threads > host.cores(),
        "median_ms": round(1e3 * took, 3),
        "paper_ms": round(1e3 * cost.seconds, 3),
        "off": round(cost.seconds / took - 1, 3),
        "given_mb": jobs[0]["given_mb"],
        "paper_given_mb": round(cost.given / 1e6, 3),
        "compute_ms": round(1e3 * took - measured["exposed_ms"], 3),
        "paper_compute_ms": round(1e3 * cost.compute, 3),
        **measured,
        "paper_sent_ms": round(1e3 * cost.sent, 3),
        "paper_exposed_ms": round(1e3 * cost.exposed, 3),
        "losses": jobs[0]["losses"],
        "network": network_of(jobs)._asdict() if n > 1 else None,
        "crowd": crowd_of(jobs),
    }


def on_paper(name: str, n: int, machine: Machine, jobs: Sequence[Job]) -> Share:
    """What the model says, of the network that the jobs have found between their ranks."""
    machine = machine.slower(crowd_of(jobs))

    def launch(w: Work) -> float:
        return 0.0 if w.load is None else machine.launch(w.load)

    def planned(rows: int, ranks: int) -> outlook.Outlook:
        return outlook.of_work(name, batch=rows, here=True, ranks=ranks)

    timing = Timing(launch, lambda step: step.on(machine))
    [share] = shares(planned, WORKS[name].batch, [n], network_of(jobs), timing)
    return share


def network_of(jobs: Sequence[Job]) -> Network:
    """That between the ranks, as the jobs have found it; adding is in their bandwidth."""
    found = [job["network"] for job in jobs if "network" in job]
    usual = {key: median(x[key] for x in found) for key in found[0]} if found else {}
    return Network("these ranks", **{"bandwidth": 1e9, "latency": 0.0, **usual}, reduce=1e18)


def crowd_of(jobs: Sequence[Job]) -> float:
    """How much longer a rank computes because of the others, as the jobs have found it."""
    return round(max(1.0, median(job.get("crowd", 1.0) for job in jobs)), 3)


def _job(name: str, ranks: int, threads: int) -> Job:
    """What the first of so many ranks says."""
    own = Path(sys.executable).parent / "mpiexec"
    launcher = str(own) if own.exists() else shutil.which("mpiexec")
    if launcher is None:
        raise WorkerError('mpiexec is missing: pip install "tinygrad_tx[mpi]"')
    given = {"work": name, "threads": threads, "turns": TURNS, "seconds": SECONDS}
    program = [sys.executable, "-m", "benchmarks.scaling_rank", json.dumps(given)]
    environment = {**os.environ, "TX_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [launcher, "-n", str(ranks), *program],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise WorkerError(f"{ranks} ranks ended with {done.returncode}:\n{done.stderr[-2000:]}")
    found: Job = json.loads(lines[-1])
    return found


def report(name: str, run: Mapping[str, Any]) -> None:
    parts = ("ms", "compute_ms", "sent_ms", "exposed_ms")
    rows: list[tuple[object, ...]] = []
    for row in run["rows"]:
        title = f"{row['ranks']}{' (oversubscribed)' * row['oversubscribed']}"
        measured = (row["median_ms"], *(row[key] for key in parts[1:]))
        rows.append((title, *measured, "", row["times_first"], row["given_mb"]))
        on_paper = (row[f"paper_{key}"] for key in parts)
        rows.append(("  on paper", *on_paper, f"{row['off']:+.0%}", "", row["paper_given_mb"]))
    columns = ("ranks", "ms a step", "compute", "sent", "exposed", "off", "times first", "MB")
    show(f"{name}, threads of a rank: {run['threads']}", columns, rows)
    if not run["agree"]:
        print(f"{name}: the losses of different numbers of ranks do not agree")
    for row in run["rows"]:
        if not row["oversubscribed"] and abs(row["off"]) > WITHIN:
            print(f"{name}: the model is off by {row['off']:+.0%} at {row['ranks']} ranks")


if __name__ == "__main__":
    command(main)
