"""A GPU as a Target: its answers to the compiler, and programs made of launches.

In: what the compiler asks. Out: answers, which depend on shapes alone; Programs. Kernels run one
after the other; what makes code of them and launches it is a Driver: CuPy's (cupy_device.py), or
the tests' simulator.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from .. import target
from ..kernels import interpreter
from ..kernels.arguments import word_count
from ..kernels.kinds import ColumnReduce, Gemm, Kernel, RowProgram
from ..kernels.summation import KC
from ..reports import LOW, Reports
from ..target import Cut, Memory
from . import cublaslt, writers
from .choice import Choice

_WORD = 8  # bytes
_ANY = (RowProgram, ColumnReduce)  # whose calls any number of blocks can do
_UNEVEN = 4  # times: so many more blocks than another call in its launch one may have
Words = np.ndarray[Any, np.dtype[np.int64]]


class Launch(NamedTuple):
    """Calls of one kernel in one form, whose words lie one after the other in the program's table,
    from `start` on. blocks: of each of them. product: the kernel of a single call that NVIDIA's
    library may make instead."""

    code: Any
    blocks: int
    calls: int
    start: int
    product: Gemm | None = None


class Driver(ABC):
    """What runs kernels of a device. name: of what its code is made for."""

    name = "PTX"

    @abstractmethod
    def load(self, kernel: Kernel, form: Hashable, threads: int) -> Any:
        """The code of a kernel in one form."""

    @abstractmethod
    def table(self, words: int) -> Table:
        """Memory of the device for so many words."""

    @abstractmethod
    def source(self, kernel: Kernel, form: Hashable, threads: int) -> str:
        """The text that is compiled."""


class Table(ABC):
    """The words of a program's calls, in the device's memory."""

    address: int

    @abstractmethod
    def run(self, launches: Sequence[Launch], words: Words) -> None:
        """Run calls, one after the other, with these words: always the same calls."""

    def notes(self) -> list[str]:
        """What users should know of how they run; a line each."""
        return []

    @abstractmethod
    def run_timed(self, waves: Sequence[Sequence[Launch]], words: Words) -> list[float]:
        """As run(), and the seconds of each wave. Waits."""


class Gpu(target.Target):
    """A GPU that a Driver runs."""

    block = KC
    native = True
    packs = False
    merges = True
    keeps_statistics = True

    name = "PTX"  # of what its code is made for

    def __init__(
        self,
        driver: Driver | None = None,
        memory: Memory | None = None,
        reports: Reports | None = None,
    ) -> None:
        """Without a driver it only answers the stages."""
        self.reports = reports
        if driver is not None and memory is not None:
            self.driver, self.memory = driver, memory
            self.name = driver.name

    # Asked by the stages -------------------------------------------------------------------------
    def cut(
        self, m: int, n: int, k: int, batch: int, dtype: str, *, full_rows: bool = False
    ) -> Cut:
        raise AssertionError("a product for a GPU is cut by its own code")

    def takes_epilogues(self, m: int, dtype: str) -> bool:
        return False

    def pack_width(self, dtype: str) -> int:
        raise AssertionError("nothing is packed for a GPU")

    def together(self, calls: Sequence[tuple[Kernel, Sequence[int]]]) -> list[list[int]]:
        chosen = [_Chosen(kernel, writers.choose(kernel, words)) for kernel, words in calls]
        return _grouped(chosen)

    # Asked by run/ -------------------------------------------------------------------------------
    def link(self, kernels: Sequence[Kernel]) -> Any:
        """Nothing: the form of code depends on the calls."""

    def program(
        self, code: Any, waves: Sequence[target.Entry], values: Sequence[int], alone: bool
    ) -> target.Program:
        return Program(self.driver, waves, np.array(values, np.int64))

    def interpret(self, kernel: Kernel, args: Sequence[int]) -> bool:
        return interpreter.inside(kernel, args)

    def source(self, kernel: Kernel) -> str:
        """Its text in the form for a call of nothing but ones."""
        chosen = writers.choose(kernel, [1] * word_count(kernel))
        return self.driver.source(kernel, chosen.form, chosen.threads)

    def assembly(self, kernel: Kernel) -> str:
        return self.source(kernel)


class _Chosen(NamedTuple):
    """A call that is to be launched. words: its places among the program's; moves: what is added to
    them in this round of a loop; product: as of Launch."""

    kernel: Kernel
    choice: Choice
    words: range = range(0)
    moves: Mapping[int, int] = MappingProxyType({})
    product: Gemm | None = None


def _grouped(calls: Sequence[_Chosen]) -> list[list[int]]:
    """Which calls are one launch: those of one kernel in one form. They take any number of blocks,
    and a call that needs few is not given many that find nothing to do."""
    groups: list[list[int]] = []
    for i, call in enumerate(calls):
        for group in groups if isinstance(call.kernel, _ANY) else ():
            first = calls[group[0]]
            blocks = [calls[j].choice.blocks for j in (*group, i)]
            same = (first.kernel, first.choice[:2]) == (call.kernel, call.choice[:2])
            if same and max(blocks) <= _UNEVEN * min(blocks):
                group.append(i)
                break
        else:
            groups.append([i])
    return groups


class Program:
    """Launches in their order. Those in a loop are there for each round, with words of their own:
    so the words of a run are one array, one copy, and nothing is computed between launches. Calls
    of one kernel in one wave are one launch."""

    def __init__(self, driver: Driver, waves: Sequence[target.Entry], values: Words) -> None:
        self._driver, self._values = driver, values
        self._numbers = {id(wave): i for i, wave in enumerate(target.waves_in(waves), 1)}
        self._index: list[range] = []  # the words of each launch among those of the program
        self._moved: dict[int, int] = {}  # what is added to some words of the table
        # By the place of its words, the wave of a launch, and what moves in its round.
        self._wave_of: dict[int, tuple[int, Mapping[int, int]]] = {}
        self._end = 0
        self._waves = [self._entry(entry, {}) for entry in waves]
        self._launches = [launch for wave in self._waves for launch in wave]
        self._gather = np.array([i for words in self._index for i in words], np.int64)
        self._offsets = np.zeros(self._end, np.int64)
        self._offsets[list(self._moved)] = list(self._moved.values())
        self._table = driver.table(self._end)

    def _entry(self, entry: target.Entry, moves: dict[int, int]) -> list[Launch]:
        """The launches of a wave or a loop. moves: what is added to words in this round."""
        if isinstance(entry, target.Wave):
            calls = [self._chosen(p, moves) for launch in entry.launches for p in launch]
            number = self._numbers[id(entry)]
            return [self._launch([calls[i] for i in group], number) for group in _grouped(calls)]
        found: list[Launch] = []
        for turn in range(entry.rounds):
            now = dict(moves)
            for word, step in entry.moves:
                now[word] = now.get(word, 0) + step * turn
            found += [x for inner in entry.waves for x in self._entry(inner, now)]
        return found

    def _chosen(self, part: target.Part, moves: dict[int, int]) -> _Chosen:
        places = range(part.start, part.end)
        mine = {i: moves[i] for i in places if moves.get(i)} if moves else {}
        words = [int(self._values[i]) + mine.get(i, 0) for i in places]
        kernel, choice = part.kernel, writers.choose(part.kernel, words)
        found = _Chosen(kernel, choice, places, mine)
        if isinstance(kernel, Gemm) and cublaslt.fits(kernel, words, part.state):
            return found._replace(product=kernel if cublaslt.wanted() else None)
        return found

    def _launch(self, calls: Sequence[_Chosen], wave: int) -> Launch:
        """Put the words of calls into the table."""
        kernel, choice = calls[0].kernel, calls[0].choice
        code = self._driver.load(kernel, choice.form, choice.threads)
        blocks = max(c.choice.blocks for c in calls)
        made = Launch(code, blocks, len(calls), self._end, calls[0].product)
        for call in calls:
            for i, moved in call.moves.items():
                self._moved[self._end + i - call.words.start] = moved
            self._index.append(call.words)
            self._wave_of[self._end] = wave, call.moves
            self._end += len(call.words)
        return made

    def _words(self, args: Words) -> Words:
        found: Words = args[self._gather]
        return found + self._offsets if self._moved else found

    def run(self, args: Words) -> int:
        self._table.run(self._launches, self._words(args))
        return len(self._numbers)

    def run_timed(self, args: Words) -> tuple[int, list[float]]:
        return len(self._numbers), self._table.run_timed(self._waves, self._words(args))

    def done(self) -> list[target.Done]:
        return []

    def notes(self) -> list[str]:
        return self._table.notes()

    def blamed(self, args: Words, low: int) -> int:
        ahead = (low - self._table.address) & LOW
        wave, moves = self._wave_of.get(ahead // _WORD, (0, {})) if ahead % _WORD == 0 else (0, {})
        for word, step in moves.items():
            args[word] += step
        return wave


def host() -> Gpu:
    """CuPy's current device. NativeUnavailable where code cannot be made for it."""
    from . import cupy_device

    return cupy_device.host()


def interpreted() -> None:
    """Nothing: NumPy does not read the device's memory."""


def on_paper() -> Gpu:
    """The answers of a GPU that need not be here."""
    return Gpu()
