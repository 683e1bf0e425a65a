"""The device "simulated": NumPy's arrays, and kernels for a GPU run by the simulator."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np

from tinygrad_tx import backends
from tinygrad_tx.backends.arrays.numpy_backend import NumpyBackend
from tinygrad_tx.backends.gpu.target import Driver, Gpu
from tinygrad_tx.backends.kernels import interpreter
from tinygrad_tx.backends.kernels.kinds import Kernel

from .machine import Code, Machine, code

NAME = "simulated"


class Simulator(Driver):
    """seed: of the order in which threads run."""

    def __init__(self, seed: int = 0) -> None:
        self.machine = Machine(seed)
        self.launches = 0

    def load(self, kernel: Kernel, form: Hashable, threads: int) -> Code:
        return code(kernel, form, threads)

    def launch(self, code: Any, blocks: int, words: int, report: int) -> None:
        if report and interpreter.view(report, "int64", (), ()):
            return
        self.launches += 1
        self.machine.launch(code, blocks, words)


class SimulatedBackend(NumpyBackend):
    device = NAME

    def from_host(self, array: np.ndarray[Any, Any]) -> Any:
        return np.array(array, order="C", copy=True)


def install() -> Simulator:
    """Make the device known."""
    simulator = Simulator()
    backends.register(NAME, SimulatedBackend(), Gpu(simulator))
    return simulator
