"""The CPU backend: NumPy arrays. See base.py for what each function means."""

from __future__ import annotations

from contextlib import AbstractContextManager
from contextvars import ContextVar, copy_context
from math import prod
from typing import Any

import numpy as np

from ...dtypes import DType
from . import numpy_random, special
from .base import Array, Backend

_LONG = 4096  # summands that may well be added in one chain


def _silence() -> tuple[ContextVar[Any], Any] | None:
    """The context variable in which NumPy keeps how errors are treated, and its value for treating
    none: np.errstate makes that value anew each time, which takes longer than a small addition.
    None where NumPy keeps it elsewhere."""
    before = copy_context()
    inside = before.copy()
    inside.run(np.seterr, all="ignore")
    changed = [(var, value) for var, value in inside.items() if before.get(var) is not value]
    return changed[0] if len(changed) == 1 else None


_SILENCE = _silence()


class _Quiet:
    """np.errstate(all="ignore"), prepared."""

    __slots__ = ("_token",)

    def __enter__(self) -> None:
        assert _SILENCE is not None
        self._token = _SILENCE[0].set(_SILENCE[1])

    def __exit__(self, *error: Any) -> None:
        assert _SILENCE is not None
        _SILENCE[0].reset(self._token)


def load() -> Backend:
    return NumpyBackend()


