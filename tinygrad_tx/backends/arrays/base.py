"""Backend: the array namespace `xp` that every op's forward is written against.

A backend is a device name, the functions listed in `Backend`, and nothing else. NumPy and CuPy
agree on most of them, so the shared ones are bound here from the array module; what differs
(host transfer, random words, index checks, matmul) is for the subclass. Arrays are immutable by
convention: a forward returns a new array or a view, and never writes into its inputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from ...dtypes import DType
from ...mistakes import missing_from
from . import special

Array = Any  # numpy.ndarray or cupy.ndarray: the op forwards work on either

# Functions that the array module and `xp` have in common: same name, same meaning.
_SHARED = (
    *("exp", "log", "log2", "log10", "log1p", "expm1", "sqrt", "abs", "sign"),
    *("sin", "cos", "tan", "arctan2", "sinh", "cosh", "tanh", "floor", "ceil", "trunc", "rint"),
    *("minimum", "maximum", "where", "fmod", "copysign"),
    *("logical_and", "logical_or", "logical_xor", "logical_not", "isnan", "isfinite", "isinf"),
    *("reshape", "transpose", "broadcast_to", "concatenate", "flip", "arange"),
    "take_along_axis",
)


def _wide(x: Array) -> Any:
    """The dtype of products of x's elements."""
    return np.int64 if x.dtype.kind in "biu" else x.dtype


class _Reductions:
    """The part of a Backend that reduces: `axis` is a tuple, axes are kept as 1."""

    module: Any

    def sum(self, x: Array, axis: tuple[int, ...]) -> Array:
        """Accumulates in float32 or better; integers and bools in int64, as products do."""
        if x.dtype.kind in "biu":
            return x.sum(axis=axis, dtype=np.int64, keepdims=True)
        if x.dtype.itemsize < 4:
            return x.sum(axis=axis, dtype=np.float32, keepdims=True).astype(x.dtype)
        return x.sum(axis=axis, keepdims=True)

    def cumsum(self, x: Array, axis: int) -> Array:
        """Sums of the elements up to each along axis; integers and bools in int64."""
        wide = np.int64 if x.dtype.kind in "biu" else np.promote_types(x.dtype, np.float32)
        out = self.module.cumsum(x, axis=axis, dtype=wide)
        return out if x.dtype.kind in "biu" else out.astype(x.dtype)

    def prod(self, x: Array, axis: tuple[int, ...]) -> Array:
        """Accumulates as sum does."""
        return x.prod(axis=axis, dtype=_wide(x), keepdims=True)

    def cumprod(self, x: Array, axis: int) -> Array:
        """Products of the elements up to each along axis."""
        return self.module.cumprod(x, axis=axis, dtype=_wide(x))

    def max(self, x: Array, axis: tuple[int, ...]) -> Array:
        """The largest element; NaN wins."""
        return x.max(axis=axis, keepdims=True)

    def min(self, x: Array, axis: tuple[int, ...]) -> Array:
        """The smallest element; NaN wins."""
        return x.min(axis=axis, keepdims=True)

    def any(self, x: Array, axis: tuple[int, ...]) -> Array:
        """True where one element is not 0."""
        return x.any(axis=axis, keepdims=True)

    def all(self, x: Array, axis: tuple[int, ...]) -> Array:
        """True where no element is 0."""
        return x.all(axis=axis, keepdims=True)

    def argmax(self, x: Array, axis: int) -> Array:
        """int64 indices of the first largest elements along axis, which is kept as 1."""
        return self.module.expand_dims(x.argmax(axis=axis), axis).astype(np.int64)

    def argmin(self, x: Array, axis: int) -> Array:
        """int64 indices of the first smallest elements along axis, which is kept as 1."""
        return self.module.expand_dims(x.argmin(axis=axis), axis).astype(np.int64)


