"""Elementary functions as LLVM IR: exp, log, tanh and their like, of vectors and of scalars.

In: a Builder and a Value of floats or doubles. Out: a Value of the same type, whose lanes depend
each on its own lane of the argument alone. Called by scalars.py, libm.py and cpu/attention/rows.py.

Every function is at most 2 units in the last place off for float and 3 for double, subnormal
arguments and results included; infinities, zeros and NaN come out as in NumPy. What the C library
does better than a short formula (sin, cos, pow) is in libm.py.

The polynomials were made for this file by Remez's exchange in 50 digits. Coefficients are listed
from the highest power down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce

from ..arrays.special import ERF_DOUBLE, ERF_SINGLE
from . import ir
from .ir import Builder, Value


@dataclass(frozen=True)
class _Format:
    """A floating format, and the constants that belong to it."""

    integer: str  # the integer type of its width
    mantissa: int  # bits of the stored mantissa
    one: int  # the bits of 1.0, of 0.5 and of sqrt(0.5)
    half: int
    root_half: int
    smallest: float  # of the normal numbers
    magic: float  # adding it rounds a small number to an integer, left in the low bits
    bias: int  # exponents of exp's results are halfway within this of a normal number's
    exp_low: float  # exp is 0 below, infinite above
    exp_high: float
    ln2_high: float  # few enough bits that its product with an exponent is exact
    ln2_low: float
    exp: tuple[float, ...]  # (exp(r) - 1 - r) / r^2 for |r| <= log(2) / 2
    log: tuple[float, ...]  # (log((1 + s) / (1 - s)) / s - 2) / s^2, as a polynomial in s^2
    tanh: tuple[float, ...]  # (tanh(x) / x - 1) / x^2 for |x| < 5 / 8, as one in x^2


_SINGLE = _Format(
    integer="i32",
    mantissa=23,
    one=0x3F800000,
    half=0x3F000000,
    root_half=0x3F3504F3,
    smallest=2.0**-126,
    magic=1.5 * 2**23,
    bias=64,
    exp_low=-104.0,
    exp_high=89.0,
    ln2_high=0.693145751953125,
    ln2_low=1.428606820309417e-06,
    exp=(
        0.0013882347283899461,
        0.008368676997918233,
        0.04166729158058342,
        0.16666521184004263,
        0.49999997281988545,
    ),
    log=(
        0.23524325542772895,
        0.28540795992856427,
        0.40000270152559103,
        0.6666666600683164,
    ),
    tanh=(
        -0.005728475179852101,
        0.02066249471175993,
        -0.053747857700492646,
        0.1333155629928527,
        -0.3333328713458914,
    ),
)
DOUBLE = _Format(
    integer="i64",
    mantissa=52,
    one=0x3FF0000000000000,
    half=0x3FE0000000000000,
    root_half=0x3FE6A09E667F3BCD,
    smallest=2.0**-1022,
    magic=1.5 * 2**52,
    bias=512,
    exp_low=-746.0,
    exp_high=710.0,
    ln2_high=0.6931471803691238,
    ln2_low=1.908214929270587816e-10,
    exp=(
        2.5057610324701994e-08,
        2.762976614916822e-07,
        2.7557404534275507e-06,
        2.4801494644555505e-05,
        0.00019841269710076307,
        0.001388888894188877,
        0.008333333333400592,
        0.041666666666538135,
        0.16666666666666557,
        0.5000000000000009,
    ),
    log=(
        0.14736968064384362,
        0.15320290467744627,
        0.18183304443141285,
        0.22222203947645802,
        0.2857142868543468,
        0.39999999999697894,
        0.6666666666666686,
    ),
    tanh=(
        -1.6189111028269295e-05,
        7.740179857529587e-05,
        -0.00022881040677152347,
        0.0005864500166478487,
        -0.001455003986487794,
        0.0035919990134926517,
        -0.008863222389140297,
        0.021869487698740867,
        -0.05396825393764082,
        0.13333333333279082,
        -0.3333333333333302,
    ),
)


def like(x: Value, value: float) -> Value:
    """A constant of x's type, in every lane."""
    if x.is_float:
        literal = ir.floating(value, x.element)
    elif x.element == "i1":
        literal = ir.boolean(bool(value))
    else:
        literal = ir.integer(int(value), x.element)
    if x.lanes == 1:
        return literal
    return Value(x.type, f"splat ({literal.type} {literal.name})")


