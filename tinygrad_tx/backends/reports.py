"""Reports: an index that was outside, found by a device that nobody waits for.

In: runs of plans. Out: an IndexError, where the host next waits. A device has one report, a word
that is CLEAN as long as all is well; every kernel looks at it first and does nothing once it is
not. So a run that has failed, and those that were begun after it, leave all memory as it was, and
what they have already told the host is taken back: the Tensors that they have pointed at new
arrays.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from threading import RLock
from typing import NamedTuple, NoReturn

CLEAN = -1  # as an unsigned number, more than any report
MOST = 64  # runs of which the host has not heard: more would keep too many arrays alive
SHIFT = 32  # a report is the number of the run above these bits, and below them part of an address


class Run(NamedTuple):
    """number: those begun later have higher ones. undo: takes back what the host was told. blame:
    raises the error, given the low bits of the report."""

    number: int
    undo: Callable[[], None]
    blame: Callable[[int], NoReturn]


class Reports(ABC):
    """The runs of a device of which the host has not heard."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._runs: deque[Run] = deque()
        self._number = 0

    # Of the device -------------------------------------------------------------------------------
    @property
    @abstractmethod
    def address(self) -> int:
        """Of two int64 in the device's memory: the report, and the number of the run."""

    @abstractmethod
    def _begin(self, number: int) -> None:
        """Have the device know that what it is given from now on is the run of that number."""

    @abstractmethod
    def _read(self) -> int:
        """The report. Waits for all that the device has been given."""

    @abstractmethod
    def _clear(self) -> None:
        """Have it CLEAN again."""

    # ---------------------------------------------------------------------------------------------
    def begin(self, checks: bool) -> int:
        """The number of a run that is to begin. checks: whether it may report something."""
        with self._lock:
            if len(self._runs) >= MOST:
                self.answer()
            self._number += 1
            if checks:
                self._begin(self._number)
            return self._number

    def add(self, run: Run) -> None:
        with self._lock:
            self._runs.append(run)

    def answer(self) -> None:
        """Hear of all runs, where the host waits anyway. Raises what the first failing one has to
        say; that one and all later ones are taken back."""
        with self._lock:
            if not self._runs:
                return
            report = self._read()
            runs, self._runs = list(self._runs), deque()
            if report == CLEAN:
                return
            self._clear()
            failed = report >> SHIFT
            for run in reversed(runs):
                if run.number >= failed:
                    run.undo()
            guilty = next(run for run in runs if run.number == failed)
            guilty.blame(report & ((1 << SHIFT) - 1))
