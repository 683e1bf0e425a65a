"""CUDA kernels of the GPU backend for places that are data: looking at them, adding and writing.

None of them makes the host wait. An index outside its range is noted in a report in the device's
memory; the kernels that write look at the report first and do nothing once something is in it. The
host reads it when it waits anyway: `Checks` says when, and raises the error. Called by the CuPy
backend.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any, NamedTuple

import cupy
import numpy as np

from ...errors import DeferredIndexError

Array = Any  # cupy.ndarray

_THREADS = 256
_MOST = 256  # checks of which the host has not heard: more would keep too many indices alive
_ENTRIES = 2**40  # more than an index has
_CLEAN = 2**64 - 1  # a report without an error
_C_TYPES = {  # element type, accumulator
    "float32": ("float", "double"),  # a chain may be as long as there are equal places
    "float64": ("double", "double"),
    "int32": ("int", "long long"),
    "int64": ("long long", "long long"),
}
_WORDS = {1: "unsigned char", 2: "unsigned short", 4: "unsigned int", 8: "unsigned long long"}
_SOURCE = r"""
typedef long long i64;
typedef unsigned long long u64;

__device__ i64 thread() { return blockIdx.x * (i64)blockDim.x + threadIdx.x; }

// out = index, counted from the end where it is negative and `wrap` is set. An entry that is not
// in [0, last] then becomes 0; the first one of the first check is kept in the report.
template <typename I>
__global__ void check(
    const I* index, i64 count, i64 size, i64 last, i64 wrap, u64 number, I* out, u64* report
) {
    i64 i = thread();
    if (i >= count) return;
    i64 place = index[i];
    if (place < 0 && wrap) place += size;
    if (place < 0 || place > last) {
        atomicMin(report, number + (u64)i);
        place = 0;
    }
    out[i] = (I)place;
}

// `places` is sorted, and `order` says which slice of value each one is for. One thread for each
// (place, column): that of the first of equal places adds all of their slices, in order.
template <typename T, typename A>
__global__ void add(
    const T* value, const i64* order, const i64* places, i64 count, i64 width, T* out,
    const u64* report
) {
    i64 at = thread();
    if (at >= count * width || *report != ~0ull) return;
    i64 i = at / width, c = at % width, place = places[i];
    if (i > 0 && places[i - 1] == place) return;
    A sum = A(0);
    for (; i < count && places[i] == place; ++i) sum += A(value[order[i] * width + c]);
    T* target = out + place * width + c;
    *target = T(A(*target) + sum);
}

// The same, but the last of equal places writes its slice.
template <typename T>
__global__ void put(
    const T* value, const i64* order, const i64* places, i64 count, i64 width, T* out,
    const u64* report
) {
    i64 at = thread();
    if (at >= count * width || *report != ~0ull) return;
    i64 i = at / width, c = at % width, place = places[i];
    if (i + 1 < count && places[i + 1] == place) return;
    out[place * width + c] = value[order[i] * width + c];
}
"""


class _Check(NamedTuple):
    """The record of a check: its index, and the error, with {} for the entry."""

    index: Array
    error: str


class Checks(threading.local):
    """The checks of this thread of which the host has not heard, and their report."""

    def __init__(self) -> None:
        self.report = cupy.full(1, np.uint64(_CLEAN), np.uint64)
        self._heard = np.frombuffer(cupy.cuda.alloc_pinned_memory(8), np.uint64, 1)
        self._waiting: list[_Check] = []

    def place(self, index: Array, size: int, last: int, *, wrap: bool, error: str) -> Array:
        """index, its negative entries counted from the end where `wrap` is set, and 0 for those
        that are not in [0, last] then: of the first of these the error is, with {} for it."""
        if not index.size:
            return index
        if last < 0:  # there is no place at all
            raise DeferredIndexError(error.format(int(index.ravel()[0])))
        if len(self._waiting) == _MOST:
            self.hear()
        given = cupy.ascontiguousarray(index)
        number = np.uint64(len(self._waiting) * _ENTRIES)
        self._waiting.append(_Check(given, error))
        out = cupy.empty(index.shape, index.dtype)
        sizes = (np.int64(given.size), np.int64(size), np.int64(last), np.int64(wrap))
        kernel = _kernel(f"check<{_C_TYPES[given.dtype.name][0]}>")
        _launch(kernel, given.size, (given, *sizes, number, out, self.report))
        return out

    def hear(self) -> None:
        """Wait for all checks; DeferredIndexError if one has failed."""
        if self.ask():
            cupy.cuda.get_current_stream().synchronize()
            self.answer()

    def ask(self) -> bool:
        """Have the report on the host by the time of the next wait, if there are checks."""
        if self._waiting:
            self.report.get(out=self._heard, blocking=False)
        return bool(self._waiting)

    def answer(self) -> None:
        """After ask() and a wait: DeferredIndexError if a check has failed."""
        waiting, self._waiting = self._waiting, []
        first = int(self._heard[0])
        if first == _CLEAN:
            return
        self.report.fill(np.uint64(_CLEAN))
        number, entry = divmod(first, _ENTRIES)
        index, error = waiting[number]
        raise DeferredIndexError(error.format(int(index.ravel()[entry])))


def add_slices(out: Array, index: Array, value: Array, report: Array) -> None:
    """out[index[i]] += value[i] in the order of i, for a contiguous `out` of a dtype that sums."""
    order = cupy.argsort(index).astype(np.int64)  # stable
    kernel = _kernel("add<{}, {}>".format(*_C_TYPES[out.dtype.name]))
    _write(kernel, out, order, index[order], value, report)


def put_slices(out: Array, index: Array, value: Array, report: Array) -> None:
    """out[index[i]] = value[i], the last of equal places staying, for a contiguous `out`."""
    order = cupy.argsort(index).astype(np.int64)
    _write(_kernel(f"put<{_WORDS[out.itemsize]}>"), out, order, index[order], value, report)


def put_run(out: Array, start: Array, value: Array, report: Array) -> None:
    """out[start[0] + i] = value[i], for a contiguous `out`."""
    order = cupy.arange(len(value), dtype=np.int64)
    _write(_kernel(f"put<{_WORDS[out.itemsize]}>"), out, order, start + order, value, report)


def _write(
    kernel: Any, out: Array, order: Array, places: Array, value: Array, report: Array
) -> None:
    if value.size:
        sizes = (np.int64(order.size), np.int64(value.size // order.size))
        given = (cupy.ascontiguousarray(value), order, places.astype(np.int64), *sizes, out, report)
        _launch(kernel, value.size, given)


def sums(dtype: Any) -> bool:
    """True if add_slices() takes the dtype."""
    return dtype.name in _C_TYPES


def _launch(kernel: Any, threads: int, arguments: tuple[Any, ...]) -> None:
    kernel((-(-threads // _THREADS),), (_THREADS,), arguments)


@cache
def _kernel(name: str) -> Any:
    return _module().get_function(name)


@cache
def _module() -> Any:
    names = [f"add<{element}, {sum_}>" for element, sum_ in _C_TYPES.values()]
    names += [f"put<{word}>" for word in _WORDS.values()] + ["check<int>", "check<long long>"]
    return cupy.RawModule(code=_SOURCE, options=("-std=c++17",), name_expressions=names)
