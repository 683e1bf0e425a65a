"""The GPU backend: CuPy arrays on the current CUDA device; base.py says what each function means.

Sums at repeated places run in a fixed order (sorted, then one thread for each sum): atomics would
make the last bits a matter of luck. Only what reads results waits for the device; an index outside
its range is found there, and raised by the next wait (see cupy_kernels.py).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from math import prod
from typing import Any

import numpy as np

from ...dtypes import DType
from ...errors import DeviceError
from ..reports import Reports
from .base import Array, Backend

_INSTALL = 'pip install "tinygrad_tx[cuda13]" (or [cuda12], as your driver is)'
try:
    import cupy
except ImportError as error:
    if error.name == "cupy":
        raise DeviceError(
            f'device "cuda" needs CuPy, which is not installed: {_INSTALL}'
        ) from error
    raise DeviceError(
        f'device "cuda": CuPy is installed, but cannot be imported ({error}): {_INSTALL}'
    ) from error

from . import cupy_kernels, cupy_random  # noqa: E402

_LONG = 4096  # elements of a sum from which on it is made in float64
_NEEDED = 14  # CuPy 13 has no put_along_axis, no bfloat16, and promotes by value


def load() -> Backend:
    """The backend; DeviceError, in one line that says what is missing, where it could not work."""
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        if "cudaErrorNoDevice" not in str(error):
            raise DeviceError(
                f'device "cuda": CuPy is installed, but the CUDA driver does not answer '
                f"({_line(error)}): install or update the NVIDIA driver"
            ) from None
        count = 0  # a driver without a GPU: an error, not a count of 0
    if not count:
        raise DeviceError(
            'device "cuda": the driver sees no GPU; if there is one, is CUDA_VISIBLE_DEVICES empty?'
        )
    if int(cupy.__version__.partition(".")[0]) < _NEEDED:
        raise DeviceError(
            f'device "cuda" needs CuPy {_NEEDED} or newer, and {cupy.__version__} is installed: '
            f"{_INSTALL}"
        )
    _prove("compile a kernel", lambda: cupy.ones((1, 1), np.float32) + 1)
    _prove("multiply matrices", lambda: cupy.matmul(*[cupy.ones((1, 1), np.float32)] * 2).get())
    return CupyBackend()


def _prove(what: str, attempt: Callable[[], Any]) -> None:
    """CuPy finds NVRTC, CUDA's headers and cuBLAS when it first needs them: so that is now."""
    try:
        attempt()
    except MemoryError as error:
        raise DeviceError(
            f'device "cuda": the memory of the GPU is full ({_line(error)}): is another program '
            "using it?"
        ) from None
    except Exception as error:  # each of these libraries fails in its own way
        raise DeviceError(
            f'device "cuda": CuPy cannot {what} ({type(error).__name__}: {_line(error)}); '
            f"the libraries it needs come with {_INSTALL}"
        ) from None


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


_TENSOR_CORES = 80  # compute capability: tensor cores that take tf32


