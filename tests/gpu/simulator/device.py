"""The device "simulated": NumPy's arrays, and kernels for a GPU run by the simulator.

As on a GPU, an index that is outside is reported, and raised where the host next waits. What
kernels read and write lies between pages without access.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from tinygrad_tx import backends
from tinygrad_tx.backends.arrays.numpy_backend import NumpyBackend
from tinygrad_tx.backends.cpu.memory import HostMemory
from tinygrad_tx.backends.gpu.target import Driver, Gpu, Launch, Table, Words
from tinygrad_tx.backends.kernels.kinds import Kernel
from tinygrad_tx.backends.reports import CLEAN, Reports

from . import guarded
from .machine import Code, Machine, code, text

NAME = "simulated"


class SimulatedReports(Reports):
    def __init__(self) -> None:
        super().__init__()
        self.memory = guarded.copied(np.array([CLEAN, 0], np.int64))

    @property
    def clean(self) -> bool:
        return bool(self.memory[0] == CLEAN)

    @property
    def address(self) -> int:
        return self.memory.ctypes.data

    def _begin(self, number: int) -> None:
        self.memory[1] = number

    def _ask(self) -> None:
        """It is there already."""

    def _arrived(self) -> bool:
        return True

    def _await(self) -> None:
        """It has arrived."""

    def _heard(self) -> int:
        return int(self.memory[0])

    def _wait(self) -> None:
        """Kernels run at once."""

    def _clear(self) -> None:
        self.memory[0] = CLEAN


class Simulator(Driver):
    """seed: of the order in which blocks and threads run."""

    def __init__(self, reports: SimulatedReports, seed: int = 0) -> None:
        self.machine, self.reports = Machine(seed), reports
        self.launches = 0
        self.loaded: dict[tuple[Kernel, Hashable, int], None] = {}

    def load(self, kernel: Kernel, form: Hashable, threads: int) -> Code:
        self.loaded[kernel, form, threads] = None
        return code(kernel, form, threads)

    def table(self, words: int) -> Table:
        return SimulatedTable(self, words)

    def source(self, kernel: Kernel, form: Hashable, threads: int) -> str:
        return text(kernel, form, threads)

    def launch(self, launch: Launch, table: int) -> None:
        if self.reports.clean:
            self.launches += 1
            self.machine.launch(launch.code, launch.blocks, table + 8 * launch.start, launch.calls)


class SimulatedTable(Table):
    def __init__(self, simulator: Simulator, words: int) -> None:
        self._simulator, self._memory = simulator, guarded.empty((words,), np.int64)
        self.address = self._memory.ctypes.data

    def run(self, launches: Sequence[Launch], words: Words) -> None:
        self._memory[:] = words
        for launch in launches:
            self._simulator.launch(launch, self.address)
        guarded.require_intact()

    def run_timed(self, waves: Sequence[Sequence[Launch]], words: Words) -> list[float]:
        self.run([launch for wave in waves for launch in wave], words)
        return [0.0] * len(waves)


class SimulatedMemory(HostMemory):
    """Every array lies between pages without access, and so does the arena. What no run has written
    is NaN, also in the arena of a plan that ran before. alone: True where values lie apart."""

    alone = False

    def __init__(self, reports: SimulatedReports) -> None:
        super().__init__(align=guarded.ALIGN)
        self._reports = reports
        self._arena = guarded.Block(0)
        self._blocks: dict[Hashable, list[guarded.Block]] = {}

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return guarded.empty(shape, dtype)

    def readable(self, array: Any) -> Any:
        return array if guarded.is_whole(array) else self.copied(np.asarray(array))

    def owns(self, array: Any) -> bool:
        return guarded.is_whole(array)

    def reserve(self, size: int) -> int:
        """The last bytes of the arena: what a plan has ends where the arena does."""
        if size > self._arena.size:
            self._arena = guarded.Block(size)
        self.forget(self._arena)
        return self._arena.end - size

    def apart(self, plan: Hashable, sizes: Sequence[int]) -> list[int] | None:
        if not self.alone:
            return None
        blocks = self._blocks.setdefault(plan, [guarded.Block(size) for size in sizes])
        for block in blocks:
            self.forget(block)
        return [block.address for block in blocks]

    def forget(self, block: guarded.Block) -> None:
        """Nobody knows what lies there, but after a run that has failed, as on a GPU: of that one
        the host wants to see what was outside."""
        if self._reports.clean:
            block.forget()


@contextmanager
def apart() -> Iterator[None]:
    """Every value of the arena in memory of its own, so that an access beside it is found. Values
    of a loop's round lie together even so."""
    SimulatedMemory.alone = True
    try:
        yield
    finally:
        SimulatedMemory.alone = False


class SimulatedBackend(NumpyBackend):
    device = NAME
    tf32 = True

    def __init__(self, reports: Reports) -> None:
        super().__init__()
        self._reports = reports

    def to_host(self, array: Any) -> np.ndarray[Any, Any]:
        self._reports.hear()
        return super().to_host(array)

    def synchronize(self) -> None:
        self._reports.hear()

    def settle(self) -> None:
        self._reports.hear()


def install() -> Simulator:
    """Make the device known."""
    reports = SimulatedReports()
    simulator = Simulator(reports)
    target = Gpu(simulator, SimulatedMemory(reports), reports)
    backends.register(NAME, SimulatedBackend(reports), target)
    return simulator
