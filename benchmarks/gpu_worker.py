"""One contender of benchmarks.gpu, in a process of its own: python -m benchmarks.gpu_worker NAME N.

In and out: as in worker.py. What is timed is as many calls as are asked for, one behind the other,
between two waits for the GPU. Started by gpu.py.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from itertools import cycle
from typing import Any

from .contenders import CONTENDERS
from .contract import Device
from .gpu_kernels import inputs
from .worker import DISTINCT, serve
from .works import OF_GPUS, WORKS

SAMPLE = 500  # numbers of a result that are compared


class Actor:
    """A library on the GPU, and what it has built last. Each public method is a request."""

    def __init__(self, name: str) -> None:
        self._role = CONTENDERS[name].gpu
        self._device: Device | None = None
        self._call: Callable[[], Any] = lambda: None

    def facts(self) -> dict[str, Any]:
        """Those of the GPU, or `missing`: why this contender has none."""
        try:
            return self._library().facts()
        except Exception as error:  # each library fails in its own way
            why = str(error).strip().partition("\n")[0]
            return {"missing": why or type(error).__name__}

    def train(self, work: str, changes: dict[str, int], dropout: float, precision: str) -> None:
        """Make a model with the shared weights, an optimizer, and batches on the GPU: calls are
        steps. changes: of the work's sizes."""
        self.forget()
        device, found = self._library(), replace((OF_GPUS | WORKS)[work], **changes)
        step = device.training(found, dropout, precision)
        batches = cycle(
            [device.put(batch) for batch, _ in zip(found.batches(), range(DISTINCT), strict=False)]
        )
        self._call = lambda: step(next(batches))

    def kernel(self, name: str, precision: str, shapes: list[list[int]]) -> None:
        """Make the call of a kernel on seeded inputs."""
        self._call = self._library().kernel(name, precision, inputs(name, shapes))

    def forget(self) -> None:
        """Give up what was built last."""
        self._call = lambda: None
        self._library().forget()

    def losses(self, count: int) -> list[float]:
        """Take steps; the loss of each."""
        return [self._library().sample(self._call(), 1)[0] for _ in range(count)]

    def numbers(self) -> list[float]:
        """Some of the numbers that the kernel gives."""
        return self._library().sample(self._call(), SAMPLE)

    def timed(self, count: int) -> dict[str, float]:
        """Make calls. seconds: of each, until the GPU has done it; host: until it has been told."""
        device = self._library()
        device.wait()
        start = time.perf_counter()
        for _ in range(count):
            self._call()
        told = time.perf_counter()
        device.wait()
        return {"seconds": (time.perf_counter() - start) / count, "host": (told - start) / count}

    def waits(self, count: int) -> float | None:
        """How often the host waits for the GPU in a call."""
        found = [self._library().waits(self._call) for _ in range(count)]
        known = [x for x in found if x is not None]
        return sum(known) / len(known) if known else None

    def held(self) -> int:
        """The most bytes of the GPU that the library has had so far."""
        return self._library().held()

    def _library(self) -> Device:
        if self._device is None:
            module, _, name = self._role.partition(":")
            self._device = getattr(import_module(module), name)()
        assert self._device is not None
        return self._device


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for gpu.py, which ends this
    serve(Actor(sys.argv[1]))
