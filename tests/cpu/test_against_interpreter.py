"""Native code against the NumPy interpreter, on random row programs and on every other kind."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from kernel_case import Array, Program, operand, row_args
from random_kernels import Case, arguments, arrays, cases

from tinygrad_tx.backends.kernels import interpreter
from tinygrad_tx.backends.kernels.describe import describe
from tinygrad_tx.backends.kernels.kinds import (
    Attention,
    AttentionGrad,
    CheckIndex,
    DropoutMask,
    Kernel,
    Matmul,
    Pack,
    ScatterAdd,
)
from tinygrad_tx.dtypes import ALL

pytest.importorskip("llvmlite")
from tinygrad_tx.backends.cpu import jit, library, writers

QUICK = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
CODE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)


def run_native(kernel: Kernel, args: list[int]) -> None:
    """All tasks of a call, in any order."""
    target = jit.host_target()
    code = CODE(library.functions([kernel])[kernel])
    scratch = np.zeros(writers.scratch(kernel, args, target) + 64, np.uint8)
    aligned = scratch.ctypes.data + -scratch.ctypes.data % 64
    words = np.array(args, np.int64)
    tasks = list(range(kernel.tasks(args)))
    random.Random(5).shuffle(tasks)
    for task in tasks:
        code(words.ctypes.data, task, aligned)


def check(case: Case) -> None:
    kernel = case.kernel
    wanted, found = arrays(case), arrays(case)
    interpreter.run(kernel, arguments(case, wanted), jit.host_target())
    run_native(kernel, arguments(case, found))
    first = len(kernel.inputs)
    for number, tolerance in enumerate(case.tolerances):
        np.testing.assert_allclose(
            found[first + number],
            wanted[first + number],
            rtol=0,
            atol=tolerance,
            err_msg=f"output {number}\n{describe(kernel)}",
        )


@QUICK
@given(cases(columns_kind=False))
def test_random_row_programs(case: Case) -> None:
    check(case)


@QUICK
@given(cases(columns_kind=True))
def test_random_reductions_along_rows(case: Case) -> None:
    check(case)


def test_a_row_is_reduced_before_its_memory_is_written() -> None:
    """The second input is replaced by the first, and its old maximum is wanted. (LLVM 22 turns a
    select of a masked load with the same mask into a masked load where the select stands: it must
    stand before the store.)"""
    p = Program()
    x, y = p.load("float32"), p.load("float32")
    p.store(x)
    p.store(p.do("max", "float32", y), "same")
    given, replaced = np.zeros((4, 21), "float32"), np.full((4, 21), 5, "float32")
    largest = np.zeros((4, 1), "float32")
    shown = np.broadcast_to(largest, given.shape)
    run_native(p.rows(1), row_args(given.shape, [given, replaced, replaced, shown]))
    assert not replaced.any()
    assert (largest == 5).all()


UNARY = (
    *("neg", "abs", "sign", "floor", "sqrt", "exp", "log", "log1p", "expm1", "tanh", "sin", "cos"),
    *("erf", "copy", "isnan", "isinf", "isfinite"),
)
BINARY = (
    *("add", "sub", "mul", "div", "floor_divide", "remainder", "pow", "minimum", "maximum"),
    *("eq", "ne", "lt", "le", "gt", "ge"),
)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scalar_functions_and_reductions_of_special_values(dtype: str) -> None:
    """One program with all of them, on every pair of special values and on ordinary ones."""
    special = np.array([0, -0.0, 1, -1, 2.5, -3.5, 30, -30, np.inf, -np.inf, np.nan], dtype)
    special = np.concatenate([special, normal(6, dtype, 10)])
    x, y = (np.ascontiguousarray(a) for a in np.broadcast_arrays(special[:, None], special))
    p = Program()
    a, b = p.load(dtype), p.load(dtype)
    for op in (*UNARY, *BINARY):
        out = "bool" if op in BINARY[-6:] or op.startswith("is") else dtype
        p.store(p.do(op, out, *((a, b) if op in BINARY else (a,))))
    for op in ("sum", "max", "min", "argmax", "argmin"):
        p.store(p.do(op, "int64" if op.startswith("arg") else dtype, b), "same")
    outputs = [np.zeros(x.shape, p.instrs[o.instr].dtype) for o in p.outputs]
    shown = [
        np.broadcast_to(array[:, :1], x.shape) if o.column == "same" else array
        for array, o in zip(outputs, p.outputs, strict=True)
    ]
    results = both(p.rows(1), row_args(x.shape, [x, y, *shown]), outputs)
    for (found, wanted), output in zip(results, p.outputs, strict=True):
        tolerance = 2e-6 if dtype == "float32" else 1e-14
        np.testing.assert_allclose(
            found, wanted, rtol=tolerance, atol=tolerance, err_msg=p.instrs[output.instr].op
        )


# The other kinds ---------------------------------------------------------------------------------


def both(kernel: Kernel, args: list[int], outputs: Sequence[Array]) -> list[tuple[Array, Array]]:
    """For each output what native code leaves in it, and what the interpreter does."""
    before = [output.copy() for output in outputs]
    run_native(kernel, args)
    found = [output.copy() for output in outputs]
    for output, old in zip(outputs, before, strict=True):
        output[...] = old
    interpreter.run(kernel, args, jit.host_target())
    return [(x, output.copy()) for x, output in zip(found, outputs, strict=True)]


def normal(seed: int, dtype: str, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("m, n, k", [(1, 45, 300), (37, 70, 257), (16, 32, 8), (3, 5, 0)])
def test_matrix_products(m: int, n: int, k: int, dtype: str) -> None:
    width = jit.host_target().tile(dtype)[1]
    a, b = normal(1, dtype, 2, 3, m, k), normal(2, dtype, 2, n, k).transpose(0, 2, 1)
    size = k * -(-n // width) * width
    packed = np.full((2, 1, size), np.nan, dtype)
    args = [2, 1, k, n, 2, *operand(b[:, None]), packed.ctypes.data, size, size]
    for found, wanted in both(Pack(dtype, width), args, [packed]):
        np.testing.assert_array_equal(found, wanted)
    c = np.ones((2, 3, m, n + 3), dtype)
    args = [2, 3, m, n, k, 16, 2 * width, *operand(a), packed.ctypes.data, size, 0, *operand(c, 3)]
    tolerance = 1e-4 if dtype == "float32" else 1e-12
    for accumulate in (False, True):
        for found, wanted in both(Matmul(dtype, accumulate), args, [c]):
            np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("mask", ["none", "bool", "float"])
@pytest.mark.parametrize(
    ("causal", "stored"), [(False, "float32"), (True, "float32"), (True, "bfloat16")]
)
def test_attention(causal: bool, mask: str, stored: str) -> None:
    b, h, t, s, d_k, d_v = 2, 2, 19, 35, 24, 10
    element = ALL[stored].np
    q, k, v, g = (
        normal(i, "float32", b, length, h, width).swapaxes(1, 2).astype(element, order="K")
        for i, (length, width) in enumerate([(t, d_k), (s, d_k), (s, d_v), (t, d_v)])
    )
    given = normal(5, "float32", b, 1, 1, s).astype(element)
    shown = given > -1 if mask == "bool" else given
    if mask == "bool":
        shown[1] = False
    last = [] if mask == "none" else operand(np.broadcast_to(shown, (b, h, t, s)))
    args = [b, h, t, s, d_k, d_v, 1, *operand(q), *operand(k), *operand(v)]
    out = np.zeros_like(g)
    forward = Attention("float32", 0.2, mask, causal, stored)
    grads = [np.zeros_like(x) for x in (q, k, v)]
    backward = AttentionGrad("float32", 0.2, mask, causal, stored=stored)
    after = operand(g) + [word for grad in grads for word in operand(grad)]
    results = both(forward, [*args, *operand(out), *last], [out])
    results += both(backward, [*args, *after, *last], grads)
    rtol = 1e-4 if stored == "float32" else ALL[stored].eps
    for found, wanted in results:
        found, wanted = found.astype("d"), wanted.astype("d")
        np.testing.assert_allclose(found, wanted, rtol=rtol, atol=1e-5)


@pytest.mark.parametrize("count", [1, 63, 1000])
def test_moves(count: int) -> None:
    rng = np.random.default_rng(count)
    key, stream, mask = np.array(-9), np.array(2**33 + 1), np.zeros(count, bool)
    args = [count, 64, key.ctypes.data, stream.ctypes.data, mask.ctypes.data]
    results = both(DropoutMask(3_000_000), args, [mask])

    safe, report = np.zeros(count, "int64"), np.zeros(2, "int64")
    for kernel, low in ((CheckIndex("int64", False, True), 0), (CheckIndex("int64", True), -8)):
        given = rng.integers(low, 8, 2 * count)[::2]
        given[::5] = -8  # skipped, then wrapped
        args = [count, 16, 8, -8, *operand(given), safe.ctypes.data, report.ctypes.data]
        results += both(kernel, args, [safe, report])
        assert not report.any()
    given[count // 2] = 8
    results += both(CheckIndex("int64", True), args, [report])
    assert list(report) == [1, 8]

    value, out = normal(3, "float32", count, 21), normal(4, "float32", 9, 21)
    index = rng.integers(0, 9, count)
    args = [count, 21, 16, index.ctypes.data, *operand(value, 1), *operand(out, 1)]
    results += both(ScatterAdd("float32"), args, [out])
    for found, wanted in results:
        np.testing.assert_array_equal(found, wanted)
