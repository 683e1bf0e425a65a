"""Memory between pages that may not be touched: an access outside an array ends the process.

In: shapes, or arrays. Out: arrays of NumPy, alone in memory of their own, which begins as NaN. An
array ends at a page without access, or less than ALIGN bytes before one. What is left of its pages
is NaN as well; `require_intact` looks whether somebody has written there.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.lib.array_utils import byte_bounds

ALIGN = 16  # bytes: of all that kernels read in pieces
_PAGE = mmap.PAGESIZE
_NAN = 0xFF  # each byte of a NaN, and of an index that is outside
Array = np.ndarray[Any, Any]


class OutsideError(RuntimeError):
    """Bytes beside an array have been written."""


class Block(mmap.mmap):
    """`size` bytes, the first of them `behind` bytes behind a multiple of ALIGN."""

    size: int
    offset: int  # of the first byte in the map
    address: int

    def __new__(cls, size: int, behind: int = 0) -> Block:
        room = -(-(size + ALIGN) // _PAGE) * _PAGE
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        made = super().__new__(cls, -1, room + 2 * _PAGE, flags)
        end = _PAGE + room
        made.size, made.offset = size, end - size - (end - size - behind) % ALIGN
        start = np.frombuffer(made, np.uint8).ctypes.data
        made.address = start + made.offset
        for page in (start, start + end):
            if _protect(page, _PAGE, 0):
                raise OSError("mprotect")
        made._pages().fill(_NAN)
        _blocks.add(made)
        return made

    def _pages(self) -> Array:
        return np.frombuffer(self, np.uint8)[_PAGE:-_PAGE]

    @property
    def end(self) -> int:
        return self.address + self.size

    def forget(self) -> None:
        """What lies there is NaN again."""
        self._pages().fill(_NAN)

    def is_intact(self) -> bool:
        pages, first = self._pages(), self.offset - _PAGE
        beside = (pages[:first], pages[first + self.size :])
        return all(bool((part == _NAN).all()) for part in beside)


_protect = ctypes.CDLL(None).mprotect
_protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_blocks: WeakSet[Block] = WeakSet()


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """A new array, NaN throughout."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    block = Block(size)
    return np.ndarray(shape, dtype, block, block.offset)


def copied(array: Array) -> Array:
    """The array in memory of its own, dense."""
    made = empty(array.shape, array.dtype)
    np.copyto(made, array)
    return made


def moved(array: Array) -> Array:
    """The array in memory of its own, with the strides and the alignment that it has."""
    low, high = byte_bounds(array)
    block = Block(high - low, low % ALIGN)
    ctypes.memmove(block.address, low, high - low)
    first = block.offset + array.ctypes.data - low
    return np.ndarray(array.shape, array.dtype, block, first, array.strides)


def is_whole(array: Any) -> bool:
    """True of an array that empty() or copied() has made, not of a view of one."""
    return isinstance(array, np.ndarray) and isinstance(array.base, Block) and array.flags.carray


def require_intact() -> None:
    """OutsideError where somebody has written beside an array that is still there."""
    for block in list(_blocks):
        if not block.is_intact():
            block.forget()  # it is said once
            raise OutsideError(f"bytes beside an array of {block.size} bytes have been written")
