"""A GPU as a Target: its answers to the compiler, and programs made of launches.

In: what the compiler asks. Out: answers, which depend on shapes alone; Programs. Kernels run one
after the other; what makes code of them and launches it is a Driver: CuPy's (cupy_driver.py), or
the tests' simulator.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

from .. import target
from ..kernels.kinds import Kernel
from ..kernels.summation import KC
from ..reports import SHIFT, Reports
from ..target import Cut, Memory
from . import writers
from .choice import Choice

LOW = (1 << SHIFT) - 1  # of the address of a call's words: what its report says


class Driver(ABC):
    """What runs kernels of a device."""

    @abstractmethod
    def load(self, kernel: Kernel, form: Hashable, threads: int) -> Any:
        """The code of a kernel in one form."""

    @abstractmethod
    def launch(self, code: Any, blocks: int, words: int) -> None:
        """Run a call, unless the device's report is not clean. words: the address of its
        arguments."""


class Launch(NamedTuple):
    """A call: its code, blocks, and its words among those of the program."""

    code: Any
    blocks: int
    start: int
    wave: int  # its number, as target.waves_in gives them from 1 on


class Loop(NamedTuple):
    """Launches, and loops, that run `rounds` times on words that move."""

    entries: Sequence[Launch | Loop]
    rounds: int
    moves: Sequence[tuple[int, int]]


class Gpu(target.Target):
    """A GPU that a Driver runs."""

    block = KC
    native = True
    packs = False

    def __init__(self, driver: Driver, memory: Memory, reports: Reports) -> None:
        self.driver, self.memory, self.reports = driver, memory, reports

    # Asked by the stages -------------------------------------------------------------------------
    def cut(
        self, m: int, n: int, k: int, batch: int, dtype: str, *, full_rows: bool = False
    ) -> Cut:
        raise AssertionError("a product for a GPU is cut by its own code")

    def takes_epilogues(self, m: int, dtype: str) -> bool:
        return False

    def pack_width(self, dtype: str) -> int:
        raise AssertionError("nothing is packed for a GPU")

    # Asked by run/ -------------------------------------------------------------------------------
    def link(self, kernels: Sequence[Kernel]) -> Any:
        """Nothing: the form of code depends on the calls."""

    def program(
        self, code: Any, waves: Sequence[target.Entry], values: Sequence[int], alone: bool
    ) -> target.Program:
        return Program(self.driver, waves, values)

    def interpret(self, kernel: Kernel, args: Sequence[int]) -> bool:
        raise AssertionError("a GPU's memory is not the host's")

    def source(self, kernel: Kernel) -> str:
        raise NotImplementedError


class Program:
    """Launches in their order, on words in host memory that the device sees as well."""

    def __init__(
        self, driver: Driver, waves: Sequence[target.Entry], values: Sequence[int]
    ) -> None:
        self._driver, self._values = driver, values
        self._waves = self._table = 0
        self._timed = len(waves)
        self._entries = [x for entry in waves for x in self._entry(entry)]

    def _entry(self, entry: target.Entry) -> list[Launch | Loop]:
        if isinstance(entry, target.Loop):
            inner = [x for e in entry.waves for x in self._entry(e)]
            return [Loop(inner, entry.rounds, tuple(entry.moves))]
        self._waves += 1
        return [self._launch(part) for launch in entry.launches for part in launch]

    def _launch(self, part: target.Part) -> Launch:
        chosen: Choice = writers.choose(part.kernel, self._values[part.start : part.end])
        code = self._driver.load(part.kernel, chosen.form, chosen.threads)
        return Launch(code, chosen.blocks, part.start, self._waves)

    def run(self, args: Any) -> int:
        self._table = args.ctypes.data
        self._run(self._entries, args)
        return self._waves

    def _run(self, entries: Sequence[Launch | Loop], args: Any) -> None:
        for entry in entries:
            if isinstance(entry, Launch):
                self._driver.launch(entry.code, entry.blocks, self._table + 8 * entry.start)
                continue
            for number in range(entry.rounds):
                self._run(entry.entries, args)
                last = number == entry.rounds - 1
                for word, step in entry.moves:
                    args[word] += -step * number if last else step

    def blamed(self, args: Any, low: int) -> int:
        places = {(self._table + 8 * x.start) & LOW: x.wave for x in _all(self._entries)}
        return places.get(low, 0)

    def run_timed(self, args: Any) -> tuple[int, list[float]]:
        return self.run(args), [0.0] * self._timed


def _all(entries: Sequence[Launch | Loop]) -> list[Launch]:
    return [x for e in entries for x in ([e] if isinstance(e, Launch) else _all(e.entries))]
