"""Ctrl-C and SIGTERM while training: the first asks, the second insists. Used by the trainer."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Self

_NOTE = b"\nstopping after this step; once more to quit at once, without saving\n"


class Stopped(KeyboardInterrupt):
    """Training was interrupted and everything is saved; the message says how to go on."""


class Interrupts:
    """Within `with Interrupts() as interrupts`, the first SIGINT or SIGTERM only sets
    `interrupts.requested`; the second raises KeyboardInterrupt.

    Outside the main thread, where Python lets nobody handle signals, nothing changes.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Self:
        main = threading.current_thread() is threading.main_thread()
        signals = (signal.SIGINT, signal.SIGTERM) if main else ()
        self._before = {number: signal.signal(number, self._note) for number in signals}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        os.write(2, _NOTE)  # print() is not safe in a signal handler
