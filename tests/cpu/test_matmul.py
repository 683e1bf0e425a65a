"""Packed matrix products against NumPy: shapes, strides, batches, task cuts, machine code."""

from __future__ import annotations

import re

import numpy as np
import pytest

pytest.importorskip("llvmlite")

from native_case import run, targets

import tinygrad_tx as tx
from tinygrad_tx.backends.cpu import jit
from tinygrad_tx.backends.cpu.matmul import gemm, tile
from tinygrad_tx.backends.cpu.processor import Processor
from tinygrad_tx.backends.kernels import interpreter
from tinygrad_tx.backends.kernels.kinds import Matmul, Pack
from tinygrad_tx.backends.kernels.summation import KC
from tinygrad_tx.backends.llvm import ir

each_target = pytest.mark.parametrize("target", targets(), ids=lambda t: t.name)
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def strides(x: np.ndarray) -> list[int]:
    return [s // x.itemsize for s in x.strides]


def packed(b: np.ndarray, target: Processor, panels_per_task: int = 3) -> np.ndarray:
    """b (B0, B1, K, N), packed."""
    b0, b1, k, n = b.shape
    nr = target.tile(b.dtype.name)[1]
    size = k * -(-n // nr) * nr
    out = np.full((b0, b1, size + 5), np.nan, b.dtype)
    head = [b0, b1, k, n, panels_per_task]
    args = [*head, b.ctypes.data, *strides(b), out.ctypes.data, *strides(out)[:2]]
    run(Pack(b.dtype.name, nr), args, target)
    assert np.isnan(out[..., size:]).all()
    return out


def product(
    a: np.ndarray,
    b: np.ndarray,
    target: Processor,
    cut: tuple[int, int] = (10**6, 10**6),
    old: np.ndarray | None = None,
) -> np.ndarray:
    """a (B0, B1, M, K) times b (B0, B1, K, N), in tasks of `cut` tiles; added to `old` if given."""
    (b0, b1, m, k), n = a.shape, b.shape[-1]
    mr, nr = target.tile(a.dtype.name)
    rows, columns = cut[0] * mr, cut[1] * nr
    c = np.full((b0, b1, m, n + 3), np.nan, a.dtype)
    if old is not None:
        c[..., :n] = old
    right = packed(b, target)
    left = [a.ctypes.data, *strides(a)]
    args = [b0, b1, m, n, k, rows, columns, *left, right.ctypes.data, *strides(right)[:2]]
    args += [c.ctypes.data, *strides(c)[:3]]
    run(Matmul(a.dtype.name, old is not None), args, target)
    assert np.isnan(c[..., n:]).all()
    return c[..., :n]


def normal(shape: tuple[int, ...], dtype: str, turned: bool = False, seed: int = 0) -> np.ndarray:
    """Standard normal; turned: with the last two axes swapped in memory."""
    rng = np.random.default_rng([seed, *shape])
    if turned:
        shape = *shape[:-2], shape[-1], shape[-2]
    x = rng.standard_normal(shape).astype(dtype)
    return x.swapaxes(-1, -2) if turned else x


def check(c: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    want = a.astype("float64") @ b.astype("float64")
    scale = np.abs(a).astype("float64") @ np.abs(b).astype("float64")
    assert (np.abs(c - want) <= 2 * np.finfo(c.dtype).eps * (1 + scale) * 8).all()


@each_target
@each_dtype
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 4), (33, 77, 70), (61, KC + 5, 33)])
@pytest.mark.parametrize("turned", [(False, False), (True, True), (False, True), (True, False)])
def test_products(
    target: Processor, dtype: str, shape: tuple[int, int, int], turned: tuple[bool, bool]
) -> None:
    m, k, n = shape
    a, b = normal((1, 1, m, k), dtype, turned[0]), normal((1, 1, k, n), dtype, turned[1])
    check(product(a, b, target), a, b)


@each_target
@each_dtype
def test_strides_batches_and_accumulation(target: Processor, dtype: str) -> None:
    a = normal((3, 2, 40, 99), dtype)[:, :, ::2, ::3]
    b = np.broadcast_to(normal((1, 2, 33, 90), dtype)[..., ::2], (3, 2, 33, 45))
    check(product(a, b, target), a, b)
    old = normal((3, 2, 20, 45), dtype, seed=1)
    added = product(a, b, target, old=old)
    np.testing.assert_array_equal(added, old + product(a, b, target))
    same = np.broadcast_to(a[:1, :1, :1], a.shape)
    check(product(same, b, target), same, b)