class NumpyBackend(Backend):
    """Arrays of NumPy, on the CPU; a backend of one's own may derive from it."""

    device = "cpu"

    def __init__(self) -> None:
        super().__init__(np)

    def no_warnings(self) -> AbstractContextManager[Any]:
        return np.errstate(all="ignore") if _SILENCE is None else _Quiet()

    def frozen(self, array: Array) -> Array:
        return self.to_host(array) if isinstance(array, np.ndarray) else array

    def from_host(self, array: np.ndarray[Any, Any]) -> Array:
        return np.array(array, order="C", copy=True)

    def to_host(self, array: Array) -> np.ndarray[Any, Any]:
        view: np.ndarray[Any, Any] = np.asarray(array).view()  # constants are NumPy scalars
        view.flags.writeable = False
        return view

    def from_dlpack(self, external: Any) -> Array:
        if isinstance(external, np.ndarray):
            return np.from_dlpack(external)
        from . import dlpack

        return dlpack.imported(external)

    def to_dlpack(self, array: Array, **options: Any) -> Any:
        if array.dtype.name != "bfloat16":
            return array.__dlpack__(**options)
        from . import dlpack

        return dlpack.exported(array, **options)

    def synchronize(self) -> None:
        """NumPy has no queue."""

    def settle(self) -> None:
        """NumPy raises at once."""

    # Elementwise: NumPy's own functions where they say the same
    def saturated(self, x: Array, out: Array, low: int, high: int) -> Array:
        inside = (x >= float(low)) & (x < float(high + 1))
        return out if inside.all() else super().saturated(x, out, low, high)

    def power(self, x: Array, p: Array) -> Array:
        if special.are_integers(x, p):
            return np.power(x, p) if np.all(p >= 0) else super().power(x, p)
        out = np.power(x, p)
        # NumPy takes a square root for the power of a half, which differs at two numbers.
        odd = (p == 0.5) & ((x == 0) | (x == -np.inf))
        return np.where(odd, np.abs(x), out) if odd.any() else out

    def floor_divide(self, a: Array, b: Array) -> Array:
        return np.floor_divide(a, b)

    def remainder(self, a: Array, b: Array) -> Array:
        return np.remainder(a, b)

    def matmul(self, a: Array, b: Array) -> Array:
        if a.dtype.itemsize == 2:
            wide = np.matmul(a.astype(np.float32), b.astype(np.float32))
            return wide.astype(a.dtype)
        if b.ndim == 2 and a.ndim > 2 and a.size:  # one large product instead of a loop of small
            rows = _blas_ready(a.reshape(-1, a.shape[-1]))
            return np.matmul(rows, _blas_ready(b)).reshape(*a.shape[:-1], b.shape[-1])
        return np.matmul(_blas_ready(a), _blas_ready(b))

    def sum(self, x: Array, axis: tuple[int, ...]) -> Array:
        if x.size > _LONG and x.dtype.itemsize <= 4 and x.dtype.kind in "fV":
            count = prod(x.shape[i] for i in axis)
            last = sorted(i % x.ndim for i in axis) == list(range(x.ndim - len(axis), x.ndim))
            # NumPy adds pair by pair what lies side by side, and anything else in one long chain.
            if count > _LONG and not (last and x.flags.c_contiguous and x.dtype.itemsize == 4):
                return x.sum(axis=axis, dtype=np.float64, keepdims=True).astype(x.dtype)
        return super().sum(x, axis)

    def cumsum(self, x: Array, axis: int) -> Array:
        """Of short floats in float64: the chain of sums is as long as the axis."""
        if x.dtype.itemsize <= 4 and x.dtype.kind in "fV":  # one chain, as long as the axis
            return np.cumsum(x, axis=axis, dtype=np.float64).astype(x.dtype)
        return super().cumsum(x, axis)

    def index_add(self, x: Array, index: Array, value: Array, axis: int) -> Array:
        out = x.copy()
        if index.size == 0:
            return out
        # Sorting brings the duplicates together, so that each slice is summed once, in order.
        order = np.argsort(index, kind="stable")
        ordered = index[order]
        starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        slices = np.moveaxis(value, axis, 0)[order]
        if slices.dtype.itemsize == 2:
            slices = slices.astype(np.float32)
        sums = np.add.reduceat(slices, starts, axis=0)
        rows = np.moveaxis(out, axis, 0)
        rows[ordered[starts]] = rows[ordered[starts]] + sums
        return out

    def scatter_add(self, shape: tuple[int, ...], index: Array, value: Array, axis: int) -> Array:
        size = shape[axis]
        last = np.moveaxis(index, axis, -1)
        rows = last.size // last.shape[-1] if last.size else 0
        offsets = np.arange(rows, dtype=np.int64)[:, None] * size
        flat = (last.reshape(rows, -1) + offsets).ravel() if rows else np.zeros(0, np.int64)
        total = int(np.prod(shape))
        weights = np.moveaxis(value, axis, -1).ravel()
        if value.dtype.kind in "biu":
            out = np.zeros(total, value.dtype)
            np.add.at(out, flat, weights)
        else:
            out = np.bincount(flat, weights=weights.astype(np.float64), minlength=total)
            out = out.astype(value.dtype)
        moved = (*shape[:axis], *shape[axis + 1 :], size)
        return np.moveaxis(out.reshape(moved), -1, axis)

    def argsort(self, x: Array, axis: int, descending: bool) -> Array:
        x = _sortable(x)
        if not descending:
            return np.argsort(x, axis=axis, kind="stable")
        backwards = np.argsort(np.flip(x, axis), axis=axis, kind="stable")
        return x.shape[axis] - 1 - np.flip(backwards, axis)

    def argtopk(self, x: Array, k: int, axis: int) -> Array:
        last = np.moveaxis(_sortable(x), axis, -1)
        rows = last.reshape(-1, last.shape[-1]) if last.size else last.reshape(0, last.shape[-1])
        if k == 0 or k * 8 >= rows.shape[1] or np.isnan(rows).any():
            chosen = self.argsort(rows, 1, descending=True)[:, :k]
        else:  # a partition finds the k-th value; ties with it are taken from the left
            place = rows.shape[1] - k
            kth = np.partition(rows, place, axis=1)[:, place : place + 1]
            above, ties = rows > kth, rows == kth
            room = k - above.sum(axis=1, keepdims=True)
            picked = above | (ties & (np.cumsum(ties, axis=1) <= room))
            candidates = np.nonzero(picked)[1].reshape(-1, k)
            values = np.take_along_axis(rows, candidates, axis=1)
            order = self.argsort(values, 1, descending=True)
            chosen = np.take_along_axis(candidates, order, axis=1)
        return np.moveaxis(chosen.reshape(*last.shape[:-1], k), -1, axis)

    def uniform(
        self, key: Array, stream: Array, shape: tuple[int, ...], dtype: DType, first: int = 0
    ) -> Array:
        return numpy_random.uniform(int(key), int(stream), shape, dtype.np, first)

    def normal(
        self, key: Array, stream: Array, shape: tuple[int, ...], dtype: DType, first: int = 0
    ) -> Array:
        return numpy_random.normal(int(key), int(stream), shape, dtype.np, first)

    def randint(
        self,
        key: Array,
        stream: Array,
        low: int,
        high: int,
        shape: tuple[int, ...],
        dtype: DType,
        first: int = 0,
    ) -> Array:
        return numpy_random.randint(int(key), int(stream), low, high, shape, dtype.np, first)

    def keep(
        self, key: Array, stream: Array, p: float, shape: tuple[int, ...], first: int = 0
    ) -> Array:
        return numpy_random.bernoulli_keep(int(key), int(stream), p, shape, first)


def _blas_ready(x: Array) -> Array:
    """x, copied only where its last two strides are such that BLAS could not read it."""
    if x.ndim < 2:
        return x
    row, column = x.strides[-2:]
    size = x.itemsize
    if (column == size and row >= size * x.shape[-1]) or (
        row == size and column >= size * x.shape[-2]
    ):
        return x
    return np.ascontiguousarray(x)


def _sortable(x: Array) -> Array:
    """bfloat16 as float32: ml_dtypes leaves NaN where it happens to be."""
    return x.astype(np.float32) if x.dtype.kind == "V" else x
