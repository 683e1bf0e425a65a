"""x * y + z with one rounding, where the processor has no such instruction.

In: a Builder and Values of one type. Out: a Value. Called by tile.py for products on such
processors: a call of the C library for each lane would take many times as long.

The last bit of what is rounded in between is set where anything was lost ("to odd"): then the
second rounding gives what a single one gives (Boldo and Melquiond, "Emulation of FMA and correctly
rounded sums: proved algorithms using rounding to odd", 2008).
"""

from __future__ import annotations

from .elementary import like
from .ir import Builder, Value

_SPLIT = 2.0**27 + 1  # a double times it gives the double's upper half


def single(b: Builder, x: Value, y: Value, z: Value) -> Value:
    """Of floats, by way of doubles: the product is exact there."""
    x, y, z = (b.convert("fpext", v, "double") for v in (x, y, z))
    return b.convert("fptrunc", _sum_to_odd(b, b.mul(x, y), z), "float")


def double(b: Builder, x: Value, y: Value, z: Value) -> Value:
    """Of doubles, as sums of two. Where something overflows on the way, and where the product is
    below 2^-969, there may be two roundings."""
    product = b.mul(x, y)
    lost = _lost(b, x, y, product)
    low, lower = _two_sum(b, z, lost)
    high, middle = _two_sum(b, product, low)
    found = b.add(high, _sum_to_odd(b, lower, middle))
    plain = b.add(product, z)  # which knows infinities, and the sign of a zero
    return b.select(b.compare("ueq", found, like(found, 0)), plain, found)


def _lost(b: Builder, x: Value, y: Value, product: Value) -> Value:
    """The rounding error of x * y (Dekker 1971)."""
    x_high, x_low = _halves(b, x)
    y_high, y_low = _halves(b, y)
    error = b.sub(b.mul(x_high, y_high), product)
    error = b.add(error, b.mul(x_high, y_low))
    error = b.add(error, b.mul(x_low, y_high))
    return b.add(error, b.mul(x_low, y_low))


def _halves(b: Builder, x: Value) -> tuple[Value, Value]:
    spread = b.mul(x, like(x, _SPLIT))
    high = b.sub(spread, b.sub(spread, x))
    return high, b.sub(x, high)


def _two_sum(b: Builder, x: Value, y: Value) -> tuple[Value, Value]:
    """The rounded sum, and its rounding error (Knuth)."""
    sum = b.add(x, y)
    other = b.sub(sum, x)
    return sum, b.add(b.sub(x, b.sub(sum, other)), b.sub(y, other))


def _sum_to_odd(b: Builder, x: Value, y: Value) -> Value:
    """x + y cut towards zero, its last bit set where something was lost."""
    sum, lost = _two_sum(b, x, y)
    bits, other = (b.convert("bitcast", v, "i64") for v in (sum, lost))
    # NaN beside an infinite sum is left alone; there is no comparison of 64-bit integers here.
    inexact = b.convert("sext", b.compare("one", lost, like(lost, 0)), "i64")
    apart = b.binary("ashr", b.binary("xor", bits, other), like(bits, 63))
    cut = b.add(bits, b.binary("and", inexact, apart))
    odd = b.binary("or", cut, b.binary("lshr", inexact, like(bits, 63)))
    return b.convert("bitcast", odd, "double")
