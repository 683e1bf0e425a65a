"""RawModule of the double: CUDA C compiled as C++, run one thread after another.

Arguments are passed as CuPy passes them: arrays as pointers, NumPy scalars as they are, Python ints
as int64, floats as float64. For kernels whose threads wait for each other there is cupy_on_cpu.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from . import _array, cuda

_KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(\w+)\s*\(')
_WAITS = re.compile(r"__sync|__shfl|__ballot|__any|__all|__shared__|asm")
_PRELUDE = r"""
#include <cmath>
#include <cstddef>
#include <type_traits>
#include <utility>
#define __global__
#define __device__
struct Index { unsigned x = 0, y = 0, z = 0; };
static Index blockIdx, threadIdx, blockDim, gridDim;
static void sincospi(double x, double* s, double* c) {
    const double pi = 3.14159265358979323846;
    *s = std::sin(pi * x), *c = std::cos(pi * x);
}
static unsigned __umulhi(unsigned a, unsigned b) { return (unsigned long long)a * b >> 32; }
template <class T> T atomicMin(T* p, T v) { T old = *p; if (v < old) *p = v; return old; }
template <class... A, size_t... I>
void call(void (*f)(A...), void** a, std::index_sequence<I...>) {
    f(*(std::remove_cv_t<std::remove_reference_t<A>>*)a[I]...);
}
template <class... A> void launch(void (*f)(A...), const unsigned* n, void** arguments) {
    gridDim = {n[0], n[1], n[2]}, blockDim = {n[3], n[4], n[5]};
    Index& b = blockIdx;
    Index& t = threadIdx;
#define EACH(index, axis, count) for (index.axis = 0; index.axis < (count); ++index.axis)
    EACH(b, z, n[2]) EACH(b, y, n[1]) EACH(b, x, n[0]) EACH(t, z, n[5]) EACH(t, y, n[4])
        EACH(t, x, n[3]) call(f, arguments, std::index_sequence_for<A...>{});
}
template <class... A> size_t sizes(void (*)(A...), size_t* out) {
    size_t all[] = {sizeof(A)..., 0};
    for (size_t i = 0; i < sizeof...(A); ++i) out[i] = all[i];
    return sizeof...(A);
}
"""
_EXPORT = """
extern "C" void launch_%(name)s(const unsigned* n, void** a) { launch(%(kernel)s, n, a); }
extern "C" size_t sizes_%(name)s(size_t* out) { return sizes(%(kernel)s, out); }
"""


def compiler() -> str | None:
    """A C++ compiler, if there is one."""
    wished = os.environ.get("CXX")
    return next(
        filter(None, map(shutil.which, filter(None, (wished, "g++", "clang++", "c++")))), None
    )


@cache
def _folder() -> Path:
    """For compiled kernels, until this process ends."""
    made = tempfile.mkdtemp(prefix="double-of-cupy-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


class RawModule:
    """CUDA C, compiled at its first use."""

    def __init__(
        self,
        code: str | None = None,
        *,
        path: str | None = None,
        options: tuple[str, ...] = (),
        backend: str = "nvrtc",
        translate_cucomplex: bool = False,
        enable_cooperative_groups: bool = False,
        name_expressions: Any = None,
        jitify: bool = False,
    ) -> None:
        if not isinstance(options, tuple):
            raise TypeError("options must be a tuple")
        if code is None or _WAITS.search(code):
            raise NotImplementedError("the double runs kernels whose threads do not wait")
        self.code, self.options = code, options
        self.names = {e: f"k{i}" for i, e in enumerate(name_expressions or ())}
        self._library: ctypes.CDLL | None = None

    def get_function(self, name: str) -> RawKernel:
        if self._library is None:
            cuda.broken("nvrtc")
            self._library = self._compiled()
        symbol = self.names.get(name, name)
        try:
            launch = getattr(self._library, f"launch_{symbol}")
        except AttributeError:
            raise RuntimeError("CUDA_ERROR_NOT_FOUND: named symbol not found") from None
        return RawKernel(launch, getattr(self._library, f"sizes_{symbol}"))

    def _compiled(self) -> ctypes.CDLL:
        kernels = self.names or {name: name for name in _KERNEL.findall(self.code)}
        exports = [_EXPORT % {"name": n, "kernel": k} for k, n in kernels.items()]
        source = _folder() / f"{id(self)}.cpp"
        source.write_text(_PRELUDE + self.code + "".join(exports), encoding="utf-8")
        library = source.with_suffix(".so")
        flags = ("-O1", "-w", "-shared", "-fPIC", "-fno-strict-aliasing", "-ffp-contract=off")
        command = [str(compiler()), *self.options, *flags, str(source), "-o", str(library)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr[:4000]}")
        return ctypes.CDLL(str(library))


class RawKernel:
    """A kernel of a RawModule, called with a grid, a block and its arguments."""

    def __init__(self, launch: Any, sizes: Any) -> None:
        sizes.restype = ctypes.c_size_t
        found = (ctypes.c_size_t * 64)()
        self._launch, self._sizes = launch, found[: sizes(found)]

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: tuple[Any, ...],
        *,
        shared_mem: int = 0,
    ) -> None:
        # As in CuPy, none is taken for one.
        wide = [max(1, n) for n in (*(*grid, 1, 1)[:3], *(*block, 1, 1)[:3])]
        held = [_argument(a) for a in args]
        given = [h.itemsize for h in held]
        if given != self._sizes:  # CUDA would read what is not there
            raise TypeError(f"the kernel's arguments have {self._sizes} bytes, not {given}")
        pointers = (ctypes.c_void_p * len(held))(*(h.ctypes.data for h in held))
        self._launch((ctypes.c_uint * 6)(*wide), pointers)
        cuda.counts["kernels"] += 1


def _argument(a: Any) -> np.ndarray[Any, Any]:
    if isinstance(a, _array.ndarray):
        return np.array(a._a.ctypes.data, np.uintp)
    if isinstance(a, np.ndarray):
        if a.size != 1:
            raise TypeError(
                f"You are trying to pass a numpy.ndarray of shape {a.shape} as a kernel parameter"
            )
        return a
    if isinstance(a, (bool, int, float, np.generic)):
        return np.asarray(a, {int: np.int64, float: np.float64}.get(type(a)))
    raise TypeError(f"Unsupported type {type(a)}")
