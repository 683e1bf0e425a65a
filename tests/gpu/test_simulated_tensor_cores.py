"""Tensor cores, ldmatrix and asynchronous copies as the simulator has them: against the layouts of
the PTX ISA, plain products, and each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("llvmlite")
from simulator.machine import BadCopyError, Code, Machine, made
from simulator.thread import Simulated

from tinygrad_tx.backends.gpu.thread import PIECE, WARP, Thread
from tinygrad_tx.backends.kernels.interpreter_math import tf32
from tinygrad_tx.backends.llvm import ir
from tinygrad_tx.backends.llvm.ir import Value
from tinygrad_tx.dtypes import ALL

Array = NDArray[Any]
LANES = np.arange(WARP)
GROUP, PLACE = LANES // 4, LANES % 4
KINDS = ("float16", "bfloat16", "tf32")
CHECKED = pytest.mark.parametrize("kind", KINDS)
RNG = np.random.default_rng(0)


def i32(value: int) -> Value:
    return ir.integer(value, "i32")


def launch(code: Code, *arrays: Array, seed: int = 0) -> None:
    words = np.array([x.ctypes.data for x in arrays], np.int64)
    Machine(seed).launch(code, 1, words.ctypes.data)


def numbers(kind: str, *shape: int) -> Array:
    """Random numbers as a fragment holds them."""
    x = RNG.standard_normal(shape).astype(np.float32)
    return tf32(x) if kind == "tf32" else x.astype(ALL[kind].np)


def depth(kind: str) -> int:
    return 2 * PIECE // (4 if kind == "tf32" else 2)


def product(a: Array, b: Array, c: Array) -> Array:
    """c + a @ b, product by product upwards along k, in float32."""
    a, b, total = a.astype(np.float32), b.astype(np.float32), c.copy()
    for k in range(a.shape[1]):
        total += a[:, k : k + 1] * b[k]
    return total


# The manual's layouts: of element i of a thread's fragment, its row and column in the matrix.


def a_places(kind: str, i: int) -> tuple[Array, Array]:
    if kind == "tf32":
        return GROUP + 8 * (i in (1, 3)), PLACE + 4 * (i >= 2)
    return GROUP + 8 * (i in (2, 3, 6, 7)), 2 * PLACE + i % 2 + 8 * (i >= 4)


def b_places(kind: str, i: int) -> tuple[Array, Array]:
    if kind == "tf32":
        return PLACE + 4 * i, GROUP
    return 2 * PLACE + i % 2 + 8 * (i >= 2), GROUP


def c_places(i: int) -> tuple[Array, Array]:
    return GROUP + 8 * (i >= 2), 2 * PLACE + i % 2


def words_of(t: Thread, array: int, count: int, type: str) -> list[Value]:
    """`count` values of the thread, of an array that has as many for each."""
    b = t.b
    first = b.at(t.words.place(array), b.mul(t.lane, i32(count)), type)
    return [b.load(type, b.at(first, i32(i), type)) for i in range(count)]


def put(t: Thread, array: int, values: list[Value]) -> None:
    b, type = t.b, values[0].type
    first = b.at(t.words.place(array), b.mul(t.lane, i32(len(values))), type)
    for i, x in enumerate(values):
        b.store(x, b.at(first, i32(i), type))


@CHECKED
def test_mma_multiplies_fragments_that_lie_as_the_manual_says(kind: str) -> None:
    def write(t: Simulated) -> None:
        a, b = (words_of(t, n, count, "i32") for n, count in ((0, 4), (1, 2)))
        sums = t.mma(kind, a, b, words_of(t, 2, 4, "float"))
        put(t, 3, t.mma(kind, a, b, sums))  # a second one: values cross in turn
        t.end()

    a, b = numbers(kind, 16, depth(kind)), numbers(kind, depth(kind), 8)
    c = RNG.standard_normal((16, 8)).astype(np.float32)
    each = depth(kind) // 4
    a_parts = np.stack([a[a_places(kind, i)] for i in range(2 * each)], axis=1)
    b_parts = np.stack([b[b_places(kind, i)] for i in range(each)], axis=1)
    c_parts = np.stack([c[c_places(i)] for i in range(4)], axis=1)
    out, found = np.zeros_like(c_parts), np.full_like(c, np.nan)
    for seed in range(2):
        launch(made(write, WARP), a_parts, b_parts, c_parts, out, seed=seed)
        for i in range(4):
            found[c_places(i)] = out[:, i]
        np.testing.assert_array_equal(found, product(a, b, product(a, b, c)))


def on_tiles(kind: str, transposed: bool, waits: bool = True) -> Callable[[Simulated], None]:
    """A kernel of one warp: a (16, k) and b (k, 8) are copied to shared memory as they lie, read by
    ldmatrix and multiplied. transposed: a lies as (k, 16) and b as (k, 8), else b as (8, k)."""

    def write(t: Simulated) -> None:
        b = t.b
        size = 16 * 2 * PIECE
        tiles = [t.shared(size), t.shared(size // 2)]
        for n, tile in enumerate(tiles):  # 32 pieces of a, 16 of b
            at = b.mul(t.lane, i32(PIECE))
            with b.when(b.compare("slt", t.lane, i32(32 >> n))):
                place = b.at(t.words.place(n), at, "i8")
                t.copy_async(b.at(tile, at, "i8"), place, i32(PIECE))
        t.commit()
        if waits:
            t.wait(0)
        t.barrier()
        low, high = b.binary("and", t.lane, i32(7)), b.binary("lshr", t.lane, i32(3))
        odd, upper = b.binary("and", high, i32(1)), b.binary("lshr", high, i32(1))
        # Matrices 0 to 3 of a: rows 0-7 and 8-15 of the first piece, then of the second one.
        rows, pieces = (upper, odd) if transposed else (odd, upper)
        row = b.add(b.mul(rows, i32(8)), low)
        at = b.add(b.mul(row, i32(2)), pieces)
        a = t.load_matrices(b.at(tiles[0], b.mul(at, i32(PIECE)), "i8"), transposed)
        # Of b: rows 0-7 and 8-15 of its only piece, or the pieces of rows 0-7; either twice.
        one, other, size = (odd, low, 8) if transposed else (low, odd, 2)
        at = b.add(b.mul(one, i32(size)), other)
        found = t.load_matrices(b.at(tiles[1], b.mul(at, i32(PIECE)), "i8"), transposed)
        sums = t.mma(kind, a, found[:2], [ir.floating(0.0)] * 4)
        put(t, 2, sums)
        t.end()

    return write


def tiles(kind: str, transposed: bool) -> tuple[Array, Array, Array, Array]:
    """a and b, and how they lie, in memory that is aligned to a piece."""
    a, b = numbers(kind, 16, depth(kind)), numbers(kind, depth(kind), 8)
    lying = (a.T, b) if transposed else (a, b.T)
    return a, b, aligned(lying[0]), aligned(lying[1])


def aligned(x: Array) -> Array:
    memory = np.empty(x.nbytes + PIECE, np.uint8)
    start = -memory.ctypes.data % PIECE
    made = memory[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    made[...] = x
    return made


@pytest.mark.parametrize(
    "kind, transposed", [*((k, False) for k in KINDS), ("float16", True), ("bfloat16", True)]
)
def test_ldmatrix_brings_what_mma_takes(kind: str, transposed: bool) -> None:
    a, b, *lying = tiles(kind, transposed)
    out, found = np.zeros((WARP, 4), np.float32), np.full((16, 8), np.nan, np.float32)
    launch(made(on_tiles(kind, transposed), WARP), *lying, out, seed=3)
    for i in range(4):
        found[c_places(i)] = out[:, i]
    np.testing.assert_array_equal(found, product(a, b, np.zeros((16, 8), np.float32)))


def test_a_copy_that_is_not_waited_for_is_not_there_and_is_found_in_the_end() -> None:
    _, _, *lying = tiles("bfloat16", False)
    out = np.zeros((WARP, 4), np.float32)
    with pytest.raises(BadCopyError):
        launch(made(on_tiles("bfloat16", False, waits=False), WARP), *lying, out)
    assert np.isnan(out).all()


def test_copies_end_in_groups_with_zeros_behind_what_is_valid() -> None:
    def write(t: Simulated) -> None:
        b = t.b
        tile, given = t.shared(2 * PIECE), t.words.place(0)
        for i, size in enumerate((PIECE, 8)):
            place, shared = (b.at(x, i32(PIECE * i), "i8") for x in (given, tile))
            valid = b.smin(t.thread, i32(size))
            with b.when(b.compare("eq", t.thread, i32(6))):
                t.copy_async(shared, place, valid, size)
            t.commit()
        for turn, pending in enumerate((1, 0)):
            t.wait(pending)
            t.barrier()
            with b.when(b.compare("slt", t.thread, i32(2 * PIECE))):
                x = b.load("i8", b.at(tile, t.thread, "i8"))
                out = b.at(t.words.place(1), i32(2 * PIECE * turn), "i8")
                b.store(x, b.at(out, t.thread, "i8"))
            t.barrier()
        t.end()

    given, out = aligned(np.arange(1, 33, dtype=np.uint8)), np.zeros((2, 2, PIECE), np.uint8)
    launch(made(write, WARP), given, out)
    first = [1, 2, 3, 4, 5, 6] + [0] * 10
    assert out[0, 0].tolist() == out[1, 0].tolist() == first
    assert out[0, 1].tolist() == [255] * PIECE
    assert out[1, 1].tolist() == [17, 18, 19, 20, 21, 22, 0, 0] + [255] * 8


def test_a_copy_between_addresses_that_are_not_aligned_is_found() -> None:
    def write(t: Simulated) -> None:
        t.copy_async(t.shared(PIECE), t.words.place(0), i32(4))
        t.commit()
        t.wait(0)
        t.end()

    given = aligned(np.zeros(64, np.uint8))
    launch(made(write, WARP), given)
    with pytest.raises(BadCopyError):
        launch(made(write, WARP), given[8:])


def test_tf32_rounds_to_the_nearest_of_ten_bits() -> None:
    def write(t: Simulated) -> None:
        (x,) = words_of(t, 0, 1, "float")
        put(t, 1, [t.tf32(x)])
        t.end()

    special = [
        0.0,
        -0.0,
        np.inf,
        -np.inf,
        np.nan,
        3.4028235e38,
        1e-45,
        1 + 2.0**-11,
        1 + 3 * 2.0**-11,
    ]
    given = np.array([*special, *RNG.standard_normal(WARP - len(special))], np.float32)
    out = np.zeros_like(given)
    launch(made(write, WARP), given, out)
    np.testing.assert_array_equal(out, tf32(given))
    assert np.signbit(out[1])
    scale = 2.0 ** (np.frexp(given[9:].astype(np.float64))[1] - 11)
    np.testing.assert_array_equal(out[9:], np.rint(given[9:] / scale) * scale)
    assert out[7] == 1 + 2.0**-10 and out[8] == 1 + 2.0**-9 and np.isinf(out[5])
