"""Target: the questions of the compiler to a machine that runs kernels.

The stages of compiler/pipeline.py ask how a product is cut and what may ride on it; run/ gets its
programs here. So no file of the compiler knows a machine: cpu/target.py is the first of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .reports import Reports

if TYPE_CHECKING:  # nothing is loaded for it before something is compiled
    from .kernels.kinds import Kernel


class Cut(NamedTuple):
    """The tasks of a product: rows and columns of one, and panels in one of its packing."""

    rows: int
    columns: int
    panels: int


class Part(NamedTuple):
    """A call of a kernel, whose arguments are the words from start to end of its program's. state:
    True if it writes over what must stay as it was where an index was outside."""

    kernel: Kernel
    start: int
    end: int
    state: bool = False


class Wave(NamedTuple):
    """Launches whose tasks run in any order, each of parts that run task by task. stop: the word
    that holds the address of an int64, which ends the run after this wave where it is not 0; -1
    where there is none."""

    launches: Sequence[Sequence[Part]]
    stop: int


class Loop(NamedTuple):
    """Waves that run `rounds` times. moves: words that grow by so many bytes from round to round;
    after the last one they are again what they were."""

    waves: Sequence[Wave | Loop]
    rounds: int
    moves: Sequence[tuple[int, int]]


Entry = Wave | Loop


class Done(NamedTuple):
    """Tasks of a launch that a thread did one after the other. wave, launch: numbers from 0, the
    wave's as waves_in() gives them; begin, end: seconds since the run began."""

    thread: int
    wave: int
    launch: int
    tasks: int
    begin: float
    end: float


def waves_in(waves: Sequence[Entry]) -> list[Wave]:
    """All waves, those of loops once."""
    return [w for x in waves for w in ([x] if isinstance(x, Wave) else waves_in(x.waves))]


class Memory(ABC):
    """The memory of a machine, as run/ deals with it: arrays of the device's backend, and their
    addresses."""

    @abstractmethod
    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """A new array, dense and aligned as kernels read it. dtype: NumPy's."""

    @abstractmethod
    def address(self, array: Any) -> int:
        """Of an array's first element."""

    @abstractmethod
    def readable(self, array: Any) -> Any:
        """The array itself if kernels can read it, or a copy."""

    @abstractmethod
    def copied(self, array: Any) -> Any:
        """A copy that kernels may write over."""

    @abstractmethod
    def owns(self, array: Any) -> bool:
        """True of an array over memory that it has allocated itself, which kernels may write over
        if nobody else holds it."""

    @abstractmethod
    def constant(self, array: Any) -> Any:
        """An array of the host, where kernels can read it."""

    @abstractmethod
    def write(self, array: Any, value: Any) -> None:
        """Write a value over an array of the machine. value: of the machine, or the host's."""

    @abstractmethod
    def view(self, address: int, dtype: str, shape: Sequence[int], strides: Sequence[int]) -> Any:
        """What lies at an address, as an array. strides: in elements."""

    @abstractmethod
    def reserve(self, size: int) -> int:
        """The address of the memory that plans compute in, which has at least so many bytes. What
        lay there before is lost where it has to grow."""

    def apart(self, plan: Hashable, sizes: Sequence[int]) -> Sequence[int] | None:
        """The addresses of the values that a plan computes, of so many bytes, where each lies in
        memory of its own, so that an access beside one can be found; None where they lie in what
        reserve() gives. plan: which it is; asked before each run."""
        return None


class Program(Protocol):
    """Waves, ready to run on arguments (int64 words, addresses put in)."""

    def run(self, args: Any) -> int:
        """The wave after which a stop ended the run, counted from 1 as waves_in() gives them; the
        number of these where none did. Where one did, moved words stay as they were then."""

    def run_timed(self, args: Any) -> tuple[int, list[float]]:
        """As run(), and the seconds of each Wave and Loop that has run."""

    def done(self) -> list[Done]:
        """What each thread did in the last timed run, as far as it is known."""

    def notes(self) -> list[str]:
        """What users should know of how it runs; a line each."""

    def blamed(self, args: Any, low: int) -> int:
        """The wave of the check whose report has these low bits; 0 where it is not one of these.
        args: those of the run; moved words are then as they were in that check's round."""


class Target(ABC):
    """block: rows in which a product over rows adds up, so chunks of whole blocks keep its bits.
    native: True if its programs are machine code. packs: True if a product's right operand is
    packed by a kernel of its own. merges: True if calls of a kernel in one wave are one launch.
    keeps_statistics: True if attention writes its statistics for
    gradients, which are two kernels then; else one that computes weights anew."""

    block: int
    native: bool
    packs = True
    merges = False
    keeps_statistics = False
    memory: Memory
    reports: Reports | None = None  # where the host does not wait for a run

    # Asked by the stages -------------------------------------------------------------------------
    @abstractmethod
    def cut(
        self, m: int, n: int, k: int, batch: int, dtype: str, *, full_rows: bool = False
    ) -> Cut:
        """The tasks of a product (batch, m, k) @ (k, n), cut by shape alone. full_rows: a task has
        whole rows, so that a row program can run on them as an epilogue."""

    @abstractmethod
    def takes_epilogues(self, m: int, dtype: str) -> bool:
        """True if a product of m rows has enough tasks when each has whole rows."""

    @abstractmethod
    def pack_width(self, dtype: str) -> int:
        """Columns of a panel of a packed operand."""

    def together(self, calls: Sequence[tuple[Kernel, Sequence[int]]]) -> list[list[int]]:
        """Which of the calls in a wave are one launch, by their numbers. Each is given with its
        words; addresses are bytes behind the beginning of an allocation."""
        return [[i] for i in range(len(calls))]

    # Asked by run/ -------------------------------------------------------------------------------
    @abstractmethod
    def link(self, kernels: Sequence[Kernel]) -> Any:
        """The code of kernels, which lives as long as what is given. For `program`."""

    @abstractmethod
    def program(self, code: Any, waves: Sequence[Entry], values: Sequence[int], alone: bool) -> Any:
        """A Program. values: its arguments but for addresses, which give the number of tasks.
        alone: so little is to be done that no other thread is woken."""

    @abstractmethod
    def interpret(self, kernel: Kernel, args: Sequence[int]) -> bool:
        """A call of a kernel in NumPy, on the host's memory: the oracle of the code. False where it
        was a check of indices, and one was outside."""

    @abstractmethod
    def source(self, kernel: Kernel) -> str:
        """The text that is compiled for a kernel."""

    @abstractmethod
    def assembly(self, kernel: Kernel) -> str:
        """The machine code of a kernel, as text; of a GPU, PTX."""

    def kept(self, kernel: Kernel) -> bool:
        """True if the code of a kernel is kept from an earlier time, so that it is not made."""
        return False
