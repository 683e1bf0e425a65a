"""The C library's functions as LLVM IR: sin, cos, tan, sinh, cosh, atan2, log2, log10, pow, frem.

In: a Builder, a name and Values. Out: a Value, each of whose lanes depends on the same lane of the
arguments. Called by scalars.py. Where the module may call the C library, it is called. Where it may
not (on a GPU there is none), the functions of this file are written into the module, each once.

Infinities, NaN, zeros and their signs come out as annex F of the C standard says. A float is
computed as a double and rounded: so but for ties that are too close to call, it is correctly
rounded. A double is at most 3 units in the last place off; remainders are exact.

The polynomials were made for this file by Remez's exchange in 60 digits. Coefficients are listed
from the highest power down. Constants in two or three parts are a number, what rounding it to a
double leaves, and so on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from . import elementary, ir
from .elementary import DOUBLE, like, negative, polynomial
from .ir import Builder, Module, Value

_HALF_PI = (1.5707963267948966, 6.123233995736766e-17, -1.4973849048591698e-33)
_LN2 = (0.6931471805599453, 2.3190468138462996e-17)
_PER_LN2 = (1.4426950408889634, 2.0355273740931033e-17)
_PER_LN10 = (0.4342944819032518, 1.098319650216765e-17)
_TWO_THIRDS = (0.6666666666666666, 3.700743415417188e-17)

# (sin(r) / r - 1) / r^2 and (cos(r) - 1 + r^2 / 2) / r^4 for |r| <= pi / 4, in r^2
_SIN = (
    1.5896230002867685e-10,
    -2.5050747760293093e-08,
    2.755731362137013e-06,
    -0.00019841269829589495,
    0.008333333333322118,
    -0.1666666666666663,
)
_COS = (
    -1.1358536413975016e-11,
    2.0875700839948105e-09,
    -2.755731417928219e-07,
    2.4801587288851656e-05,
    -0.0013888888888873056,
    0.041666666666666595,
)
# (sinh(x) / x - 1) / x^2 for |x| <= 1, in x^2
_SINH = (
    7.758748801422814e-13,
    1.605725976874407e-10,
    2.5052123136722087e-08,
    2.755731915707189e-06,
    0.00019841269841431873,
    0.008333333333333148,
    0.16666666666666669,
)
# (atan(z) / z - 1) / z^2 for |z| <= tan(pi / 8), in z^2
_ATAN = (
    -0.017905031257104406,
    0.03806213277257149,
    -0.05039190162917072,
    0.05847859219198898,
    -0.06663099196983446,
    0.07692059716897995,
    -0.09090897725226035,
    0.1111111078215429,
    -0.1428571428016655,
    0.19999999999953247,
    -0.333333333333332,
)
# (log((1 + s) / (1 - s)) / s - 2 - 2 / 3 s^2) / s^4 for |s| <= 3 - sqrt(8), in s^2
_LOG = (
    0.1319621751622734,
    0.13256829067833545,
    0.15386756876425936,
    0.18181784376234378,
    0.22222222519828574,
    0.2857142857010004,
    0.40000000000002256,
)

_LARGE = 2.0**40  # an angle from which on many bits of pi are needed
# The bits of 2 / pi behind the point, as many as the largest double needs, after a word of zeros.
_TWO_OVER_PI = (
    "0000000000000000a2f9836e4e441529fc2757d1f534ddc0db6295993c439041fe5163abdebbc561"
    "b7246e3a424dd2e006492eea09d1921cfe1deb1cb129a73ee88235f52ebb4484e99c7026b45f7e41"
    "3991d639835339f49c845f8bbdf9283b1ff897ffde05980fef2f118b5a0a6d1f6d367ecf27cb09b7"
    "4f463f669e5fea2d7527bac7ebe5f17b3d0739f78a5292ea6bfb5fb11f8d5d0856033046fc7b6bab"
)


def call(b: Builder, name: str, *args: Value) -> Value:
    """A function by its name in C, of each lane of the arguments."""
    if b.module.libm:
        name = name + ("f" if args[0].element == "float" else "")
    else:
        name = _own(b.module, name, [x.element for x in args])
    return _in_lanes(b, name, args)


def frem(b: Builder, x: Value, y: Value) -> Value:
    """x - n y, where n is x / y cut to an integer; exact."""
    if b.module.libm:
        return b.binary("frem", x, y)
    return _in_lanes(b, _own(b.module, "frem", [x.element, y.element]), (x, y))


def _in_lanes(b: Builder, name: str, args: Sequence[Value]) -> Value:
    x = args[0]
    if x.lanes == 1:
        return b.call(name, x.type, *args)
    result = Value(x.type, "poison")
    for i in range(x.lanes):
        one = b.call(name, x.element, *(b.lane(a, i) for a in args))
        result = b.emit(
            x.type,
            f"insertelement {x.type} {result.name}, {one.type} {one.name}, i64 {i}",
        )
    return result


def _own(module: Module, name: str, types: Sequence[str]) -> str:
    """What a function of this file is called in the module, which has it from now on."""
    title, element = f"libm_{name}_{types[0]}", types[0]
    if module.find(title) is None:
        params = list(zip(types, "xy", strict=False))
        b = module.function(title, params, element, internal=True, attributes="alwaysinline")
        if name == "frem":
            b.end(_frem(b, *b.params))
        elif element == "double":
            b.end(FUNCTIONS[name](b, *b.params))
        else:
            wide = [b.convert("fpext", x, "double") for x in b.params]
            b.end(b.convert("fptrunc", FUNCTIONS[name](b, *wide), element))
    return title


# Angles ------------------------------------------------------------------------------------------


def _sin(b: Builder, x: Value) -> Value:
    turns, r, low = _reduced(b, x)
    return b.select(b.compare("oeq", x, like(x, 0)), x, _wave(b, turns, r, low))


def _cos(b: Builder, x: Value) -> Value:
    turns, r, low = _reduced(b, x)
    return _wave(b, b.add(turns, like(turns, 1)), r, low)


def _tan(b: Builder, x: Value) -> Value:
    turns, r, low = _reduced(b, x)
    odd = _odd(b, turns)
    sin, cos = _near_sin(b, r, low), _near_cos(b, r, low)
    tan = b.binary("fdiv", b.select(odd, cos, sin), b.select(odd, negative(b, sin), cos))
    return b.select(b.compare("oeq", x, like(x, 0)), x, tan)


def _wave(b: Builder, turns: Value, r: Value, low: Value) -> Value:
    """The sine of so many quarter turns and an angle."""
    found = b.select(_odd(b, turns), _near_cos(b, r, low), _near_sin(b, r, low))
    back = b.binary("and", turns, like(turns, 2))
    return b.select(b.compare("ne", back, like(back, 0)), negative(b, found), found)


def _odd(b: Builder, n: Value) -> Value:
    return b.convert("trunc", n, "i1")


def _near_sin(b: Builder, r: Value, low: Value) -> Value:
    """sin(r + low) for |r| <= pi / 4."""
    square = b.mul(r, r)
    return b.add(r, b.fma(b.mul(r, square), polynomial(b, _SIN, square), low))


def _near_cos(b: Builder, r: Value, low: Value) -> Value:
    """cos(r + low) for |r| <= pi / 4."""
    square = b.mul(r, r)
    half = b.mul(square, like(r, 0.5))
    high, lost = _ordered_sum(b, like(r, 1), negative(b, half))
    series = b.fma(b.mul(square, square), polynomial(b, _COS, square), lost)
    return b.add(high, b.fma(negative(b, r), low, series))


def _reduced(b: Builder, x: Value) -> list[Value]:
    """n (an i64), r and low, where x = n pi / 2 + r + low (n modulo 4).

    Three parts of pi / 2 do for all but large numbers (Cody and Waite, "Software Manual for the
    Elementary Functions", 1980). The first product is exact where it is subtracted. Where what is
    left is smaller than the second one, low is not exact: that costs a unit in the last place.
    """
    shifted = b.fma(x, like(x, 2 / math.pi), like(x, DOUBLE.magic))
    n = negative(b, b.sub(shifted, like(x, DOUBLE.magic)))
    first, second, third = (like(x, part) for part in _HALF_PI)
    rest = b.fma(n, first, x)
    product, lost = _product(b, n, second)
    r, low = _ordered_sum(b, rest, product)
    low = b.fma(n, third, b.add(low, lost))
    size = b.intrinsic("fabs", x.type, x)
    large = b.compare("oge", size, like(x, _LARGE))
    large = b.binary("and", large, b.compare("olt", size, like(x, math.inf)))
    turns = b.convert("bitcast", shifted, "i64")
    return _rarely(b, large, [turns, r, low], lambda: _reduced_by_bits(b, x))


def _reduced_by_bits(b: Builder, x: Value) -> list[Value]:
    """_reduced() of a large number: its mantissa times those bits of 2 / pi that say how it lies
    between multiples of pi / 2 (Payne and Hanek, "Radian reduction for trigonometric functions",
    1983)."""
    bits = b.convert("bitcast", x, "i64")
    exponent = b.binary("and", b.binary("lshr", bits, like(bits, 52)), like(bits, 0x7FF))
    mantissa = b.binary("and", bits, like(bits, (1 << 52) - 1))
    mantissa = b.binary("or", mantissa, like(bits, 1 << 52))
    # What the bits before `start` add to n is a multiple of 4.
    start = b.sub(exponent, like(bits, 1013))
    word = b.binary("lshr", start, like(bits, 6))
    table = _table(b.module)
    read = [b.load("i64", b.at(table, b.add(word, like(bits, i)), "i64")) for i in range(4)]
    shift = b.binary("and", start, like(bits, 63))
    high, middle, low = (b.intrinsic("fshl", "i64", *pair, shift) for pair in pairwise(read))

    def wide(word: Value) -> Value:
        return b.convert("zext", word, "i128")

    def shifted(opcode: str, x: Value, by: int) -> Value:
        return b.binary(opcode, x, like(x, by))

    # n modulo 4 in the first 2 bits, the fraction in the others.
    product = b.add(
        b.mul(wide(mantissa), wide(middle)),
        shifted("lshr", b.mul(wide(mantissa), wide(low)), 64),
    )
    product = b.add(product, shifted("shl", wide(b.mul(mantissa, high)), 64))
    turns = b.convert("trunc", shifted("lshr", b.add(product, like(product, 1 << 125)), 126), "i64")
    fraction = shifted("shl", product, 2)  # from -1/2 to 1/2, as a signed integer

    def piece(by: int, size: int) -> Value:
        part = b.convert("trunc", shifted("lshr", fraction, by), "i64")
        part = b.binary("and", part, like(part, (1 << size) - 1))
        return b.mul(b.convert("uitofp", part, "double"), like(x, 2.0 ** (by - 128)))

    first = b.convert("trunc", shifted("ashr", fraction, 76), "i64")
    first = b.mul(b.convert("sitofp", first, "double"), like(x, 2.0**-52))
    f, lost = _ordered_sum(b, first, piece(24, 52))
    lost = b.add(lost, piece(0, 24))
    r, rest = _scaled(b, f, lost, _HALF_PI)
    below = b.compare("olt", x, like(x, 0))
    return [
        b.select(below, b.sub(like(turns, 0), turns), turns),
        b.select(below, negative(b, r), r),
        b.select(below, negative(b, rest), rest),
    ]


def _table(module: Module) -> Value:
    """The address of the bits of 2 / pi, in words."""
    words = [f"i64 {int(_TWO_OVER_PI[i : i + 16], 16)}" for i in range(0, len(_TWO_OVER_PI), 16)]
    text = f"@two_over_pi = internal constant [{len(words)} x i64] [{', '.join(words)}]"
    if text not in module.globals:
        module.globals.append(text)
    return Value("ptr", "@two_over_pi")


def _rarely(
    b: Builder, condition: Value, usual: Sequence[Value], rare: Callable[[], Sequence[Value]]
) -> list[Value]:
    """rare() where the condition holds, which is long and mostly skipped: a loop of one round or
    none."""
    once = b.convert("zext", condition, "i64")
    with b.loop(ir.integer(0), once, ir.integer(1), usual) as loop:
        loop.next = list(rare())
    return loop.carried


def _atan2(b: Builder, y: Value, x: Value) -> Value:
    """A multiple of pi / 4, and an angle of at most pi / 8 added or taken off."""
    height, width = (b.intrinsic("fabs", x.type, v) for v in (y, x))
    steep = b.compare("ogt", height, width)
    small, large = b.select(steep, width, height), b.select(steep, height, width)
    # Two infinities are as long as each other; the sum of two numbers does not overflow.
    endless = b.compare("oeq", small, like(x, math.inf))
    small, large = b.select(endless, like(x, 1), small), b.select(endless, like(x, 1), large)
    shrunk = b.select(b.compare("ogt", large, like(x, 2.0**1000)), like(x, 0.25), like(x, 1))
    small, large = b.mul(small, shrunk), b.mul(large, shrunk)
    halved = b.compare("ogt", small, b.mul(large, like(x, math.tan(math.pi / 8))))
    top = b.select(halved, b.sub(small, large), small)
    bottom = b.select(halved, b.add(small, large), large)
    bottom = b.select(b.compare("oeq", bottom, like(x, 0)), like(x, 1), bottom)
    z = b.binary("fdiv", top, bottom)
    square = b.mul(z, z)
    z = b.fma(b.mul(z, square), polynomial(b, _ATAN, square), z)

    eighths = b.select(halved, like(x, 1), like(x, 0))
    eighths = b.select(steep, b.sub(like(x, 2), eighths), eighths)
    z = b.select(steep, negative(b, z), z)
    behind = b.compare("slt", b.convert("bitcast", x, "i64"), ir.integer(0))
    eighths = b.select(behind, b.sub(like(x, 4), eighths), eighths)
    z = b.select(behind, negative(b, z), z)
    high, lost = _ordered_sum(b, b.mul(eighths, like(x, _HALF_PI[0] / 2)), z)
    low = b.fma(eighths, like(x, _HALF_PI[1] / 2), lost)
    angle = b.intrinsic("copysign", x.type, b.add(high, low), y)
    return b.select(b.compare("uno", x, y), like(x, math.nan), angle)


# Powers ------------------------------------------------------------------------------------------


def _sinh(b: Builder, x: Value) -> Value:
    """A polynomial near 0, else a difference of exponentials."""
    size = b.intrinsic("fabs", x.type, x)
    square = b.mul(x, x)
    inner = b.fma(b.mul(size, square), polynomial(b, _SINH, square), size)
    half = _half_exp(b, size)
    outer = b.sub(half, b.binary("fdiv", like(x, 0.25), half))
    near = b.compare("olt", size, like(x, 1))
    return b.intrinsic("copysign", x.type, b.select(near, inner, outer), x)


def _cosh(b: Builder, x: Value) -> Value:
    half = _half_exp(b, b.intrinsic("fabs", x.type, x))
    return b.add(half, b.binary("fdiv", like(x, 0.25), half))


def _half_exp(b: Builder, x: Value) -> Value:
    """exp(x) / 2, finite where sinh(x) is."""
    y, low = _ordered_sum(b, x, like(x, -_LN2[0]))
    return _exp(b, y, b.sub(low, like(x, _LN2[1])))


def _log2(b: Builder, x: Value) -> Value:
    high, low = _scaled(b, *_log(b, x), _PER_LN2)
    return elementary.of_positive(b, x, b.add(high, low))


def _log10(b: Builder, x: Value) -> Value:
    high, low = _scaled(b, *_log(b, x), _PER_LN10)
    return elementary.of_positive(b, x, b.add(high, low))


def _pow(b: Builder, x: Value, y: Value) -> Value:
    """exp(y log(|x|)), and a sign."""
    zero, one, infinite = like(x, 0), like(x, 1), like(x, math.inf)
    size = b.intrinsic("fabs", x.type, x)
    high, low = _log(b, size)
    # All that is larger gives 0, 1 or infinity, as this does.
    finite = elementary.clamp(b, y, -(2.0**70), 2.0**70)
    power, lost = _product(b, high, finite)
    result = _exp(b, power, b.fma(low, finite, lost))
    end = b.compare("oeq", size, infinite)
    grows = b.binary("xor", end, b.compare("olt", y, zero))
    ends = b.binary("or", end, b.compare("oeq", size, zero))
    result = b.select(ends, b.select(grows, infinite, zero), result)

    whole = _is_whole(b, y)
    odd = b.binary("xor", whole, _is_whole(b, b.mul(y, like(y, 0.5))))
    odd = b.binary("and", odd, whole)
    result = b.select(odd, b.intrinsic("copysign", x.type, result, x), result)
    real = b.binary("or", whole, b.binary("or", ends, b.compare("oge", x, zero)))
    result = b.select(real, result, like(x, math.nan))
    result = b.select(b.compare("uno", x, y), like(x, math.nan), result)
    trivial = b.binary("or", b.compare("oeq", y, zero), b.compare("oeq", x, one))
    return b.select(trivial, one, result)


def _is_whole(b: Builder, x: Value) -> Value:
    return b.compare("oeq", b.intrinsic("trunc", x.type, x), x)


def _exp(b: Builder, x: Value, low: Value) -> Value:
    """exp(x + low), to few more than half a unit in the last place: powers that are integers come
    out as such."""
    near = elementary.clamp(b, x, DOUBLE.exp_low, DOUBLE.exp_high)
    low = b.select(b.compare("oeq", near, x), low, like(x, 0))
    magic, back = elementary.moved(b, near)
    biased = b.fma(near, like(x, 1 / math.log(2)), magic)
    n = negative(b, b.sub(biased, magic))
    r, lower = _ordered_sum(
        b, b.fma(n, like(x, DOUBLE.ln2_high), near), b.fma(n, like(x, DOUBLE.ln2_low), low)
    )
    high, lost = _ordered_sum(b, like(x, 1), r)
    series = b.fma(b.mul(r, r), polynomial(b, DOUBLE.exp, r), b.add(lost, lower))
    near_one = b.add(high, series)
    return b.mul(b.mul(near_one, elementary.raised(b, DOUBLE.one, biased)), back)


def _log(b: Builder, x: Value) -> tuple[Value, Value]:
    """log(x) of a positive number as a sum of two doubles, to some 64 bits.

    With s = (m - 1) / (m + 1), log(x) = e log(2) + s (2 + s^2 (2 / 3 + s^2 R(s^2))), and all but
    the last product is in two parts.
    """
    e, m = elementary.parts(b, x)
    f, d = b.sub(m, like(x, 1)), b.add(m, like(x, 1))
    d_low = b.sub(m, b.sub(d, like(x, 1)))
    inverse = b.binary("fdiv", like(x, 1), d)
    s = b.mul(f, inverse)
    rest = negative(b, s)
    s_low = b.mul(b.fma(rest, d_low, b.fma(rest, d, f)), inverse)
    z, z_low = _product(b, s, s)
    z_low = b.fma(b.add(s, s), s_low, z_low)
    c, c_low = _ordered_sum(b, like(x, _TWO_THIRDS[0]), b.mul(z, polynomial(b, _LOG, z)))
    c_low = b.add(c_low, like(x, _TWO_THIRDS[1]))
    c, c_low = _wide_product(b, z, z_low, c, c_low)
    c, more = _ordered_sum(b, like(x, 2), c)
    high, low = _wide_product(b, s, s_low, c, b.add(more, c_low))
    high, more = _ordered_sum(b, b.mul(e, like(x, DOUBLE.ln2_high)), high)
    low = b.add(more, b.fma(e, like(x, DOUBLE.ln2_low), low))
    return _ordered_sum(b, high, low)


# Sums of two doubles -----------------------------------------------------------------------------


def _product(b: Builder, x: Value, y: Value) -> tuple[Value, Value]:
    """The rounded product, and its rounding error."""
    product = b.mul(x, y)
    return product, b.fma(x, y, negative(b, product))


def _ordered_sum(b: Builder, x: Value, y: Value) -> tuple[Value, Value]:
    """The rounded sum, and its rounding error, for |x| >= |y| or x = 0."""
    sum = b.add(x, y)
    return sum, b.add(b.sub(x, sum), y)


def _wide_product(
    b: Builder, x: Value, x_low: Value, y: Value, y_low: Value
) -> tuple[Value, Value]:
    """(x + x_low) (y + y_low)"""
    high, low = _product(b, x, y)
    return high, b.add(low, b.fma(x, y_low, b.mul(x_low, y)))


def _scaled(b: Builder, x: Value, low: Value, factor: tuple[float, ...]) -> tuple[Value, Value]:
    """(x + low) times a constant in parts."""
    return _wide_product(b, x, low, like(x, factor[0]), like(x, factor[1]))


# Remainders --------------------------------------------------------------------------------------


def _frem(b: Builder, x: Value, y: Value) -> Value:
    """Long division of mantissas in integers of 64 bits, by as many digits at a time as fit."""
    form = elementary.form_of(x)
    size, other = (b.intrinsic("fabs", x.type, v) for v in (x, y))
    (e, m), (e_other, m_other) = (_scaled_integer(b, v) for v in (size, other))
    zero, digits = ir.integer(0), ir.integer(63 - form.mantissa)
    m_other = b.intrinsic("umax", "i64", m_other, ir.integer(1))
    ahead = b.sub(e, e_other)
    with b.loop(zero, b.add(ahead, ir.integer(1)), digits, [m]) as loop:
        shift = b.smin(digits, b.sub(ahead, loop.i))
        loop.next = [b.binary("urem", b.binary("shl", loop.carried[0], shift), m_other)]
    bits = b.convert("bitcast", other, form.integer)
    power = b.binary("and", bits, like(bits, -(1 << form.mantissa)))
    following = b.binary("or", power, like(bits, 1))
    unit = b.sub(*(b.convert("bitcast", v, x.element) for v in (following, power)))
    rest = b.mul(b.convert("uitofp", loop.carried[0], x.element), unit)
    rest = b.select(b.compare("olt", size, other), size, rest)
    known = b.binary(
        "and",
        b.compare("olt", size, like(x, math.inf)),
        b.compare("ogt", other, like(x, 0)),
    )
    rest = b.select(known, rest, like(x, math.nan))
    return b.intrinsic("copysign", x.type, rest, x)


def _scaled_integer(b: Builder, x: Value) -> tuple[Value, Value]:
    """e and m (i64 each) where x is m times the smallest number times 2^(e - 1); x is not
    negative."""
    form = elementary.form_of(x)
    bits = b.convert("bitcast", x, form.integer)
    bits = bits if bits.type == "i64" else b.convert("zext", bits, "i64")
    hidden = ir.integer(1 << form.mantissa)
    e = b.binary("lshr", bits, ir.integer(form.mantissa))
    m = b.binary("and", bits, ir.integer((1 << form.mantissa) - 1))
    m = b.select(b.compare("eq", e, ir.integer(0)), m, b.binary("or", m, hidden))
    return b.intrinsic("smax", "i64", e, ir.integer(1)), m


FUNCTIONS: dict[str, Callable[..., Value]] = {
    "sin": _sin,
    "cos": _cos,
    "tan": _tan,
    "sinh": _sinh,
    "cosh": _cosh,
    "atan2": _atan2,
    "log2": _log2,
    "log10": _log10,
    "pow": _pow,
}
