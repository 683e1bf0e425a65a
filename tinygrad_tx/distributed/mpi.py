"""MPI: ranks are processes that mpiexec or srun has started, on one machine or many. The extra
`mpi` brings mpi4py, and MPICH with its mpiexec.

Arrays travel as bytes. Whoever waits looks, and sleeps ever longer between two looks: MPI's own
waiting keeps a core busy, which computes meanwhile.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from ..errors import UserError
from .engine import Array, Engine

_SPIN = 50e-6  # seconds of looking without sleep
_LONGEST = 500e-6  # between two looks


class MPI(Engine):
    """All processes of the launcher."""

    name = "MPI"

    def __init__(self) -> None:
        try:
            from mpi4py import MPI as library  # noqa: N811
        except ImportError as error:
            raise UserError(
                "a launcher has started several ranks, and mpi4py, by which they would talk, "
                f'cannot be loaded ({error}): pip install "tinygrad_tx[mpi]"'
            ) from error
        self._library: Any = library
        self._world = library.COMM_WORLD.Dup()
        self._control = library.COMM_WORLD.Dup()  # for together(), while _world is stuck
        self.rank, self.size = self._world.Get_rank(), self._world.Get_size()
        self._over = False

    def exchange(self, x: Array) -> Array:
        out = np.empty_like(x)
        self._finish(self._world.Ialltoall(self._bytes(x), self._bytes(out)))
        return out

    def gather(self, x: Array) -> Array:
        out = np.empty((self.size, *x.shape), x.dtype)
        self._finish(self._world.Iallgather(self._bytes(x), self._bytes(out)))
        return out

    def broadcast(self, x: Array, source: int) -> Array:
        x = x if self.rank == source else np.empty_like(x)
        self._finish(self._world.Ibcast(self._bytes(x), source))
        return x

    def barrier(self) -> None:
        self._finish(self._world.Ibarrier())

    def neighbours(self) -> int:
        there = self._world.Split_type(self._library.COMM_TYPE_SHARED)
        cores = tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()
        found = there.allgather(cores).count(cores)
        there.Free()
        return int(found)

    def together(self, seconds: float) -> bool:
        request, end = self._control.Ibarrier(), time.monotonic() + seconds
        while not request.Test():
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
        return True

    def abort(self, code: int) -> None:
        self._library.COMM_WORLD.Abort(code)

    def finish(self) -> None:
        # Finalize waits for all, too, but keeps the interpreter, so that nobody hears of this rank.
        if not self._library.Is_finalized():
            self._finish(self._control.Ibarrier())
            self._over = True

    def _bytes(self, x: Array) -> Any:
        return [x.reshape(-1).view(np.uint8), self._library.BYTE]

    def _finish(self, request: Any) -> None:
        begun, pause = time.perf_counter(), 0.0
        while not request.Test():
            if self._over:
                raise UserError("all ranks end, and some have not come to this call")
            if time.perf_counter() - begun > _SPIN:
                pause = min(pause + 20e-6, _LONGEST)
            time.sleep(pause)
