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
# Runs that the host may be ahead of the one that it has asked for: those of which it has not heard
# keep arrays alive. It waits for that one alone, so the device has nearly as many to do meanwhile.
AHEAD = 32
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
        self._asked = 0  # the number of the last run that the report asked for speaks of

    # Of the device -------------------------------------------------------------------------------
    @property
    @abstractmethod
    def address(self) -> int:
        """Of two int64 in the device's memory: the report, and the number of the run."""

    @abstractmethod
    def _begin(self, number: int) -> None:
        """Have the device know that what it is given from now on is the run of that number."""

    @abstractmethod
    def _ask(self) -> None:
        """Have the report on its way to the host, as it is after all that was given before."""

    @abstractmethod
    def _arrived(self) -> bool:
        """True if what was asked for last is there."""

    @abstractmethod
    def _await(self) -> None:
        """Wait for what was asked for last."""

    @abstractmethod
    def _heard(self) -> int:
        """The report, when it is there."""

    @abstractmethod
    def _wait(self) -> None:
        """Wait for all that the device has been given."""

    @abstractmethod
    def _clear(self) -> None:
        """Have it CLEAN again."""

    # Of runs -------------------------------------------------------------------------------------
    def begin(self, checks: bool) -> int:
        """The number of a run that is to begin. checks: whether it may report something. Raises
        what an earlier run has to say, if that is known by now."""
        with self._lock:
            if self._runs and self._number + 1 - self._asked >= AHEAD:
                self._await()
            if self._runs and self._asked >= self._runs[0].number and self._arrived():
                self.answer()
            self._number += 1
            if checks:
                self._begin(self._number)
            return self._number

    def add(self, run: Run, checks: bool) -> None:
        """A run that was begun. One that checks nothing waits for what those before it report."""
        with self._lock:
            if not checks and not self._runs:
                return
            self._runs.append(run)
            if self._arrived():  # else the device is behind, and a later run asks
                self.ask()

    # Of waits ------------------------------------------------------------------------------------
    def ask(self) -> None:
        """Before a wait: have the report on its way."""
        with self._lock:
            if self._runs and self._asked != self._runs[-1].number:
                self._ask()
                self._asked = self._runs[-1].number

    def answer(self) -> None:
        """After it: raise what the first failing run has to say; that one and all later ones are
        taken back."""
        with self._lock:
            if not self._runs or self._asked < self._runs[0].number:
                return
            report = self._heard()
            if report == CLEAN:
                while self._runs and self._runs[0].number <= self._asked:
                    self._runs.popleft()
                return
            runs, self._runs = list(self._runs), deque()
            self._wait()  # later ones, too, have done nothing
            self._clear()
            failed = report >> SHIFT
            for run in reversed(runs):
                if run.number >= failed:
                    run.undo()
            guilty = next(run for run in runs if run.number == failed)
            guilty.blame(report & ((1 << SHIFT) - 1))

    def dismiss(self) -> None:
        """Forget what a run has reported that is not one of these, and has raised it by itself."""
        with self._lock:
            self._wait()
            self._clear()

    def hear(self) -> None:
        """Wait for all runs, and raise what the first failing one has to say."""
        with self._lock:
            if self._runs:
                self.ask()
                self._wait()
                self.answer()
