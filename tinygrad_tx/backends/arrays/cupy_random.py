"""Random numbers of the GPU backend: numpy_random.py's Philox 4x32-10 as CUDA kernels.

In: a seed and the number of a stream, each an int or a 0-d array of the host (the kernels get them
by value), a shape and a dtype; the place of the first number, a multiple of 4. Out: a CuPy array
with the bits of the NumPy version; normal numbers agree to within rounding. Called by the CuPy
backend.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import cupy
import numpy as np
from numpy.typing import DTypeLike

from .numpy_random import below_one, check_range, keep_threshold

Array = Any  # cupy.ndarray
Number = Any  # int, or a 0-d integer array

_THREADS = 256
_SOURCE = r"""
typedef unsigned int u32;
typedef unsigned long long u64;

template <class T> struct alignas(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) Four { T at[4]; };

// The cipher: the four words of a block of a stream.
__device__ Four<u32> philox(u64 seed, u64 stream, u64 block) {
    u32 k0 = (u32)seed, k1 = (u32)(seed >> 32);
    u32 c0 = (u32)block, c1 = (u32)(block >> 32), c2 = (u32)stream, c3 = (u32)(stream >> 32);
    for (int round = 0; round < 10; ++round) {
        u32 high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
        u32 high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

// One thread makes the four elements of one block; the last block stores what there is room for.
// before: how many blocks of the stream come before the first.
template <class T, class Make>
__device__ void fill(u64 seed, u64 stream, u64 before, u64 n, T* out, Make make) {
    u64 block = blockIdx.x * (u64)blockDim.x + threadIdx.x, first = 4 * block;
    if (first >= n) return;
    Four<T> four = make(philox(seed, stream, before + block));
    if (first + 4 <= n) {
        *reinterpret_cast<Four<T>*>(out + first) = four;
    } else {
        for (int i = 0; i < 4; ++i) {
            if (first + i < n) out[first + i] = four.at[i];
        }
    }
}

extern "C" __global__ void words(u64 seed, u64 stream, u64 before, u64 n, u32* out) {
    fill(seed, stream, before, n, out, [](Four<u32> word) { return word; });
}

extern "C" __global__ void uniform(u64 seed, u64 stream, u64 before, u64 n, float* out) {
    fill(seed, stream, before, n, out, [](Four<u32> word) {
        Four<float> u;
        for (int i = 0; i < 4; ++i) u.at[i] = (word.at[i] >> 8) * 0x1p-24f;
        return u;
    });
}

extern "C" __global__ void keep(u64 seed, u64 stream, u64 before, u64 n, bool* out, u32 least) {
    fill(seed, stream, before, n, out, [=](Four<u32> word) {
        Four<bool> kept;
        for (int i = 0; i < 4; ++i) kept.at[i] = (word.at[i] >> 8) >= least;
        return kept;
    });
}

extern "C" __global__ void normal(u64 seed, u64 stream, u64 before, u64 n, double* out) {
    fill(seed, stream, before, n, out, [](Four<u32> word) {
        Four<double> z;
        for (int i = 0; i < 4; i += 2) {
            double radius = sqrt(-2 * log(((word.at[i] >> 8) + 1) * 0x1p-24));
            double sine, cosine;
            sincospi((word.at[i + 1] >> 8) * 0x1p-23, &sine, &cosine);
            z.at[i] = radius * cosine;
            z.at[i + 1] = radius * sine;
        }
        return z;
    });
}

extern "C" __global__ void randint(
    u64 seed, u64 stream, u64 before, u64 n, u64* out, u64 low, u64 span
) {
    fill(seed, stream, before, n, out, [=](Four<u32> word) {
        Four<u64> number;
        for (int i = 0; i < 4; ++i) number.at[i] = low + (word.at[i] * span >> 32);
        return number;
    });
}
"""


def words(seed: Number, stream: Number, n: int) -> Array:
    """The first `n` words of a stream, uint32 (n,)."""
    return _fill("words", seed, stream, 0, cupy.empty(n, np.uint32))


def uniform(
    seed: Number,
    stream: Number,
    shape: tuple[int, ...],
    dtype: DTypeLike = np.float32,
    first: int = 0,
) -> Array:
    """Uniform numbers in [0, 1), exactly (word >> 8) * 2^-24 in float32 and float64.

    A narrower floating dtype gets the nearest of its numbers below 1.
    """
    out = _fill("uniform", seed, stream, first, cupy.empty(shape, np.float32))
    dtype = np.dtype(dtype)
    if dtype.itemsize < 4:
        out = cupy.minimum(out, np.float32(below_one(dtype)))
    return out.astype(dtype, copy=False)


def bernoulli_keep(
    seed: Number, stream: Number, p: float, shape: tuple[int, ...], first: int = 0
) -> Array:
    """Dropout's mask: True where uniform(seed, stream, shape) >= p, so with probability 1 - p.

    Raises UserError unless 0 <= p <= 1.
    """
    least = np.uint32(keep_threshold(p))
    return _fill("keep", seed, stream, first, cupy.empty(shape, np.bool_), least)


def normal(
    seed: Number,
    stream: Number,
    shape: tuple[int, ...],
    dtype: DTypeLike = np.float32,
    first: int = 0,
) -> Array:
    """Standard normal numbers by Box and Muller, computed in float64 and cast to `dtype`."""
    out = _fill("normal", seed, stream, first, cupy.empty(shape, np.float64))
    return out.astype(dtype, copy=False)


def randint(
    seed: Number,
    stream: Number,
    low: int,
    high: int,
    shape: tuple[int, ...],
    dtype: DTypeLike = np.int64,
    first: int = 0,
) -> Array:
    """Integers in [low, high): low + (word * (high - low) >> 32), as an integer `dtype`.

    Raises UserError where the range is empty, wider than 2^32, or outside the dtype.
    """
    check_range(low, high, np.dtype(dtype))
    limits = np.uint64(low % 2**64), np.uint64(high - low)
    out = _fill("randint", seed, stream, first, cupy.empty(shape, np.uint64), *limits)
    return out.view(np.int64).astype(dtype, copy=False)  # int64 holds a uint64's bits either way


def _fill(
    name: str, seed: Number, stream: Number, first: int, out: Array, *more: np.generic
) -> Array:
    """`out`, a fresh array, after the kernel has filled it."""
    if out.size:
        given = int(seed) % 2**64, int(stream) % 2**64, first // 4, out.size
        numbers = map(np.uint64, given)
        grid = -(-out.size // (4 * _THREADS))
        _kernel(name)((grid,), (_THREADS,), (*numbers, out, *more))
    return out


@cache
def _kernel(name: str) -> Any:
    return _module().get_function(name)


@cache
def _module() -> Any:
    return cupy.RawModule(code=_SOURCE, options=("-std=c++17",))
