"""The double's modules, streams, graphs, events and memory: what kernels made as PTX run on.

PTX goes to the simulator of our kernels (tests/gpu/simulator/ptx.py), at once; a captured launch is
kept, and runs with each launch of its graph.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np

sys.path.append(str(Path(__file__).parents[2]))
from simulator import ptx

_capturing: list[Callable[[], None]] | None = None
_current = [0]  # streams that have been entered, by their `ptr`; first the default one


def enqueue(work: Callable[[], None]) -> None:
    """Do it now, or with each launch of the graph that is being captured."""
    work() if _capturing is None else _capturing.append(work)


class CUDADriverError(RuntimeError):
    pass


class UnownedMemory:
    def __init__(self, ptr: int, size: int, owner: Any, device_id: int = -1) -> None:
        self.ptr, self.size, self._owner = ptr, size, owner


class MemoryPointer:
    def __init__(self, mem: Any, offset: int) -> None:
        self.mem, self.ptr = mem, mem.ptr + offset


blocks: WeakSet[UnownedMemory] = WeakSet()  # that alloc() has given and somebody has


def alloc(size: int) -> MemoryPointer:
    """Memory that begins as NaN, aligned as the real one's."""
    block = np.full(size + 512, 0xFF, np.uint8)
    start = block.ctypes.data + -block.ctypes.data % 512
    memory = UnownedMemory(start, size, block)
    blocks.add(memory)
    return MemoryPointer(memory, 0)


class Module:
    def load(self, cubin: bytes) -> None:
        self._number = ptx.load(cubin)
        if self._number < 0:
            raise CUDADriverError("CUDA_ERROR_INVALID_PTX: a PTX JIT compilation failed")

    def get_function(self, name: str) -> Function:
        return Function(ptx.find(self._number, name.encode()))


class Function:
    def __init__(self, number: int) -> None:
        self._number = number

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: Sequence[np.uint64],
        shared_mem: int = 0,
        stream: Any = None,
        enable_cooperative_groups: bool = False,
    ) -> None:
        number, (words, report) = self._number, map(int, args)

        def run() -> None:
            from .cuda import counts

            counts["kernels"] += 1
            ptx.launch(number, *grid, block[0], words, report)

        enqueue(run)


class Graph:
    def __init__(self, launches: list[Callable[[], None]]) -> None:
        self._launches = launches

    def launch(self, stream: Any = None) -> None:
        for launch in self._launches:
            launch()


class Stream:
    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False) -> None:
        self.null, self.ptr = null, 0 if null else id(self)

    def __enter__(self) -> Stream:
        _current.append(self.ptr)
        return self

    def __exit__(self, *error: object) -> None:
        _current.pop()

    def begin_capture(self, mode: Any = None) -> None:
        global _capturing
        _capturing = []

    def end_capture(self) -> Graph:
        global _capturing
        assert _capturing is not None
        launches, _capturing = _capturing, None
        return Graph(launches)


class Event:
    def __init__(
        self, block: bool = False, disable_timing: bool = False, interprocess: bool = False
    ) -> None:
        pass

    done = True

    def record(self, stream: Any = None) -> None:
        pass

    def synchronize(self) -> None:
        from .cuda import counts

        counts["waits"] += 1


def get_elapsed_time(start_event: Event, end_event: Event) -> float:
    """Milliseconds."""
    return 1.0


class Device:
    def __init__(self, device: int = 0) -> None:
        self.id = device

    @property
    def compute_capability(self) -> str:
        return "90"
