"""One contender in a process of its own: python -m benchmarks.worker NAME THREADS.

In: a request a line on stdin, as JSON: {"do": ..., ...}. Out: an answer a line on stdout, as JSON,
{"error": ...} where it failed. Started by common.Worker. Nothing but the contender's own libraries
is imported, and nothing runs between requests.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from .contenders import CONTENDERS
from .works import DECODINGS, RECURRENT, WORKS, Batch

DISTINCT = 4  # batches that take turns


class Actor:
    """What a worker has built so far. Each public method is a request; its keywords are what the
    request holds."""

    def __init__(self, name: str) -> None:
        self._contender = CONTENDERS[name]
        self._built: Any = None
        self._batches: list[Batch] = []
        self._turn = 0

    def load(self, role: str) -> None:
        """Import what plays a role."""
        self._role(role)

    def train(self, work: str, dropout: float, shared: bool) -> float:
        """Make a model, an optimizer and batches; the seconds it took."""
        kind = self._role("training")
        batches: Iterator[Batch] = WORKS[work].batches()
        self._batches, self._turn = [next(batches) for _ in range(DISTINCT)], 0
        start = time.perf_counter()
        self._built = None  # the one before goes first
        self._built = kind(WORKS[work], dropout, shared)
        return time.perf_counter() - start

    def recurrent(self, work: str) -> None:
        """Make recurrent layers, an optimizer and batches."""
        batches = RECURRENT[work].batches()
        self._batches, self._turn = [next(batches) for _ in range(DISTINCT)], 0
        self._built = self._role("recurrent")(RECURRENT[work])

    def steps(self, count: int) -> dict[str, list[float]]:
        """Take steps; the seconds and the loss of each."""
        seconds, losses = [], []
        for _ in range(count):
            batch = self._batches[self._turn % DISTINCT]
            self._turn += 1
            start = time.perf_counter()
            losses.append(self._built(batch))
            seconds.append(time.perf_counter() - start)
        return {"seconds": seconds, "losses": losses}

    def narrow(self, share: float) -> None:
        """Cut the batches to a share of their length: another shape from the same corpus."""
        width = round(self._batches[0][0].shape[1] * share)
        self._batches = [tuple(x[:, :width].copy() for x in batch) for batch in self._batches]

    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = self._built.stats()
        return found

    def translator(self, case: str) -> float:
        """Make a model to translate with; the seconds it took."""
        kind = self._role("translator")
        start = time.perf_counter()
        self._built = kind(DECODINGS[case])
        self._sources = DECODINGS[case].sources()
        return time.perf_counter() - start

    def translate(self, count: int) -> dict[str, Any]:
        """Translate the same sources; the seconds of each time, and the last one's outcome."""
        seconds = []
        for _ in range(count):
            start = time.perf_counter()
            found = self._built(self._sources)
            seconds.append(time.perf_counter() - start)
        return {
            "seconds": seconds,
            "tokens": found.tokens.tolist(),
            "scores": found.scores.tolist(),
        }

    def rescore(self, case: str, tokens: list[list[int]]) -> list[list[float]]:
        """Of our side alone: the log-probability of each token, in float64."""
        from .ours import rescore

        scores: list[list[float]] = rescore(DECODINGS[case], np.array(tokens)).tolist()
        return scores

    def kernel(self, name: str, shapes: list[list[int]]) -> None:
        """Make the call of one kernel on seeded normal inputs."""
        rng = np.random.default_rng(0)
        inputs = [rng.standard_normal(shape, np.float32) for shape in shapes]
        self._built = self._role("kernel")(name, *inputs)

    def embedder(self, lines: list[str]) -> None:
        """Make the call that gives the vectors of some lines."""
        self._built = self._role("embedder")(lines)

    def calls(self, count: int) -> list[float]:
        """The seconds of each of some calls."""
        seconds = []
        for _ in range(count):
            start = time.perf_counter()
            self._built()
            seconds.append(time.perf_counter() - start)
        return seconds

    def sample(self) -> list[float]:
        """Some of the numbers that the kernel gives, to compare."""
        flat = np.asarray(self._built()).reshape(-1)
        numbers: list[float] = flat[:: max(1, flat.size // 1000)].tolist()
        return numbers

    def forget_peak(self) -> None:
        """Count the peak of memory from what is in use now, where the system allows it."""
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    def peak(self) -> int:
        """The most bytes that were resident so far (VmHWM)."""
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
        raise OSError("/proc/self/status has no VmHWM")

    def _role(self, role: str) -> Any:
        module, _, name = getattr(self._contender, role).partition(":")
        return getattr(import_module(module), name)


def main() -> None:
    name, threads = sys.argv[1], int(sys.argv[2])
    if CONTENDERS[name].pinned:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    serve(Actor(name))


def serve(actor: Any) -> None:
    """Answer requests, each by the method of its name."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"answer": getattr(actor, request.pop("do"))(**request)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
