"""Elementary functions that array libraries lack, written with what they have.

In: the array namespace `xp` of a backend and an array. Out: an array of the same shape and dtype.
Called by the backends, and by the compiler with a builder of scalar expressions as `xp`, which
turns the same lines into machine code: so there are only operators and functions of `xp`, never a
look at a value or a dtype.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

Coefficients = tuple[float, ...]


@dataclass(frozen=True)
class _Erf:
    """A fit of erf. Coefficients are listed from the highest power down.

    Made for this file: the polynomial by Remez's exchange, the quotient by Lawson's reweighted
    least squares, in 70 digits, against the error relative to erf. The three pieces are those of
    W. J. Cody, "Rational Chebyshev Approximations for the Error Function" (1969), with other
    limits: he also serves erfc, which needs more.
    """

    inner: Coefficients  # erf(x) / x - 1 as a polynomial in x^2, for |x| < 1
    top: Coefficients  # exp(x^2) erfc(x) as a quotient of two in x, from 1 to `end`
    bottom: Coefficients
    end: float  # from here on erf rounds to 1


ERF_DOUBLE = _Erf(
    inner=(
        -7.779462971761597e-10,
        1.3710988704190523e-08,
        -1.6206318752969208e-07,
        1.6447132699786621e-06,
        -1.4924712439534814e-05,
        0.0001205529358693695,
        -0.0008548325929766244,
        0.005223977606130842,
        -0.026866170643113415,
        0.112837916709442,
        -0.3761263890318352,
        0.12837916709551256,
    ),
    top=(
        0.008913834907853914,
        0.08423918975505792,
        0.3732548672375823,
        0.9489439165824285,
        1.3901132388287583,
        0.9999998890407419,
    ),
    bottom=(
        0.015799484336019954,
        0.1493061476196567,
        0.669536522989804,
        1.7560361930238468,
        2.7907628475983235,
        2.5184912353397304,
        1.0,
    ),
    end=6.0,
)
ERF_SINGLE = _Erf(
    inner=(
        7.85385e-05,
        -0.00080102024,
        0.0051883305,
        -0.026853815,
        0.112835854,
        -0.37612626,
        0.12837917,
    ),
    top=(
        0.0033711817,
        0.41226637,
        0.9935958,
    ),
    bottom=(
        0.7900315,
        1.5057766,
        1.0,
    ),
    end=4.0,
)


def erf(xp: Any, x: Any, double: bool) -> Any:
    """The error function: 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x.

    x: any shape, float64 if `double`, else float32. At most 2 units in the last place off, where
    xp.exp is at most 3 off; odd to the bit, so -0 stays -0; NaN at NaN where xp.minimum and
    xp.maximum hand NaN on.
    """
    fit = ERF_DOUBLE if double else ERF_SINGLE
    x = xp.maximum(xp.minimum(x, fit.end), -fit.end)
    size = xp.abs(x)
    square = x * x
    inner = x + x * _polynomial(fit.inner, square)
    # From 1 on erfc is below 0.16, and its relative error as much less in erf. So the rounding of
    # the square, which erfc itself could not bear, does no harm here.
    erfc = xp.exp(-square) * (_polynomial(fit.top, size) / _polynomial(fit.bottom, size))
    outer = xp.where(x < 0, erfc - 1, 1 - erfc)
    return xp.where(size < 1, inner, outer)


def divmod(xp: Any, a: Any, b: Any) -> tuple[Any, Any]:
    """The floor of the quotient a / b of floats, and the remainder: NumPy's npy_divmod, in xp's
    fmod. The remainder is exact, and the quotient is made of it, so that both fit together."""
    exact = xp.fmod(a, b)
    apart = (exact < 0) != (b < 0)  # b may be a constant, and these go to the right: see ops/map.py
    adjust = xp.logical_and(exact != 0, apart)
    rest = xp.where(adjust, exact + b, exact)
    rest = xp.where(exact != 0, rest, xp.copysign(xp.cast_like(0, a), b))
    quotient = (a - exact) / b
    quotient = xp.where(adjust, quotient - 1, quotient)
    whole = xp.floor(quotient)
    whole = xp.where(quotient - whole > 0.5, whole + 1, whole)
    plain = a / b
    whole = xp.where(quotient != 0, whole, xp.copysign(xp.cast_like(0, a), plain))
    return xp.where(b == 0, plain, whole), xp.where(b == 0, exact, rest)


def are_integers(x: Any, p: Any) -> bool:
    """True if a power is of integers: a float, a number or an array, makes it one of floats."""
    return x.dtype.kind == "i" and (p.dtype.kind != "f" if hasattr(p, "dtype") else type(p) is int)


def integer_power(xp: Any, power: Any, x: Any, p: Any) -> Any:
    """x ** p of integers, by a `power` that takes no negative p: those give 1 / x**-p, cut to an
    integer."""
    one = xp.where(p % 2 == 0, xp.cast_like(1, x), x)  # of 1 and -1
    cut = xp.where(xp.logical_or(x == 1, x == -1), one, xp.cast_like(0, x))
    return xp.where(p < 0, cut, power(x, xp.maximum(p, 0)))


def _polynomial(coefficients: Coefficients, x: Any) -> Any:
    """Horner's rule, from the highest power down."""
    highest, *rest = coefficients
    return reduce(lambda value, coefficient: value * x + coefficient, rest, highest)