@each_target
@each_dtype
def test_a_row_has_the_same_bits_in_every_product(target: Processor, dtype: str) -> None:
    """For each number of rows, layout and cut into tasks (which `run` does from the last on)."""
    a, b = normal((1, 1, 64, 600), dtype), normal((1, 1, 600, 150), dtype)
    whole = product(a, b, target)
    for m in [*range(1, 18), 31]:
        np.testing.assert_array_equal(product(a[:, :, :m], b, target), whole[:, :, :m])
    for i in (0, 13, 63):
        np.testing.assert_array_equal(
            product(a[:, :, i : i + 1], b, target), whole[:, :, i : i + 1]
        )
    for cut in ((1, 1), (2, 10**3), (10**3, 2)):
        np.testing.assert_array_equal(product(a, b, target, cut), whole)
    turned = np.ascontiguousarray(a.swapaxes(2, 3)).swapaxes(2, 3)
    np.testing.assert_array_equal(product(turned, b, target), whole)
    for n in (1, 37):
        np.testing.assert_array_equal(product(a, b[..., :n], target), whole[..., :n])


@each_target
def test_an_element_is_one_chain_for_each_block(target: Processor) -> None:
    """1 + 2^-30 + 2^-30 + ...: small terms are lost one by one, and kept where a block has no 1."""
    k = KC + KC // 2
    a, b = np.full((1, 1, 1, k), 2.0**-30, "float32"), np.ones((1, 1, k, 1), "float32")
    a[..., 0] = 1.0
    want = np.float32(1.0) + np.float32(2.0**-30 * (KC // 2))
    assert product(a, b, target)[0, 0, 0, 0] == want


@each_target
@each_dtype
def test_nan_and_infinity_pass(target: Processor, dtype: str) -> None:
    a, b = normal((1, 1, 20, 40), dtype), normal((1, 1, 40, 50), dtype)
    a[0, 0, 3, 5], a[0, 0, 4, 6] = np.nan, np.inf
    c = product(a, b, target)[0, 0]
    assert np.isnan(c[3]).all() and np.isinf(c[4]).all()
    assert np.isfinite(np.delete(c, [3, 4], 0)).all()


@each_target
@each_dtype
def test_packed_layout(target: Processor, dtype: str) -> None:
    nr = target.tile(dtype)[1]
    k, n = KC + 7, 2 * nr + 3
    for turned in (False, True):
        b = normal((1, 1, k, n), dtype, turned)
        whole = np.zeros((k, 3 * nr), dtype)
        whole[:, :n] = b[0, 0]
        want = [
            block[:, p * nr : (p + 1) * nr].ravel()
            for block in (whole[:KC], whole[KC:])
            for p in range(3)
        ]
        got = packed(b, target, panels_per_task=2)[0, 0, : k * 3 * nr]
        np.testing.assert_array_equal(got, np.concatenate(want))


# 16 bits -----------------------------------------------------------------------------------------

HALVES = [tx.float16, tx.bfloat16]
each_half = pytest.mark.parametrize("half", HALVES, ids=lambda d: d.name)


def half_product(
    a: np.ndarray,
    b: np.ndarray,
    target: Processor,
    cut: tuple[int, int] = (10**6, 10**6),
    rounded: str = "",
) -> np.ndarray:
    """The product of halves, with sums in float32: rounded, of a b in float32 that is rounded."""
    (b0, b1, m, k), n = a.shape, b.shape[-1]
    mr, nr = target.tile("float32")
    size = k * -(-n // nr) * nr
    right = np.full((*b.shape[:2], size + 5), np.nan, np.float32)
    head = [*b.shape[:2], k, n, 3]
    args = [*head, b.ctypes.data, *strides(b), right.ctypes.data, *strides(right)[:2]]
    run(Pack("float32", nr, b.dtype.name, rounded), args, target)
    assert np.isnan(right[..., size:]).all()
    c = np.full((b0, b1, m, n + 3), np.nan, a.dtype)
    args = [b0, b1, m, n, k, cut[0] * mr, cut[1] * nr, a.ctypes.data, *strides(a)]
    args += [right.ctypes.data, *strides(right)[:2], c.ctypes.data, *strides(c)[:3]]
    run(Matmul("float32", left=a.dtype.name, out=a.dtype.name), args, target)
    assert np.isnan(c[..., n:].astype(np.float32)).all()
    return c[..., :n]


def bits(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x).view(np.uint16)


@each_target
@each_half
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (2, 3, 4), (1, 77, 200), (33, 77, 70), (61, 2 * KC + 5, 33), (300, 9, 600)]
)
def test_products_of_halves_are_those_of_float32_rounded_once(
    target: Processor, half: tx.DType, shape: tuple[int, int, int]
) -> None:
    """To the bit, for every layout of both operands."""
    m, k, n = shape
    for turned in (False, True):
        a = normal((1, 1, m, k), "float32", turned).astype(half.np, order="K")
        b = normal((1, 1, k, n), "float32", not turned).astype(half.np, order="K")
        want = product(a.astype("float32"), b.astype("float32"), target).astype(half.np)
        np.testing.assert_array_equal(bits(half_product(a, b, target)), bits(want))
        for cut in ((1, 1), (2, 10**3), (10**3, 2)):
            np.testing.assert_array_equal(bits(half_product(a, b, target, cut)), bits(want))


@each_target
@each_half
def test_halves_with_strides_and_batches(target: Processor, half: tx.DType) -> None:
    a = normal((3, 2, 40, 99), "float32").astype(half.np)[:, :, ::2, ::3]
    b = np.broadcast_to(normal((1, 2, 33, 90), "float32").astype(half.np)[..., ::2], (3, 2, 33, 45))
    want = product(a.astype("float32"), b.astype("float32"), target).astype(half.np)
    np.testing.assert_array_equal(bits(half_product(a, b, target)), bits(want))


@each_target
@each_half
def test_a_right_operand_is_rounded_while_it_is_packed(target: Processor, half: tx.DType) -> None:
    a = normal((1, 1, 20, 90), "float32").astype(half.np)
    for turned in (False, True):
        b = normal((1, 1, 90, 37), "float32", turned)
        want = half_product(a, b.astype(half.np, order="K"), target)
        got = half_product(a, b, target, rounded=half.name)
        np.testing.assert_array_equal(bits(got), bits(want))


@each_target
@each_half
def test_halves_agree_with_the_interpreter(target: Processor, half: tx.DType) -> None:
    """And so do infinity, NaN, what overflows when it is rounded, and nothing to add up."""
    a, b = normal((1, 1, 9, 30), "float32"), normal((1, 1, 30, 21), "float32")
    a[..., 0, 3], a[..., 1, 4], a[..., 2, :] = np.nan, np.inf, 60000.0
    a, b = a.astype(half.np), b.astype(half.np)
    found = []
    for runs in (run, lambda kernel, args, target: interpreter.run(kernel, args, target)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(globals(), "run", runs)
            found.append(half_product(a, b, target).astype(np.float32))
            empty = half_product(a[..., :0], b[:, :, :0], target).astype(np.float32)
            np.testing.assert_array_equal(empty, np.zeros((1, 1, 9, 21)))
    scale = np.abs(np.nan_to_num(found[1], posinf=0, neginf=0)).max()
    np.testing.assert_allclose(*found, rtol=2 * half.eps, atol=2e-6 * scale)


@each_target
@each_dtype
def test_no_k_is_zero(target: Processor, dtype: str) -> None:
    a, b = normal((1, 1, 4, 3), dtype)[..., :0], normal((1, 1, 3, 5), dtype)[:, :, :0]
    old = normal((1, 1, 4, 5), dtype, seed=1)
    np.testing.assert_array_equal(product(a, b, target, old=old), old)
    np.testing.assert_array_equal(product(a, b, target), np.zeros((1, 1, 4, 5), dtype))


@pytest.mark.parametrize("name", ["avx512", "avx2", "neon", "plain"])
@each_dtype
def test_the_inner_loops_stay_in_registers(name: str, dtype: str) -> None:
    target, module = jit.named_target(name), ir.Module()
    names = [
        tile.micro(module, target, dtype, rows, along_k=along_k).name
        for rows in tile.heights(target, dtype)
        for along_k in (False, True)
    ]
    names += [tile.micro(module, target, dtype, 1, along_k=False, panels=4).name]
    text = jit.assembly(module.text().replace("define internal", "define"), target)
    for function in names:
        code = re.split(rf"\n_?{function}:", text)[1].split("\n.Lfunc_end")[0]
        blocks = re.split(r"\n\.L\w+:", code)
        loops = [s for s in blocks if re.search(r"\t(vfmadd\w+|fmla|mulp[sd]|fmul)\t", s)]
        assert len(loops) == 1 and "call" not in loops[0], function
        if (name, dtype) != ("plain", "float64"):  # sums of two doubles take many registers
            assert not re.search(r"\bsp\b|%[re]sp", loops[0]), function


@pytest.mark.parametrize("full_rows", [False, True])
@pytest.mark.parametrize(
    "shape", [(2048, 256, 256), (256, 256, 2048), (1, 256, 256), (32, 8000, 256), (1, 1, 1)]
)
def test_chosen_tasks(shape: tuple[int, int, int], full_rows: bool) -> None:
    target = jit.named_target("avx2")
    m, n, k = shape
    nr = target.tile("float32")[1]
    rows, columns, panels = gemm.choose(m, n, k, 1, "float32", target, full_rows)
    assert 1 <= rows <= m and columns % nr == 0 and 1 <= panels <= -(-n // nr)
    assert not full_rows or columns >= n
    tasks = -(-m // rows) * -(-n // columns)
    if m * n * k > 10**8 and not full_rows:
        assert tasks >= 8
    if m * n * k < 10**4:
        assert tasks == 1
