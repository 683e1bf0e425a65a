"""Arithmetic at its edges: every elementwise op, in every dtype, on every pair of awkward numbers,
is the same in eager code, natively, in the interpreter of kernels and replayed. To the bit where a
function is exact; elsewhere to a few units in the last place. NaN is NaN with any bits."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from modes import MODES, bits, running

import tinygrad_tx as tx
from tinygrad_tx import backends
from tinygrad_tx.backends.arrays.base import Backend
from tinygrad_tx.op import OPS

INF, NAN = math.inf, math.nan
FLOATS = {
    tx.float64: [5e-324, 2.0**-1022, 1.7e308, 1e154, 2.0**53 + 2, 2.0**63, 9.3e18, 1e15 + 0.5],
    tx.float32: [1e-45, 2.0**-126, 3.4e38, 1e19, 2.0**24 - 1, 2.0**31, 2.0**63, 8388607.5],
    tx.float16: [6e-8, 2.0**-14, 65504.0, 300.0, 2047.0, 2049.0, 1023.5, 1e-3],
    tx.bfloat16: [1e-40, 2.0**-126, 3.3e38, 1e19, 255.0, 2.0**31, 2.0**63, 127.5],
}
COMMON = [0.0, 0.1, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 5.0, 7.0, 88.0, 709.0, 1e4, INF]
INTEGERS = {
    tx.int64: [2**63 - 1, -(2**63), -(2**63) + 1, 2**53 + 1, 2**32, 2**31],
    tx.int32: [2**31 - 1, -(2**31), -(2**31) + 1, 2**24 + 1, 2**16],
}
DTYPES = [*FLOATS, *INTEGERS, tx.bool_]
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)

# Correctly rounded, or not rounded at all: one right answer.
EXACT = {
    *("add", "sub", "mul", "div", "neg", "abs", "sign", "floor", "copy", "sqrt", "where"),
    *("floor_divide", "remainder", "eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf"),
    *("isfinite", "and", "or", "xor", "not", "cast", "ceil", "round", "trunc"),
}
EITHER_ZERO = {"maximum", "minimum", "relu", "clip"}  # exact, but 0.0 and -0.0 are equal
UNITS = {"sin": 8, "cos": 8, "pow": 8, "rsqrt": 2, "sigmoid": 6, "silu": 8, "gelu": 12,
         "gelu_tanh": 12}  # fmt: skip
UNARY = ("neg", "abs", "sign", "floor", "copy", "sqrt", "rsqrt", "exp", "log", "log1p", "expm1",
         "sin", "cos", "tanh", "erf", "sigmoid", "relu", "silu", "gelu", "gelu_tanh", "isnan",
         "isinf", "isfinite", "not", "ceil", "round", "trunc", "log2", "log10", "tan", "sinh",
         "cosh", "log_sigmoid", "elu", "leaky_relu", "softplus")  # fmt: skip
BINARY = ("add", "sub", "mul", "div", "pow", "floor_divide", "remainder", "maximum", "minimum",
          "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "xor", "atan2",
          "binary_cross_entropy")  # fmt: skip
SETTINGS = {"elu": {"alpha": 1.25}, "leaky_relu": {"slope": 0.1},
            "softplus": {"beta": 1.5, "threshold": 20.0}}  # fmt: skip
CANCELS = {"gelu", "gelu_tanh"}  # 1 + erf(x) keeps absolute digits only


def test_every_elementwise_op_is_here() -> None:
    ours = {
        name
        for name, op in OPS.items()
        if op.kind == "map" and op.forward.__module__.startswith("tinygrad_tx.")
    }
    assert ours == {*UNARY, *BINARY, "where", "cast", "clip"}
    assert ours >= EXACT | EITHER_ZERO


def edges(dtype: tx.DType) -> np.ndarray:
    """Awkward numbers of a dtype, each with its negative; a NaN of either sign among them."""
    if dtype in FLOATS:
        positive = np.array([*COMMON, *FLOATS[dtype]])
        with np.errstate(all="ignore"):
            return np.concatenate([positive, -positive, [NAN, -NAN]]).astype(dtype.np)
    if dtype in INTEGERS:
        return np.array([*range(-8, 9), 63, *INTEGERS[dtype]], dtype.np)
    return np.array([True, False])


def pairs(dtype: tx.DType) -> tuple[tx.Tensor, tx.Tensor]:
    found = edges(dtype)
    return tx.tensor(np.repeat(found, len(found))), tx.tensor(np.tile(found, len(found)))


def called(name: str, *inputs: Any) -> tx.Tensor:
    made: tx.Tensor = OPS[name](*inputs, **SETTINGS.get(name, {}))
    return made


def accepted(names: tuple[str, ...], *inputs: tx.Tensor) -> list[str]:
    found = []
    for name in names:
        try:
            called(name, *(x[:1] for x in inputs))
        except tx.errors.DTypeError:
            continue
        found.append(name)
    return found


def assert_equal(name: str, got: tx.Tensor, want: tx.Tensor, inputs: tuple[tx.Tensor, ...]) -> None:
    assert (got.dtype, got.shape) == (want.dtype, want.shape), name
    same = bits(got) == bits(want)
    if want.dtype.is_floating_point:
        a, b = (x.numpy().astype(np.float64) for x in (got, want))
        same |= np.isnan(a) & np.isnan(b)
        if name in EITHER_ZERO:
            same |= (a == 0) & (b == 0)
        elif name not in EXACT:
            with np.errstate(all="ignore"):
                size = np.maximum(np.abs(b), 1.0 if name in CANCELS else 0.0)
                step = np.maximum(size * want.dtype.eps, _smallest(want.dtype))
                same |= np.abs(a - b) <= UNITS.get(name, 5) * step
            same &= (np.signbit(a) == np.signbit(b)) | np.isnan(b) | (name in CANCELS)
    wrong = np.flatnonzero(~same)
    shown = [(*(x.numpy()[i] for x in inputs), got.numpy()[i], want.numpy()[i]) for i in wrong[:10]]
    assert not wrong.size, (name, want.dtype, "inputs, got, wanted:", shown)


def _smallest(dtype: tx.DType) -> float:
    least = {tx.float64: 5e-324, tx.float32: 2.0**-149, tx.float16: 2.0**-24}
    return least.get(dtype, 2.0**-133)


def check(functions: dict[str, Callable[..., tx.Tensor]], *inputs: tx.Tensor) -> None:
    def everything(*xs: tx.Tensor) -> list[tx.Tensor]:
        return [f(*xs) for f in functions.values()]

    wanted = everything(*inputs)
    before = [bits(x).copy() for x in inputs]
    for mode in MODES[1:]:
        got = running(everything, mode)(*inputs)
        for name, a, b in zip(functions, got, wanted, strict=True):
            assert_equal(name.partition(" ")[0], a, b, inputs)
    for x, old in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(bits(x), old)


@dtypes
def test_of_one_number(dtype: tx.DType) -> None:
    x = tx.tensor(edges(dtype))
    check({name: partial(called, name) for name in accepted(UNARY, x)}, x)


@dtypes
def test_of_two_numbers(dtype: tx.DType) -> None:
    a, b = pairs(dtype)
    check({name: OPS[name] for name in accepted(BINARY, a, b)}, a, b)


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    "dtype",
    [pytest.param(d, marks=pytest.mark.slow) if d == tx.float16 else d for d in DTYPES],
    ids=lambda d: d.name,
)
def test_with_a_constant(dtype: tx.DType) -> None:
    """Numbers that the compiler knows have ways of their own."""
    x = tx.tensor(edges(dtype))
    numbers = {tx.bool_: [True, False]}.get(
        dtype, [0, 1, -1, 2, -2, 3] if dtype in INTEGERS else [0.0, -0.0, 1.0, -1.0, 2.0, 3.0, 0.5]
    )
    numbers = [*numbers, INF, -INF, NAN] if dtype in FLOATS else numbers
    check(
        {
            f"{name} {side} {c}": (lambda x, op=OPS[name], c=c: op(x, c))
            if side == "right"
            else (lambda x, op=OPS[name], c=c: op(c, x))
            for name in accepted(BINARY, x, x)
            for c in numbers
            for side in ("left", "right")
        },
        x,
    )


@dtypes
def test_casts(dtype: tx.DType) -> None:
    x = tx.tensor(edges(dtype))
    check({f"cast {to.name}": (lambda x, to=to: OPS["cast"](x, dtype=to)) for to in DTYPES}, x)


@dtypes
def test_choices(dtype: tx.DType) -> None:
    a, b = pairs(dtype)
    functions: dict[str, Callable[..., tx.Tensor]] = {
        "where": lambda a, b: tx.where(a == b, a, b),
        "where other": lambda a, b: tx.where(a.bool(), b, a),
    }
    if dtype in FLOATS:
        for low, high in (
            (-1.0, 2.0),
            (NAN, None),
            (None, NAN),
            (-INF, INF),
            (1.0, -1.0),
            (0.0, 0),
        ):
            functions[f"clip {low} {high}"] = lambda a, b, low=low, high=high: a.clip(low, high)
    elif dtype in INTEGERS:
        functions["clip"] = lambda a, b: a.clip(-3, 5)
    check(functions, a, b)


@dtypes
def test_orders_and_extremes(dtype: tx.DType) -> None:
    """NaN is the largest, whatever its sign; equal ones keep their order."""
    x = tx.tensor(np.random.default_rng(0).permutation(np.repeat(edges(dtype), 12)))
    rows = x[: len(x) // 4 * 4].reshape(4, -1)
    functions: dict[str, Callable[..., tx.Tensor]] = {}
    for dim in (0, 1):
        functions |= {
            f"argsort {dim}": lambda x, dim=dim: x.argsort(dim),
            f"argsort down {dim}": lambda x, dim=dim: x.argsort(dim, descending=True),
            f"argtopk {dim}": lambda x, dim=dim: x.topk(3, dim).indices,
            f"maximum all of {dim}": lambda x, dim=dim: x.amax(dim),
            f"minimum all of {dim}": lambda x, dim=dim: x.amin(dim),
            f"argmax {dim}": lambda x, dim=dim: x.argmax(dim),
            f"argmin {dim}": lambda x, dim=dim: x.argmin(dim),
            f"maximum value {dim}": lambda x, dim=dim: x.max(dim).values,
            f"any {dim}": lambda x, dim=dim: x.any(dim),
            f"all {dim}": lambda x, dim=dim: x.all(dim),
        }
    check(functions, rows)
    if dtype in FLOATS:
        values = rows.numpy().astype(np.float64)
        key = np.where(np.isnan(values), np.inf, values)
        last = np.take_along_axis(np.isnan(values), rows.argsort(1).numpy(), 1)
        assert (np.diff(last.astype(int), axis=1) >= 0).all() and last.any()
        np.testing.assert_array_equal(
            np.take_along_axis(key, rows.argsort(1).numpy(), 1), np.sort(key, axis=1)
        )


@pytest.mark.parametrize("dtype", INTEGERS, ids=lambda d: d.name)
def test_sums_of_large_integers(dtype: tx.DType) -> None:
    """Integers are summed in 64 bits, which wrap around; nothing passes through floats."""
    x = tx.tensor(edges(dtype))
    want = int(edges(dtype).astype(object).sum())
    want = (want + 2**63) % 2**64 - 2**63
    for mode in MODES:
        assert running(lambda x: x.sum(), mode)(x).item() == want
        assert running(lambda x: x.cumsum(0)[-1], mode)(x).item() == want


@dtypes
def test_what_the_backends_share_is_numpys_arithmetic(dtype: tx.DType) -> None:
    """CuPy's arrays go through these functions, NumPy's through its own."""
    if dtype == tx.bool_ or dtype.itemsize == 2:  # logic; computed in float32
        return
    xp: Any = backends.get("cpu")
    a, b = (x.numpy() for x in pairs(dtype))
    with np.errstate(all="ignore"):
        for name in ("floor_divide", "remainder", "power"):
            shared, own = getattr(Backend, name)(xp, a, b), getattr(xp, name)(a, b)
            inputs = tx.tensor(a), tx.tensor(b)
            if name != "power" or dtype in INTEGERS:
                assert_equal("add", tx.tensor(shared), tx.tensor(own), inputs)
        for to in INTEGERS if dtype in FLOATS else ():
            limits = np.iinfo(to.np)
            fits = (a >= float(limits.min)) & (a < float(limits.max + 1))
            rough = np.full(a.shape, 77, to.np)  # of what does not fit, anything
            rough[fits] = a[fits].astype(to.np)
            shared = Backend.saturated(xp, a, rough, limits.min, limits.max)
            np.testing.assert_array_equal(shared, xp.cast(a, to))


# The right values --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_division(mode: str) -> None:
    """What Python says; PyTorch says the same."""
    a = [1.0, 5.0, -5.0, 5.0, -5.0, 7.0, -7.0, 1e30, 0.0, -0.0, 1.0, -1.0]
    b = [0.1, INF, INF, -INF, -INF, 2.0, 2.0, 7.0, 3.0, 3.0, 1e-300, 1e300]
    x, y = (tx.tensor(v, dtype=tx.float64) for v in (a, b))
    whole, rest = running(lambda x, y: (x // y, x % y), mode)(x, y)
    wanted = [divmod(p, q) for p, q in zip(a, b, strict=True)]
    assert whole.tolist() == [w for w, _ in wanted]
    assert rest.tolist() == [r for _, r in wanted]
    assert np.signbit(rest.numpy()).tolist() == [math.copysign(1, r) < 0 for _, r in wanted]
    single = running(lambda x, y: x % y, mode)(tx.tensor([1e8]), tx.tensor([0.1]))
    assert single.item() == np.float32(math.fmod(1e8, float(np.float32(0.1))))
    x, y = tx.tensor([1.0, -1.0, 0.0, INF, NAN]), tx.tensor([0.0, 0.0, 0.0, 1.0, 1.0])
    whole, rest = running(lambda x, y: (x // y, x % y), mode)(x, y)
    assert whole[:2].tolist() == [INF, -INF] and whole[2:].isnan().all().item()
    assert rest.isnan().all().item()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", INTEGERS, ids=lambda d: d.name)
def test_division_of_integers(dtype: tx.DType, mode: str) -> None:
    least = INTEGERS[dtype][1]
    a, b = [7, -7, 7, -7, 5, -5, least, least], [2, 2, -2, -2, 0, 0, -1, 1]
    x, y = (tx.tensor(v, dtype=dtype) for v in (a, b))
    whole, rest, size = running(lambda x, y: (x // y, x % y, abs(x)), mode)(x, y)
    assert whole.tolist() == [3, -4, -4, 3, 0, 0, least, least]
    assert rest.tolist() == [1, 1, -1, -1, 0, 0, 0, 0]
    assert size.tolist()[-1] == least


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", INTEGERS, ids=lambda d: d.name)
def test_negative_powers_of_integers(dtype: tx.DType, mode: str) -> None:
    """1 / x^p cut towards 0, as PyTorch has it for Tensors: nothing is raised."""
    base, power = [3, 2, 1, -1, -1, 0, 3, -2], [-2, -1, -5, -1, -2, -1, 3, 3]
    x, p = (tx.tensor(v, dtype=dtype) for v in (base, power))
    assert running(lambda x, p: x**p, mode)(x, p).tolist() == [0, 0, 1, -1, 1, 0, 27, -8]
    assert running(lambda x: x**-2, mode)(x).tolist() == [0, 0, 1, 1, 1, 0, 0, 0]
    assert running(lambda x: 2**x, mode)(x).tolist() == [8, 4, 2, 0, 0, 1, 8, 0]


# C, annex F.10.4.4: (x, y, x^y)
POWERS = [
    *[(z, -3.0, math.copysign(INF, z)) for z in (0.0, -0.0)],
    *[(z, p, INF) for z in (0.0, -0.0) for p in (-2.0, -0.5, -INF)],
    *[(z, 3.0, z) for z in (0.0, -0.0)],
    *[(z, p, 0.0) for z in (0.0, -0.0) for p in (2.0, 0.5, INF)],
    *[(-1.0, p, 1.0) for p in (INF, -INF)],
    *[(1.0, p, 1.0) for p in (NAN, INF, -3.0, 0.5)],
    *[(x, z, 1.0) for x in (NAN, INF, -INF, -2.0, 0.0) for z in (0.0, -0.0)],
    *[(-2.0, p, NAN) for p in (0.5, -0.5, 1.5)],
    *[(x, -INF, INF) for x in (0.5, -0.5)],
    *[(x, -INF, 0.0) for x in (2.0, -2.0, INF, -INF)],
    *[(x, INF, 0.0) for x in (0.5, -0.5)],
    *[(x, INF, INF) for x in (2.0, -2.0, INF, -INF)],
    *[(-INF, p, v) for p, v in ((-3.0, -0.0), (-2.0, 0.0), (-0.5, 0.0), (3.0, -INF), (2.0, INF))],
    (-INF, 0.5, INF),
    *[(INF, p, v) for p, v in ((-2.0, 0.0), (-0.5, 0.0), (0.5, INF), (3.0, INF))],
    *[(NAN, p, NAN) for p in (1.0, -1.0, 0.5)],
    *[(x, NAN, NAN) for x in (0.0, 2.0, -1.0)],
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.name)
def test_powers_are_those_of_c(dtype: tx.DType, mode: str) -> None:
    x, p, want = (np.array(column).astype(dtype.np) for column in zip(*POWERS, strict=True))
    got = running(lambda x, p: x**p, mode)(tx.tensor(x), tx.tensor(p))
    assert_equal("add", got, tx.tensor(want), (tx.tensor(x), tx.tensor(p)))
    for number in {c[1] for c in POWERS if not math.isnan(c[1])}:  # known to the compiler
        at = p.astype(float) == number
        got = running(lambda x, number=number: x**number, mode)(tx.tensor(x[at]))
        assert_equal("add", got, tx.tensor(want[at]), (tx.tensor(x[at]),))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.name)
def test_floats_that_no_integer_is(dtype: tx.DType, mode: str) -> None:
    x = tx.tensor([NAN, -NAN, INF, -INF, 1e4 * 2**20, -1e4 * 2**20, -0.5, 2.9]).to(dtype)
    small, large = running(lambda x: (x.int(), x.long()), mode)(x)
    most, least = 2**31 - 1, -(2**31)
    assert small.tolist() == [0, 0, most, least, most, least, 0, 2]
    exact = x[4].item()
    wide = int(exact) if math.isfinite(exact) else 2**63 - 1
    assert large.tolist()[:4] == [0, 0, 2**63 - 1, -(2**63)]
    assert large.tolist()[4:] == [wide, -wide if wide < 2**63 - 1 else -(2**63), 0, 2]
    edge = tx.tensor([2.0**31, 2.0**31 - 128, -(2.0**31), 2.0**63, -(2.0**63)])
    small, large = running(lambda x: (x.int(), x.long()), mode)(edge)
    assert small.tolist() == [most, 2**31 - 128, least, most, least]
    assert large.tolist() == [2**31, 2**31 - 128, least, 2**63 - 1, -(2**63)]


@pytest.mark.parametrize("mode", MODES)
def test_signs_of_zero(mode: str) -> None:
    x = tx.tensor([0.0, -0.0])
    negative = {
        "neg": (lambda x: -x, [True, False]),
        "abs": (abs, [False, False]),
        "sqrt": (tx.Tensor.sqrt, [False, True]),
        "floor": (tx.Tensor.floor, [False, True]),
        "times": (lambda x: x * 1, [False, True]),
        "plus": (lambda x: x + 0.0, [False, False]),
        "minus": (lambda x: x - 0.0, [False, True]),
        "mod": (lambda x: x % 3.0, [False, False]),
        "mod of a negative": (lambda x: x % -3.0, [True, True]),
        "where": (lambda x: x.where(x == 0, 1.0), [False, True]),
    }
    for name, (f, want) in negative.items():
        assert np.signbit(running(f, mode)(x).numpy()).tolist() == want, name


@pytest.mark.parametrize("mode", MODES)
def test_integers_beyond_the_floats(mode: str) -> None:
    x = tx.tensor([2**53, 2**53 + 1])
    assert running(lambda x: (x == x.flip(0), x.max(), x.argmax()), mode)(x)[0].tolist() == [
        False,
        False,
    ]
    assert running(lambda x: x.amax(), mode)(x).item() == 2**53 + 1
    assert running(lambda x: x - 2**53, mode)(x).tolist() == [0, 1]


@pytest.mark.parametrize("mode", MODES)
def test_bools_are_logic(mode: str) -> None:
    a, b = tx.tensor([True, True, False]), tx.tensor([True, False, False])
    plus, times, differs = running(lambda a, b: (a + b, a * b, a != b), mode)(a, b)
    assert plus.tolist() == [True, True, False] and times.tolist() == [True, False, False]
    assert differs.tolist() == [False, True, False]
    with pytest.raises(tx.errors.DTypeError, match="bool"):
        running(lambda a, b: a - b, mode)(a, b)
