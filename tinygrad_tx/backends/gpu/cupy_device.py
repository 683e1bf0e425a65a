"""CuPy's device as a machine for kernels: memory, modules, launches, CUDA graphs.

In: what target.py and run/ ask. Out: launches on the current stream, which nobody waits for. PTX is
loaded by the driver itself: no toolkit and no compiler of NVIDIA's takes part. Called through
backends.target_of("cuda").

A program's words lie in a table of the device. Its calls are captured once as a CUDA graph, at the
second run; a run on other memory is a copy of the table and a launch of the same graph. Products of
NVIDIA's library have their words in the graph itself: there is a graph for each of the sets of such
words that come again.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cache, cached_property
from itertools import pairwise
from typing import Any

import cupy
import numpy as np

from ... import backends
from ...dtypes import ALL
from ...errors import NativeUnavailable
from ..kernels.arguments import word_count
from ..kernels.kinds import Gemm, Kernel
from ..llvm import engine
from ..reports import CLEAN, Reports
from ..target import Memory
from . import library, writers
from .cublaslt import FastPath
from .target import Driver, Gpu, Launch, Table, Words

ALIGN = 16  # bytes: of all that kernels read in pieces
_ARCHITECTURES = (70, 75, 80, 86, 89, 90)  # for which LLVM makes PTX here; later ones run it, too
_NEWEST = _ARCHITECTURES[-1]
_GRAPHS = 8  # of a program: a step's results alternate between a few places
# Bytes that NVIDIA recommends to give cuBLAS (cublasSetWorkspace): from Hopper on, and before it.
_WORKSPACE, _SMALL_WORKSPACE = 32 << 20, 4 << 20


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

    def _await(self) -> None:
        self._event.synchronize()

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
        self.products = FastPath(CupyProducts(self))
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
        return CupyTable(words, self.report, self.products)

    def source(self, kernel: Kernel, form: Hashable, threads: int) -> str:
        return library.ptx(kernel, form, threads, self.architecture)


class CupyProducts:
    """What NVIDIA's library is run and tried on (cublaslt.Device)."""

    def __init__(self, driver: CupyDriver) -> None:
        self._driver = driver
        hopper = int(cupy.cuda.Device().compute_capability) >= 90
        self.workspace_size = _WORKSPACE if hopper else _SMALL_WORKSPACE

    @property
    def stream(self) -> int:
        return int(cupy.cuda.get_current_stream().ptr)

    @property
    def workspace(self) -> int:
        return int(self._workspace.ptr)

    @cached_property
    def _workspace(self) -> Any:
        return cupy.cuda.alloc(self.workspace_size)

    def put(self, array: Any) -> Any:
        return cupy.asarray(array)

    def address(self, held: Any) -> int:
        return int(held.data.ptr)

    def get(self, held: Any) -> Any:
        return held.get()

    def run(self, kernel: Gemm, words: Sequence[int]) -> None:
        chosen = writers.choose(kernel, words)
        code = self._driver.load(kernel, chosen.form, chosen.threads)
        report = cupy.asarray(np.array([CLEAN, 0], np.int64))  # an index may have been outside
        table = CupyTable(len(words), self.address(report), self._driver.products)
        table.run([Launch(code, chosen.blocks, 1, 0)], np.array(words, np.int64))


class CupyTable(Table):
    """refused: why its launches are no graph, in words; empty where they are one."""

    def __init__(self, words: int, report: int, products: FastPath) -> None:
        self._memory = cupy.empty(max(words, 1), np.int64)
        self.address, self._report = int(self._memory.data.ptr), report
        self._products = products
        self._last: Words | None = None
        self._large: list[Launch] | None = None  # products that the library may make
        self._graphs: dict[bytes, Any] = {}  # by _held(); None where that was seen but once
        self._captures = 0
        self.refused = ""

    def run(self, launches: Sequence[Launch], words: Words) -> None:
        self._put(words)
        if self._large is None:
            self._large = [x for x in launches if x.product is not None]
        held = self._held(words)
        again = held in self._graphs
        graph = self._graphs.pop(held, None)
        if graph is None and again and launches and not self.refused:
            graph = self._captured(launches, words)
        self._graphs[held] = graph  # behind all others
        if len(self._graphs) > _GRAPHS:
            del self._graphs[next(iter(self._graphs))]
        if graph is not None:
            graph.launch()
        else:
            self._launch(launches, words)

    def _put(self, words: Words) -> None:
        if self._last is None or not np.array_equal(words, self._last):
            self._memory[: len(words)].set(words)
            self._last = words.copy()

    def _held(self, words: Words) -> bytes:
        """What a graph of the launches holds itself: the words of what the library may make."""
        if self._products.off or not self._large:
            return b""
        return b"".join(words[_places(launch)].tobytes() for launch in self._large)

    def _launch(self, launches: Sequence[Launch], words: Words) -> None:
        for launch in launches:
            if launch.product is not None:
                mine = words[_places(launch)].tolist()
                taken = self._products.takes(launch.product, mine)
                if taken and self._products.run(launch.product, mine):
                    continue
            function, threads = launch.code
            place = np.uint64(self.address + 8 * launch.start)
            grid = launch.blocks, launch.calls
            function(grid, (threads,), (place, np.uint64(self._report)))

    def _captured(self, launches: Sequence[Launch], words: Words) -> Any:
        """The launches as a graph; None where they cannot be one."""
        stream = cupy.cuda.Stream(non_blocking=True)
        try:
            with stream:
                stream.begin_capture()
                try:
                    self._launch(launches, words)
                finally:
                    graph = stream.end_capture()
        except (cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError) as error:
            self.refused = str(error)
            return None
        self._captures += 1
        return graph

    def notes(self) -> list[str]:
        if self.refused:
            runs = f"runs as single launches: they cannot be a CUDA graph: {self.refused}"
        elif not self._captures and len(self._graphs) > 1 and not self._products.off:
            runs = "runs as single launches: products of cuBLASLt's have other addresses in each "
            runs += "run, and a CUDA graph would hold them"
        elif not self._captures:
            runs = "runs as single launches as yet: the second run makes a CUDA graph of them"
        elif self._captures == 1:
            runs = "runs as a CUDA graph, captured once"
        else:
            runs = f"runs as CUDA graphs, captured {self._captures} times: products of cuBLASLt's "
            runs += f"have other addresses now and then, and the last {_GRAPHS} graphs are kept"
        return [runs, *self._said_of_products()]

    def _said_of_products(self) -> list[str]:
        if not self._large or self._last is None:
            return []
        if self._products.off:
            return [f"cuBLASLt makes none of its products: {self._products.off}"]
        calls = ((x.product, self._last[_places(x)].tolist()) for x in self._large)
        taken = sum(bool(kernel and self._products.takes(kernel, mine)) for kernel, mine in calls)
        return [f"cuBLASLt makes {taken} of its products"]

    def run_timed(self, waves: Sequence[Sequence[Launch]], words: Words) -> list[float]:
        self._put(words)
        events = [cupy.cuda.Event() for _ in range(len(waves) + 1)]
        events[0].record()
        for wave, event in zip(waves, events[1:], strict=True):
            self._launch(wave, words)
            event.record()
        events[-1].synchronize()
        return [cupy.cuda.get_elapsed_time(a, b) * 1e-3 for a, b in pairwise(events)]


def _places(launch: Launch) -> slice:
    """Of the words of a product among those of its program."""
    assert launch.product is not None
    return slice(launch.start, launch.start + word_count(launch.product))


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
