"""Numbers of 16 bits as LLVM IR: float16 and bfloat16 from and to float32, by integer arithmetic.

In: a Builder and a Value, of bits or of floats. Out: a Value of floats, or of bits. Called by
scalars.py. The same instructions for every processor: those without conversions of their own
would call functions of a compiler's library that the process may lack. Rounding is to nearest, ties
to even, with subnormal numbers; a NaN keeps its sign and the bits that there is room for, and is
quiet.
"""

from __future__ import annotations

from .elementary import like
from .ir import Builder, Value

_QUIET = {"float16": 0x7E00, "bfloat16": 0x7FC0}
_SHIFT = {"float16": 13, "bfloat16": 16}  # bits of float32's mantissa that there is no room for


def widened(b: Builder, x: Value, dtype: str) -> Value:
    """The float32 of 16 bits: exact."""
    bits = b.convert("zext", x, "i32")
    if dtype == "bfloat16":
        return _quiet(b, _floats(b, _shl(b, bits, 16)))
    # Exponent and mantissa in float32's places, then the difference of the two biases as a factor:
    # so subnormal numbers come out right. Of infinity and NaN the exponent is all ones again.
    body = _floats(b, _shl(b, _and(b, bits, 0x7FFF), 13))
    scaled = b.mul(body, like(body, 2.0**112))
    special = b.compare("oge", scaled, like(body, 65536.0))
    magnitude = _bits(b, scaled)
    magnitude = b.select(special, _or(b, magnitude, 0x7F800000), magnitude)
    sign = _shl(b, _and(b, bits, 0x8000), 16)
    return _quiet(b, _floats(b, b.binary("or", magnitude, sign)))


def narrowed(b: Builder, x: Value, dtype: str) -> Value:
    """The 16 bits of the number nearest to a float32."""
    bits = _bits(b, x)
    nan = b.compare("uno", x, x)
    payload = _or(b, b.binary("lshr", bits, like(bits, _SHIFT[dtype])), _QUIET[dtype])
    if dtype == "bfloat16":
        found = b.binary("lshr", _half_up(b, bits, 16), like(bits, 16))
        return b.convert("trunc", b.select(nan, payload, found), "i16")
    sign = _and(b, b.binary("lshr", bits, like(bits, 16)), 0x8000)
    magnitude = _and(b, bits, 0x7FFFFFFF)
    size = _floats(b, magnitude)
    # Normal numbers: mantissa rounded, exponent of the other bias. Subnormal ones: adding a half
    # shifts the mantissa to where it belongs, and rounds it. From 65520 on it is infinity.
    rebased = b.sub(magnitude, like(bits, 112 << 23))
    normal = b.binary("lshr", _half_up(b, rebased, 13), like(bits, 13))
    tiny = b.sub(_bits(b, b.add(size, like(x, 0.5))), like(bits, 0x3F000000))
    found = b.select(b.compare("olt", size, like(x, 2.0**-14)), tiny, normal)
    found = b.select(b.compare("oge", size, like(x, 65520.0)), like(bits, 0x7C00), found)
    found = b.select(nan, _and(b, payload, 0x7FFF), found)
    return b.convert("trunc", b.binary("or", found, sign), "i16")


def to_odd(b: Builder, x: Value) -> Value:
    """The float32 of a double, its last bit set where something was lost: so rounding it to 16
    bits gives what rounding the double at once would."""
    near = b.convert("fptrunc", x, "float")
    back = b.convert("fpext", near, "double")
    size, found = (b.intrinsic("fabs", x.type, v) for v in (x, back))
    bits = _bits(b, near)
    down = b.select(b.compare("ogt", found, size), b.sub(bits, like(bits, 1)), bits)
    odd = b.select(b.compare("une", back, x), _or(b, down, 1), down)
    return _floats(b, odd)


def _half_up(b: Builder, bits: Value, shift: int) -> Value:
    """Bits to which half of what a shift drops is added; the last bit that stays decides a tie."""
    last = _and(b, b.binary("lshr", bits, like(bits, shift)), 1)
    return b.add(b.add(bits, like(bits, (1 << shift - 1) - 1)), last)


def _quiet(b: Builder, x: Value) -> Value:
    """A signalling NaN made quiet, as hardware conversions do."""
    return b.select(b.compare("uno", x, x), _floats(b, _or(b, _bits(b, x), 0x400000)), x)


def _bits(b: Builder, x: Value) -> Value:
    return b.convert("bitcast", x, "i32")


def _floats(b: Builder, x: Value) -> Value:
    return b.convert("bitcast", x, "float")


def _and(b: Builder, x: Value, mask: int) -> Value:
    return b.binary("and", x, like(x, mask))


def _or(b: Builder, x: Value, mask: int) -> Value:
    return b.binary("or", x, like(x, mask))


def _shl(b: Builder, x: Value, by: int) -> Value:
    return b.binary("shl", x, like(x, by))
