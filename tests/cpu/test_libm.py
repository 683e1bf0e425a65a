"""The C library's functions in code of our own, against NumPy in long double."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("llvmlite")
from elementary_case import BITS, any_bits, apply, worst
from kernel_case import Array
from native_case import host, targets

from tinygrad_tx.backends.cpu.processor import Processor
from tinygrad_tx.backends.llvm import ir, libm
from tinygrad_tx.backends.llvm.ir import Value

LANES = 4
TRUTH: dict[str, Callable[..., Array]] = {
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "log2": np.log2,
    "log10": np.log10,
    "atan2": np.arctan2,
    "pow": np.power,
    "frem": np.fmod,
}
OF_TWO = ("atan2", "pow", "frem")
# A float is rounded once, from a double that is right to many more bits.
ULPS = {"float32": dict.fromkeys(TRUTH, 0.5001), "float64": dict.fromkeys(TRUTH, 1.0)}
ULPS["float64"] |= {"tan": 2.5, "sinh": 2.0, "cosh": 1.5, "atan2": 2.5, "log2": 0.51, "log10": 0.51}
if np.finfo(np.longdouble).nmant == 52:  # then the reference is rounded as well
    ULPS["float64"] = {name: limit + 1 for name, limit in ULPS["float64"].items()}
ENDS = [0, 1, 0.5, 1.5, 2, 3, 4, 5, 2.0**-140, 1e-40, 1e30, 2.0**127, 2.0**24 - 1, 2.0**24, np.inf]
ENDS += [1 - 2.0**-24, 1 + 2.0**-23, math.pi / 2, math.pi, 0.625, 0.4142135, 0.41421357, 10, 1000]
# Those that lie nearest to multiples of pi / 2, largest exponentials.
ENDS += [16367173 * 2.0**72, 6381956970095103 * 2.0**797, 89.41, 89.42, 710.47, 710.48, 1e308]
ENDS += [5e-324, 1e-310, 2.0**53 - 1, 2.0**53, 2.0**40, 2.0**41 + 1]


def write(name: str) -> Callable[..., Value]:
    return libm.frem if name == "frem" else lambda b, *args: libm.call(b, name, *args)


def own(name: str, *args: Array, lanes: int = LANES, target: Processor | None = None) -> Array:
    """A function of this name by a module that may not call the C library."""
    return apply(
        write(name), [np.ascontiguousarray(a) for a in args], lanes, target or host(), libm=False
    )


def true(name: str, *args: Array) -> Array:
    with np.errstate(all="ignore"):
        return TRUTH[name](*(x.astype(np.longdouble) for x in args))


def ends(name: str, dtype: str) -> list[Array]:
    """Numbers at which something changes; every pair of them."""
    with np.errstate(all="ignore"):
        x = np.array([*ENDS, *(-x for x in ENDS), np.nan, np.nan]).astype(dtype)
    return [np.repeat(x, x.size), np.tile(x, x.size)] if name in OF_TWO else [x]


def sample(name: str, dtype: str, count: int) -> list[Array]:
    """Numbers of every size, and such that results are."""
    rng = np.random.default_rng(7)

    def of_every_size() -> Array:
        parts = [rng.standard_normal(count) * size for size in (0.1, 1, 10, 1e6)]
        parts += [1 + rng.standard_normal(count) * 0.01, rng.uniform(-720, 720, count)]
        with np.errstate(all="ignore"):
            return np.concatenate([any_bits(rng, dtype, count), *parts]).astype(dtype)

    x, y = of_every_size(), rng.permutation(of_every_size())
    if name not in OF_TWO:
        return [x]
    with np.errstate(all="ignore"):
        if name == "pow":
            low, high = (-105, 90) if dtype == "float32" else (-750, 712)
            fit = rng.uniform(low, high, x.size) / np.log(np.abs(x.astype(np.float64)))
            x, y = np.concatenate([x, np.abs(x)]), np.concatenate([y, fit.astype(dtype)])
        else:
            near = (x * rng.uniform(-3, 3, x.size)).astype(dtype)
            x, y = np.concatenate([x, x]), np.concatenate([y, near])
    return [x, y]


@pytest.mark.parametrize("dtype", BITS)
@pytest.mark.parametrize("name", TRUTH)
def test_results(name: str, dtype: str) -> None:
    """Right to some units in the last place, and the same on every kind of processor."""
    args = sample(name, dtype, 4_000)
    args = [a[: a.size // LANES * LANES] for a in args]
    found = own(name, *args)
    wanted = true(name, *args)
    assert worst(found, wanted) <= ULPS[dtype][name]
    if dtype == "float32":
        with np.errstate(over="ignore"):
            nearest = wanted.astype(dtype)
        assert np.mean((found == nearest) | np.isnan(nearest)) > 0.9999
    for target in targets()[1:]:
        np.testing.assert_array_equal(own(name, *args, target=target), found)


@pytest.mark.parametrize("dtype", BITS)
@pytest.mark.parametrize("name", TRUTH)
def test_ends(name: str, dtype: str) -> None:
    """Zeros and their signs, infinities, NaN, whole numbers, the first and the last of a case."""
    args = ends(name, dtype)
    found, wanted = own(name, *args), true(name, *args)
    assert worst(found, wanted) <= ULPS[dtype][name]
    numbers = ~np.isnan(wanted)
    np.testing.assert_array_equal(np.signbit(found[numbers]), np.signbit(wanted[numbers]))


@pytest.mark.parametrize("dtype", BITS)
@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_angles_beside_multiples_of_half_pi(name: str, dtype: str) -> None:
    rng = np.random.default_rng(5)
    turns = np.concatenate([np.arange(4000), rng.integers(0, 2**39, 4000)]).astype(np.longdouble)
    x = (turns * np.arccos(np.longdouble(0))).astype(dtype)
    assert worst(own(name, x), true(name, x)) <= ULPS[dtype][name]


@pytest.mark.parametrize("name", TRUTH)
def test_a_scalar_gives_the_bits_of_a_lane(name: str) -> None:
    args = ends(name, "float32")
    np.testing.assert_array_equal(own(name, *args, lanes=1), own(name, *args))


def test_powers_and_logarithms_that_are_exact_are_found_so() -> None:
    for dtype, least, most, tens in (("float32", -149, 127, 10), ("float64", -1074, 1023, 22)):
        exponents = np.arange(least, most + 1).astype(dtype)
        powers = np.ldexp(np.ones_like(exponents), exponents.astype(int))
        np.testing.assert_array_equal(own("log2", powers, lanes=1), exponents)
        two = np.full_like(exponents, 2)
        np.testing.assert_array_equal(own("pow", two, exponents, lanes=1), powers)
        exponents = np.arange(tens + 1).astype(dtype)
        powers = np.array([10**n for n in range(tens + 1)], dtype)
        np.testing.assert_array_equal(own("log10", powers, lanes=1), exponents)
        np.testing.assert_array_equal(own("pow", powers * 0 + 10, exponents, lanes=1), powers)
    pairs = [(x, n) for x in range(-40, 41) for n in range(11) if abs(x**n) < 2**53]
    x, n = np.array(pairs, np.float64).T
    exact = np.array([x**n for x, n in pairs], np.float64)
    np.testing.assert_array_equal(own("pow", x, n, lanes=1), exact)


def test_ties_go_to_the_even_float() -> None:
    x = np.arange(4097, 8192, 2).astype(np.float32)  # their squares have 25 or 26 bits
    exact = (x.astype(np.int64) ** 2).astype(np.float32)
    np.testing.assert_array_equal(own("pow", x, np.full_like(x, 2), lanes=1), exact)


@pytest.mark.parametrize("name", ["sinh", "log2", "log10", "atan2", "pow", "tan"])
def test_floats_in_order_give_results_in_order(name: str) -> None:
    rng = np.random.default_rng(3)
    x = np.sort(any_bits(rng, "float32", 40_000))
    x = x[np.isfinite(x) & ((name not in ("log2", "log10", "pow")) | (x > 0))]
    x = x[np.abs(x) < 1.57] if name == "tan" else x
    x = x[: x.size // LANES * LANES]
    other = [np.full_like(x, 1.7)] if name in OF_TWO else []
    found = own(name, x, *other)
    assert (found[1:] >= found[:-1]).all()


def test_logarithms_of_neighbours_are_in_order() -> None:
    for start in (1.0, math.sqrt(0.5), math.sqrt(2), 2.0**-1022, 1000.0):
        step = np.arange(-2000, 2000)
        x = (np.float64(start).view(np.int64) + step).view(np.float64)
        for name in ("log2", "log10"):
            found = own(name, x)
            assert (found[1:] >= found[:-1]).all(), (name, start)


@pytest.mark.parametrize("name", TRUTH)
@pytest.mark.parametrize("element", ["float", "double"])
def test_the_library_is_called_where_a_module_may(name: str, element: str) -> None:
    for allowed in (True, False):
        module = ir.Module(libm=allowed)
        b = module.function("f", [("ptr", "place")])
        for type in (element, f"<2 x {element}>"):
            write(name)(b, *[b.load(type, b.params[0])] * (2 if name in OF_TWO else 1))
        b.end()
        text, of_c = module.text(), name + "f" * (element == "float")
        defined = {function.name for function in module.functions}
        outside = {called for called in module.declared if not called.startswith("llvm.")} - defined
        assert outside == ({of_c} if allowed and name != "frem" else set())
        assert (" frem " in text) == (allowed and name == "frem")
        assert len(defined) == (1 if allowed else 2)
