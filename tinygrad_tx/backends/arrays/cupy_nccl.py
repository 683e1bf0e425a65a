"""NCCL through CuPy: bytes from GPU to GPU. In: CuPy arrays that all ranks give, contiguous. Out:
those of the others, there when a call returns. Called by distributed/nccl.py.

Not run by any test here, for want of two GPUs: it is written to the library's documentation.
"""

from __future__ import annotations

from typing import Any

import cupy
from cupy.cuda import nccl

Array = Any  # cupy.ndarray


def new_name() -> Any:
    """The name of a group of ranks, which one of them makes and all must know."""
    return nccl.get_unique_id()


class Peers:
    """The ranks of a group, each with the GPU that is current in its process."""

    def __init__(self, name: Any, rank: int, size: int) -> None:
        self._size, self._all = size, nccl.NcclCommunicator(size, name, rank)

    def exchange(self, x: Array) -> Array:
        """(size, n): row r goes to rank r, and comes from it."""
        out, stream = cupy.empty_like(x), _stream()
        each = x.nbytes // self._size
        nccl.groupStart()
        for rank in range(self._size):
            at = rank * each
            self._all.send(x.data.ptr + at, each, nccl.NCCL_UINT8, rank, stream.ptr)
            self._all.recv(out.data.ptr + at, each, nccl.NCCL_UINT8, rank, stream.ptr)
        nccl.groupEnd()
        stream.synchronize()
        return out

    def gather(self, x: Array) -> Array:
        """(n,) -> (size, n)."""
        out, stream = cupy.empty((self._size, *x.shape), x.dtype), _stream()
        self._all.allGather(x.data.ptr, out.data.ptr, x.nbytes, nccl.NCCL_UINT8, stream.ptr)
        stream.synchronize()
        return out

    def broadcast(self, x: Array, source: int) -> Array:
        """That of rank `source`."""
        out, stream = x.copy(), _stream()
        self._all.bcast(out.data.ptr, out.nbytes, nccl.NCCL_UINT8, source, stream.ptr)
        stream.synchronize()
        return out


def _stream() -> Any:
    """The stream of this thread, when all that the GPU was given is done: an array may have been
    made on another stream."""
    cupy.cuda.Device().synchronize()
    return cupy.cuda.get_current_stream()
