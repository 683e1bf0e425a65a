"""NCCL: arrays go from GPU to GPU (backends/arrays/cupy_nccl.py), where `TX_NCCL=1` asks for it.
Without, arrays of GPUs go through the host, which is what the tests run.

The ranks find each other by MPI: one makes NCCL's name for them, which all others are given.
"""

from __future__ import annotations

from .. import backends
from .communicator import Communicator
from .engine import Array, Engine


class NCCL(Engine):
    """One GPU a rank, the current one of its process. host: the same ranks."""

    name = "NCCL"

    def __init__(self, host: Communicator) -> None:
        from ..backends.arrays import cupy_nccl

        self.arrays = backends.get("cuda").module
        self._host, self.rank, self.size = host, host.rank, host.size
        name = host.share(cupy_nccl.new_name() if host.rank == 0 else None)
        self._peers = cupy_nccl.Peers(name, self.rank, self.size)

    def exchange(self, x: Array) -> Array:
        return self._peers.exchange(x)

    def gather(self, x: Array) -> Array:
        return self._peers.gather(x)

    def broadcast(self, x: Array, source: int) -> Array:
        return self._peers.broadcast(x, source)

    def barrier(self) -> None:
        self._host.barrier()