class Backend(_Reductions, ABC):
    """One device's arrays. Called `xp` inside forwards."""

    device: str
    computes = True  # False where no forward runs, and arrays have shapes alone: meta_backend.py
    tf32 = False  # True if compiled products of float32 may take operands of 19 bits

    def __init__(self, module: Any) -> None:
        self.module = module
        for name in _SHARED:
            if not hasattr(type(self), name):  # a backend's own method comes first
                setattr(self, name, getattr(module, name))

    if not TYPE_CHECKING:  # which knows what there is

        def __getattr__(self, name: str) -> Any:
            raise missing_from(self, f"xp of {self.device}", name)

    # Running -------------------------------------------------------------------------------
    @abstractmethod
    def no_warnings(self) -> AbstractContextManager[Any]:
        """Inside, arithmetic gives infinities and NaN without warnings."""

    @abstractmethod
    def from_host(self, array: np.ndarray[Any, Any]) -> Array:
        """A copy of a NumPy array on this device, which nobody else holds."""

    @abstractmethod
    def to_host(self, array: Array) -> np.ndarray[Any, Any]:
        """The array as NumPy sees it: read-only where it shares memory with the Tensor."""

    @abstractmethod
    def from_dlpack(self, external: Any) -> Array:
        """An array over the memory of any object with __dlpack__ on this device."""

    def to_dlpack(self, array: Array, **options: Any) -> Any:
        """A DLPack capsule of an array that nobody else holds."""
        return array.__dlpack__(**options)

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until all queued work is done, so that it can be timed."""

    @abstractmethod
    def settle(self) -> None:
        """Raise the error of a check that failed since the host last waited: see checked()."""

    def frozen(self, array: Array) -> Array:
        """The array for a forward that is not trusted not to write into it, read-only or a copy."""
        return array

    def asarray(self, value: Any) -> Array:
        """The result of a forward as an array (NumPy returns scalars for 0-d results)."""
        return value if isinstance(value, self.module.ndarray) else self.module.asarray(value)

    # Elementwise ---------------------------------------------------------------------------
    def cast(self, x: Array, dtype: DType) -> Array:
        """Towards zero from floats to integers, where NaN becomes 0 and what does not fit the
        nearest number that does (C leaves that open, and processors differ); "is not zero" to bool;
        integers wrap around."""
        if x.dtype.itemsize == 2:
            x = x.astype(np.float32)
        out = x.astype(dtype.np, copy=False)
        if dtype.kind != "i" or x.dtype.kind != "f":
            return out
        low, high = np.iinfo(dtype.np).min, np.iinfo(dtype.np).max
        return self.saturated(x, out, low, high)

    def saturated(self, x: Array, out: Array, low: int, high: int) -> Array:
        """out, the integers of the floats x, made right where they do not fit."""
        where = self.module.where
        out = where(x < float(low), out.dtype.type(low), out)
        out = where(x >= float(high + 1), out.dtype.type(high), out)
        return where(x == x, out, out.dtype.type(0))

    def power(self, x: Array, p: Array) -> Array:
        """x ** p. Integers: by squaring, wrapping around; a negative power is 1 / x**-p cut to an
        integer, which is 0 but for 1 and -1. Floats: as pow in C, annex F."""
        if not special.are_integers(x, p):
            return self.module.power(x, p)
        return special.integer_power(self, self.module.power, x, p)

    def floor_divide(self, a: Array, b: Array) -> Array:
        """floor(a / b), as Python has it: of the exact quotient. Integers by 0 are 0."""
        if a.dtype.kind == "i":
            return self.module.floor_divide(a, b)
        return special.divmod(self, a, b)[0]

    def remainder(self, a: Array, b: Array) -> Array:
        """a - floor_divide(a, b) * b, exactly, with the sign of b. Integers by 0 are 0."""
        if a.dtype.kind == "i":
            return self.module.remainder(a, b)
        return special.divmod(self, a, b)[1]

    def cast_like(self, value: float, x: Array) -> Any:
        """A constant of x's dtype: `where` gives a Python float a dtype of its own."""
        return x.dtype.type(value)

    def scalar(self, value: float, dtype: DType) -> Any:
        """A constant that takes part in arithmetic with its own dtype."""
        return dtype.scalar(value)

    def erf(self, x: Array) -> Array:
        """The error function, within the rounding of x's dtype."""
        if x.dtype.itemsize < 4:
            return special.erf(self, x.astype(np.float32), double=False).astype(x.dtype)
        return special.erf(self, x, double=x.dtype.itemsize == 8)

    # Creation ------------------------------------------------------------------------------
    def full(self, shape: tuple[int, ...], value: float, dtype: DType) -> Array:
        """value everywhere."""
        return self.module.full(shape, value, dtype=dtype.np)

    def iota(self, start: float, step: float, count: int, dtype: DType) -> Array:
        """start + i * step for i < count, computed in float64 or int64, then cast."""
        wide = np.float64 if dtype.is_floating_point else np.int64
        steps = self.module.arange(count, dtype=wide)
        return (steps * step + start).astype(dtype.np)

    # Movement ------------------------------------------------------------------------------
    def pad(self, x: Array, widths: Sequence[tuple[int, int]], value: float) -> Array:
        """x with value around it: widths are (before, after) for each axis."""
        return self.module.pad(x, widths, constant_values=value) if x.ndim else x

    def windows(self, x: Array, axis: int, size: int, step: int, dilation: int) -> Array:
        """A view (..., windows, ..., size): window i has the elements i * step + k * dilation of
        axis, in a new last axis."""
        count = (x.shape[axis] - dilation * (size - 1) - 1) // step + 1
        stride = x.strides[axis]
        shape = (*x.shape[:axis], count, *x.shape[axis + 1 :], size)
        strides = (*x.strides[:axis], stride * step, *x.strides[axis + 1 :], stride * dilation)
        return self.module.lib.stride_tricks.as_strided(x, shape, strides)

    def slice_write(self, x: Array, value: Array, index: tuple[slice, ...]) -> Array:
        """A copy of x with x[index] replaced by value, broadcast."""
        out = x.copy()
        out[index] = value
        return out

    def update(self, x: Array, value: Array, position: Array, axis: int) -> Array:
        """A copy of x with value written from a 0-d position on along axis."""
        start, length = int(position), value.shape[axis]
        start += x.shape[axis] if start < 0 else 0
        if not 0 <= start <= x.shape[axis] - length:
            raise IndexError(
                f"a write of {length} at position {int(position)} leaves the {x.shape[axis]} "
                f"places along axis {axis}"
            )
        whole = slice(None)
        index = tuple(slice(start, start + length) if i == axis else whole for i in range(x.ndim))
        return self.slice_write(x, value, index)

    # Products ------------------------------------------------------------------------------
    @abstractmethod
    def matmul(self, a: Array, b: Array) -> Array:
        """a (..., M, K) @ b (..., K, N); half precision is accumulated in float32."""

    # Gather and scatter --------------------------------------------------------------------
    def checked(self, index: Array, size: int, *, wrap: bool = True, of: str = "") -> Array:
        """index, its negative entries counted from the end where `wrap` is set; IndexError naming
        the first entry that is outside.

        A device with a queue may find it out later: then places that exist are given, nothing is
        written, and a DeferredIndexError comes with the next wait, of the op called `of`. An op
        that raises at once is named by who runs it.
        """
        bad = (index < (-size if wrap else 0)) | (index >= size)
        if bool(bad.any()):
            worst = int(index[bad].ravel()[0])
            raise IndexError(f"index {worst} is outside the {size} entries it chooses from")
        return self.module.where(index < 0, index + size, index)

    def put_along_axis(self, x: Array, index: Array, value: Array, axis: int) -> None:
        """Write value into x, which the caller has just made, at index along axis."""
        self.module.put_along_axis(x, index, value, axis)

    def take(self, x: Array, index: Array, axis: int) -> Array:
        """The slices of x at index along axis, in the index's shape."""
        return self.module.take(x, index, axis=axis)

    def index_put(self, x: Array, index: Array, value: Array, axis: int) -> Array:
        """A copy of x with value's slices at index (1-d) along axis."""
        out = x.copy()
        out[(slice(None),) * axis + (index,)] = value
        return out

    @abstractmethod
    def index_add(self, x: Array, index: Array, value: Array, axis: int) -> Array:
        """x plus value's slices added at index (1-d) along axis; duplicates add up, in order."""

    @abstractmethod
    def scatter_add(self, shape: tuple[int, ...], index: Array, value: Array, axis: int) -> Array:
        """Zeros of shape, plus value at index along axis (the transpose of take_along_axis)."""

    @abstractmethod
    def argsort(self, x: Array, axis: int, descending: bool) -> Array:
        """Stable order: equal entries keep their places; NaN counts as the largest."""

    @abstractmethod
    def argtopk(self, x: Array, k: int, axis: int) -> Array:
        """The first k of argsort(descending=True) along axis."""

    # Randomness: Philox 4x32-10; key and stream are 0-d int64 arrays. first: the place in the
    # stream of the first number, a multiple of 4; given where it is not 0
    # --------------------------------
    @abstractmethod
    def uniform(
        self, key: Array, stream: Array, shape: tuple[int, ...], dtype: DType, first: int = 0
    ) -> Array:
        """[0, 1) in steps of 2^-24."""

    @abstractmethod
    def normal(
        self, key: Array, stream: Array, shape: tuple[int, ...], dtype: DType, first: int = 0
    ) -> Array:
        """Mean 0, standard deviation 1."""

    @abstractmethod
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
        """Integers in [low, high)."""

    @abstractmethod
    def keep(
        self, key: Array, stream: Array, p: float, shape: tuple[int, ...], first: int = 0
    ) -> Array:
        """Booleans: uniform(...) >= p."""
