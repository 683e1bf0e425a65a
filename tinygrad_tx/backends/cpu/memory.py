"""The host's memory: NumPy's arrays, and one block that plans compute in.

In: what run/ asks. Out: arrays and addresses. The block is on huge pages and touched once; what
lies in it is nobody's between two runs.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from ..kernels import interpreter
from ..target import Memory

HUGE = 2 << 20
Array = np.ndarray[Any, Any]


class HostMemory(Memory):
    """align: of addresses that kernels read, in bytes; 0: that of an element."""

    def __init__(self, align: int = 0) -> None:
        self._align = align
        self.bytes = self._address = 0
        self._map: mmap.mmap | None = None

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        if not self._align:
            return np.empty(shape, dtype)
        return self._aligned(np.empty(shape, dtype))

    def _aligned(self, array: Array) -> Array:
        """The array, or another one of its shape that is aligned and owns its memory."""
        while array.ctypes.data % self._align:  # malloc gives what it has given back just now
            array, _ = np.empty(array.shape, array.dtype), array
        return array

    def address(self, array: Array) -> int:
        return int(array.ctypes.data)

    def readable(self, array: Any) -> Array:
        array = np.asarray(array)
        flags = array.flags
        fits = flags.c_contiguous and flags.aligned
        if self._align:
            fits = fits and array.ctypes.data % self._align == 0
        return array if fits else self.copied(array)

    def copied(self, array: Array) -> Array:
        made = self.empty(array.shape, array.dtype)
        np.copyto(made, array)
        return made

    def owns(self, array: Any) -> bool:
        if not isinstance(array, np.ndarray):  # a constant may be a NumPy scalar
            return False
        return bool(array.flags.owndata and array.flags.carray)

    def constant(self, array: Any) -> Array:
        return self.readable(array)

    def write(self, array: Array, value: Any) -> None:
        np.copyto(array, value)

    def view(self, address: int, dtype: str, shape: Sequence[int], strides: Sequence[int]) -> Array:
        return interpreter.view(address, dtype, shape, strides)

    def reserve(self, size: int) -> int:
        if size > self.bytes:
            room = -(-size // HUGE) * HUGE
            self._map = _anonymous(room + HUGE)
            with suppress(AttributeError, OSError, ValueError):
                self._map.madvise(mmap.MADV_HUGEPAGE)
            start = np.frombuffer(self._map, np.uint8).ctypes.data
            self._address = -(-start // HUGE) * HUGE
            self.bytes = room
        return self._address


def _anonymous(size: int) -> mmap.mmap:
    """Memory of no file. Private where systems fork: a child gets a copy, and only such memory is
    put on huge pages."""
    if hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return mmap.mmap(-1, size)
