"""Reports: an index that was outside, found by a device that nobody waits for.

In: runs of plans. Out: an IndexError, where the host next waits. A device has one report, a word
that is CLEAN as long as all is well; every kernel looks at it first and does nothing once it is
not. So a run that has failed, and those that were begun after it, leave all memory as it was, and
what they have already told the host is taken back: the Tensors that they have pointed at new
arrays.

Threads share the report. Who waits first raises the error; each other thread whose runs were lost
raises it at its next wait or call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import RLock, local
from typing import NoReturn

CLEAN = -1  # as an unsigned number, more than any report
# Runs that the host may be ahead of the one that it has asked for: those of which it has not heard
# keep arrays alive. It waits for that one alone, so the device has nearly as many to do meanwhile.
AHEAD = 32
SHIFT = 32  # a report is the number of the run above these bits, and below them part of an address
LOW = (1 << SHIFT) - 1


class Inbox:
    """What one thread has still to be told: the error that another one has raised."""

    error: IndexError | None = None


class _Mine(local):
    """The inbox of the current thread."""

    def __init__(self) -> None:
        self.inbox = Inbox()


@dataclass
class Run:
    """number: those begun later have higher ones. blame: raises the error, given the low bits of
    the report. inbox: of the thread that gives it. undo: takes back what the host was told."""

    number: int
    blame: Callable[[int], NoReturn]
    inbox: Inbox
    undo: Callable[[], None] = lambda: None


class Reports(ABC):
    """The runs of a device of which the host has not heard."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._runs: deque[Run] = deque()
        self._number = 0
        self._asked = 0  # the number of the last run that the report asked for speaks of
        self._mine = _Mine()

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
    @contextmanager
    def run(self, checks: bool, blame: Callable[[int], NoReturn]) -> Iterator[Run]:
        """Around all that a run gives to the device and tells the host. checks: whether it may
        report something; blame: as of Run. Raises what an earlier run has to say, if that is known
        by now. Other threads wait with what they hear: half of a run would go on as if nothing was.
        A run that raises in its midst is none; of one whose index was outside that is why."""
        with self._lock:
            run = self._begun(checks, blame)
            try:
                yield run
            except BaseException:
                if checks:
                    self._blame_unfinished(run)
                raise
            if not checks and not self._runs:
                return  # there is nothing before it that might be outside
            self._runs.append(run)
            if self._arrived():  # else the device is behind, and a later run asks
                self.ask()

    def _begun(self, checks: bool, blame: Callable[[int], NoReturn]) -> Run:
        self._tell()
        if self._runs and self._number + 1 - self._asked >= AHEAD:
            self._await()
        if self._runs and self._asked >= self._runs[0].number and self._arrived():
            self.answer(self._asked)
        self._number += 1
        if checks:
            self._begin(self._number)
        return Run(self._number, blame, self._mine.inbox)

    def _blame_unfinished(self, run: Run) -> None:
        self._ask()
        self._wait()
        report = self._heard()
        if report != CLEAN and report >> SHIFT == run.number:
            self._clear()
            run.blame(report & LOW)

    # Of waits ------------------------------------------------------------------------------------
    def ask(self) -> int:
        """Before a wait: have the report on its way. The number of the last run that it speaks of,
        for answer()."""
        with self._lock:
            if self._runs and self._asked != self._runs[-1].number:
                self._ask()
                self._asked = self._runs[-1].number
            return self._asked

    def answer(self, asked: int) -> None:
        """After it: raise what the first failing run has to say; that one and all later ones are
        taken back."""
        with self._lock:
            self._tell()
            if not self._runs or asked < self._runs[0].number:
                return
            report = self._heard()
            if report == CLEAN:
                while self._runs and self._runs[0].number <= asked:
                    self._runs.popleft()
                return
            failed = report >> SHIFT
            guilty = next((run for run in self._runs if run.number == failed), None)
            if guilty is None:  # a run that waits in its midst: it is not there yet
                return
            lost = [run for run in self._runs if run.number >= failed]
            self._runs.clear()
            self._wait()  # later ones, too, have done nothing
            self._clear()
            for run in reversed(lost):
                run.undo()
            try:
                guilty.blame(report & LOW)
            except IndexError as error:
                for run in lost:
                    if run.inbox is not self._mine.inbox:
                        run.inbox.error = error
                raise

    def _tell(self) -> None:
        """Raise what another thread has heard of runs of this one."""
        inbox = self._mine.inbox
        error, inbox.error = inbox.error, None
        if error is not None:
            raise IndexError(*error.args)

    def dismiss(self) -> None:
        """Forget what a run has reported that is not one of these, and has raised it by itself."""
        with self._lock:
            self._wait()
            self._clear()

    def hear(self) -> None:
        """Wait for all runs, and raise what the first failing one has to say."""
        with self._lock:
            self._tell()
            if self._runs:
                asked = self.ask()
                self._wait()
                self.answer(asked)
