"""The turn of a run: one at a time in a process, for all plans compute in the same memory.

Used by compiled.py, whose calls hold it from the look at their guards to the end of their run.
"""

from __future__ import annotations

import os
from threading import RLock, get_ident
from typing import Any


class Turn:
    """`with TURN:` a run goes on."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """In the child of a fork: another thread of the parent may have been inside."""
        self._lock = RLock()
        self._inside = 0

    @property
    def mine(self) -> bool:
        """True if this very thread is inside."""
        return self._inside == get_ident()

    def __enter__(self) -> None:
        self._lock.acquire()
        self._inside = get_ident()

    def __exit__(self, *error: Any) -> None:
        self._inside = 0
        self._lock.release()


TURN = Turn()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=TURN.renew)
