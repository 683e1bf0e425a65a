"""Philox in NumPy against published answers, a plain reference, and what its callers rely on."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from philox import LOW, philox, reference

from tinygrad_tx.backends.arrays import numpy_random as rng
from tinygrad_tx.errors import UserError

CHUNK = rng._CHUNK


KNOWN = [  # from the test vectors that the authors distribute
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([LOW] * 4, [LOW] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers(counter: list[int], key: list[int], answer: list[int]) -> None:
    assert philox(counter, key) == answer
    block, stream, seed = (low | high << 32 for low, high in (counter[:2], counter[2:], key))
    assert rng.block_words(seed, block, stream, 1).tolist() == answer


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 70))
@settings(max_examples=50, deadline=None)
def test_words_are_the_reference_at_any_size(seed: int, stream: int, n: int) -> None:
    out = rng.words(seed, stream, n)
    assert (out.dtype, out.shape) == (np.uint32, (n,))
    assert out.tolist() == reference(seed, stream, range(n))


def test_words_across_chunks() -> None:
    n = 2 * CHUNK + 7
    out = rng.words(3, 4, n)
    for start, stop in ((0, 9), (CHUNK - 9, CHUNK + 9), (2 * CHUNK - 9, n)):
        assert out[start:stop].tolist() == reference(3, 4, range(start, stop))


def test_block_numbers_beyond_32_bits() -> None:
    block = (5 << 32) - 3
    assert rng.block_words(8, block, 9, 3).tolist() == reference(
        8, 9, range(4 * block, 4 * block + 12)
    )
    assert rng.block_words(8, block + 3, 9, 2).tolist() == reference(
        8, 9, range(4 * block + 12, 4 * block + 20)
    )


def test_a_longer_draw_begins_like_a_shorter_one() -> None:
    assert (rng.words(1, 2, CHUNK + 50)[:1001] == rng.words(1, 2, 1001)).all()


def test_negative_numbers_count_modulo_2_64() -> None:
    assert (rng.words(-1, -2, 8) == rng.words(2**64 - 1, 2**64 - 2, 8)).all()


def test_seeds_and_streams_are_disjoint() -> None:
    blocks = [
        rng.words(seed, stream, 40_000).view(np.uint64)
        for seed in (0, 1, 1 << 32)
        for stream in (0, 1, 2, 1 << 32)
    ]
    everything = np.concatenate(blocks)
    assert np.unique(everything).size == everything.size


def test_threads_do_not_disturb_each_other() -> None:
    def draw(stream: int) -> bytes:
        return b"".join(make(7, stream, (30_001,)).tobytes() for make in (rng.uniform, rng.normal))

    serial = [draw(stream) for stream in range(12)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(draw, range(12))) == serial


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (5,), (2, 3), (7, 1, 11)])
def test_every_shape(shape: tuple[int, ...]) -> None:
    n = math.prod(shape)
    word = rng.words(5, 6, n).reshape(shape)
    even = rng.normal(5, 6, (n + n % 2,), np.float64)
    results = [
        (rng.uniform(5, 6, shape), (word >> 8).astype(np.float32) * np.float32(2**-24)),
        (rng.bernoulli_keep(5, 6, 0.3, shape), (word >> 8) * 2.0**-24 >= 0.3),
        (rng.randint(5, 6, 0, 256, shape), (word >> 24).astype(np.int64)),
        (rng.normal(5, 6, shape, np.float64), even[:n].reshape(shape)),
    ]
    for out, expected in results:
        assert isinstance(out, np.ndarray)
        assert (out.shape, out.dtype) == (shape, expected.dtype)
        assert (out == expected).all()


# Uniform ------------------------------------------------------------------------------------


def test_uniform_is_exact_in_float32_and_float64() -> None:
    exact = (rng.words(1, 2, CHUNK + 3) >> 8) / 2.0**24
    assert (rng.uniform(1, 2, (CHUNK + 3,), np.float64) == exact).all()
    assert (rng.uniform(1, 2, (CHUNK + 3,), np.float32) == exact).all()


def test_uniform_stays_below_one_where_the_dtype_is_narrow() -> None:
    exact = rng.uniform(1, 2, (1 << 17,), np.float64)
    half = rng.uniform(1, 2, exact.shape, np.float16)
    assert half.dtype == np.float16
    assert exact.astype(np.float16).max() == 1  # what rounding alone would give
    assert half.max() == 1 - 2**-11
    assert (half == np.minimum(exact.astype(np.float16), half.max())).all()


def test_uniform_in_bfloat16() -> None:
    bfloat16 = np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    out = rng.uniform(1, 2, (1 << 15,), bfloat16)
    assert out.dtype == bfloat16
    assert float(out.max()) == 1 - 2**-8


def test_uniform_looks_uniform() -> None:
    n = 1 << 20
    a, b = (rng.uniform(11, stream, (n,), np.float64) - 0.5 for stream in (0, 1))
    sigma = 1 / math.sqrt(n)
    assert abs(a.mean()) < 4 * sigma / math.sqrt(12)
    assert abs(a.var() - 1 / 12) < 4 * sigma * math.sqrt(1 / 180)
    for other in (b, np.roll(a, 1), np.roll(a, 2), np.roll(a, 4), np.roll(a, 4 * CHUNK)):
        assert abs((a * other).mean()) < 4 * sigma / 12
    counts = np.bincount(((a + 0.5) * 256).astype(int), minlength=256)
    chi2 = ((counts - n / 256) ** 2).sum() / (n / 256)
    assert abs(chi2 - 255) < 4 * math.sqrt(2 * 255)


# Dropout's mask -----------------------------------------------------------------------------

EDGES = [0.0, 5e-324, 1e-30, 2**-25, 2**-24, 0.1, 1 / 3, 0.5, 0.9, 1 - 2**-24, 1.0]
ULPS = [math.nextafter(p, to) for p in EDGES[4:] for to in (0, 1)]


@pytest.mark.parametrize("p", EDGES + ULPS)
def test_keep_is_the_exact_comparison(p: float) -> None:
    u = rng.uniform(1, 2, (1 << 17,), np.float64)
    assert (rng.bernoulli_keep(1, 2, p, u.shape) == (u >= p)).all()


@given(st.integers(0, 199), st.sampled_from([-1, 0, 1]), st.booleans())
@settings(deadline=None)
def test_keep_at_ties(element: int, direction: int, single: bool) -> None:
    """p on a value that occurs, and next to it in float64 or float32."""
    u = rng.uniform(1, 2, (200,), np.float64)
    p = u[element]
    if direction:
        kind = np.float32 if single else np.float64
        p = np.nextafter(kind(p), kind((direction + 1) / 2))
    assert (rng.bernoulli_keep(1, 2, float(p), (200,)) == (u >= float(p))).all()


def test_keep_of_all_and_none() -> None:
    assert rng.bernoulli_keep(1, 2, 0.0, (100, 7)).all()
    assert not rng.bernoulli_keep(1, 2, 1.0, (100, 7)).any()


@pytest.mark.parametrize("p", [-0.1, 1.0001, math.nan, math.inf])
def test_keep_refuses_what_is_no_probability(p: float) -> None:
    with pytest.raises(UserError, match=r"p is .*between 0 and 1"):
        rng.bernoulli_keep(1, 2, p, (3,))


# Normal -------------------------------------------------------------------------------------


def test_normal_is_box_muller() -> None:
    n = 4001
    expected = []
    for w0, w1 in rng.words(3, 4, n + 1).reshape(-1, 2).tolist():
        r = math.sqrt(-2 * math.log(((w0 >> 8) + 1) / 2**24))
        angle = 2 * math.pi * (w1 >> 8) / 2**24
        expected += [r * math.cos(angle), r * math.sin(angle)]
    out = rng.normal(3, 4, (n,), np.float64)
    np.testing.assert_allclose(out, expected[:n], rtol=0, atol=5e-15)
    assert (rng.normal(3, 4, (n,)) == out.astype(np.float32)).all()
    assert (rng.normal(3, 4, (n,), np.float16) == out.astype(np.float16)).all()


def test_normal_looks_normal() -> None:
    n = 1 << 20
    z = rng.normal(12, 0, (n,), np.float64)
    sigma = 1 / math.sqrt(n)
    assert np.isfinite(z).all()
    assert abs(z.mean()) < 4 * sigma
    assert abs(z.var() - 1) < 4 * sigma * math.sqrt(2)
    assert abs((z**4).mean() - 3) < 4 * sigma * math.sqrt(96)
    assert abs((z[0::2] * z[1::2]).mean()) < 4 * sigma * math.sqrt(2)
    within = np.mean(np.abs(z) < 1)
    assert abs(within - math.erf(math.sqrt(0.5))) < 4 * sigma * 0.5


# Integers -----------------------------------------------------------------------------------

RANGES = [
    (0, 1, np.int64),
    (0, 2, np.int32),
    (-5, 1000, np.int32),
    (-(2**31), 2**31, np.int32),
    (-(2**63), -(2**63) + 10, np.int64),
    (2**63 - 10, 2**63, np.int64),
    (0, 2**32, np.int64),
    (2**63, 2**63 + 2**32, np.uint64),
    (0, 256, np.uint8),
]


@pytest.mark.parametrize(("low", "high", "dtype"), RANGES)
def test_randint(low: int, high: int, dtype: type) -> None:
    out = rng.randint(1, 2, low, high, (1001,), dtype)
    assert out.dtype == dtype
    words = rng.words(1, 2, 1001).tolist()
    assert out.tolist() == [low + (word * (high - low) >> 32) for word in words]


@pytest.mark.parametrize(
    ("low", "high", "dtype", "message"),
    [
        (3, 3, np.int64, r"high \(3\) must be above low \(3\)"),
        (0, 2**32 + 1, np.int64, "wider than 2\\^32"),
        (0, 257, np.uint8, "does not fit uint8"),
        (-(2**31) - 1, 0, np.int32, "does not fit int32"),
    ],
)
def test_randint_refuses(low: int, high: int, dtype: type, message: str) -> None:
    with pytest.raises(UserError, match=message):
        rng.randint(1, 2, low, high, (4,), dtype)
