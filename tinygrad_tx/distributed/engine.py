"""Engine: what carries arrays between ranks. A file for each: mpi.py, nccl.py, local.py.

In: arrays that all ranks give at the same time. Out: those of the others. An engine only moves
bytes; communicator.py adds, in the same order on every rank. Calls come one at a time, and all
ranks make the same ones with arrays of the same sizes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

Array = Any  # of NumPy, or of the engine's own module


class Engine(ABC):
    """rank: the number of this process, from 0; size: how many there are. arrays: the module whose
    arrays it takes, numpy unless it says something else; they are contiguous."""

    rank: int
    size: int
    name: str
    arrays: Any = np

    @abstractmethod
    def exchange(self, x: Array) -> Array:
        """(size, n), of which row r is for rank r -> (size, n), of which row r is what rank r has
        for this one."""

    @abstractmethod
    def gather(self, x: Array) -> Array:
        """(n,) -> (size, n): that of each rank."""

    @abstractmethod
    def broadcast(self, x: Array, source: int) -> Array:
        """That of rank `source`."""

    @abstractmethod
    def barrier(self) -> None:
        """Return when all ranks have come here."""

    def neighbours(self) -> int:
        """The number of ranks that share this one's processor cores, itself included."""
        return 1

    def together(self, seconds: float) -> bool:
        """True if all ranks call this within so many seconds: those that end with an error do. May
        be called while another call is stuck."""
        return True

    def abort(self, code: int) -> None:  # noqa: B027 - nothing, where there are no others
        """End all ranks at once, if there are others; it does not return then."""

    def close(self) -> None:  # noqa: B027
        """Nothing more comes."""

    def finish(self) -> None:  # noqa: B027
        """Return when all ranks are about to end their processes."""


class Alone(Engine):
    """The engine of a process that no launcher has started: the only rank."""

    rank, size, name = 0, 1, "alone"

    def exchange(self, x: Array) -> Array:
        return x

    def gather(self, x: Array) -> Array:
        return x[None]

    def broadcast(self, x: Array, source: int) -> Array:
        return x

    def barrier(self) -> None:
        return
