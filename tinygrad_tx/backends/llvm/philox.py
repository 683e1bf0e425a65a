"""Philox 4x32-10 as LLVM IR: the random words of kernels, those of numpy_random.py.

In: a key, a stream's number, the number of a counter. Out: Values of its four words. Called by the
writers of dropout masks: those of a processor draw many counters at once, in 64-bit lanes, a thread
of a GPU one, in 32 bits.
"""

from __future__ import annotations

from collections.abc import Sequence

from . import ir
from .elementary import like
from .ir import Builder, Value

_FACTORS = 0xD2511F53, 0xCD9E8D57  # of Philox 4x32, as in numpy_random.py
_GROWTH = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10
LOW = 0xFFFFFFFF


def halves(b: Builder, number: Value) -> tuple[Value, Value]:
    """The low and the high 32 bits, each as an i64."""
    low = b.binary("and", number, ir.integer(LOW))
    return low, b.binary("lshr", number, ir.integer(32))


def round_keys(b: Builder, key: Value, lanes: int) -> list[tuple[Value, Value]]:
    """The two key words of each round, in every lane. key: an i64."""
    found = []
    words = halves(b, key)
    for turn in range(_ROUNDS):
        grown = [
            b.add(word, ir.integer(turn * growth))
            for word, growth in zip(words, _GROWTH, strict=True)
        ]
        found.append((b.splat(grown[0], lanes), b.splat(grown[1], lanes)))
    return found


def philox(
    b: Builder,
    first: Value,
    stream: tuple[Value, Value],
    keys: Sequence[tuple[Value, Value]],
    lanes: int,
) -> list[Value]:
    """The four words of the blocks from `first` on, in the low halves of 64-bit lanes; what stands
    in the high halves means nothing, there and on the way."""
    blocks = b.add(b.splat(first, lanes), b.iota(lanes))
    high = b.binary("lshr", blocks, like(blocks, 32))
    counter = [blocks, high, *(b.splat(word, lanes) for word in stream)]
    for key in keys:
        products = []
        for word, factor in zip(counter[::2], _FACTORS, strict=True):
            low = b.binary("and", word, like(word, LOW))
            products.append(b.mul(low, like(word, factor)))
        tops = [b.binary("lshr", product, like(product, 32)) for product in products]
        counter = [
            b.binary("xor", b.binary("xor", tops[1], counter[1]), key[0]),
            products[1],
            b.binary("xor", b.binary("xor", tops[0], counter[3]), key[1]),
            products[0],
        ]
    return counter


def philox32(
    b: Builder, counter: Value, stream: tuple[Value, Value], key: tuple[Value, Value]
) -> list[Value]:
    """The four words of one counter (i64), each an i32. stream, key: the low and the high 32 bits
    of their numbers, i32."""
    low, high = words32(b, counter)
    state = [low, high, *stream]
    for turn in range(_ROUNDS):
        first, second = (
            b.add(word, like(word, turn * growth & LOW))
            for word, growth in zip(key, _GROWTH, strict=True)
        )
        (low0, high0), (low1, high1) = (
            words32(b, b.mul(b.convert("zext", word, "i64"), ir.integer(factor)))
            for word, factor in zip(state[::2], _FACTORS, strict=True)
        )
        state = [
            b.binary("xor", b.binary("xor", high1, state[1]), first),
            low1,
            b.binary("xor", b.binary("xor", high0, state[3]), second),
            low0,
        ]
    return state


def words32(b: Builder, number: Value) -> tuple[Value, Value]:
    """The low and the high 32 bits of an i64, each an i32."""
    high = b.binary("lshr", number, ir.integer(32))
    return b.convert("trunc", number, "i32"), b.convert("trunc", high, "i32")
