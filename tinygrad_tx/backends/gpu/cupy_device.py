"""CuPy's device as a machine for kernels: memory, modules, launches, CUDA graphs.

In: what target.py and run/ ask. Out: launches on the current stream, which nobody waits for. PTX is
loaded by the driver itself: no toolkit and no compiler of NVIDIA's takes part. Called through
backends.target_of("cuda").

A program's words lie in a table of the device. Its calls are captured once as a CUDA graph, at the
second run; a run on other memory is a copy of the table and a launch of the same graph.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import cupy
import numpy as np

from ... import backends
from ...dtypes import ALL
from ...errors import NativeUnavailable
from ..kernels.kinds import Kernel
from ..llvm import engine
from ..reports import CLEAN, Reports
from ..target import Memory
from . import library
from .target import Driver, Gpu, Launch, Table, Words

ALIGN = 16  # bytes: of all that kernels read in pieces
_ARCHITECTURES = (70, 75, 80, 86, 89, 90)  # for which LLVM makes PTX here; later ones run it, too
_NEWEST = _ARCHITECTURES[-1]


class CupyMemory(Memory):
    """The device's memory, as CuPy allocates it."""

    def __init__(self) -> None:
        self._arena: Any = None
        self._bytes = 0

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return cupy.empty(shape, dtype)

    def address(self, array: Any) -> int:
        return int(array.data.ptr)

    def readable(self, array: Any) -> Any:
        array = cupy.asarray(array)
        fits = array.flags.c_contiguous and array.data.ptr % ALIGN == 0
        return array if fits else self.copied(array)

    def copied(self, array: Any) -> Any:
        return cupy.array(array, order="C", copy=True)

    def owns(self, array: Any) -> bool:
        if not isinstance(array, cupy.ndarray) or array.base is not None:
            return False
        return bool(array.flags.c_contiguous and array.flags.owndata)

    def constant(self, array: Any) -> Any:
        return self.readable(array)

    def write(self, array: Any, value: Any) -> None:
        if isinstance(value, np.ndarray):
            array.set(value)
        else:
            array[...] = value

    def view(self, address: int, dtype: str, shape: Sequence[int], strides: Sequence[int]) -> Any:
        size = ALL[dtype].itemsize
        ends = [(n - 1) * s for n, s in zip(shape, strides, strict=True)]
        first, last = sum(min(end, 0) for end in ends), sum(max(end, 0) for end in ends)
        start = address + first * size
        memory = cupy.cuda.UnownedMemory(start, (last - first + 1) * size, self._arena)
        pointer = cupy.cuda.MemoryPointer(memory, -first * size)
        steps = tuple(s * size for s in strides)
        return cupy.ndarray(tuple(shape), ALL[dtype].np, pointer, steps)

    def reserve(self, size: int) -> int:
        if size > self._bytes or self._arena is None:
            self._arena = None  # given back before the larger one is taken
            self._arena, self._bytes = cupy.cuda.alloc(max(size, ALIGN)), size
        return int(self._arena.ptr)


class CupyReports(Reports):
    """The report of one device."""

    def __init__(self) -> None:
        super().__init__()
        self._memory = cupy.asarray(np.array([CLEAN, 0], np.int64))
        self._there = np.frombuffer(cupy.cuda.alloc_pinned_memory(16), np.int64, 2)
        self._event = cupy.cuda.Event(disable_timing=True)

    @property
    def address(self) -> int:
        return int(self._memory.data.ptr)

    def _begin(self, number: int) -> None:
        self._memory[1:].set(np.array([number], np.int64))

    def _ask(self) -> None:
        self._memory.get(out=self._there, blocking=False)
        self._event.record()

    def _arrived(self) -> bool:
        return bool(self._event.done)

    def _heard(self) -> int:
        return int(self._there[0])

    def _wait(self) -> None:
        cupy.cuda.get_current_stream().synchronize()

    def _clear(self) -> None:
        self._memory[:1].set(np.array([CLEAN], np.int64))


