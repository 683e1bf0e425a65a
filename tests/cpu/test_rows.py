"""Row programs and column reductions in native code, against NumPy in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

pytest.importorskip("llvmlite")
from kernel_case import Array, Program, operand, row_args
from native_case import host, run, targets

from tinygrad_tx.backends.cpu.processor import Processor
from tinygrad_tx.backends.kernels.instructions import REDUCTIONS
from tinygrad_tx.backends.kernels.kinds import RowProgram
from tinygrad_tx.backends.llvm import loops

WIDTHS = (1, 7, 15, 16, 17, 63, 64, 65, 1000)


def normal(seed: int, *shape: int, dtype: str = "float32") -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def call(
    kernel: RowProgram,
    domain: Sequence[int],
    arrays: Sequence[Array],
    target: Processor | None = None,
    rows_per_task: int = 3,
) -> None:
    """Run a kernel on arrays that are broadcast to the domain."""
    views = [x if x.ndim == 0 else np.broadcast_to(x, domain) for x in arrays]
    run(kernel, row_args(domain, views, rows_per_task), target)


# Programs ----------------------------------------------------------------------------------------


def softmax(column: str = "unit", log: bool = False) -> RowProgram:
    p = Program()
    x = p.load("float32", column)
    shifted = p.do("sub", "float32", x, p.do("max", "float32", x))
    e = p.do("exp", "float32", shifted)
    total = p.do("sum", "float32", e)
    if log:
        y = p.do("sub", "float32", shifted, p.do("log", "float32", total))
    else:
        y = p.do("div", "float32", e, total)
    p.store(y, column)
    return p.rows(1)


def softmax_reference(x: Array, log: bool = False) -> Array:
    shifted = x.astype(np.float64) - x.max(-1, keepdims=True)
    total = np.exp(shifted).sum(-1, keepdims=True)
    return shifted - np.log(total) if log else np.exp(shifted) / total


def moments(p: Program, x: int, width: int) -> tuple[int, int]:
    """Centered x and 1 / deviation."""
    scale = p.do("const", "float32", value=1 / width)
    mean = p.do("mul", "float32", p.do("sum", "float32", x), scale)
    centered = p.do("sub", "float32", x, mean)
    square = p.do("mul", "float32", centered, centered)
    variance = p.do("mul", "float32", p.do("sum", "float32", square), scale)
    eps = p.do("const", "float32", value=1e-5)
    deviation = p.do("sqrt", "float32", p.do("add", "float32", variance, eps))
    one = p.do("const", "float32", value=1.0)
    return centered, p.do("div", "float32", one, deviation)


def layer_norm(width: int) -> RowProgram:
    p = Program()
    x, w, bias = p.load("float32"), p.load("float32"), p.load("float32")
    centered, rstd = moments(p, x, width)
    normed = p.do("mul", "float32", centered, rstd)
    p.store(p.do("add", "float32", p.do("mul", "float32", normed, w), bias))
    p.store(rstd, "same")
    return p.rows(1)


def layer_norm_grad(width: int) -> RowProgram:
    """The gradient by x, and x normed."""
    p = Program()
    x, w, g = p.load("float32"), p.load("float32"), p.load("float32")
    centered, rstd = moments(p, x, width)
    scale = p.do("const", "float32", value=1 / width)
    normed = p.do("mul", "float32", centered, rstd)
    gw = p.do("mul", "float32", g, w)
    one = p.do("mul", "float32", p.do("sum", "float32", gw), scale)
    product = p.do("mul", "float32", gw, normed)
    two = p.do("mul", "float32", p.do("sum", "float32", product), scale)
    inner = p.do("sub", "float32", gw, one)
    inner = p.do("sub", "float32", inner, p.do("mul", "float32", normed, two))
    p.store(p.do("mul", "float32", inner, rstd))
    p.store(normed)
    return p.rows(1)


def cross_entropy() -> RowProgram:
    """The loss of each row, and the gradient of its logits."""
    p = Program()
    x, target, scale = p.load("float32"), p.load("int64", "same"), p.load("float32", "same")
    shifted = p.do("sub", "float32", x, p.do("max", "float32", x))
    e = p.do("exp", "float32", shifted)
    total = p.do("sum", "float32", e)
    hit = p.do("eq", "bool", p.do("col", "int64"), target)
    zero, one = (p.do("const", "float32", value=v) for v in (0.0, 1.0))
    picked = p.do("sum", "float32", p.do("where", "float32", hit, shifted, zero))
    loss = p.do("sub", "float32", p.do("log", "float32", total), picked)
    grad = p.do(
        "sub", "float32", p.do("div", "float32", e, total), p.do("where", "float32", hit, one, zero)
    )
    p.store(loss, "same")
    p.store(p.do("mul", "float32", grad, scale))
    return p.rows(1)


def adam() -> RowProgram:
    """Parameter and moments, updated in place; the step size is one number."""
    p = Program()
    w, m, v, g = (p.load("float32") for _ in range(4))
    rate = p.load("float32", "same")

    def mixed(old: int, new: int, beta: float) -> int:
        kept = p.do("mul", "float32", old, p.do("const", "float32", value=beta))
        added = p.do("mul", "float32", new, p.do("const", "float32", value=1 - beta))
        return p.do("add", "float32", kept, added)

    m = mixed(m, g, 0.9)
    v = mixed(v, p.do("mul", "float32", g, g), 0.98)
    eps = p.do("const", "float32", value=1e-9)
    root = p.do("add", "float32", p.do("sqrt", "float32", v), eps)
    step = p.do("div", "float32", p.do("mul", "float32", m, rate), root)
    for value in (p.do("sub", "float32", w, step), m, v):
        p.store(value)
    return p.rows(1)


# Whole programs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("width", WIDTHS)
def test_softmax(width: int) -> None:
    x = normal(width, 7, width) * 5
    if width > 1:
        x[0, width // 2 :] = -np.inf
    x[1, -1] = 800
    for log in (False, True):
        wanted = softmax_reference(x, log)
        for target in targets():
            y = np.empty_like(x)
            call(softmax(log=log), x.shape, [x, y], target)
            np.testing.assert_allclose(y, wanted, rtol=5e-6, atol=1e-6)
        apart, inside = np.empty_like(x), x.copy()
        call(softmax(log=log), x.shape, [x, apart])
        call(softmax(log=log), x.shape, [inside, inside])
        np.testing.assert_array_equal(inside, apart)


def test_special_rows_of_a_softmax() -> None:
    x = np.zeros((3, 40), np.float32)
    x[0] = -np.inf
    x[1, 3] = np.nan
    y = np.empty_like(x)
    call(softmax(), x.shape, [x, y])
    assert np.isnan(y[:2]).all()
    np.testing.assert_array_equal(y[2], np.float32(1 / 40))


@pytest.mark.parametrize("width", [1, 17, 64, 300])
def test_layer_norm(width: int) -> None:
    x, w, bias = normal(1, 9, width) + 3, normal(2, width), normal(3, width)
    for target in targets():
        y, rstd = np.empty_like(x), np.empty((9, 1), np.float32)
        call(layer_norm(width), x.shape, [x, w, bias, y, rstd], target)
        deep = x.astype(np.float64)
        scale = 1 / np.sqrt(deep.var(-1, keepdims=True) + 1e-5)
        wanted = (deep - deep.mean(-1, keepdims=True)) * scale * w + bias
        np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=2e-5)
        np.testing.assert_allclose(rstd, scale, rtol=1e-5)


@pytest.mark.parametrize("width", [17, 64, 300])
def test_layer_norm_grad(width: int) -> None:
    x, w, g = normal(1, 5, width) * 2, normal(2, width), normal(3, 5, width)
    deep = x.astype(np.float64)
    rstd = 1 / np.sqrt(deep.var(-1, keepdims=True) + 1e-5)
    normed = (deep - deep.mean(-1, keepdims=True)) * rstd
    gw = g * w.astype(np.float64)
    inner = gw - gw.mean(-1, keepdims=True) - normed * (gw * normed).mean(-1, keepdims=True)
    dx, kept = np.empty_like(x), x  # the second output lies where x lies
    call(layer_norm_grad(width), x.shape, [x, w, g, dx, kept])
    np.testing.assert_allclose(dx, inner * rstd, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(kept, normed, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("width", [5, 64, 1000])
def test_cross_entropy(width: int) -> None:
    x = normal(1, 6, width) * 3
    target = np.array([0, width - 1, 2, 1, 3, -100])[:, None]
    scale = np.full((), 0.25, np.float32)
    loss = np.empty((6, 1), np.float32)
    logs = softmax_reference(x, log=True)
    hits = np.arange(width) == target
    grad = (np.exp(logs) - hits) * 0.25
    wanted = np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True))
    wanted[:5] = -logs[np.arange(5), target[:5, 0]][:, None]
    for target_machine in targets():
        y = x.copy()
        scales = np.broadcast_to(scale, (6, 1))
        call(cross_entropy(), x.shape, [y, target, scales, loss, y], target_machine)
        np.testing.assert_allclose(y, grad, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(loss, wanted, rtol=1e-5, atol=1e-6)


def test_adam_in_place() -> None:
    shape = 5, 333
    w, m, v, g = normal(1, *shape), normal(2, *shape), normal(3, *shape) ** 2, normal(4, *shape)
    rate = np.broadcast_to(np.float32(0.01), (5, 1))
    wanted_m = 0.9 * m.astype(np.float64) + 0.1 * g
    wanted_v = 0.98 * v.astype(np.float64) + 0.02 * g.astype(np.float64) ** 2
    wanted_w = w - 0.01 * wanted_m / (np.sqrt(wanted_v) + 1e-9)
    call(adam(), shape, [w, m, v, g, rate, w, m, v])
    for found, wanted in ((w, wanted_w), (m, wanted_m), (v, wanted_v)):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


# Reductions --------------------------------------------------------------------------------------

REDUCERS: dict[str, Callable[..., Array]] = {op: getattr(np, op) for op in REDUCTIONS}


@pytest.mark.parametrize("width", WIDTHS)
def test_reductions(width: int) -> None:
    rng = np.random.default_rng(width)
    for dtype in ("float32", "float64", "int32", "int64", "bool"):
        x = (
            rng.integers(-9, 9, (6, width))
            if dtype != "bool"
            else rng.random((6, width)) < 1 / width
        ).astype(dtype)
        if x.dtype.kind == "f":
            x[0, rng.integers(width)] = np.nan
            x[1], x[2] = -np.inf, np.inf
        for op in REDUCTIONS:
            result = {"any": "bool", "all": "bool"}.get(op, "int64")
            if op in ("max", "min") or (op == "sum" and x.dtype.kind == "f"):
                result = dtype
            program = Program()
            given = program.load(dtype)
            program.store(program.do(op, result, given), "same")
            out = np.empty((6, 1), result)
            for target in targets()[:2]:
                call(program.rows(1), x.shape, [x, out], target)
                wanted = REDUCERS[op](x, axis=-1, keepdims=True)
                np.testing.assert_array_equal(out, wanted, err_msg=f"{op} {dtype}")


def test_reductions_of_no_columns() -> None:
    empty = np.empty((3, 0), np.float32)
    for op, wanted in (("sum", 0), ("max", -np.inf), ("min", np.inf)):
        program = Program()
        program.store(program.do(op, "float32", program.load("float32")), "same")
        out = np.ones((3, 1), np.float32)
        call(program.rows(1), (3, 0), [empty, out])
        np.testing.assert_array_equal(out, np.full((3, 1), wanted))


def test_a_reduction_of_one_value_for_the_row() -> None:
    program = Program()
    one = program.load("float32", "same")
    program.store(program.do("sum", "float32", one), "same")
    x, out = np.array([[1.5], [2]], np.float32), np.empty((2, 1), np.float32)
    call(program.rows(1), (2, 37), [x, out])
    np.testing.assert_array_equal(out, x * 37)


@pytest.mark.parametrize("width", [24, 63, 200])
def test_padding_changes_no_bit(width: int) -> None:
    padded = width + 40
    x = normal(5, 64, width) * 4
    wide = np.full((64, padded), -np.inf, np.float32)
    wide[:, :width] = x
    narrow = np.empty_like(x)
    call(softmax(), x.shape, [x, narrow])
    call(softmax(), wide.shape, [wide, wide])
    np.testing.assert_array_equal(wide[:, :width], narrow)
    assert not wide[:, width:].any()


def test_the_cut_into_tasks_changes_no_bit() -> None:
    x = normal(6, 20, 100)
    results = [np.empty_like(x) for _ in range(3)]
    for each, y in zip((1, 7, 20), results, strict=True):
        call(softmax(), x.shape, [x, y], rows_per_task=each)
    for y in results[1:]:
        np.testing.assert_array_equal(y, results[0])


# Operands ----------------------------------------------------------------------------------------


def test_columns_that_lie_apart() -> None:
    x = normal(1, 70, 9).T  # its columns lie 9 elements apart
    for target in targets():
        y = np.zeros((70, 18), np.float32)[:, ::2].T
        call(softmax("any"), x.shape, [x, y], target)
        np.testing.assert_allclose(y, softmax_reference(x), rtol=5e-6, atol=1e-7)
    backwards = normal(2, 4, 33)[:, ::-1]
    wanted = softmax_reference(backwards)
    call(softmax("any"), backwards.shape, [backwards, backwards])  # in place
    np.testing.assert_allclose(backwards, wanted, rtol=5e-6, atol=1e-7)


@pytest.mark.parametrize("columns", [1, 4, 7, 40])
def test_axes_that_are_broadcast(columns: int) -> None:
    domain = 3, 5, 2, columns
    a, b = normal(1, 3, 1, 2, columns), normal(2, 5, 1, 1)
    program = Program()
    total = program.do("add", "float32", program.load("float32"), program.load("float32", "same"))
    place = program.do("add", "int64", program.do("row", "int64"), program.do("col", "int64"))
    program.store(program.do("add", "float32", total, program.do("cast", "float32", place)))
    program.store(program.do("row", "int64"), "same")
    out, rows = np.empty(domain, np.float32), np.empty((3, 5, 2, 1), np.int64)
    call(program.rows(3), domain, [a, b, out, rows], rows_per_task=4)
    number = np.arange(30).reshape(3, 5, 2, 1)
    np.testing.assert_array_equal(out, a + b + (number + np.arange(columns)).astype("float32"))
    np.testing.assert_array_equal(rows, number)


def test_a_domain_without_outer_axes() -> None:
    program = Program()
    program.store(program.do("exp", "float64", program.load("float64")))
    x, y = normal(1, 50, dtype="float64"), np.empty(50)
    run(program.rows(0), [50, 1, *operand(x), *operand(y)])
    np.testing.assert_allclose(y, np.exp(x), rtol=1e-15)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "bool"])
def test_gather(dtype: str) -> None:
    table = (normal(1, 11, 37) * 10).astype(dtype)
    for target in targets():
        rows = np.array([[3], [10], [0], [3]])
        # Whole rows, whose number is one for the row.
        for view, column in ((table, "unit"), (table[:, ::2], "any"), (table[:, :1], "same")):
            width = view.shape[1] if column != "same" else 20
            program = Program()
            index = program.load("int64", "same")
            program.store(program.gather(dtype, index, column))
            if column == "same":
                program.outputs.clear()
                program.store(len(program.instrs) - 1, "unit")
            out = np.zeros((4, width), dtype)
            step = 0 if column == "same" else operand(view)[2]
            args = [4, width, 3, *operand(rows, 1), 0]
            args += [view.ctypes.data, operand(view)[1], step, *operand(out)]
            run(program.rows(1), args, target)
            np.testing.assert_array_equal(out, np.broadcast_to(view[rows[:, 0]], out.shape))
        # A row for each element.
        each = np.random.default_rng(3).integers(0, 11, (4, 37))
        for column, wanted in (("unit", table[each, np.arange(37)]), ("same", table[each, 0])):
            program = Program()
            program.store(program.gather(dtype, program.load("int64"), column))
            out = np.zeros((4, 37), dtype)
            args = [4, 37, 3, *operand(each), table.ctypes.data, 37, int(column == "unit")]
            run(program.rows(1), [*args, *operand(out)], target)
            np.testing.assert_array_equal(out, wanted)


def test_an_output_at_a_position() -> None:
    """A cache (heads, length, width) takes one position."""
    cache = np.zeros((3, 8, 20), np.float32)
    x, position = normal(1, 3, 20), np.array(5)
    program = Program()
    given = program.load("float32")
    program.load("int64", "same")
    program.store(given, at=1)
    args = [3, 20, 2, *operand(x), position.ctypes.data, 0, 0]
    run(program.rows(1), [*args, cache.ctypes.data, 160, 1, 20])
    np.testing.assert_array_equal(cache[:, 5], x)
    assert np.count_nonzero(cache) == np.count_nonzero(x)


def test_bools_in_memory() -> None:
    x, keep = normal(1, 5, 45), np.random.default_rng(2).random((5, 45)) < 0.5
    program = Program()
    zero = program.do("const", "float32", value=0.0)
    given, mask = program.load("float32"), program.load("bool")
    program.store(program.do("where", "float32", mask, given, zero))
    program.store(program.do("gt", "bool", given, zero))
    for target in targets():
        out, positive = np.empty_like(x), np.empty_like(keep)
        call(program.rows(1), x.shape, [x, keep, out, positive], target)
        np.testing.assert_array_equal(out, np.where(keep, x, 0))
        np.testing.assert_array_equal(positive, x > 0)


def test_a_long_program() -> None:
    """Nothing recurses along a chain of instructions, of elements or of values for the row."""
    program = Program()
    x, one = program.load("float32"), program.load("float32", "same")
    for _ in range(700):
        x = program.do("neg", "float32", x)
        one = program.do("neg", "float32", one)
    program.store(program.do("add", "float32", x, one))
    given, row, out = normal(1, 2, 20), normal(2, 2, 1), np.empty((2, 20), np.float32)
    call(program.rows(1), given.shape, [given, row, out])
    np.testing.assert_array_equal(out, given + row)


# Plans of rows -----------------------------------------------------------------------------------


def test_what_is_kept_between_loops() -> None:
    how = loops.plan(softmax())
    assert [loop.level for loop in how.loops] == [0, 1, 2]
    assert list(how.kept.values()) == [1]  # exp
    assert not loops.plan(layer_norm(64)).kept  # cheaper to compute again


def test_outputs_are_written_in_the_last_loop() -> None:
    how = loops.plan(layer_norm_grad(64))
    assert [bool(loop.outputs) for loop in how.loops] == [False, False, False, True]


# Reductions along rows ---------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 7, 64, 65, 150])
def test_columns(width: int) -> None:
    """Sums of a product, maxima and minima, for blocks of rows and of columns."""
    domain = 4, 5, width
    x, y, scale = normal(1, 4, 5, width), normal(2, width), normal(3, 4, 5, 1)
    x[0, 0, 0] = np.nan
    program = Program()
    a, b, c = (program.load("float32", column) for column in ("unit", "unit", "same"))
    product = program.do("mul", "float32", program.do("mul", "float32", a, b), c)
    for op in ("sum", "max", "min"):
        program.store(program.do(op, "float32", product), "any" if op == "max" else "unit")
    whole = (x.astype(np.float64) * y * scale).reshape(20, width)
    for target in targets():
        out = np.empty((3, 3, width), np.float32)
        out[1] = np.nan
        outs = [out[0], np.empty((3, 2 * width), np.float32)[:, ::2], out[2]]
        args = [*domain, 8, 48]
        for array in (x, y, scale):
            args += operand(np.broadcast_to(array, domain))
        for array in outs:
            args += operand(array)
        run(program.columns(2), args, target)
        for found, op in zip(outs, (np.sum, np.max, np.min), strict=True):
            wanted = np.stack([op(whole[i : i + 8], axis=0) for i in (0, 8, 16)])
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_columns_of_other_dtypes() -> None:
    for dtype, result in (("float64", "float64"), ("int32", "int64"), ("bool", "int64")):
        x = (normal(1, 70, 9) * 20).astype(dtype).T  # columns that lie apart
        program = Program()
        program.store(program.do("sum", result, program.load(dtype, "any")))
        out = np.empty((2, 70), result)
        run(program.columns(1), [9, 70, 5, 100, *operand(x), *operand(out)], host())
        wanted = [x[:5].sum(0, dtype=result), x[5:].sum(0, dtype=result)]
        np.testing.assert_allclose(out, wanted, rtol=1e-14)