class CupyBackend(Backend):
    device = "cuda"

    def __init__(self) -> None:
        super().__init__(cupy)
        self._checks = cupy_kernels.Checks()
        self.reports: list[Reports] = []  # of compiled calls: heard of when the host waits
        self.tf32 = int(cupy.cuda.Device().compute_capability) >= _TENSOR_CORES

    def no_warnings(self) -> AbstractContextManager[Any]:
        return nullcontext()  # a GPU does not warn

    def from_host(self, array: np.ndarray[Any, Any]) -> Array:
        return cupy.array(array, order="C", copy=True)

    def asarray(self, value: Any) -> Array:
        """As in base.py; of what is no number an array of NumPy's, which no rule promises."""
        try:
            return super().asarray(value)
        except (TypeError, ValueError):
            return np.asarray(value, object)

    def frozen(self, array: Array) -> Array:
        """A copy: no memory of a GPU is read-only."""
        return array.copy() if isinstance(array, cupy.ndarray) else array

    def to_host(self, array: Array) -> np.ndarray[Any, Any]:
        answer = self._ask()
        host: np.ndarray[Any, Any] = cupy.asnumpy(array)  # waits
        answer()
        host.flags.writeable = False
        return host

    def from_dlpack(self, external: Any) -> Array:
        return cupy.from_dlpack(external)

    def synchronize(self) -> None:
        answer = self._ask()
        cupy.cuda.get_current_stream().synchronize()
        answer()

    def settle(self) -> None:
        self._checks.hear()
        for reports in self.reports:
            reports.hear()

    def _ask(self) -> Callable[[], None]:
        """Before a wait. What it gives is called after it, and raises the error of a check that has
        failed, of an op or of a compiled call."""
        asked = self._checks.ask()
        runs = [(reports, reports.ask()) for reports in self.reports]

        def answer() -> None:
            if asked:
                self._checks.answer()
            for reports, number in runs:
                reports.answer(number)

        return answer

    def sum(self, x: Array, axis: tuple[int, ...]) -> Array:
        """As in base.py. Each of CuPy's threads adds up a chain, which grows with the number of
        elements, as would its error in float32."""
        narrow = x.dtype.itemsize <= 4 and x.dtype.kind in "fV"
        if narrow and prod(x.shape[i] for i in axis) > _LONG:
            return x.sum(axis=axis, dtype=np.float64, keepdims=True).astype(x.dtype)
        return super().sum(x, axis)

    def matmul(self, a: Array, b: Array) -> Array:
        if a.dtype.itemsize == 2:  # half precision: products in float32 on the tensor cores' terms
            return cupy.matmul(a.astype(np.float32), b.astype(np.float32)).astype(a.dtype)
        if b.ndim == 2 and a.ndim > 2 and a.size:
            return cupy.matmul(a.reshape(-1, a.shape[-1]), b).reshape(*a.shape[:-1], b.shape[-1])
        return cupy.matmul(a, b)

    def where(self, condition: Array, x: Array, y: Array) -> Array:
        """As in base.py: CuPy makes float32 of bfloat16."""
        out = cupy.where(condition, x, y)
        for given in (x, y):
            if getattr(given, "dtype", out.dtype).name == "bfloat16":
                return out.astype(given.dtype)
        return out

    def checked(self, index: Array, size: int, *, wrap: bool = True, of: str = "") -> Array:
        error = f"{of}: index {{}} is outside the {size} entries it chooses from"
        error = error.removeprefix(": ")
        return self._checks.place(index, size, size - 1, wrap=wrap, error=error)

    def update(self, x: Array, value: Array, position: Array, axis: int) -> Array:
        size, length = x.shape[axis], value.shape[axis]
        error = (
            f"update: a write of {length} at position {{}} leaves the {size} places along axis "
            f"{axis}"
        )
        start = self._checks.place(position, size, size - length, wrap=True, error=error)
        rows = self._rows(x, axis)
        cupy_kernels.put_run(rows, start, cupy.moveaxis(value, axis, 0), self._checks.report)
        return cupy.moveaxis(rows, 0, axis)

    def index_put(self, x: Array, index: Array, value: Array, axis: int) -> Array:
        rows = self._rows(x, axis)
        cupy_kernels.put_slices(rows, index, cupy.moveaxis(value, axis, 0), self._checks.report)
        return cupy.moveaxis(rows, 0, axis)

    def index_add(self, x: Array, index: Array, value: Array, axis: int) -> Array:
        rows = self._rows(x, axis)
        self._add_slices(rows, index, cupy.moveaxis(value, axis, 0))
        return cupy.moveaxis(rows, 0, axis)

    def scatter_add(self, shape: tuple[int, ...], index: Array, value: Array, axis: int) -> Array:
        last = cupy.moveaxis(index, axis, -1)
        moved = (*shape[:axis], *shape[axis + 1 :], shape[axis])
        out = cupy.zeros(moved, value.dtype)
        if index.size:
            rows = last.size // last.shape[-1]
            offsets = cupy.arange(rows, dtype=np.int64)[:, None] * shape[axis]
            flat = (last.reshape(rows, -1) + offsets).ravel()
            self._add_slices(out.reshape(-1), flat, cupy.moveaxis(value, axis, -1).ravel())
        return cupy.moveaxis(out, -1, axis)

    def _rows(self, x: Array, axis: int) -> Array:
        """A contiguous copy of x whose first axis is `axis`."""
        return cupy.array(cupy.moveaxis(x, axis, 0), copy=True, order="C")

    def _add_slices(self, out: Array, index: Array, value: Array) -> None:
        """out[index[i]] += value[i], in order of i, for contiguous out."""
        if cupy_kernels.sums(out.dtype):
            cupy_kernels.add_slices(out, index, value, self._checks.report)
        else:  # half precision: summed in float32
            wide = out.astype(np.float32)
            self._add_slices(wide, index, value.astype(np.float32))
            out[...] = wide.astype(out.dtype)

    def argsort(self, x: Array, axis: int, descending: bool) -> Array:
        """As in base.py. CuPy sorts no bfloat16 (float32 has the same order), and arrays of one
        dimension by their bits, which puts a NaN with a sign first."""
        if x.dtype.name == "bfloat16":
            x = x.astype(np.float32)
        if x.dtype.kind == "f":
            x = cupy.where(cupy.isnan(x), x.dtype.type("nan"), x)
        if not descending:
            return cupy.argsort(x, axis=axis)  # stable
        backwards = cupy.argsort(cupy.flip(x, axis), axis=axis)
        return x.shape[axis] - 1 - cupy.flip(backwards, axis)

    def argtopk(self, x: Array, k: int, axis: int) -> Array:
        order = self.argsort(x, axis, descending=True)
        return order[(slice(None),) * axis + (slice(0, k),)]

    def uniform(
        self, key: Array, stream: Array, shape: tuple[int, ...], dtype: DType, first: int = 0
    ) -> Array:
        return cupy_random.uniform(key, stream, shape, dtype.np, first)

    def normal(
        self, key: Array, stream: Array, shape: tuple[int, ...], dtype: DType, first: int = 0
    ) -> Array:
        return cupy_random.normal(key, stream, shape, dtype.np, first)

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
        return cupy_random.randint(key, stream, low, high, shape, dtype.np, first)

    def keep(
        self, key: Array, stream: Array, p: float, shape: tuple[int, ...], first: int = 0
    ) -> Array:
        return cupy_random.bernoulli_keep(key, stream, p, shape, first)
