"""Random numbers of the CPU backend: Philox 4x32-10 in NumPy.

In: a seed, the number of a stream, a shape and a dtype. Out: an array, the same bits on every
machine (little-endian ones, as NumPy's wheels are) and in the CUDA version. The NumPy backend calls
it; the CuPy backend shares the argument checks.

Element i (row-major) of a stream is word i % 4 of block i // 4; a block is the Philox cipher of the
counter (block number, stream), 64 bits each, low word first, under the 64-bit seed as its key.
Source: Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3" (2011).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ...errors import UserError

Words = NDArray[np.uint32]
Longs = NDArray[np.uint64]
Complex = NDArray[np.complex128]


def _scalar(number: int) -> Longs:
    """`number` as a 0-d array, which a ufunc takes faster than a Python or NumPy scalar."""
    return np.array(number, np.uint64)


UNIT = 2.0**-24  # what one step of a word's upper 24 bits is worth
_M0, _M1 = 0xD2511F53, 0xCD9E8D57  # the multipliers of counter words 0 and 2
_GROWTH = 0x9E3779B9, 0xBB67AE85  # what the two key words grow by from round to round
_LOW_BITS = 0xFFFFFFFF
_FACTOR0, _FACTOR1, _LOW, _HALF = map(_scalar, (_M0, _M1, _LOW_BITS, 32))

_BLOCKS = 8192  # blocks a chunk: long against the cost of a ufunc call, and at home in the L2 cache
_CHUNK = 4 * _BLOCKS


def words(seed: int, stream: int, n: int) -> Words:
    """The first `n` words of a stream, uint32 (n,). Seed and stream count modulo 2^64."""
    out = np.empty(n, np.uint32)
    for part, bits in _chunks(seed, stream, n):
        out[part] = bits
    return out


def uniform(
    seed: int, stream: int, shape: tuple[int, ...], dtype: DTypeLike = np.float32, first: int = 0
) -> NDArray[Any]:
    """Uniform numbers in [0, 1), exactly (word >> 8) * 2^-24 in float32 and float64.

    A narrower floating dtype gets the nearest of its numbers below 1. first: the place in the
    stream of the first number, a multiple of 4, as in all functions below.
    """
    out = np.empty(shape, dtype)
    flat = out.reshape(-1)
    exact = out.dtype in (np.float32, np.float64)
    for part, bits in _chunks(seed, stream, flat.size, first):
        target = flat[part] if exact else _scratch.singles(bits.size)
        np.right_shift(bits, 8, out=bits)
        np.copyto(target, bits.view(np.int32))  # as signed: processors convert no other kind fast
        np.multiply(target, UNIT, out=target)
        if not exact:  # the largest would otherwise be rounded up to 1
            flat[part] = np.minimum(target, below_one(out.dtype), out=target)
    return out


def bernoulli_keep(
    seed: int, stream: int, p: float, shape: tuple[int, ...], first: int = 0
) -> NDArray[np.bool_]:
    """Dropout's mask: True where uniform(seed, stream, shape) >= p, so with probability 1 - p.

    The comparison is exact: `p` is the double it is, not its float32. Raises UserError unless
    0 <= p <= 1.
    """
    out = np.zeros(shape, np.bool_)
    least = keep_threshold(p)
    if least < 1 << 24:
        flat, least_word = out.reshape(-1), np.uint32(least << 8)
        for part, bits in _chunks(seed, stream, flat.size, first):
            np.greater_equal(bits, least_word, out=flat[part])
    return out


def normal(
    seed: int, stream: int, shape: tuple[int, ...], dtype: DTypeLike = np.float32, first: int = 0
) -> NDArray[Any]:
    """Standard normal numbers, computed in float64 and cast to the floating `dtype`.

    Elements 2j and 2j + 1 are r cos(2 pi u2) and r sin(2 pi u2) with r = sqrt(-2 log u1),
    u1 = ((word 2j >> 8) + 1) * 2^-24 and u2 = (word 2j+1 >> 8) * 2^-24 (Box and Muller, 1958).
    """
    out = np.empty(shape, dtype)
    flat = out.reshape(-1)
    coarse, fine = _turns()
    for part, bits in _chunks(seed, stream, flat.size + flat.size % 2, first):
        np.right_shift(bits, 8, out=bits)
        radius, index, value, factor = _scratch.polar(bits.size // 2)
        # exp(2 pi i u2), of which there are 2^24, is the product of two out of 2^12 each.
        np.copyto(index, bits[1::2])
        np.right_shift(index, 12, out=index)
        np.take(coarse, index, out=value, mode="clip")  # clip: the mode that writes straight to out
        np.copyto(index, bits[1::2])
        np.bitwise_and(index, 0xFFF, out=index)
        np.take(fine, index, out=factor, mode="clip")
        np.multiply(value, factor, out=value)
        np.copyto(radius, bits[0::2])
        np.add(radius, 1, out=radius)
        np.multiply(radius, UNIT, out=radius)
        np.log(radius, out=radius)
        np.multiply(radius, -2, out=radius)
        np.sqrt(radius, out=radius)
        np.copyto(factor, radius)
        np.multiply(value, factor, out=value)
        target = flat[part]
        np.copyto(target, value.view(np.float64)[: target.size], casting="unsafe")
    return out


def randint(
    seed: int,
    stream: int,
    low: int,
    high: int,
    shape: tuple[int, ...],
    dtype: DTypeLike = np.int64,
    first: int = 0,
) -> NDArray[Any]:
    """Integers in [low, high): low + (word * (high - low) >> 32), as an integer `dtype`.

    Raises UserError where the range is empty, wider than 2^32, or outside the dtype.
    """
    out = np.empty(shape, dtype)
    check_range(low, high, out.dtype)
    flat = out.reshape(-1)
    span, base = np.uint64(high - low), np.uint64(low % 2**64)
    for part, bits in _chunks(seed, stream, flat.size, first):
        value = _scratch.longs(bits.size)
        np.copyto(value, bits)
        np.multiply(value, span, out=value)
        np.right_shift(value, 32, out=value)
        np.add(value, base, out=value)  # modulo 2^64: two's complement makes negative lows right
        np.copyto(flat[part], value, casting="unsafe")
    return out


def keep_threshold(p: float) -> int:
    """The least word >> 8 that dropout with probability `p` keeps: ceil(p 2^24), at most 2^24.

    Raises UserError unless 0 <= p <= 1.
    """
    if not 0 <= p <= 1:
        raise UserError(f"dropout: p is {p}, but a probability lies between 0 and 1")
    return math.ceil(p * 2.0**24)


def check_range(low: int, high: int, dtype: np.dtype[Any]) -> None:
    """Raises UserError unless randint can draw from [low, high) as the integer `dtype`."""
    if not low < high:
        raise UserError(f"randint: high ({high}) must be above low ({low})")
    if high - low > 2**32:
        raise UserError(f"randint: [{low}, {high}) is wider than 2^32; use a smaller range")
    limits = np.iinfo(dtype)
    if low < limits.min or high - 1 > limits.max:
        raise UserError(f"randint: [{low}, {high}) does not fit {dtype}; use a wider dtype")


def below_one(dtype: np.dtype[Any]) -> float:
    """The largest number below 1 that a floating dtype has."""
    return float(np.nextafter(np.ones((), dtype), np.zeros((), dtype)))


class _Row(NamedTuple):
    """A row of `count` 64-bit numbers under three views."""

    longs: Longs  # (count,)
    halves: Words  # (2 count,): low, high, low, high, ...
    late: Words  # (2 count,): the same from the first high half on, and one word of padding


class _Scratch(threading.local):
    """Each thread's buffers. Their pages take no memory before something is written there."""

    def __init__(self) -> None:
        self.multiples = np.arange(_BLOCKS, dtype=np.uint64) * np.uint64(_M0)
        self.bits = np.empty(_CHUNK, np.uint32)
        block = np.empty((4, 2 * _BLOCKS + 32), np.uint32)
        aligned = -block.ctypes.data % 64 // 4  # so that no vector straddles two cache lines
        self._rows = block[:, aligned:]
        self._reals = np.empty(_CHUNK, np.float64)
        self._factors = np.empty((2, _CHUNK // 2), np.complex128)

    def rows(self, count: int) -> list[_Row]:
        """Four rows of `count` numbers."""
        parts = [row[: 2 * count + 1] for row in self._rows]
        return [_Row(part[:-1].view(np.uint64), part[:-1], part[1:]) for part in parts]

    def singles(self, count: int) -> NDArray[np.float32]:
        """The buffer in which uniform converts."""
        return self._reals.view(np.float32)[:count]

    def longs(self, count: int) -> Longs:
        """The buffer in which randint multiplies."""
        return self._reals.view(np.uint64)[:count]

    def polar(self, count: int) -> tuple[NDArray[np.float64], NDArray[np.intp], Complex, Complex]:
        """The buffers of normal: radius, table index and two complex factors of `count` pairs."""
        radius, index = self._reals.reshape(2, -1)[:, :count]
        first, second = self._factors[:, :count]
        return radius, index.view(np.intp), first, second


_scratch = _Scratch()


def _chunks(seed: int, stream: int, n: int, first: int = 0) -> Iterator[tuple[slice, Words]]:
    """`n` words in pieces: where a piece lies, and the piece, to be used up in place. first: the
    place in the stream of the first word, a multiple of 4."""
    start = 0
    while start < n:
        block = (first + start) // 4
        room = 4 * ((1 << 32) - block % (1 << 32))  # until the low half of the number wraps
        stop = min(start + _CHUNK, start + room, n)
        blocks = -(-(stop - start) // 4)
        yield slice(start, stop), block_words(seed, block, stream, blocks)[: stop - start]
        start = stop


def block_words(seed: int, block: int, stream: int, count: int) -> Words:
    """The words (4 count,) of `count` <= 8192 blocks from `block` on, in the thread's scratch.

    The low half of the block number must not wrap on the way.

    With p0 = M0 c0 and p1 = M1 c2, a round turns the counter (c0, c1, c2, c3) into
    (high(p1) ^ c1 ^ k0, low(p1), high(p0) ^ c3 ^ k1, low(p0)). So c1 and c3 are low halves of the
    products of the round before, and products are all that is kept: rows of the last p0 and p1,
    `now`, and of those before them, `old`.
    """
    key0, key1 = _round_keys(seed)
    base0, base1, base2, base3 = (
        number >> shift & _LOW_BITS for number in (block, stream) for shift in (0, 32)
    )
    now0, now1, old0, old1 = _scratch.rows(count)

    # Rounds 1 and 2. Only c0 differs from block to block at first, so p1 of round 1 and p0 of
    # round 2 are one number each.
    first = _M1 * base2
    second = _M0 * (first >> 32 ^ base1 ^ key0.numbers[0])
    np.add(_scratch.multiples[:count], _scalar(_M0 * base0), out=now1.longs)
    np.right_shift(now1.longs, _HALF, out=old1.longs)
    np.bitwise_xor(old1.longs, _scalar(base3 ^ key1.numbers[0]), out=old1.longs)
    np.multiply(old1.longs, _FACTOR1, out=old1.longs)
    np.right_shift(old1.longs, _HALF, out=now0.longs)
    np.bitwise_xor(now0.longs, _scalar(first & _LOW_BITS ^ key0.numbers[1]), out=now0.longs)
    np.multiply(now0.longs, _FACTOR0, out=now0.longs)
    np.bitwise_and(now1.longs, _LOW, out=now1.longs)
    np.bitwise_xor(now1.longs, _scalar(second >> 32 ^ key1.numbers[1]), out=now1.longs)
    np.multiply(now1.longs, _FACTOR1, out=now1.longs)
    old0.longs.fill(second & _LOW_BITS)

    # Rounds 3 to 10. XOR with a row viewed one word late brings its high halves over the low ones
    # without a shift; what comes over the high ones is masked out. A product's low half is used a
    # round later than its high half, so that the keys of two rounds go in at once.
    for turn in range(2, 10):
        if turn % 2 == 0:
            np.bitwise_xor(now1.longs, key0.scalars[turn // 2], out=now1.longs)
            np.bitwise_xor(now0.longs, key1.scalars[turn // 2], out=now0.longs)
        for old, now in ((old1, now1), (old0, now0)):
            np.bitwise_xor(old.halves, now.late, out=old.halves)
            np.bitwise_and(old.longs, _LOW, out=old.longs)
        if turn < 9:
            np.multiply(old1.longs, _FACTOR0, out=old1.longs)
            np.multiply(old0.longs, _FACTOR1, out=old0.longs)
            now0, now1, old0, old1 = old1, old0, now0, now1

    bits = _scratch.bits[: 4 * count]
    for place, word, product in ((0, old1.longs, now1.longs), (1, old0.longs, now0.longs)):
        np.left_shift(product, _HALF, out=product)
        np.bitwise_or(word, product, out=bits.view(np.uint64)[place::2])
    return bits


class _Keys(NamedTuple):
    """One of the two key words, through the ten rounds."""

    numbers: list[int]
    scalars: list[Longs]  # those of rounds 2j + 1 (high half) and 2j + 2 (low half), for j < 5


@lru_cache(maxsize=64)
def _round_keys(seed: int) -> tuple[_Keys, _Keys]:
    def schedule(key: int, growth: int) -> _Keys:
        numbers = [(key + growth * turn) & _LOW_BITS for turn in range(10)]
        pairs = zip(numbers[0::2], numbers[1::2], strict=True)
        return _Keys(numbers, [_scalar(now << 32 | later) for now, later in pairs])

    return schedule(seed, _GROWTH[0]), schedule(seed >> 32, _GROWTH[1])


@lru_cache(maxsize=1)
def _turns() -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """exp(2 pi i j / 2^12) and exp(2 pi i j / 2^24), for j < 2^12."""
    steps = np.arange(1 << 12) * (2j * math.pi)
    return np.exp(steps * 2.0**-12), np.exp(steps * UNIT)
