"""A strict double of CuPy over NumPy memory: its folder goes before the real package on the path.

It has the names that tinygrad_tx uses, with CuPy's signatures (test_double.py compares them with
the installed package), and differs from NumPy where CuPy 14 does:
- nothing is converted by itself, either way: NumPy arrays are refused, np.asarray(x) is an error;
- results are always arrays, those of 0 dimensions too;
- indices outside wrap around without an error; argsort is stable whatever `kind`;
- `where` makes float32 of bfloat16, argsort refuses it, and in one dimension it sorts floats by
  their bits, so that a NaN with a sign comes first;
- integers: x ** negative is 0 (but for 1 and -1), division by zero gives 0; floats: x // y is
  floor(x / y), x % y is x - floor(x / y) * y;
- of several writes to one place it is open which one stays (here the first, so that whoever relies
  on the last is found out); fresh memory holds 0xFF bytes.

Kernels (RawModule) are compiled by a C++ compiler and run on the CPU, one thread after another.
`counts` says how often the host waited, copied and launched. CUPY_DOUBLE chooses a machine where
something is missing: see `cuda`.
"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace as _SimpleNamespace
from typing import Any

import numpy as _np

from tinygrad_tx.backends.arrays.dlpack import imported as _imported

from . import _array, cuda
from ._array import memory as _memory
from ._array import ndarray
from ._array import new as _new
from ._array import operand as _operand
from ._array import quiet as _quiet
from ._raw import RawModule
from .cuda import counts

__version__ = cuda.broken("version", "14.2.0")
float16, float32, float64 = _np.float16, _np.float32, _np.float64
int32, int64, bool_ = _np.int32, _np.int64, _np.bool_
globals().update(_array.UFUNCS)


def array(
    obj: Any,
    dtype: Any = None,
    copy: bool = True,
    order: str = "K",
    subok: bool = False,
    ndmin: int = 0,
    *,
    blocking: bool = False,
) -> ndarray:
    if not isinstance(obj, ndarray):
        counts["to_device"] += 1
    if isinstance(obj, (list, tuple)) and any(isinstance(x, ndarray) for x in obj):
        obj = [_memory(x, "obj") for x in obj]
    found = _np.asarray(obj._a if isinstance(obj, ndarray) else obj)
    if found.dtype.kind not in "biufcV":
        raise ValueError(f"Unsupported dtype {found.dtype}")
    cuda.need_memory(found.nbytes)
    return _new(_np.array(found, dtype=dtype, copy=True, order=order))


class _MemoryPool:
    """Of memory that goes back at once."""

    def used_bytes(self) -> int:
        return _array.used_bytes()

    total_bytes = used_bytes

    def free_all_blocks(self, stream: Any = None) -> None:
        pass


def get_default_memory_pool() -> _MemoryPool:
    return _MemoryPool()


def asarray(
    a: Any, dtype: Any = None, order: Any = None, *, copy: Any = None, blocking: bool = False
) -> ndarray:
    if isinstance(a, ndarray) and (dtype is None or a.dtype == dtype) and not copy:
        return a
    return array(a, dtype, order=order or "K")


def asnumpy(
    a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True
) -> Any:
    return a.get() if isinstance(a, ndarray) else _np.asarray(a)


def ascontiguousarray(a: Any, dtype: Any = None) -> ndarray:
    x = _memory(a, "a")
    if x.flags.c_contiguous and (dtype is None or x.dtype == dtype):
        return a
    return _new(_np.array(x, dtype=dtype, order="C"))


def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    out = _np.empty(shape, dtype)
    cuda.need_memory(out.nbytes)
    if out.size:
        ctypes.memset(out.ctypes.data, 0 if out.dtype == bool else 0xFF, out.nbytes)
    return _new(out)


def zeros(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    cuda.need_memory(int(_np.prod(shape)) * _np.dtype(dtype).itemsize)
    return _new(_np.zeros(shape, dtype))


def ones(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    cuda.need_memory(int(_np.prod(shape)) * _np.dtype(dtype).itemsize)
    return _new(_np.ones(shape, dtype))


def full(shape: Any, fill_value: Any, dtype: Any = None, order: str = "C") -> ndarray:
    return _new(_quiet(_np.full, shape, _operand(fill_value), dtype))


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> ndarray:
    bounds = (start,) if stop is None else (start, stop, step)
    return _new(_np.arange(*bounds, dtype=dtype))


def where(condition: Any, x: Any = None, y: Any = None) -> Any:
    if x is None and y is None:
        counts["waits"] += 1
        return tuple(_new(i) for i in _np.nonzero(_memory(condition, "condition")))
    out = _quiet(_np.where, _operand(condition), _operand(x), _operand(y))
    return _new(out.astype(float32) if out.dtype.name == "bfloat16" else out)


def reshape(a: Any, newshape: Any, order: str = "C", *, copy: Any = None) -> Any:
    return a.reshape(newshape)


def transpose(a: Any, axes: Any = None) -> Any:
    return a.transpose(axes)


def broadcast_to(array: Any, shape: Any) -> ndarray:
    return _new(_np.broadcast_to(_memory(array), shape), array)


def _as_strided(x: Any, shape: Any = None, strides: Any = None) -> ndarray:
    return _new(_np.lib.stride_tricks.as_strided(_memory(x, "x"), shape, strides), x)


lib = _SimpleNamespace(stride_tricks=_SimpleNamespace(as_strided=_as_strided))


def concatenate(
    tup: Any, axis: Any = 0, out: Any = None, *, dtype: Any = None, casting: str = "same_kind"
) -> ndarray:
    return _new(_np.concatenate([_memory(x, "tup") for x in tup], axis))


def flip(a: Any, axis: Any = None) -> ndarray:
    return _new(_np.flip(_memory(a, "a"), axis), a)


def expand_dims(a: Any, axis: Any) -> ndarray:
    return _new(_np.expand_dims(_memory(a, "a"), axis), a)


def moveaxis(a: Any, source: Any, destination: Any) -> ndarray:
    return _new(_np.moveaxis(_memory(a, "a"), source, destination), a)


def flatnonzero(a: Any) -> ndarray:
    counts["waits"] += 1  # for the number of entries
    return _new(_np.flatnonzero(_memory(a, "a")))


def pad(array: Any, pad_width: Any, mode: str = "constant", **kwargs: Any) -> ndarray:
    given = {k: _operand(v) for k, v in kwargs.items()}
    return _new(_np.pad(_memory(array), pad_width, mode, **given))


def cumsum(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> ndarray:
    x = _memory(a, "a")
    wanted = _np.dtype(dtype or x.dtype)
    wide = _np.float64 if wanted == float32 else wanted  # CuPy's blocks make no long chains
    return _new(_np.cumsum(x, axis=axis, dtype=wide).astype(wanted))


def cumprod(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> ndarray:
    return _new(_np.cumprod(_memory(a, "a"), axis=axis, dtype=dtype))


def matmul(
    *args: Any,
    axes: Any = None,
    axis: Any = None,
    keepdims: bool = False,
    casting: str = "same_kind",
    dtype: Any = None,
    signature: Any = None,
    order: str = "K",
    out: Any = None,
) -> ndarray:
    a, b = (_memory(x, "a") for x in args)
    cuda.broken("cublas")
    if a.dtype.kind == "V" or b.dtype.kind == "V":
        raise TypeError("bfloat16 with more than two dimensions")
    return _new(_quiet(_np.matmul, a, b))


def take(a: Any, indices: Any, axis: Any = None, out: Any = None) -> ndarray:
    x, i = _memory(a, "a"), _memory(indices, "indices")
    if not x.ndim and axis is not None:
        raise _np.exceptions.AxisError(axis, 0)
    return _new(_np.take(x, i, axis, mode="wrap"))


def take_along_axis(a: Any, indices: Any, axis: Any) -> ndarray:
    x, i = _memory(a, "a"), _memory(indices, "indices")
    if i.dtype.kind not in "iu":
        raise IndexError("`indices` must be an integer array")
    size = x.shape[axis]
    return _new(_np.take_along_axis(x, i % size if size else i, axis))


def put_along_axis(arr: Any, indices: Any, values: Any, axis: Any) -> None:
    x, i = _memory(arr, "arr"), _memory(indices, "indices")
    _np.put_along_axis(x, i % x.shape[axis] if i.size else i, _operand(values), axis)


def argsort(a: Any, axis: Any = -1, kind: Any = None) -> ndarray:
    x = _np.atleast_1d(_memory(a, "a"))
    if x.dtype.name == "bfloat16":
        raise NotImplementedError("Sorting arrays with dtype 'bfloat16' is not supported")
    if x.ndim == 1 and x.dtype.char in "fd":  # a radix sort
        bits = (x + 0).view(f"i{x.itemsize}")
        x = _np.where(bits < 0, bits ^ _np.iinfo(bits.dtype).max, bits)
    return _new(_np.argsort(x, axis, kind="stable"))


def from_dlpack(array: Any, *, device: Any = None, copy: Any = None) -> ndarray:
    if int(array.__dlpack_device__()[0]) != 2:
        raise BufferError("not memory of a CUDA device")

    class Host:
        """The same memory, said to be the host's."""

        def __dlpack__(self, **kwargs: Any) -> Any:
            return array.__dlpack__(max_version=kwargs.get("max_version"))

        def __dlpack_device__(self) -> tuple[int, int]:
            return 1, 0

    return _new(_imported(Host()))