def exp(b: Builder, x: Value) -> Value:
    """exp(x) = 2^n exp(r) with n = round(x / log 2)."""
    form = form_of(x)
    x = clamp(b, x, form.exp_low, form.exp_high)
    magic, back = moved(b, x)
    biased, r = _reduce(b, x, magic)
    near_one = b.fma(b.fma(polynomial(b, form.exp, r), r, like(x, 1)), r, like(x, 1))
    return b.mul(b.mul(near_one, raised(b, form.one, biased)), back)


def expm1(b: Builder, x: Value) -> Value:
    """exp(x) - 1, with its own last places near 0 and with the sign of a zero."""
    form = form_of(x)
    y = clamp(b, x, -40.0, form.exp_high)  # from there down it rounds to -1
    shifted, r = _reduce(b, y, like(x, form.magic))
    small = b.fma(b.mul(r, r), polynomial(b, form.exp, r), r)
    # Half of 2^n, for 2^n itself may be infinite.
    scale = raised(b, form.half, shifted)
    half = b.fma(scale, small, b.sub(scale, like(x, 0.5)))
    return b.select(b.compare("oeq", x, like(x, 0)), x, b.add(half, half))


def log(b: Builder, x: Value) -> Value:
    """log(x) = e log(2) + log(m) with m between sqrt(1/2) and sqrt(2)."""
    form = form_of(x)
    e, m = parts(b, x)
    f = b.sub(m, like(x, 1))
    s = b.binary("fdiv", f, b.add(f, like(x, 2)))
    z = b.mul(s, s)
    half_square = b.mul(b.mul(f, f), like(x, 0.5))
    series = b.fma(z, polynomial(b, form.log, z), half_square)
    low = b.fma(s, series, b.mul(e, like(x, form.ln2_low)))
    return of_positive(b, x, b.fma(e, like(x, form.ln2_high), b.sub(f, b.sub(half_square, low))))


def log1p(b: Builder, x: Value) -> Value:
    """log(1 + x): the logarithm of the rounded sum, corrected by the rounding error."""
    one = like(x, 1)
    u = b.add(x, one)
    added = b.sub(u, one)
    lost = b.add(b.sub(one, b.sub(u, added)), b.sub(x, added))
    more = b.binary("fdiv", lost, u)
    more = b.select(b.compare("uno", more, more), like(x, 0), more)  # u is 0 or infinite
    return b.select(b.compare("oeq", x, like(x, 0)), x, b.add(log(b, u), more))


def tanh(b: Builder, x: Value) -> Value:
    """A polynomial near 0, else 1 - 2 / (exp(2 |x|) + 1) with the sign of x."""
    square = b.mul(x, x)
    inner = b.fma(b.mul(x, square), polynomial(b, form_of(x).tanh, square), x)
    size = b.intrinsic("fabs", x.type, x)
    below = b.add(exp(b, b.add(size, size)), like(x, 1))
    outer = b.sub(like(x, 1), b.binary("fdiv", like(x, 2), below))
    y = b.select(b.compare("olt", size, like(x, 0.625)), inner, outer)
    return b.intrinsic("copysign", x.type, y, x)


def erf(b: Builder, x: Value) -> Value:
    """The error function, as in special.erf, whose coefficients these are."""
    fit = ERF_SINGLE if x.element == "float" else ERF_DOUBLE
    x = clamp(b, x, -fit.end, fit.end)
    size = b.intrinsic("fabs", x.type, x)
    square = b.mul(x, x)
    inner = b.fma(x, polynomial(b, fit.inner, square), x)
    quotient = b.binary("fdiv", polynomial(b, fit.top, size), polynomial(b, fit.bottom, size))
    erfc = b.mul(exp(b, b.mul(x, negative(b, x))), quotient)
    outer = b.intrinsic("copysign", x.type, b.sub(like(x, 1), erfc), x)
    return b.select(b.compare("olt", size, like(x, 1)), inner, outer)


