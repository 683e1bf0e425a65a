"""erf against exact values, over all magnitudes, in both precisions, and as a scalar expression."""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Callable, Iterator
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest

from tinygrad_tx.backends.arrays.special import erf

PI = Decimal(
    "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899863"
)
TINY = {np.float64: 5e-324, np.float32: 1e-45}


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def exact_erf(x: float) -> Decimal:
    """Taylor's series in 80 digits, of which up to 16 cancel for |x| <= 6."""
    with localcontext() as context:
        context.prec = 80
        square, term, total, k = Decimal(x) ** 2, Decimal(x), Decimal(0), 0
        while abs(term) > Decimal("1e-60") * abs(Decimal(x)):
            total += term / (2 * k + 1)
            k += 1
            term *= -square / k
        return total * 2 / PI.sqrt()


def ulps(values: np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> float:
    """The largest error, in units in the last place that the truth has in the values' dtype."""
    unit = np.spacing(np.abs(truth.astype(values.dtype)))
    return float(np.max(np.abs(values.astype(np.float64) - truth) / unit.astype(np.float64)))


def math_erf(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.array([math.erf(v) for v in x.tolist()])


def million(dtype: type) -> np.ndarray[Any, Any]:
    """A million points: even steps over [-6, 6], and every magnitude from subnormal to 6."""
    even = np.linspace(-6, 6, 800_000)
    near = np.nextafter(np.array([-1, 1, -6, 6, -4, 4]).astype(dtype), dtype(0))
    magnitudes = np.logspace(math.log10(TINY[dtype]), math.log10(6), 200_000)
    return np.concatenate([even, near, magnitudes]).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_million_points(dtype: type) -> None:
    x = million(dtype)
    y = erf(np, x, double=dtype is np.float64)
    assert y.dtype == dtype
    assert ulps(y, math_erf(x)) <= 2
    assert (erf(np, -x, double=dtype is np.float64) == -y).all()


def test_exact_values_in_float64() -> None:
    x = np.concatenate([np.linspace(0.01, 6, 250), 10.0 ** np.arange(-300, 0, 20)])
    worst = max(
        abs(Decimal(y) - exact_erf(v)) / Decimal(math.ulp(math.erf(v)))
        for v, y in zip(x.tolist(), erf(np, x, double=True).tolist(), strict=True)
    )
    assert worst <= Decimal("1.5")


@pytest.mark.parametrize("off", [-3, 3])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_an_exp_three_units_off_does_no_harm(dtype: type, off: int) -> None:
    class Careless:
        """NumPy with an exponential that is wrong in its last two bits."""

        abs, where, minimum, maximum = np.abs, np.where, np.minimum, np.maximum

        @staticmethod
        def exp(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            y = np.exp(x.astype(np.float64)).astype(dtype)
            return y + dtype(off) * np.spacing(y)

    x = np.linspace(-6, 6, 100_001).astype(dtype)
    assert ulps(erf(Careless, x, double=dtype is np.float64), math_erf(x)) <= 2


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_special_values(dtype: type) -> None:
    big, tiny = np.finfo(dtype).max, dtype(TINY[dtype])
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, big, -big, tiny, -tiny], dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        y = erf(np, x, double=dtype is np.float64)
    expected = np.array([0.0, -0.0, 1, -1, np.nan, 1, -1, tiny, -tiny], dtype)
    np.testing.assert_array_equal(y, expected)
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(y[number]), np.signbit(expected[number]))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (2, 3)])
def test_shapes(dtype: type, shape: tuple[int, ...]) -> None:
    y = erf(np, np.full(shape, 0.5, dtype), double=dtype is np.float64)
    assert (y.shape, y.dtype) == (shape, dtype)
    assert np.allclose(y, math.erf(0.5), rtol=1e-6)
    scalar = erf(np, dtype(0.5), double=dtype is np.float64)
    assert scalar.dtype == dtype
    assert np.all(y == scalar)


class Expression:
    """What a code generator sees: operators record, nothing has a value yet."""

    def __init__(self, run: Callable[[float], Any]) -> None:
        self.run = run


def recorded(function: Callable[..., Any]) -> Callable[..., Expression]:
    def record(*operands: Any) -> Expression:
        def run(x: float) -> Any:
            return function(*(o.run(x) if isinstance(o, Expression) else o for o in operands))

        return Expression(run)

    return record


class Builder:
    """All that erf may ask of `xp`."""

    exp, abs = recorded(math.exp), recorded(abs)
    minimum, maximum = recorded(min), recorded(max)
    where = recorded(lambda condition, a, b: a if condition else b)


for name in ("add", "sub", "mul", "truediv"):
    function = getattr(operator, name)
    setattr(Expression, f"__{name}__", recorded(function))
    setattr(Expression, f"__r{name}__", recorded(lambda a, b, f=function: f(b, a)))
Expression.__neg__ = recorded(operator.neg)  # type: ignore[attr-defined]
Expression.__lt__ = recorded(operator.lt)  # type: ignore[attr-defined]


def test_as_a_scalar_expression() -> None:
    built = erf(Builder, Expression(lambda x: x), double=True)
    x = np.linspace(-6.5, 6.5, 401)
    assert ulps(np.array([built.run(v) for v in x.tolist()]), math_erf(x)) <= 2
