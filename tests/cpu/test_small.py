"""Dropout masks, checked indices and scattered sums in native code, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("llvmlite")
from kernel_case import Array, operand
from native_case import run, targets

from tinygrad_tx.backends.arrays import numpy_random
from tinygrad_tx.backends.kernels.kinds import CheckIndex, DropoutMask, ScatterAdd


@pytest.mark.parametrize("p", [0.0, 0.1, 0.3, 0.999, 1.0])
def test_a_mask_is_the_eager_one(p: float) -> None:
    kernel = DropoutMask(numpy_random.keep_threshold(p))
    for count, seed, stream in ((1, 0, 0), (63, 5, 2), (64, -9, 2**33 + 1), (1000, 2**40, -1)):
        key, number = np.array(seed, np.int64), np.array(stream, np.int64)
        wanted = numpy_random.bernoulli_keep(seed, stream, p, (count,))
        for target in targets():
            guarded = np.full(count + 2, 9, np.uint8)
            mask = guarded[1:-1]
            run(
                kernel,
                [count, 128, key.ctypes.data, number.ctypes.data, mask.ctypes.data],
                target,
            )
            np.testing.assert_array_equal(mask, wanted)
            assert guarded[0] == guarded[-1] == 9


@pytest.mark.parametrize("first", [1, 7, 2**20, 2**31])
def test_a_mask_from_the_middle_of_a_stream(first: int) -> None:
    """first: the number of its first counter, of four elements."""
    key, number, count = np.array(5, np.int64), np.array(2, np.int64), 203
    kernel = DropoutMask(numpy_random.keep_threshold(0.3), part=True)
    mask = np.full(count, 9, np.uint8)
    places = [key.ctypes.data, number.ctypes.data, mask.ctypes.data]
    run(kernel, [count, 64, *places, first])
    wanted = numpy_random.bernoulli_keep(5, 2, 0.3, (count,), 4 * first)
    np.testing.assert_array_equal(mask, wanted)


# Indices -----------------------------------------------------------------------------------------


def checked(kernel: CheckIndex, given: Array, size: int, skipped: int = 0) -> tuple[Array, Array]:
    """The safe indices and the report."""
    safe, report = np.full(given.size, -1), np.zeros(2, np.int64)
    args = [given.size, 16, size, skipped, *operand(given), safe.ctypes.data, report.ctypes.data]
    run(kernel, args)
    return safe, report


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_indices(dtype: str) -> None:
    given = np.random.default_rng(1).integers(0, 50, 200).astype(dtype)[::2]
    safe, report = checked(CheckIndex(dtype, wrap=False), given, 50)
    np.testing.assert_array_equal(safe, given)
    assert not report.any()


def test_negative_indices_count_from_the_end() -> None:
    given = np.arange(-20, 20)
    safe, report = checked(CheckIndex("int64", wrap=True), given, 20)
    np.testing.assert_array_equal(safe, np.arange(20)[given])
    assert not report.any()


def test_skipped_indices_become_zero() -> None:
    given = np.array([3, -100, 2, -100])
    safe, report = checked(CheckIndex("int64", wrap=False, skip=True), given, 5, skipped=-100)
    np.testing.assert_array_equal(safe, [3, 0, 2, 0])
    assert not report.any()


@pytest.mark.parametrize("wrong", [20, -21, 2**40, -(2**63)])
def test_an_index_outside_is_reported(wrong: int) -> None:
    given = np.arange(20)
    given[[6, 9]] = wrong, 77
    safe, report = checked(CheckIndex("int64", wrap=True), given, 20)
    given[[6, 9]] = 0
    np.testing.assert_array_equal(safe, given)
    assert list(report) == [1, wrong]


# Scattered sums ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("columns", [1, 7, 16, 45])
def test_scatter_add(columns: int, dtype: str) -> None:
    rng = np.random.default_rng(columns)
    index = rng.integers(0, 6, 50)
    wide = (rng.standard_normal((50, columns + 3)) * 9).astype(dtype)
    for target in targets():
        table = (rng.standard_normal((6, columns + 2)) * 9).astype(dtype)
        wanted = table.copy()
        np.add.at(wanted[:, :columns], index, wide[:, :columns])
        args = [50, columns, 32, index.ctypes.data, *operand(wide, 1), *operand(table, 1)]
        run(ScatterAdd(dtype), args, target)
        np.testing.assert_array_equal(table, wanted)  # added in the same order, beside nothing else
