"""The GPU backend: CuPy arrays on the current CUDA device; base.py says what each function means.

Sums at repeated places run in a fixed order (sorted, then one thread for each sum): atomics would
make the last bits a matter of luck.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from ..dtypes import DType
from ..errors import DeviceError
from .base import Array, Backend

try:
    import cupy
except ImportError as missing:
    raise DeviceError(
        'device "cuda" needs CuPy, which is not installed: '
        'pip install "tinygrad_tx[cuda13]" (or [cuda12], as your driver is)'
    ) from missing

from . import cupy_random

# For each segment s, out[places[s]] += the sum of value's slices order[starts[s]] up to, without,
# order[starts[s + 1]]: one thread for each (segment, column).
_SEGMENT_ADD = r"""
template <typename T, typename A>
__global__ void segment_add(const T* value, const long long* order, const long long* starts,
                            const long long* places, long long segments, long long total,
                            long long width, T* out) {
    long long at = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (at >= segments * width) return;
    long long s = at / width, c = at % width;
    long long end = s + 1 < segments ? starts[s + 1] : total;
    A sum = A(0);
    for (long long i = starts[s]; i < end; ++i) sum += A(value[order[i] * width + c]);
    T* target = out + places[s] * width + c;
    *target = T(A(*target) + sum);
}
"""
_C_TYPES = {  # element type, accumulator
    "float32": ("float", "float"),
    "float64": ("double", "double"),
    "int32": ("int", "long long"),
    "int64": ("long long", "long long"),
}


def load() -> Backend:
    """The backend; DeviceError, in one line, without a driver or a device."""
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise DeviceError(
            f'device "cuda": CuPy is installed, but the CUDA driver does not answer ({error}): '
            "install or update the NVIDIA driver"
        ) from None
    if not count:
        raise DeviceError('device "cuda": the driver sees no GPU (is CUDA_VISIBLE_DEVICES empty?)')
    return CupyBackend()


class CupyBackend(Backend):
    device = "cuda"

    def __init__(self) -> None:
        super().__init__(cupy)
        names = [f"segment_add<{t}, {a}>" for t, a in _C_TYPES.values()]
        self._segments = cupy.RawModule(
            code=_SEGMENT_ADD, options=("-std=c++17",), name_expressions=names
        )

    def quiet(self) -> AbstractContextManager[Any]:
        return nullcontext()  # a GPU does not warn

    def from_host(self, array: np.ndarray[Any, Any]) -> Array:
        return cupy.array(array, order="C", copy=True)

    def to_host(self, array: Array) -> np.ndarray[Any, Any]:
        host: np.ndarray[Any, Any] = cupy.asnumpy(array)
        host.flags.writeable = False
        return host

    def from_dlpack(self, external: Any) -> Array:
        return cupy.from_dlpack(external)

    def synchronize(self) -> None:
        cupy.cuda.get_current_stream().synchronize()

    def matmul(self, a: Array, b: Array) -> Array:
        if a.dtype.itemsize == 2:  # half precision: products in float32 on the tensor cores' terms
            return cupy.matmul(a.astype(np.float32), b.astype(np.float32)).astype(a.dtype)
        if b.ndim == 2 and a.ndim > 2 and a.size:
            return cupy.matmul(a.reshape(-1, a.shape[-1]), b).reshape(*a.shape[:-1], b.shape[-1])
        return cupy.matmul(a, b)

    def index_put(self, x: Array, index: Array, value: Array, axis: int) -> Array:
        """As in base.py: CuPy leaves open which of several writes to one place is the last."""
        order = cupy.argsort(index)  # stable
        ordered = index[order]
        last = cupy.ones(ordered.shape, bool)
        last[:-1] = ordered[1:] != ordered[:-1]
        kept = order[last]
        return super().index_put(x, index[kept], cupy.take(value, kept, axis=axis), axis)

    def index_add(self, x: Array, index: Array, value: Array, axis: int) -> Array:
        rows = cupy.ascontiguousarray(cupy.moveaxis(x, axis, 0))
        rows = rows.copy() if rows is x or rows.base is not None else rows
        self._add_segments(rows, index, cupy.moveaxis(value, axis, 0))
        return cupy.moveaxis(rows, 0, axis)

    def scatter_add(self, shape: tuple[int, ...], index: Array, value: Array, axis: int) -> Array:
        last = cupy.moveaxis(index, axis, -1)
        moved = (*shape[:axis], *shape[axis + 1 :], shape[axis])
        out = cupy.zeros(moved, value.dtype)
        if index.size:
            rows = last.size // last.shape[-1]
            offsets = cupy.arange(rows, dtype=np.int64)[:, None] * shape[axis]
            flat = (last.reshape(rows, -1) + offsets).ravel()
            self._add_segments(out.reshape(-1), flat, cupy.moveaxis(value, axis, -1).ravel())
        return cupy.moveaxis(out, -1, axis)

    def _add_segments(self, out: Array, index: Array, value: Array) -> None:
        """out[index[i]] += value[i], in order of i, for contiguous out."""
        if index.size == 0 or out.size == 0:
            return
        if out.dtype.name not in _C_TYPES:  # half precision: summed in float32
            wide = out.astype(np.float32)
            self._add_segments(wide, index, value.astype(np.float32))
            out[...] = wide.astype(out.dtype)
            return
        order = cupy.argsort(index).astype(np.int64)
        ordered = index[order].astype(np.int64)
        first = cupy.concatenate((cupy.ones(1, bool), ordered[1:] != ordered[:-1]))
        starts = cupy.flatnonzero(first).astype(np.int64)
        width = value.size // index.size
        element, accumulator = _C_TYPES[out.dtype.name]
        kernel = self._segments.get_function(f"segment_add<{element}, {accumulator}>")
        threads = 256
        blocks = -(-int(starts.size) * width // threads)
        total = (np.int64(starts.size), np.int64(index.size), np.int64(width))
        arguments = (cupy.ascontiguousarray(value), order, starts, ordered[starts], *total, out)
        kernel((blocks,), (threads,), arguments)

    def argsort(self, x: Array, axis: int, descending: bool) -> Array:
        if not descending:
            return cupy.argsort(x, axis=axis)  # stable
        backwards = cupy.argsort(cupy.flip(x, axis), axis=axis)
        return x.shape[axis] - 1 - cupy.flip(backwards, axis)

    def argtopk(self, x: Array, k: int, axis: int) -> Array:
        order = self.argsort(x, axis, descending=True)
        return order[(slice(None),) * axis + (slice(0, k),)]

    def uniform(self, key: Array, stream: Array, shape: tuple[int, ...], dtype: DType) -> Array:
        return cupy_random.uniform(key, stream, shape, dtype.np)

    def normal(self, key: Array, stream: Array, shape: tuple[int, ...], dtype: DType) -> Array:
        return cupy_random.normal(key, stream, shape, dtype.np)

    def randint(
        self, key: Array, stream: Array, low: int, high: int, shape: tuple[int, ...], dtype: DType
    ) -> Array:
        return cupy_random.randint(key, stream, low, high, shape, dtype.np)

    def keep(self, key: Array, stream: Array, p: float, shape: tuple[int, ...]) -> Array:
        return cupy_random.bernoulli_keep(key, stream, p, shape)