class CupyDriver(Driver):
    """Kernels of one device. report: the address of its report."""

    def __init__(self, report: int) -> None:
        self.architecture, self.report = _architecture(), report
        self.name = f"PTX for {self.architecture}"
        self._functions: dict[str, Any] = {}

    def load(self, kernel: Kernel, form: Hashable, threads: int) -> tuple[Any, int]:
        """The function of a kernel, and the threads of a block."""
        name = library.name(kernel, form, threads)
        if name not in self._functions:
            text = library.ptx(kernel, form, threads, self.architecture)
            self._functions[name] = _loaded(text, name)
        return self._functions[name], threads

    def table(self, words: int) -> CupyTable:
        return CupyTable(words, self.report)

    def source(self, kernel: Kernel, form: Hashable, threads: int) -> str:
        return library.ptx(kernel, form, threads, self.architecture)


class CupyTable(Table):
    """refused: why its launches are no graph, in words; empty where they are one."""

    def __init__(self, words: int, report: int) -> None:
        self._memory = cupy.empty(max(words, 1), np.int64)
        self.address, self._report = int(self._memory.data.ptr), report
        self._last: Words | None = None
        self._runs = 0
        self._graph: Any = None
        self.refused = ""

    def run(self, launches: Sequence[Launch], words: Words) -> None:
        self._put(words)
        self._runs += 1
        if self._runs == 2 and launches:
            self._graph = self._captured(launches)
        if self._graph is not None:
            self._graph.launch()
        else:
            self._launch(launches)

    def _put(self, words: Words) -> None:
        if self._last is None or not np.array_equal(words, self._last):
            self._memory[: len(words)].set(words)
            self._last = words.copy()

    def _launch(self, launches: Sequence[Launch]) -> None:
        for (function, threads), blocks, calls, start in launches:
            words = np.uint64(self.address + 8 * start)
            function((blocks, calls), (threads,), (words, np.uint64(self._report)))

    def _captured(self, launches: Sequence[Launch]) -> Any:
        """The launches as a graph; None where they cannot be one."""
        stream = cupy.cuda.Stream(non_blocking=True)
        try:
            with stream:
                stream.begin_capture()
                try:
                    self._launch(launches)
                finally:
                    graph = stream.end_capture()
        except (cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError) as error:
            self.refused = str(error)
            return None
        return graph

    def notes(self) -> list[str]:
        if self.refused:
            return [f"runs as single launches: they cannot be a CUDA graph: {self.refused}"]
        if self._graph is None:
            return ["runs as single launches as yet: the second run makes a CUDA graph of them"]
        return ["runs as a CUDA graph, captured once"]

    def run_timed(self, waves: Sequence[Sequence[Launch]], words: Words) -> list[float]:
        self._put(words)
        events = [cupy.cuda.Event() for _ in range(len(waves) + 1)]
        events[0].record()
        for wave, event in zip(waves, events[1:], strict=True):
            self._launch(wave)
            event.record()
        events[-1].synchronize()
        return [cupy.cuda.get_elapsed_time(a, b) * 1e-3 for a, b in pairwise(events)]


def _architecture() -> str:
    """The newest architecture that PTX is made for and this device runs."""
    capability = int(cupy.cuda.Device().compute_capability)
    fitting = [x for x in _ARCHITECTURES if x <= capability]
    if not fitting:
        raise NativeUnavailable(
            f"kernels for a GPU need compute capability 7.0 or newer, and this one has "
            f"{capability / 10:.1f}"
        )
    return f"sm_{fitting[-1]}"


def _loaded(text: str, name: str) -> Any:
    module = cupy.cuda.function.Module()
    try:
        module.load(text.encode() + b"\0")
    except cupy.cuda.driver.CUDADriverError as error:
        raise NativeUnavailable(
            f"the NVIDIA driver does not load our kernels ({error}): it must be one for CUDA 12.0 "
            "or newer"
        ) from None
    return module.get_function(name)


@cache
def host() -> Gpu:
    """The current device. NativeUnavailable where code cannot be made for it."""
    backend: Any = backends.get("cuda")
    engine.binding()
    reports = CupyReports()
    backend.reports.append(reports)
    return Gpu(CupyDriver(reports.address), CupyMemory(), reports)
