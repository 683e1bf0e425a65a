"""A rank of benchmarks/scaling.py: mpiexec -n 2 python -m benchmarks.scaling_rank GIVEN

In: as JSON the name of a work, "threads", and how many "turns" of how many "seconds". Out, as one
line of JSON of the first rank: what the steps took, the first losses, what was sent, and what the
machine and the network between the ranks make of them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

import tinygrad_tx as tx
from tinygrad_tx.distributed import world
from tinygrad_tx.distributed.communicator import Communicator
from tinygrad_tx.random import Rows, drawing_for
from tinygrad_tx.training import works
from tinygrad_tx.training.calibration import SIZES

from .works import WORKS, Array

_WARM, _LEAST = 3, 3
_SIZES = (1 << 20, 1 << 22)  # bytes of the sums by which the network is measured
_SECONDS = 0.5  # of what the machine and the network are measured by
Run = Callable[[], object]


def main(given: Mapping[str, Any]) -> None:
    tx.distributed.init_process_group()
    tx.set_num_threads(given["threads"])
    ranks = world.current()
    turns, losses, sent = _steps(ranks, given)
    found = {"turns": turns, "losses": losses, **sent}
    if ranks.size > 1:
        found |= {"network": _network(ranks), "crowd": _crowd(ranks)}
    if ranks.rank == 0:
        print(json.dumps(found), flush=True)


def _steps(
    ranks: Communicator, given: Mapping[str, Any]
) -> tuple[list[list[float]], list[float], dict[str, float]]:
    """Turns of the seconds of steps; the first losses, of the whole batch; and of a step the bytes
    that this rank had summed, the time in which something was between ranks, and the time that it
    waited for it."""
    work = WORKS[given["work"]]
    share = Rows(*_rows(work.batch, ranks), work.batch)
    tx.manual_seed(0)
    step = tx.compile(works.begin(works.work(work.name))[1])
    batches, waited = work.batches(), 0.0
    waits = ranks.finish_reduce

    def timed_waits(ticket: int) -> list[Array]:
        nonlocal waited
        begun = time.perf_counter()
        found = waits(ticket)
        waited += time.perf_counter() - begun
        return found

    ranks.finish_reduce = timed_waits  # type: ignore[method-assign]

    def once() -> float:
        batch = next(batches)
        mine = [x[share.first : share.first + share.count] for x in batch]
        part = _counted(mine) / _counted(batch)
        weight = {} if ranks.size == 1 else {"weight": tx.tensor(part, dtype=tx.float32)}
        with drawing_for(share):
            return step(*map(tx.tensor, mine), **weight).item() * part  # type: ignore[no-any-return]

    losses = [float(ranks.all_reduce(np.array([once()]))[0]) for _ in range(_WARM)]
    ranks.spans.clear()
    waited = 0.0
    turns = [_turn(ranks, once, given["seconds"]) for _ in range(given["turns"])]
    count = sum(map(len, turns))
    spans = [span for span in ranks.spans if span.name == "all_reduce"]
    del ranks.finish_reduce
    return turns, losses, {
        "given_mb": round(sum(span.bytes for span in spans) / count / 1e6, 3),
        "sent_ms": round(1e3 * sum(span.end - span.begin for span in spans) / count, 3),
        "exposed_ms": round(1e3 * waited / count, 3),
    }  # fmt: skip


def _rows(whole: int, ranks: Communicator) -> tuple[int, int]:
    """The first of this rank's rows of a batch, and how many there are."""
    first, end = (whole * (ranks.rank + i) // ranks.size for i in (0, 1))
    return first, end - first


def _counted(batch: Sequence[Array]) -> int:
    """The tokens that a loss is the mean of: all but padding."""
    return int((batch[-1] != 0).sum()) if len(batch) == 3 else batch[-1].size


def _turn(ranks: Communicator, run: Run, seconds: float) -> list[float]:
    """The seconds of runs, of which all ranks make as many: the first one says when to stop."""
    found: list[float] = []
    enough = np.zeros(1)
    end = time.perf_counter() + seconds
    while not enough[0]:
        begun = time.perf_counter()
        run()
        found.append(time.perf_counter() - begun)
        enough[0] = len(found) >= _LEAST and time.perf_counter() > end
        enough = ranks.broadcast(enough)
    return found


def _crowd(ranks: Communicator) -> float:
    """How much longer a step takes, of which nothing is sent, while all ranks take one than while
    one rank does: what they share of caches, memory and, where there are too few, cores."""
    table = {**works.work(SIZES[2][0]), **SIZES[2][1]}
    with world.pretended(1):
        step = tx.compile(works.begin(table)[1])
        rng = np.random.default_rng(0)
        shape = (table["batch"], table["length"])
        batch = [tx.tensor(rng.integers(4, table["vocab"], shape)) for _ in range(3)]

        def once() -> None:
            step(*batch).item()

        once()
        once()
        ranks.barrier()
        alone = median(_while(once)) if ranks.rank == 0 else 0.0
        ranks.barrier()
        together = median(_while(once))
        ranks.barrier()
    return together / alone if alone else 1.0


def _while(run: Run) -> list[float]:
    found: list[float] = []
    end = time.perf_counter() + _SECONDS
    while len(found) < _LEAST or time.perf_counter() < end:
        begun = time.perf_counter()
        run()
        found.append(time.perf_counter() - begun)
    return found


def _network(ranks: Communicator) -> dict[str, float]:
    """What sums over the ranks reach while nobody computes: a line through their times at two
    sizes. busy: the part of the time that this process keeps a core busy by them."""
    took, busy = [], 0.0
    for size in _SIZES:
        x = np.ones(size // 4, np.float32)
        ranks.all_reduce(x)
        ranks.barrier()
        begun, cpu = time.perf_counter(), time.process_time()
        took.append(median(_turn(ranks, lambda x=x: ranks.all_reduce(x), _SECONDS)))  # type: ignore[misc]
        busy = (time.process_time() - cpu) / (time.perf_counter() - begun)
    part = [size * (ranks.size - 1) / ranks.size for size in _SIZES]
    slope = max(took[1] - took[0], 1e-6) / (part[1] - part[0])
    start = max(took[0] - slope * part[0], 1e-6)
    return {
        "bandwidth": 2 / slope,
        "latency": start / 2 / (ranks.size - 1),
        "busy": min(busy, 1.0),
    }


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
