"""The device "simulated": NumPy's arrays, and kernels for a GPU run by the simulator.

As on a GPU, an index that is outside is reported, and raised where the host next waits.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from tinygrad_tx import backends
from tinygrad_tx.backends.arrays.numpy_backend import NumpyBackend
from tinygrad_tx.backends.cpu.memory import HostMemory
from tinygrad_tx.backends.gpu.target import Driver, Gpu, Launch, Table, Words
from tinygrad_tx.backends.kernels.kinds import Kernel
from tinygrad_tx.backends.reports import CLEAN, Reports

from .machine import Code, Machine, code, text

NAME = "simulated"


class SimulatedReports(Reports):
    def __init__(self) -> None:
        super().__init__()
        self.memory = np.array([CLEAN, 0], np.int64)

    @property
    def address(self) -> int:
        return self.memory.ctypes.data

    def _begin(self, number: int) -> None:
        self.memory[1] = number

    def _ask(self) -> None:
        """It is there already."""

    def _arrived(self) -> bool:
        return True

    def _heard(self) -> int:
        return int(self.memory[0])

    def _wait(self) -> None:
        """Kernels run at once."""

    def _clear(self) -> None:
        self.memory[0] = CLEAN


class Simulator(Driver):
    """seed: of the order in which threads run."""

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
        if self.reports.memory[0] == CLEAN:
            self.launches += 1
            self.machine.launch(launch.code, launch.blocks, table + 8 * launch.start, launch.calls)


class SimulatedTable(Table):
    def __init__(self, simulator: Simulator, words: int) -> None:
        self._simulator, self._memory = simulator, np.zeros(words, np.int64)
        self.address = self._memory.ctypes.data

    def run(self, launches: Sequence[Launch], words: Words) -> None:
        self._memory[:] = words
        for launch in launches:
            self._simulator.launch(launch, self.address)

    def run_timed(self, waves: Sequence[Sequence[Launch]], words: Words) -> list[float]:
        self.run([launch for wave in waves for launch in wave], words)
        return [0.0] * len(waves)


class SimulatedMemory(HostMemory):
    """Memory begins as NaN, and what kernels read is aligned as on a GPU."""

    def __init__(self) -> None:
        super().__init__(align=16)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        array = super().empty(shape, dtype)
        array.reshape(-1).view(np.uint8).fill(0xFF)
        return array

    def reserve(self, size: int) -> int:
        known = self.bytes
        address = super().reserve(size)
        if self.bytes != known:
            self.view(address, "int32", (self.bytes // 4,), (1,)).fill(-1)
        return address


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
    backends.register(NAME, SimulatedBackend(reports), Gpu(simulator, SimulatedMemory(), reports))
    return simulator