# Parts -------------------------------------------------------------------------------------------


def moved(b: Builder, x: Value) -> tuple[Value, Value]:
    """A number to add to x / log 2, which leaves n, and a factor of the result.

    2^n may lie outside of the normal numbers where exp(x) does not, or where it is subnormal and
    must be rounded once. So n is moved towards 0 and the result moved back.
    """
    form = form_of(x)
    negative = b.compare("olt", x, like(x, 0))
    magic = b.select(negative, like(x, form.magic + form.bias), like(x, form.magic - form.bias))
    return magic, b.select(negative, like(x, 2.0**-form.bias), like(x, 2.0**form.bias))


def parts(b: Builder, x: Value) -> tuple[Value, Value]:
    """e and m of a positive x = 2^e m, m between sqrt(1/2) and sqrt(2)."""
    form = form_of(x)
    lift = form.mantissa + 2
    tiny = b.compare("olt", x, like(x, form.smallest))
    bits = _bits(b, b.select(tiny, b.mul(x, like(x, 2.0**lift)), x))
    shift = like(bits, form.mantissa)
    exponent = b.binary("ashr", b.sub(bits, like(bits, form.root_half)), shift)
    m = b.convert("bitcast", b.sub(bits, b.binary("shl", exponent, shift)), x.element)
    lifted = b.select(tiny, like(x, form.magic + lift), like(x, form.magic))
    e = b.add(exponent, _bits(b, like(x, form.magic)))
    return b.sub(b.convert("bitcast", e, x.element), lifted), m


def of_positive(b: Builder, x: Value, logarithm: Value) -> Value:
    """The logarithm of x where x is positive and finite; elsewhere what belongs there."""
    zero = b.compare("oeq", x, like(x, 0))
    outside = b.select(zero, like(x, -math.inf), like(x, math.nan))
    result = b.select(b.compare("ogt", x, like(x, 0)), logarithm, outside)
    return b.select(b.compare("oeq", x, like(x, math.inf)), x, result)


def form_of(x: Value) -> _Format:
    return _SINGLE if x.element == "float" else DOUBLE


def negative(b: Builder, x: Value) -> Value:
    return b.emit(x.type, f"fneg {x.type} {x.name}")


def clamp(b: Builder, x: Value, low: float, high: float) -> Value:
    """x within bounds; NaN stays."""
    x = b.select(b.compare("ogt", x, like(x, high)), like(x, high), x)
    return b.select(b.compare("olt", x, like(x, low)), like(x, low), x)


def _reduce(b: Builder, x: Value, magic: Value) -> tuple[Value, Value]:
    """round(x / log 2) + magic, and x less that many log 2."""
    form = form_of(x)
    shifted = b.fma(x, like(x, 1 / math.log(2)), magic)
    n = b.sub(shifted, magic)
    r = b.fma(n, like(x, -form.ln2_high), x)
    return shifted, b.fma(n, like(x, -form.ln2_low), r)


def raised(b: Builder, bits: int, shifted: Value) -> Value:
    """The number with these bits times 2^n, where n are the low bits of `shifted`."""
    n = _bits(b, shifted)
    raised = b.add(b.binary("shl", n, like(n, form_of(shifted).mantissa)), like(n, bits))
    return b.convert("bitcast", raised, shifted.element)


def _bits(b: Builder, x: Value) -> Value:
    return b.convert("bitcast", x, form_of(x).integer)


def polynomial(b: Builder, coefficients: tuple[float, ...], x: Value) -> Value:
    """Horner's rule."""
    highest, *rest = (like(x, c) for c in coefficients)
    return reduce(lambda value, c: b.fma(value, x, c), rest, highest)
