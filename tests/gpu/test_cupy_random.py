"""The CUDA kernels of Philox give NumPy's bits."""

from __future__ import annotations

import importlib
import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tinygrad_tx import backends
from tinygrad_tx.backends.arrays import numpy_random
from tinygrad_tx.errors import UserError

pytestmark = pytest.mark.gpu
SHAPES = [(), (0,), (1,), (4,), (3, 2), (2, 0), (1021,), (5, 3, 70)]


@pytest.fixture(scope="module")
def rng() -> ModuleType:
    """The backend's random numbers, on what conftest.py chose."""
    backends.get("cuda")  # conftest.py has chosen what must work, or skipped
    return importlib.import_module("tinygrad_tx.backends.arrays.cupy_random")


def assert_same(rng: ModuleType, out: Any, expected: np.ndarray[Any, Any]) -> None:
    host = rng.cupy.asnumpy(out)
    assert (host.shape, host.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(host, expected)


@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 1023, 1024, 1025])
@pytest.mark.parametrize(("seed", "stream"), [(0, 0), (2**64 - 1, 2**63), (-5, -6), (7, 1 << 40)])
def test_words(rng: ModuleType, n: int, seed: int, stream: int) -> None:
    assert_same(rng, rng.words(seed, stream, n), numpy_random.words(seed, stream, n))


def test_seed_and_stream_on_the_device(rng: ModuleType) -> None:
    seed, stream = (rng.cupy.asarray(np.array(number, np.int64)) for number in (2**62 + 1, -3))
    assert_same(rng, rng.words(seed, stream, 9), numpy_random.words(2**62 + 1, -3, 9))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_uniform(rng: ModuleType, shape: tuple[int, ...], dtype: type) -> None:
    expected = numpy_random.uniform(3, 4, shape, dtype)
    assert_same(rng, rng.uniform(3, 4, shape, dtype), expected)


def test_uniform_stays_below_one(rng: ModuleType) -> None:
    expected = numpy_random.uniform(1, 2, (1 << 15,), np.float16)
    assert expected.max() == 1 - 2**-11
    assert_same(rng, rng.uniform(1, 2, (1 << 15,), np.float16), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("p", [0.0, 5e-324, 0.1, 0.5, 1 - 2**-24, 1.0])
def test_keep(rng: ModuleType, shape: tuple[int, ...], p: float) -> None:
    for first in (0, 4, 40):
        expected = numpy_random.bernoulli_keep(5, 6, p, shape, first)
        assert_same(rng, rng.bernoulli_keep(5, 6, p, shape, first), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_normal(rng: ModuleType, shape: tuple[int, ...]) -> None:
    for dtype, tolerance in ((np.float64, 1e-14), (np.float32, 1e-6), (np.float16, 1e-2)):
        out = rng.cupy.asnumpy(rng.normal(7, 8, shape, dtype))
        expected = numpy_random.normal(7, 8, shape, dtype)
        assert (out.shape, out.dtype) == (shape, dtype)
        np.testing.assert_allclose(out, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (0, 1, np.int64),
        (-5, 1000, np.int32),
        (-(2**31), 2**31, np.int32),
        (2**63 - 10, 2**63, np.int64),
        (0, 2**32, np.int64),
    ],
)
def test_randint(rng: ModuleType, shape: tuple[int, ...], low: int, high: int, dtype: type) -> None:
    expected = numpy_random.randint(9, 10, low, high, shape, dtype)
    assert_same(rng, rng.randint(9, 10, low, high, shape, dtype), expected)


def test_bad_arguments(rng: ModuleType) -> None:
    with pytest.raises(UserError, match="between 0 and 1"):
        rng.bernoulli_keep(1, 2, math.nan, (3,))
    with pytest.raises(UserError, match="must be above"):
        rng.randint(1, 2, 3, 3, (3,))
