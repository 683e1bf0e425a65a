"""Steps of training on several ranks of this machine, beside what a model on paper says of them:
python -m benchmarks.scaling --help

Every rank has so many threads; where there are more threads than cores, the machine is
oversubscribed, and the model, which knows nothing of that, is reported only. The numbers of ranks
take turns, each in processes of its own that mpiexec starts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from shutil import which
from statistics import median
from typing import Any

import tinygrad_tx as tx
from tinygrad_tx.backends.cpu import host
from tinygrad_tx.compiler.inspect.machine import Machine
from tinygrad_tx.distributed.paper import Network
from tinygrad_tx.training import calibration, outlook
from tinygrad_tx.training.ranks import Share, Timing, shares
from tinygrad_tx.training.works import work

from .common import ROOT, WorkerError, add_choice, add_repeats, busy, command, parser, show, write

EXAMPLES = """\
  python -m benchmarks.scaling
  python -m benchmarks.scaling --work W3 --ranks 1,2,4 --threads 1"""
WORKS = ("W1", "W2", "W3", "W4", "W4b", "tiny", "tiny-gpt")
MEASURED = ("W1", "W3")
TURNS, SECONDS = 3, 1.0  # of a process
WITHIN = 0.2


def main(argv: Sequence[str] | None = None) -> int:
    options = parser("Steps on several ranks, measured and on paper.", EXAMPLES, "")
    options.set_defaults(threads=[1])
    add_choice(options, "--work", WORKS, MEASURED, default=list(MEASURED))
    options.add_argument(
        "--ranks", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2, 4],
        metavar="N,N", help="numbers of ranks; default: 1,2,4",
    )  # fmt: skip
    add_repeats(options, 3)
    args = options.parse_args(argv)
    if which("mpiexec") is None:
        raise WorkerError('there is no mpiexec: pip install "tinygrad_tx[mpi]"')
    for name in args.work:
        runs = []
        for threads in args.threads:
            run = measure(name, args.ranks, threads, args.repeats)
            report(name, run)
            runs.append(run)
        print(write("scaling", name, ["tx"], {"runs": runs}, args.out))
    return 0


def measure(name: str, ranks: Sequence[int], threads: int, repeats: int) -> dict[str, Any]:
    """Steps of a work on each number of ranks, and what the model says of them."""
    others, table = busy(), {**work(name), "threads": threads, "turns": TURNS, "seconds": SECONDS}
    tx.set_num_threads(threads)
    machine = calibration.known() or calibration.calibrate(print)
    found: dict[int, list[dict[str, Any]]] = {n: [] for n in ranks}
    for _ in range(repeats):
        for n in ranks:
            found[n].append(_job(table, n))
    rows = []
    for n, jobs in found.items():
        took = median(t for job in jobs for turn in job["turns"] for t in turn)
        share = on_paper(name, n, machine, jobs)
        rows.append(
            {
                "ranks": n,
                "median_ms": round(1e3 * took, 3),
                "paper_ms": round(1e3 * share.cost.seconds, 3),
                "off": round(share.cost.seconds / took - 1, 3),
                "exposed_ms": round(1e3 * share.cost.exposed, 3),
                "oversubscribed": n * threads > host.cores(),
                "network": jobs[-1]["network"],
            }
        )
    one = rows[0]["median_ms"]
    for row in rows:
        row["times_one"] = round(one / row["median_ms"], 3)
    return {"threads": threads, "busy_cores_before": others, "rows": rows}


def on_paper(name: str, n: int, machine: Machine, jobs: Sequence[Mapping[str, Any]]) -> Share:
    """What the model says, of the network that the jobs have found between their ranks."""
    numbers = [job["network"] for job in jobs if job["network"]]
    found = {key: median(x[key] for x in numbers) for key in numbers[0]} if numbers else {}
    network = Network("these ranks", **{"bandwidth": 1e9, "latency": 0.0, **found}, reduce=1e18)

    def launch(w: Any) -> float:
        return 0.0 if w.load is None else machine.launch(w.load)

    timing = Timing(launch, lambda step: step.on(machine))
    rows: int = work(name)["batch"]
    [share] = shares(
        lambda batch: outlook.of_work(name, batch=batch, here=True), rows, [n], network, timing
    )
    return share


def _job(table: Mapping[str, Any], ranks: int) -> dict[str, Any]:
    """What the first of so many ranks says."""
    program = [sys.executable, "-m", "benchmarks.scaling_rank", json.dumps(dict(table))]
    environment = {**os.environ, "TX_NUM_THREADS": str(table["threads"])}
    done = subprocess.run(
        ["mpiexec", "-n", str(ranks), *program],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise WorkerError(f"{ranks} ranks ended with {done.returncode}:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def report(name: str, run: dict[str, Any]) -> None:
    show(
        f"{name}, {run['threads']} threads a rank",
        ("ranks", "median ms", "times one", "on paper ms", "off", "exposed ms"),
        [
            (
                f"{row['ranks']}{' (oversubscribed)' if row['oversubscribed'] else ''}",
                *(row["median_ms"], row["times_one"], row["paper_ms"]),
                *(f"{row['off']:+.0%}", row["exposed_ms"]),
            )
            for row in run["rows"]
        ],
    )
    for row in run["rows"]:
        if not row["oversubscribed"] and abs(row["off"]) > WITHIN:
            print(f"{name}: the model is off by {row['off']:+.0%} at {row['ranks']} ranks")


if __name__ == "__main__":
    command(main)
