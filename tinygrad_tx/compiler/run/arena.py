"""The memory that plans compute in: one block for all of them, on huge pages, touched once.

In: how many bytes a plan needs. Out: its address. Used by run/addresses.py; in
compiled.py a thread enters the arena for a run, and what lies here is nobody's between two runs.
"""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from threading import RLock, get_ident
from typing import Any

import numpy as np

HUGE = 2 << 20


class Arena:
    """Memory that grows to the largest plan's need. `with arena:` a run goes on."""

    def __init__(self) -> None:
        self.renew()
        self.bytes = 0
        self.address = 0
        self._map: mmap.mmap | None = None

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

    def reserve(self, size: int) -> int:
        """The address of at least `size` bytes, aligned to a huge page. What lay there before is
        lost where it has to grow."""
        if size > self.bytes:
            room = -(-size // HUGE) * HUGE
            self._map = _anonymous(room + HUGE)
            with suppress(AttributeError, OSError, ValueError):
                self._map.madvise(mmap.MADV_HUGEPAGE)
            start = np.frombuffer(self._map, np.uint8).ctypes.data
            self.address = -(-start // HUGE) * HUGE
            self.bytes = room
        return self.address


def _anonymous(size: int) -> mmap.mmap:
    """Memory of no file. Private where systems fork: a child gets a copy, and only such memory is
    put on huge pages."""
    if hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return mmap.mmap(-1, size)


ARENA = Arena()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=ARENA.renew)
