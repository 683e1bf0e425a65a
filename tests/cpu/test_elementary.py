"""Elementary functions and scalar operations in native code, against NumPy in long double."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("llvmlite")
from elementary_case import BITS, any_bits, apply, worst
from kernel_case import Array, Program, row_args
from native_case import host, run, targets

from tinygrad_tx.backends.kernels import interpreter_math
from tinygrad_tx.backends.llvm import elementary

ULPS = {"float32": 2.0, "float64": 3.0}
TRUTH: dict[str, Callable[[Array], Array]] = {
    "exp": np.exp,
    "log": np.log,
    "log1p": np.log1p,
    "expm1": np.expm1,
    "tanh": np.tanh,
    "erf": lambda x: np.array([math.erf(v) for v in x.astype(np.float64)], np.longdouble),
}
EDGES = [0, -0.0, 1, -1, 0.5, 88.72283, 88.72284, -87.33, -103.3, -103.97, -104, 709.78, 709.79]
EDGES += [-708.4, -745.13, -745.14, np.inf, -np.inf, np.nan]


def sample(dtype: str, count: int) -> Array:
    """Numbers of every size and kind, NaNs of every kind among them."""
    rng = np.random.default_rng(7)
    tiny = rng.standard_normal(count // 8) * float(np.finfo(dtype).tiny) / 100
    near = [rng.standard_normal(count // 4) * size for size in (0.1, 1, 10)]
    ends = [rng.uniform(low, high, count // 8) for low, high in ((-110, -80), (80, 95), (0.5, 2))]
    with np.errstate(all="ignore"):
        parts = [np.asarray(part).astype(dtype) for part in (EDGES, tiny, *near, *ends)]
    found = np.concatenate([any_bits(rng, dtype, count), *parts])
    return np.concatenate([found, np.ones(-found.size % 16, dtype)])


@pytest.mark.parametrize("dtype", BITS)
@pytest.mark.parametrize("name", TRUTH)
def test_elementary_functions(name: str, dtype: str) -> None:
    # erf's reference in float64 is rounded itself.
    limit = ULPS[dtype] + (name == "erf" and dtype == "float64")
    x = sample(dtype, 20_000)
    with np.errstate(all="ignore"):
        wanted = TRUTH[name](x.astype(np.longdouble))
    results = [apply(getattr(elementary, name), [x], 16, target) for target in targets()[:2]]
    for found in results:
        assert worst(found, wanted) <= limit
    zero = x == 0
    signs = np.signbit(x[zero]) & (name != "exp") | (name == "log")
    np.testing.assert_array_equal(np.signbit(results[0][zero]), signs)


def test_a_scalar_gives_the_bits_of_a_lane() -> None:
    x = sample("float32", 500)
    for name in TRUTH:
        one, many = (apply(getattr(elementary, name), [x], lanes, host()) for lanes in (1, 16))
        np.testing.assert_array_equal(one, many)


def test_plain_code_gives_the_same_bits() -> None:
    """Fused multiply-adds are fused everywhere."""
    x = sample("float32", 500)
    for name in TRUTH:
        write = getattr(elementary, name)
        one, other = (apply(write, [x], 16, target) for target in (targets()[0], targets()[-1]))
        np.testing.assert_array_equal(one, other)


# Scalar operations -------------------------------------------------------------------------------

NUMBERS = ("float32", "float64", "int32", "int64")
ARITHMETIC = ("add", "sub", "mul", "minimum", "maximum", "floor_divide", "remainder")
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
LOGIC = ("and", "or", "xor")
UNARY = ("neg", "abs", "sign", "floor", "copy")
TESTS = ("isnan", "isinf", "isfinite")


def operands(dtype: str) -> tuple[Array, Array]:
    """Every pair of some numbers that matter, (1, pairs) each."""
    if dtype == "bool":
        values: list[Any] = [False, True]
    elif dtype.startswith("int"):
        info = np.iinfo(dtype)
        values = [0, 1, -1, 2, -2, 3, -3, 7, -7, 100, info.min, info.max, info.min + 1]
    else:
        values = [0.0, -0.0, 1, -1, 0.5, -2, 3, -3, 7.25, -7.5, 1e30, -1e30, 1e-40]
        values += [np.inf, -np.inf, np.nan]
    x = np.array(values, dtype)
    return np.repeat(x, x.size)[None], np.tile(x, x.size)[None]


def evaluate(op: str, result: str, *args: Array) -> Array:
    """One operation on arrays (1, n), by native code."""
    program = Program()
    loads = [program.load(x.dtype.name) for x in args]
    program.store(program.do(op, result, *loads))
    out = np.empty(args[0].shape, result)
    run(program.rows(1), row_args(args[0].shape, [*args, out]))
    return out


def numpy_result(op: str, result: str, *args: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(interpreter_math.apply(op, result, *args))


@pytest.mark.parametrize("dtype", NUMBERS)
def test_arithmetic_is_numpys(dtype: str) -> None:
    x, y = operands(dtype)
    for op in ARITHMETIC:
        found, wanted = evaluate(op, dtype, x, y), numpy_result(op, dtype, x, y)
        np.testing.assert_array_equal(found, wanted, err_msg=op)
    for op in COMPARISONS:
        found, wanted = evaluate(op, "bool", x, y), getattr(np, _NUMPY[op])(x, y)
        np.testing.assert_array_equal(found, wanted, err_msg=op)
    for op in UNARY:
        found, wanted = evaluate(op, dtype, x), numpy_result(op, dtype, x)
        np.testing.assert_array_equal(found, wanted, err_msg=op)
    for op in TESTS:
        np.testing.assert_array_equal(evaluate(op, "bool", x), getattr(np, op)(x), err_msg=op)
    found = evaluate("where", dtype, x > y, x, y)
    np.testing.assert_array_equal(found, np.where(x > y, x, y))


_NUMPY = {"eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal"}
_NUMPY |= {"gt": "greater", "ge": "greater_equal"}


def test_division_and_roots() -> None:
    for dtype in ("float32", "float64"):
        x, y = operands(dtype)
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(evaluate("div", dtype, x, y), x / y)
            np.testing.assert_array_equal(evaluate("sqrt", dtype, x), np.sqrt(x))
            for op, truth in (("sin", np.sin), ("cos", np.cos)):
                np.testing.assert_allclose(evaluate(op, dtype, x), truth(x), rtol=3e-7, atol=1e-7)


def test_powers() -> None:
    for dtype in ("float32", "float64"):
        x, y = operands(dtype)
        with np.errstate(all="ignore"):
            np.testing.assert_allclose(evaluate("pow", dtype, x, y), x**y, rtol=3e-7)
    x, y = np.meshgrid(np.arange(-5, 6), np.arange(0, 9))
    x, y = x.reshape(1, -1), y.reshape(1, -1)
    np.testing.assert_array_equal(evaluate("pow", "int64", x, y), x**y)


def test_constant_powers_are_products() -> None:
    x = np.array([[-3, 0.5, np.inf, np.nan, -np.inf, 0, 2e30]], np.float32)
    for exponent in (2, 3):
        program = Program()
        power = program.do("const", "float32", value=exponent)
        program.store(program.do("pow", "float32", program.load("float32"), power))
        out = np.empty_like(x)
        run(program.rows(1), row_args(x.shape, [x, out]))
        with np.errstate(all="ignore"):
            np.testing.assert_allclose(out, x**exponent, rtol=2e-7)


def test_bools_and_bits() -> None:
    x, y = operands("bool")
    for op in (*LOGIC, "minimum", "maximum", *COMPARISONS):
        name = {"and": "logical_and", "or": "logical_or", "xor": "logical_xor"}.get(op, op)
        wanted = getattr(np, _NUMPY.get(name, name))(x, y)
        np.testing.assert_array_equal(evaluate(op, "bool", x, y), wanted, err_msg=op)
    np.testing.assert_array_equal(evaluate("not", "bool", x), ~x)
    i, j = operands("int64")
    for op in LOGIC:
        wanted = getattr(np, f"bitwise_{op}")(i, j)
        np.testing.assert_array_equal(evaluate(op, "int64", i, j), wanted, err_msg=op)
    np.testing.assert_array_equal(evaluate("not", "int32", i.astype("int32")), ~i.astype("int32"))


@pytest.mark.parametrize("source", [*NUMBERS, "bool"])
@pytest.mark.parametrize("goal", [*NUMBERS, "bool"])
def test_casts(source: str, goal: str) -> None:
    x = operands(source)[0]
    if x.dtype.kind == "f" and goal.startswith("int"):
        x = x[np.isfinite(x) & (np.abs(x) < 1e9)][None]
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(evaluate("cast", goal, x), x.astype(goal))


def test_a_float_that_fits_no_integer_is_cut_off() -> None:
    x = np.array([[np.inf, -np.inf, np.nan, 1e20]], np.float32)
    limits = np.iinfo("int32")
    wanted = [[limits.max, limits.min, 0, limits.max]]
    np.testing.assert_array_equal(evaluate("cast", "int32", x), wanted)


def test_constants_beyond_a_dtype_are_infinite() -> None:
    program = Program()
    total = program.do("const", "float32", value=-1e300)
    program.store(program.do("add", "float32", program.load("float32"), total))
    x, out = np.ones((1, 5), np.float32), np.zeros((1, 5), np.float32)
    run(program.rows(1), row_args(x.shape, [x, out]))
    assert (out == -np.inf).all()
