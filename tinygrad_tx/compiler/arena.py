"""The memory that plans compute in: one block for all of them, on huge pages, touched once.

In: how many bytes a plan needs. Out: its address. Called by execute.py, which holds the lock while
a plan runs: what lies here is nobody's between two runs.
"""

from __future__ import annotations

import mmap
from contextlib import suppress
from threading import RLock

import numpy as np

HUGE = 2 << 20


class Arena:
    """Memory that grows to the largest plan's need."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.bytes = 0
        self.address = 0
        self._map: mmap.mmap | None = None

    def reserve(self, size: int) -> int:
        """The address of at least `size` bytes, aligned to a huge page. What lay there before is
        lost where it has to grow."""
        if size > self.bytes:
            room = -(-size // HUGE) * HUGE
            self._map = mmap.mmap(-1, room + HUGE)
            with suppress(AttributeError, OSError, ValueError):
                self._map.madvise(mmap.MADV_HUGEPAGE)
            start = np.frombuffer(self._map, np.uint8).ctypes.data
            self.address = -(-start // HUGE) * HUGE
            self.bytes = room
        return self.address


ARENA = Arena()
