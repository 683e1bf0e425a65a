"""Signals that end a program, while training: the first asks, the second insists. Used by the
trainer.

Ctrl-C, SIGTERM and SIGHUP (a terminal that is closed; not if `nohup` had it ignored) finish the
step and save. Before there is anything to save, while data are read, they end the program at once.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import Self

_NOTE = b"\nstopping after this step; once more to quit at once, without saving\n"
_SAME = 1.0  # seconds


class Interrupted(KeyboardInterrupt):
    """A signal has ended the program, which saved nothing. number: that of the signal. when: what
    that means to the user."""

    def __init__(self, number: int, when: str) -> None:
        super().__init__(f"{signal.Signals(number).name}, {when}")
        self.number, self._when = number, when

    def __reduce__(self) -> tuple[type[Interrupted], tuple[int, str]]:  # other ranks get it
        return type(self), (self.number, self._when)


class Stopped(KeyboardInterrupt):
    """Training was interrupted and everything is saved; the message says how to go on."""


class Interrupts:
    """Within `with Interrupts() as interrupts`, the first signal only sets `interrupts.requested`
    once `interrupts.can_save` is set; any other raises Interrupted.

    Outside the main thread, where Python lets nobody handle signals, nothing changes.
    """

    def __init__(self, ranks: int = 1, quiet: bool = False) -> None:
        """ranks: of the job, where a launcher hands on what its processes have got already: what
        comes within a second is then the same signal. quiet: another rank says that it came."""
        self.requested = self.can_save = False
        self._same, self._quiet, self._asked = (_SAME if ranks > 1 else 0.0), quiet, 0.0

    def __enter__(self) -> Self:
        signals = [signal.SIGINT, signal.SIGTERM]
        if hasattr(signal, "SIGBREAK"):  # Windows: Ctrl-Break
            signals.append(signal.SIGBREAK)
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signals.append(signal.SIGHUP)
        if threading.current_thread() is not threading.main_thread():
            signals = []
        self._before = {number: signal.signal(number, self._note) for number in signals}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            # None: a handler that is not Python's, which cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested and time.monotonic() - self._asked < self._same:
            return
        if self.requested:
            raise Interrupted(number, "without saving; --resume goes on from the last checkpoint")
        if not self.can_save:
            raise Interrupted(number, "before the first step")
        self.requested, self._asked = True, time.monotonic()
        with suppress(OSError):
            if not self._quiet:
                os.write(2, _NOTE)  # print() is not safe in a signal handler
