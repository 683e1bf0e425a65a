"""The NumPy interpreter of Kernels against NumPy itself, on buffers made by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from kernel_case import Array, Program, operand, row_args
from product_case import Product

from tinygrad_tx.backends.arrays import numpy_random
from tinygrad_tx.backends.cpu.processor import Processor
from tinygrad_tx.backends.kernels import kinds as kinds_of_kernel
from tinygrad_tx.backends.kernels.describe import describe
from tinygrad_tx.backends.kernels.interpreter import run
from tinygrad_tx.backends.kernels.kinds import (
    Attention,
    AttentionGrad,
    AttentionKeyGrad,
    AttentionQueryGrad,
    CheckIndex,
    DropoutMask,
    Gemm,
    GemmEpilogue,
    Kernel,
    Matmul,
    Opaque,
    Pack,
    ScatterAdd,
)
from tinygrad_tx.backends.kernels.summation import KC

TARGETS = [Processor("avx512", 64), Processor("avx2", 32), Processor("neon", 16)]
RNG = np.random.default_rng(7)


def call(kernel: Kernel, args: list[int], target: Processor = TARGETS[0]) -> None:
    run(kernel, args, target)


def normal(*shape: int, dtype: str = "float32") -> Array:
    return RNG.standard_normal(shape).astype(dtype)


# Row programs ------------------------------------------------------------------------------------


def softmax_program(dtype: str = "float32") -> Program:
    p = Program()
    x = p.load(dtype)
    e = p.do("exp", dtype, p.do("sub", dtype, x, p.do("max", dtype, x)))
    total = p.do("sum", dtype, e)
    p.store(p.do("div", dtype, e, total))
    p.store(total, "same")
    return p


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


@pytest.mark.parametrize("columns", [1, 15, 16, 37, 1000])
def test_softmax_of_rows_in_place(columns: int) -> None:
    x, totals = normal(2, 5, columns), np.zeros((2, 5, 1), "float32")
    expected = softmax(x.astype("float64"))
    column = np.broadcast_to(totals, x.shape)
    call(softmax_program().rows(2), row_args(x.shape, [x, x, column]))
    np.testing.assert_allclose(x, expected, rtol=1e-5)
    np.testing.assert_allclose(totals * x.max(-1, keepdims=True), 1, rtol=1e-5)


def test_columns_may_be_any_axis_and_run_backwards() -> None:
    base, out = normal(6, 4, 10), np.zeros((10, 4, 6), "float32")
    x, y = base.transpose(2, 1, 0)[::-1, :, ::2], out[:, ::-1, 1:4]
    p = Program()
    p.store(p.do("neg", "float32", p.load("float32", "any")), "any")
    call(p.rows(2), row_args(x.shape, [x, y]))
    np.testing.assert_array_equal(y, -x)
    assert not out[:, :, 4:].any() and not out[:, :, 0].any()


def test_outputs_are_written_after_all_is_read() -> None:
    a, b = normal(3, 8), normal(3, 8)
    before = a.copy(), b.copy()
    p = Program()
    x, y = p.load("float32"), p.load("float32")
    p.store(y)
    p.store(x)
    call(p.rows(1), row_args(a.shape, [a, b, a, b]))
    np.testing.assert_array_equal((b, a), before)


def test_a_column_dtype_and_position_of_each_kind() -> None:
    """col, row, a constant and a bool sum: (row * 3 + col) > 4, counted."""
    domain = 2, 3, 5
    p = Program()
    n = p.do("mul", "int64", p.do("row", "int64"), p.do("const", "int64", value=3))
    above = p.do("gt", "bool", p.do("add", "int64", n, p.do("col", "int64")),
                 p.do("const", "int64", value=4))  # fmt: skip
    p.store(above)
    p.store(p.do("sum", "int64", above), "same")
    p.store(p.do("cast", "float64", above))
    mask, counts, floats = np.zeros(domain, bool), np.zeros((2, 3), "int64"), np.zeros(domain)
    args = row_args(domain, [mask, np.broadcast_to(counts[..., None], domain), floats])
    call(p.rows(2), args)
    expected = np.arange(6).reshape(2, 3, 1) * 3 + np.arange(5) > 4
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_array_equal(counts, expected.sum(-1))
    np.testing.assert_array_equal(floats, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "bool"])
@pytest.mark.parametrize("columns", [0, 1, 17])
@pytest.mark.parametrize("op", ["sum", "max", "min", "any", "all", "argmax", "argmin"])
def test_reductions(op: str, dtype: str, columns: int) -> None:
    x = (normal(4, columns) * 3).astype(dtype)
    out = {"argmax": "int64", "argmin": "int64", "any": "bool", "all": "bool"}.get(op, dtype)
    out = "int64" if (op, dtype) == ("sum", "bool") else out
    p = Program()
    p.store(p.do(op, out, p.load(dtype)), "same")
    y = np.full((4, 1), 1, out)
    call(p.rows(1), row_args(x.shape, [x, np.broadcast_to(y, (4, columns))]))
    if columns:
        np.testing.assert_allclose(y, getattr(np, op)(x, axis=1, keepdims=True), rtol=1e-5)
    elif op in ("sum", "any", "argmax", "argmin"):
        assert not y.any()
    elif op == "all":
        assert y.all()
    elif dtype.startswith("float"):
        assert np.all(y == (-np.inf if op == "max" else np.inf))


def test_a_row_value_is_summed_once_for_each_column() -> None:
    x, y = normal(4, 1), np.zeros((4, 1), "float32")
    p = Program()
    p.store(p.do("sum", "float32", p.load("float32", "same")), "same")
    call(p.rows(1), row_args((4, 7), [np.broadcast_to(a, (4, 7)) for a in (x, y)]))
    np.testing.assert_allclose(y, 7 * x, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_sum_does_not_see_zeros_at_its_end(dtype: str) -> None:
    long = normal(3, 40, dtype=dtype)
    long[:, 21:] = 0
    p = Program()
    p.store(p.do("sum", dtype, p.load(dtype)), "same")
    sums = np.zeros((2, 3, 1), dtype)
    for columns, out in ((21, sums[0]), (40, sums[1])):
        x = long[:, :columns]
        call(p.rows(1), row_args(x.shape, [x, np.broadcast_to(out, x.shape)]))
    np.testing.assert_array_equal(sums[0], sums[1])


def test_nan_and_infinity() -> None:
    x = np.array([[1, np.nan, 3], [-np.inf, -np.inf, -np.inf], [np.inf, 1, -np.inf]], "float32")
    largest, place, sums = (np.zeros((3, 1), d) for d in ("float32", "int64", "float32"))
    p = Program()
    v = p.load("float32")
    p.store(p.do("max", "float32", v), "same")
    p.store(p.do("argmax", "int64", v), "same")
    p.store(p.do("sum", "float32", v), "same")
    p.store(p.do("maximum", "float32", v, p.do("const", "float32", value=2)))
    y = np.zeros_like(x)
    outs = [np.broadcast_to(a, x.shape) for a in (largest, place, sums)]
    call(p.rows(1), row_args(x.shape, [x, *outs, y]))
    np.testing.assert_array_equal(largest[:, 0], [np.nan, -np.inf, np.inf])
    np.testing.assert_array_equal(place[:, 0], [1, 0, 0])
    np.testing.assert_array_equal(sums[:, 0], [np.nan, -np.inf, np.nan])
    np.testing.assert_array_equal(y, np.maximum(x, 2))


def test_no_rows_and_no_columns() -> None:
    empty, totals = np.zeros((4, 0), "float32"), np.full((4, 1), 9, "float32")
    out = np.broadcast_to(totals, (4, 0))
    call(softmax_program().rows(1), row_args((0, 3), [np.zeros((0, 3), "float32")] * 2 + [out]))
    assert (totals == 9).all()
    call(softmax_program().rows(1), row_args((4, 0), [empty, empty, out]))
    assert (totals == 0).all()


def test_gather_reads_the_rows_it_is_given() -> None:
    table = normal(9, 12)[:, ::2]
    index = np.array([[8, 0, 3], [3, 3, 7]])
    out = np.zeros((2, 3, 6), "float32")
    p = Program()
    rows = p.load("int64", "same")
    p.store(p.do("copy", "float32", p.gather("float32", rows, "any")))
    indices = np.broadcast_to(index[..., None], out.shape)
    args = [*row_args(out.shape, [indices]), table.ctypes.data, 12, 0, 2, *operand(out)]
    call(p.rows(2), args)
    np.testing.assert_array_equal(out, table[index])


def test_gather_with_an_index_for_each_element() -> None:
    """take_along_axis: the table seen as one with a row for each element."""
    table, index = normal(40), RNG.integers(5, 40, (3, 4))
    out = np.zeros((3, 4), "float32")
    p = Program()
    p.store(p.gather("float32", p.load("int64"), "same"))
    call(p.rows(1), [*row_args(out.shape, [index]), *operand(table), 0, *operand(out)])
    np.testing.assert_array_equal(out, table[index])


def test_an_output_at_a_position() -> None:
    cache, new, position = normal(2, 10, 4), normal(2, 3, 4), np.array(5)
    expected = cache.copy()
    expected[:, 5:8] = new
    p = Program()
    p.load("int64", "same")
    p.store(p.load("float32"), at=0)
    args = row_args(new.shape, [np.broadcast_to(position, new.shape), new])
    call(p.rows(2), [*args, *operand(cache), 4])
    np.testing.assert_array_equal(cache, expected)


SCALAR: list[tuple[str, Any]] = [
    ("add", np.add), ("sub", np.subtract), ("mul", np.multiply), ("div", np.divide),
    ("floor_divide", np.floor_divide), ("remainder", np.remainder), ("pow", np.power),
    ("minimum", np.minimum), ("maximum", np.maximum), ("neg", np.negative), ("abs", np.abs),
    ("sign", np.sign), ("floor", np.floor), ("sqrt", np.sqrt), ("exp", np.exp), ("log", np.log),
    ("log1p", np.log1p), ("expm1", np.expm1), ("tanh", np.tanh), ("sin", np.sin), ("cos", np.cos),
    ("erf", np.vectorize(math.erf)), ("copy", np.positive), ("eq", np.equal), ("ne", np.not_equal),
    ("lt", np.less), ("le", np.less_equal), ("gt", np.greater), ("ge", np.greater_equal),
    ("isnan", np.isnan), ("isinf", np.isinf), ("isfinite", np.isfinite),
]  # fmt: skip
TESTS = ("eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "isfinite")
BINARY = ("add", "sub", "mul", "div", "floor_divide", "remainder", "pow", "minimum", "maximum")


def apply(op: str, dtype: str, out: str, *arrays: Array) -> Array:
    p = Program()
    p.store(p.do(op, out, *(p.load(str(a.dtype)) for a in arrays)))
    result = np.zeros(arrays[0].shape, out)
    call(p.rows(1), row_args(result.shape, [*arrays, result]))
    return result


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op, reference", SCALAR, ids=[op for op, _ in SCALAR])
def test_scalar_functions(op: str, reference: Any, dtype: str) -> None:
    special = np.array([0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 2.5], dtype)
    x, y = (np.ascontiguousarray(a) for a in np.broadcast_arrays(special[:, None], special))
    arrays = (x, y) if op in BINARY or op in TESTS[:6] else (x,)
    with np.errstate(all="ignore"):
        expected = reference(*(a.astype("float64") for a in arrays))
    result = apply(op, dtype, "bool" if op in TESTS else dtype, *arrays)
    np.testing.assert_allclose(result, expected, rtol=2e-6 if dtype == "float32" else 1e-14)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_integers(dtype: str) -> None:
    x, y = (
        np.array([[7, -7, 7, 0, 5, 1, -1, -1]], dtype),
        np.array([[2, 2, -2, 0, 0, -3, -3, -2]], dtype),
    )
    for op, expected in {
        "floor_divide": [3, -4, -4, 0, 0, -1, 0, 0],
        "remainder": [1, 1, -1, 0, 0, -2, -1, -1],
        "pow": [49, 49, 0, 1, 1, 1, -1, 1],
    }.items():
        np.testing.assert_array_equal(apply(op, dtype, dtype, x, y)[0], expected, err_msg=op)
    largest = np.full((1, 1), np.iinfo(dtype).max, dtype)
    assert apply("add", dtype, dtype, largest, np.ones_like(largest)) == np.iinfo(dtype).min


def test_logic_where_and_casts() -> None:
    a, b = np.array([[0, 0, 1, 1]], bool), np.array([[0, 1, 0, 1]], bool)
    for op, expected in (("and", a & b), ("or", a | b), ("xor", a ^ b)):
        np.testing.assert_array_equal(apply(op, "bool", "bool", a, b), expected)
    np.testing.assert_array_equal(apply("not", "bool", "bool", a), ~a)
    x = np.array([[-1.7, 0, 2.7, 1e6]])
    np.testing.assert_array_equal(
        apply("where", "float64", "float64", a, x, -x), np.where(a, x, -x)
    )
    np.testing.assert_array_equal(apply("cast", "float64", "int32", x), [[-1, 0, 2, 1000000]])
    np.testing.assert_array_equal(apply("cast", "float64", "bool", x), [[1, 0, 1, 1]])


# Reductions along rows ---------------------------------------------------------------------------


@pytest.mark.parametrize("rows_each, columns_each", [(1, 64), (4, 5), (100, 7)])
def test_columns_are_summed_in_chunks(rows_each: int, columns_each: int) -> None:
    x, g = normal(2, 7, 13), normal(2, 7, 1)
    chunks = -(-14 // rows_each)
    p = Program()
    product = p.do("mul", "float32", p.load("float32"), p.load("float32", "same"))
    p.store(p.do("sum", "float32", product))
    p.store(p.do("max", "float32", product), "any")
    sums, largest = np.zeros((chunks, 13), "float32"), np.zeros((13, chunks), "float32").T
    args = [2, 7, 13, rows_each, columns_each]
    for array in (x, np.broadcast_to(g, x.shape), sums, largest):
        args += operand(array)
    call(p.columns(2), args)
    products = (x * g).reshape(14, 13)
    for i in range(chunks):
        part = products[i * rows_each : (i + 1) * rows_each]
        np.testing.assert_allclose(sums[i], part.sum(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(largest[i], part.max(0))


def test_columns_count_what_is_true() -> None:
    x, counts = RNG.random((9, 4)) < 0.5, np.zeros((1, 4), "int64")
    p = Program()
    p.store(p.do("sum", "int64", p.load("bool")))
    call(p.columns(1), [9, 4, 9, 4, *operand(x), *operand(counts)])
    np.testing.assert_array_equal(counts[0], x.sum(0))


# Matrix products ---------------------------------------------------------------------------------


def packed_by_hand(b: Array, width: int) -> Array:
    """Blocks of KC rows, in them panels of `width` columns, in them rows."""
    k, n = b.shape
    padded = np.zeros((k, -(-n // width) * width), b.dtype)
    padded[:, :n] = b
    blocks = [padded[i : i + KC] for i in range(0, k, KC)]
    panels = [block[:, j : j + width] for block in blocks for j in range(0, padded.shape[1], width)]
    return np.concatenate([panel.ravel() for panel in panels])


@pytest.mark.parametrize(
    "gemm",
    [
        *(Gemm(dtype) for dtype in ("float64", "float32", "float16", "bfloat16")),
        Gemm("float32", tf32=True),
        Gemm("bfloat16", True, "float32"),
    ],
)
def test_gemm(gemm: Gemm) -> None:
    product = Product.of(gemm, (2, 3, 5, 7, 300), a={"turned": True}, b={"step": 2}, c={"pad": 2})
    before = np.array(product.c)
    call(gemm, product.words)
    product.require_close(before)


@pytest.mark.parametrize("target", TARGETS, ids=[t.name for t in TARGETS])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("m, n, k", [(1, 1, 1), (5, 70, 300), (3, 32, 512), (4, 33, 0), (0, 8, 4)])
def test_matmul_of_a_packed_matrix(m: int, n: int, k: int, dtype: str, target: Processor) -> None:
    width = target.tile(dtype)[1]
    a, b = normal(2, 3, k, m, dtype=dtype).swapaxes(-1, -2), normal(2, n, k, dtype=dtype)
    b = b.swapaxes(-1, -2)  # (2, k, n), shared by the second batch axis
    size = k * -(-n // width) * width
    packed = np.full((2, size), np.nan, dtype)
    call(
        Pack(dtype, width),
        [2, 1, k, n, 2, b.ctypes.data, *operand(b[:, None])[1:], packed.ctypes.data, size, 0],
        target,
    )
    for i in range(2 if k else 0):
        np.testing.assert_array_equal(packed[i], packed_by_hand(b[i], width))
    wide = np.full((2, 3, m, n + 5), 9, dtype)
    c = wide[..., :n]
    args = [2, 3, m, n, k, 8, width, *operand(a), packed.ctypes.data, size, 0, *operand(c, 3)]
    exact = a.astype("float64") @ b[:, None].astype("float64")
    for accumulate in (False, True):
        call(Matmul(dtype, accumulate), args, target)
        tolerance = 1e-4 if dtype == "float32" else 1e-12
        np.testing.assert_allclose(c, exact * (1 + accumulate), rtol=tolerance, atol=tolerance)
    assert (wide[..., n:] == 9).all()


# Attention ---------------------------------------------------------------------------------------


def exact_weights(q: Array, k: Array, mask: Array | None, scale: float, causal: bool) -> Array:
    """In float64, row by row."""
    p = np.zeros((*q.shape[:-1], k.shape[-2]))
    for place in np.ndindex(q.shape[:-1]):
        b, h, t = place
        s = scale * (k[b, h].astype("float64") @ q[place].astype("float64"))
        keys = np.arange(len(s)) <= (t if causal else len(s))
        if mask is not None and mask.dtype == bool:
            keys &= mask[place]
        elif mask is not None:
            s = s + mask[place]
        if keys.any():
            e = np.exp(s[keys] - s[keys].max())
            p[place][keys] = e / e.sum()
    return p


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", ["none", "bool", "float"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_attention_and_its_gradients(dtype: str, mask: str, causal: bool) -> None:
    b, h, t, s, d_k, d_v, scale = 2, 3, 5, 7, 4, 6, 0.5
    # As a model has them: (b, length, h, width) in memory, seen as (b, h, length, width).
    q, k, v, g = (
        normal(b, length, h, width, dtype=dtype).swapaxes(1, 2)
        for length, width in ((t, d_k), (s, d_k), (s, d_v), (t, d_v))
    )
    given: Array | None = None
    if mask == "bool":
        given = RNG.random((b, 1, t, s)) < 0.5
        given[0, 0, 2] = False
    elif mask == "float":
        given = normal(1, 1, t, s, dtype=dtype)
    shown = None if given is None else np.broadcast_to(given, (b, h, t, s))
    p = exact_weights(q, k, shown, scale, causal)
    close = {"rtol": 1e-4, "atol": 1e-5} if dtype == "float32" else {"rtol": 1e-10, "atol": 1e-12}
    last = [] if shown is None else operand(shown)

    out = np.zeros_like(g)
    args = [b, h, t, s, d_k, d_v, 1]
    for array in (q, k, v):
        args += operand(array)
    call(Attention(dtype, scale, mask, causal), [*args, *operand(out), *last])
    np.testing.assert_allclose(out, p @ v, **close)
    if mask == "bool":
        assert not out[0, :, 2].any()

    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    for array in (g, dq, dk, dv):
        args += operand(array)
    call(AttentionGrad(dtype, scale, mask, causal), [*args, *last])
    dp = g.astype("float64") @ v.swapaxes(-1, -2)
    ds = scale * p * (dp - (dp * p).sum(-1, keepdims=True))
    np.testing.assert_allclose(dv, p.swapaxes(-1, -2) @ g, **close)
    np.testing.assert_allclose(dq, ds @ k, **close)
    np.testing.assert_allclose(dk, ds.swapaxes(-1, -2) @ q, **close)


def test_an_additive_mask_of_minus_infinity_makes_nan() -> None:
    q = normal(1, 1, 2, 4)
    mask, out = np.zeros((1, 1, 2, 2), "float32"), np.zeros_like(q)
    mask[..., 0, :] = -np.inf
    args = [1, 1, 2, 2, 4, 4, 1, *operand(q) * 3, *operand(out), *operand(mask)]
    call(Attention("float32", 1.0, "float", False), args)
    assert np.isnan(out[0, 0, 0]).all() and np.isfinite(out[0, 0, 1]).all()


# Moves -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.0, 0.1, 1.0])
def test_keep_is_the_mask_of_eager_dropout(p: float) -> None:
    key, stream = np.array(-5), np.array(2**40 + 3)
    mask = np.full(1001, 7, np.uint8)
    kernel = DropoutMask(numpy_random.keep_threshold(p))
    call(kernel, [1000, 64, key.ctypes.data, stream.ctypes.data, mask.ctypes.data])
    expected = numpy_random.bernoulli_keep(-5, 2**40 + 3, p, (1000,))
    np.testing.assert_array_equal(mask[:1000], expected)
    assert mask[1000] == 7


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_index_reports_the_first_that_is_outside(dtype: str) -> None:
    given = np.array([3, 99, -100, 99, 0, 99, 4, 99], dtype)[::2]
    for wrap, skip, expected, report in (
        (False, False, [3, 0, 0, 4], [1, -100]),
        (False, True, [3, 0, 0, 4], [0, 0]),
        (True, True, [3, 0, 0, 4], [0, 0]),
    ):
        out, found = np.full(4, 77), np.zeros(2, "int64")
        args = [4, 2, 5, -100, *operand(given), out.ctypes.data, found.ctypes.data]
        call(CheckIndex(dtype, wrap, skip), args)
        np.testing.assert_array_equal(out, expected)
        np.testing.assert_array_equal(found, report)


def test_index_wraps_and_names_the_index_as_given() -> None:
    given, out, found = np.array([-1, -5, 5, -6]), np.zeros(4, "int64"), np.zeros(2, "int64")
    args = [4, 4, 5, 0, *operand(given), out.ctypes.data, found.ctypes.data]
    call(CheckIndex("int64", True), args)
    np.testing.assert_array_equal(out[:2], [4, 0])
    np.testing.assert_array_equal(found, [1, 5])


def test_scatter_add_adds_in_order() -> None:
    index = np.array([4, 0, 4, 4])
    value = np.array([[1e8, 1], [2, 3], [-1e8, 1], [1, 1]], "float32")
    wide = np.zeros((6, 5), "float32")
    out = wide[:, 1:3]
    args = [4, 2, 1, index.ctypes.data, *operand(value, 1), *operand(out, 1)]
    call(ScatterAdd("float32"), args)
    expected = np.zeros((6, 5), "float32")
    expected[0, 1:3], expected[4, 1:3] = [2, 3], [1, 3]
    np.testing.assert_array_equal(wide, expected)
    call(ScatterAdd("float32"), [0, *args[1:]])
    np.testing.assert_array_equal(wide, expected)


def test_an_opaque_call_is_not_the_interpreters() -> None:
    with pytest.raises(TypeError, match="Opaque"):
        call(Opaque("sort"), [])


# Listings ----------------------------------------------------------------------------------------


def test_the_listing_of_a_row_program() -> None:
    assert describe(softmax_program().rows(1)).splitlines() == [
        "rows over 1 outer axes of float32 unit",
        "for each row:",
        "    for each column:",
        "        %0 float32 = load input 0",
        "        %1 float32 = max %0",
        "    for each column:",
        "        %2 float32 = sub %0 %1",
        "        %3 float32 = exp %2",
        "        %4 float32 = sum %3",
        "    store %4 -> output 1",
        "    for each column:",
        "        %5 float32 = div %3 %4",
        "        store %5 -> output 0",
    ]


def test_the_listing_of_reductions_along_rows_and_of_a_position() -> None:
    p = Program()
    p.load("int64", "same")
    half = p.do("const", "float32", value=0.5)
    p.store(p.do("sum", "float32", p.do("mul", "float32", p.load("float32"), half)))
    assert describe(p.columns(2)).splitlines()[1:] == [
        "for each column:",
        "    for each row:",
        "        %0 int64 = load input 0",
        "        %1 float32 = const 0.5",
        "        %2 float32 = load input 1",
        "        %3 float32 = mul %2 %1",
        "        %4 float32 = sum %3",
        "    store %4 -> output 0",
    ]
    p.outputs.clear()
    p.store(3, at=0)
    assert "        store %3 -> output 0 at input 0" in describe(p.rows(1)).splitlines()


def test_every_other_kind_has_a_line() -> None:
    copy = Program()
    copy.store(copy.load("bfloat16"))
    rides = copy.rows(1)
    kernels = {
        Pack("float32", 32): "pack float32: b in panels of 32 columns",
        Matmul("float64", True): "matmul float64: c += a @ packed b",
        Gemm("float32", c="float64"): "gemm float32: c in float64 = a @ b",
        Gemm("float32", True, tf32=True): "gemm float32 as tf32: c += a @ b",
        GemmEpilogue(Gemm("bfloat16"), rides, 0, keep=True): "\n".join(
            (
                "gemm bfloat16: c = a @ b; of c, which is kept, input 0 of",
                *describe(rides).splitlines(),
            )
        ),
        Attention("float32", 0.125, "bool", True): (
            "attention float32: out = softmax(0.125 q k^T where mask and key <= query) @ v"
        ),
        AttentionGrad("float32", 0.5, "float", False): (
            "attention_grad float32: dq, dk, dv of softmax(0.5 q k^T + mask) @ v"
        ),
        Attention("float32", 1.0, "none", False, "bfloat16", statistics=True, dropout=0.5): (
            "attention float32 (in bfloat16): out, statistics = dropout(softmax(1 q k^T), 0.5) @ v"
        ),
        AttentionQueryGrad("float32", 1.0, "bounds", False): (
            "attention_query_grad float32: dq of softmax(1 q k^T where first <= key < end) @ v"
        ),
        AttentionKeyGrad("float32", 1.0, "none", True, dropout=0.5): (
            "attention_key_grad float32: dk, dv of "
            "dropout(softmax(1 q k^T where key <= query), 0.5) @ v"
        ),
        DropoutMask(5): "keep: philox >> 8 >= 5",
        CheckIndex("int32", True): "index int32: checked, negative ones from the end",
        ScatterAdd("float32"): "scatter_add float32: out[index[i]] += value[i]",
        Opaque("sort"): "opaque: sort",
    }
    for kernel, line in kernels.items():
        assert describe(kernel) == line


def test_users_see_words_not_classes() -> None:
    """explain() and TX_DEBUG print them: they stay when a class is renamed."""
    words = (
        "rows columns pack matmul gemm gemm+ attention attentiongrad attentionquerygrad "
        "attentionkeygrad keep index scatteradd opaque loop"
    )
    kinds = [kind for kind in vars(kinds_of_kernel).values() if isinstance(kind, type)]
    assert [kind.word for kind in kinds if "word" in vars(kind)] == words.split()
