"""A rank of benchmarks/scaling.py: mpiexec -n 2 python -m benchmarks.scaling_rank TABLE

In: a work's table, as JSON, with "turns" and "seconds" of each. Out: what the steps took, and what
the network between the ranks reaches, as one line of JSON of the first rank.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import numpy as np

import tinygrad_tx as tx
from tinygrad_tx.distributed import world
from tinygrad_tx.training.works import begin

_WARM, _LEAST = 3, 3
_SIZES = (1 << 16, 1 << 22)  # bytes of the sums by which the network is measured


def main(table: Mapping[str, Any]) -> None:
    tx.distributed.init_process_group()
    tx.set_num_threads(table["threads"])
    tx.manual_seed(0)
    rank, size = tx.distributed.get_rank(), tx.distributed.get_world_size()
    _, step = begin(table)
    compiled, batch = tx.compile(step), _rows(table, rank, size)
    for _ in range(_WARM):
        compiled(*batch).item()
    turns = [
        _turn(lambda: compiled(*batch).item(), table["seconds"]) for _ in range(table["turns"])
    ]
    found = {"turns": turns, "network": _network() if size > 1 else None}
    if rank == 0:
        print(json.dumps(found), flush=True)


def _rows(table: Mapping[str, Any], rank: int, size: int) -> list[tx.Tensor]:
    """This rank's rows of a batch of words in no order."""
    rng, pairs = np.random.default_rng(0), table["kind"] != "gpt"
    first, end = (table["batch"] * r // size for r in (rank, rank + 1))
    shape = (table["batch"], table["length"])
    ids = [rng.integers(4 if pairs else 0, table["vocab"], shape) for _ in range(2 + pairs)]
    return [tx.tensor(x[first:end]) for x in ids]


def _turn(run: Callable[[], object], seconds: float) -> list[float]:
    """The seconds of runs, of which all ranks make as many: the first one says when to stop."""
    found: list[float] = []
    enough = np.zeros(1)
    end = time.perf_counter() + seconds
    while not enough[0]:
        begun = time.perf_counter()
        run()
        found.append(time.perf_counter() - begun)
        enough[0] = len(found) >= _LEAST and time.perf_counter() > end
        enough = world.current().broadcast(enough)
    return found


def _network() -> dict[str, float]:
    """What sums over the ranks reach while nobody computes: a line through their times at two
    sizes. busy: the part of the time that this process keeps a core busy by them."""
    ranks = world.current()
    took, busy = [], 0.0
    for size in _SIZES:
        x = np.ones(size // 4, np.float32)
        ranks.all_reduce(x)
        ranks.barrier()
        begun, cpu = time.perf_counter(), time.process_time()
        times = _turn(lambda x=x: ranks.all_reduce(x), 0.5)  # type: ignore[misc]
        busy = (time.process_time() - cpu) / (time.perf_counter() - begun)
        took.append(median(times))
    part = [size * (ranks.size - 1) / ranks.size for size in _SIZES]
    slope = (took[1] - took[0]) / (part[1] - part[0])
    start = max(took[0] - slope * part[0], 1e-6)
    return {
        "bandwidth": 2 / slope,
        "latency": start / 2 / (ranks.size - 1),
        "busy": min(busy, 1.0),
    }


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
