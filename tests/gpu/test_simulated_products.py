"""Products for a GPU, run by the simulator: exact ones against the processor's, to the bit, those
on tensor cores within what rounding may do; and what is computed of c while it is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from kernel_case import Array, Program, operand
from product_case import Product, lying, numbers

from tinygrad_tx.backends.kernels import interpreter
from tinygrad_tx.backends.kernels.kinds import Gemm, GemmEpilogue, Matmul, Pack, RowProgram

pytest.importorskip("llvmlite")
from native_case import run as run_native
from simulator.machine import BadCopyError, DivergenceError, Machine, code, made
from simulator.thread import Simulated

from tinygrad_tx.backends.cpu import jit
from tinygrad_tx.backends.gpu import gemm, tensor_core, writers
from tinygrad_tx.backends.gpu.shared_tiles import How, Side
from tinygrad_tx.backends.llvm import ir

HALVES = (Gemm("bfloat16"), Gemm("float16"), Gemm("float32", tf32=True))
SIZES = tensor_core._SIZES
LARGE = dict(zip(("rows", "columns", "down", "across"), SIZES[0], strict=True))


def run(product: Product, seed: int = 0, **form: Any) -> Any:
    """A call on the simulator; the form of its code. form: what is otherwise than it is chosen."""
    words = product.words
    chosen = writers.choose(product.whole, words)
    found = chosen.form._replace(**form)
    threads = chosen.threads if isinstance(found, gemm.Form) else found.threads
    made = code(product.whole, found, threads)
    Machine(seed).launch(made, chosen.blocks, np.array(words, np.int64).ctypes.data)
    return found


# Exact products ----------------------------------------------------------------------------------


def native(product: Product) -> Product:
    """The product as the processor makes it."""
    dtype, (b0, b1, m, k), n = product.kernel.dtype, product.a.shape, product.b.shape[-1]
    width, found = jit.host_target().tile(dtype)[1], product.again()
    size = k * -(-n // width) * width
    packed = np.zeros(b0 * b1 * size, dtype)
    place = [packed.ctypes.data, b1 * size, size]
    run_native(Pack(dtype, width), [b0, b1, k, n, 2, *operand(product.b), *place])
    cut = [b0, b1, m, n, k, 8, 4 * width]
    run_native(
        Matmul(dtype, product.kernel.accumulate),
        [*cut, *operand(product.a), *place, *operand(found.c, 3)],
    )
    return found


EXACT = [
    ("float32", (1, 1, 5, 7, 3), {}, {}, False),
    ("float32", (2, 3, 33, 70, 260), {"turned": True}, {"pad": 3}, True),
    ("float64", (1, 2, 17, 65, 40), {}, {"turned": True}, False),
]
MORE_EXACT = [
    *(("float32", (1, 1, 130, 68, 600), {"turned": x}, {"turned": y}, False)
      for x in (False, True) for y in (False, True)),
    ("float64", (2, 1, 70, 130, 300), {"turned": True, "pad": 1}, {"step": 2}, True),
    ("float32", (1, 1, 1, 300, 1000), {}, {"turned": True}, False),
]  # fmt: skip


def check_exact(dtype: str, sizes: Any, a: Any, b: Any, accumulate: bool, **form: Any) -> None:
    product = Product.of(Gemm(dtype, accumulate), sizes, a=a, b=b, c={"pad": 1})
    wanted = native(product)
    run(product, seed=1, **form)
    np.testing.assert_array_equal(product.c, wanted.c)


@pytest.mark.parametrize("dtype, sizes, a, b, accumulate", EXACT)
def test_exact_products_have_the_bits_of_the_processor(
    dtype: str, sizes: Any, a: Any, b: Any, accumulate: bool
) -> None:
    check_exact(dtype, sizes, a, b, accumulate)


@pytest.mark.slow
@pytest.mark.parametrize("dtype, sizes, a, b, accumulate", MORE_EXACT)
@pytest.mark.parametrize("rows", [16, 32, 64, 128])
def test_exact_products_of_every_tile(
    dtype: str, sizes: Any, a: Any, b: Any, accumulate: bool, rows: int
) -> None:
    if dtype == "float64" and rows > 64:
        pytest.skip("no tile of doubles has 128 rows")
    check_exact(dtype, sizes, a, b, accumulate, rows=rows)


# Products on tensor cores ------------------------------------------------------------------------


def check(kernel: Gemm, sizes: Any, a: Any = (), b: Any = (), c: Any = (), **form: Any) -> Any:
    product = Product.of(kernel, sizes, a=a, b=b, c=c)
    before = np.array(product.c)
    found = run(product, seed=1, **form)
    product.require_close(before)
    return found


@pytest.mark.parametrize("kernel", HALVES)
@pytest.mark.parametrize("turned", [(False, False), (False, True), (True, False), (True, True)])
def test_tensor_cores_multiply_in_every_layout(kernel: Gemm, turned: tuple[bool, bool]) -> None:
    """Aligned operands are copied in pieces of 16 bytes, and c ends in the middle of a tile."""
    left, right = turned
    form = check(kernel, (1, 2, 24, 72, 88), {"turned": left}, {"turned": right})
    assert form.a == How(not left, 16) and form.b == How(right, 16) and form.together


UNEVEN = [
    (Gemm("bfloat16"), {}, {}, 0, 0),  # odd sizes: element by element
    (Gemm("float16", c="float32"), {"pad": 3}, {"turned": True, "pad": 5}, 4, 8),
    (Gemm("float32", tf32=True), {}, {"turned": True}, 4, 4),
    (Gemm("bfloat16", accumulate=True), {"shift": 1}, {"step": 2}, 0, 0),
    (Gemm("float32", tf32=True), {"step": 3}, {"shift": 2, "pad": 1}, 0, 8),
]


@pytest.mark.parametrize("kernel, a, b, a_size, b_size", UNEVEN)
def test_what_is_not_aligned_comes_in_smaller_pieces(
    kernel: Gemm, a: Any, b: Any, a_size: int, b_size: int
) -> None:
    form = check(kernel, (2, 1, 21, 35, 71), a, b, {"pad": 2})
    assert (form.a.size, form.b.size) == (a_size, b_size)


def test_the_stride_of_an_axis_of_one_place_is_any() -> None:
    form = check(Gemm("bfloat16"), (1, 1, 1, 40, 72), {"turned": True})
    assert form.a == How(True, 16)
    form = check(Gemm("bfloat16"), (1, 1, 24, 40, 1))  # copies are begun behind the end of k, too
    assert (form.a, form.b) == (How(True, 0), How(False, 16))


@pytest.mark.parametrize("kernel", [Gemm("float32"), Gemm("bfloat16", True), Gemm("float16")])
@pytest.mark.parametrize("sizes", [(1, 1, 0, 5, 8), (2, 1, 5, 7, 0), (1, 0, 5, 7, 8)])
def test_empty_products(kernel: Gemm, sizes: Any) -> None:
    check(kernel, sizes)


def with_forms(product: Product) -> list[Array]:
    """c by each of the tiles."""
    found = []
    for rows, columns, down, across in SIZES:
        one = product.again()
        run(one, seed=rows, rows=rows, columns=columns, down=down, across=across)
        found.append(np.array(one.c))
    return found


def test_every_tile_gives_the_same_bits() -> None:
    kernel = Gemm("bfloat16", c="float32")
    product = Product.of(kernel, (1, 1, 140, 150, 104), a={"turned": True})
    first, *others = with_forms(product)
    for other in others:
        np.testing.assert_array_equal(first, other)
    # So does a part of the product.
    part = replace(product, a=product.a[:, :, 5:20], c=np.array(product.c[:, :, 5:20]))
    run(part)
    np.testing.assert_array_equal(part.c, first[:, :, 5:20])


@pytest.mark.slow
@pytest.mark.parametrize("kernel", HALVES)
@pytest.mark.parametrize("turned", [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize("sizes", [(1, 1, 136, 264, 200), (2, 1, 131, 77, 99), (1, 1, 1, 40, 1000)])
def test_every_tile_in_every_layout(kernel: Gemm, turned: tuple[bool, bool], sizes: Any) -> None:
    left, right = turned
    for accumulate in (False, True):
        kernel = replace(kernel, accumulate=accumulate)
        product = Product.of(kernel, sizes, a={"turned": left}, b={"turned": right})
        before, wanted = np.array(product.c), product.again()
        interpreter.run(kernel, wanted.words, jit.host_target())
        wanted.require_close(before)
        first, *others = with_forms(product)
        replace(product, c=first).require_close(before)
        for other in others:
            np.testing.assert_array_equal(first, other)


def test_the_order_of_threads_changes_no_bit() -> None:
    product = Product.of(Gemm("float16"), (1, 1, 40, 136, 200), b={"turned": True})
    found = []
    for seed in range(3):
        one = product.again()
        run(one, seed)
        found.append(np.array(one.c))
    assert all(np.array_equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize(
    "kernel, sizes, tile",
    [
        (Gemm("bfloat16"), (1, 1, 8192, 768, 768), (128, 128)),
        (Gemm("bfloat16"), (1, 1, 1024, 768, 768), (64, 64)),
        (Gemm("bfloat16"), (1, 1, 8, 50304, 768), (16, 64)),
        (Gemm("float32", tf32=True), (32, 12, 128, 128, 64), (128, 128)),
    ],
)
def test_tiles_are_as_large_as_keeps_a_gpu_busy(
    kernel: Gemm, sizes: tuple[int, ...], tile: tuple[int, int]
) -> None:
    _, b1, m, n, k = sizes
    a, b, c = ([0, b1 * x * y, x * y, y, 1] for x, y in ((m, k), (k, n), (m, n)))
    form = writers.choose(kernel, [*sizes, *a, *b, *c[:-1]]).form
    assert (form.rows, form.columns) == tile and form.a.size == form.b.size == 16


def offsets(kernel: Gemm, how: How, along: int, first: bool) -> tuple[Array, Array]:
    """Of a warp's threads the bytes before what they read of a tile at once, (reads, threads); and
    before the pieces that they bring."""
    made_of: list[Side] = []

    def write(t: Simulated) -> None:
        b, at = t.b, kernel.layout
        side = Side(t, kernel, at.a if first else at.b, how, along, first)
        side.of_warp(ir.integer(0, "i32"), along // 16)
        made_of.append(side)
        found = [*side.reads, *(offset for *_, offset in side.mine)]
        for i, x in enumerate(found):
            place = b.add(b.mul(ir.integer(i, "i32"), t.size), t.thread)
            b.store(x, b.at(t.words.place(0), place, "i32"))
        t.end()

    kernel_code = made(write, 32)
    reads = len(made_of[0].reads)
    out = np.zeros((reads + len(made_of[0].mine), 32), np.int32)
    words = np.array([out.ctypes.data], np.int64)
    Machine().launch(kernel_code, 1, words.ctypes.data)
    return out[:reads], out[reads:]


@pytest.mark.parametrize("kernel", [Gemm("bfloat16"), Gemm("float32", tf32=True)])
@pytest.mark.parametrize("along_k", [True, False])
@pytest.mark.parametrize("along", [16, 64, 128])
def test_what_is_moved_at_once_lies_in_different_banks(
    kernel: Gemm, along_k: bool, along: int
) -> None:
    """Of 32 banks of 4 bytes each: eight threads move 16 bytes each at once, or 32 threads 4."""
    for first in (True, False):
        reads, brought = offsets(kernel, How(along_k, 16), along, first)
        size, threads = (4, 32) if kernel.tf32 and not along_k else (16, 8)
        for moved, bytes, many in ((reads, size, threads), (brought, 16, 8)):
            banks = (moved % 128 // bytes).reshape(-1, many)
            assert all(len(set(row)) == many for row in banks.tolist())
        assert sorted(brought.ravel().tolist()) == list(range(0, along * 64, 16))


# Faults ------------------------------------------------------------------------------------------


def without(method: str, number: int) -> type[Simulated]:
    """Threads whose code lacks one call of a method."""

    class Faulty(Simulated):
        calls = 0

    def call(self: Faulty) -> bool:
        self.calls += 1
        return self.calls - 1 != number

    if method == "barrier":
        Faulty.barrier = lambda self: Simulated.barrier(self) if call(self) else None  # type: ignore
    else:
        Faulty.wait = lambda self, n: Simulated.wait(self, n) if call(self) else None  # type: ignore
    return Faulty


def fails(product: Product, thread: type[Simulated], **form: Any) -> bool:
    """True if a product by one block is wrong in one of some orders of threads."""
    wanted = product.again()
    found = run(wanted, **form)
    threads = gemm.THREADS if isinstance(found, gemm.Form) else found.threads
    faulty = made(lambda t: writers.write(product.kernel, found, t), threads, thread)
    for seed in range(4):
        one = product.again()
        try:
            Machine(seed).launch(faulty, 1, np.array(one.words, np.int64).ctypes.data)
        except (DivergenceError, BadCopyError):
            return True
        if not np.array_equal(one.c, wanted.c):
            return True
    return False


@pytest.mark.parametrize(
    "kernel, barriers, form",
    [
        (Gemm("bfloat16"), 4, {}),
        pytest.param(Gemm("bfloat16"), 4, LARGE, marks=pytest.mark.slow),
        (Gemm("float32"), 4, {"rows": 128}),
    ],
)
def test_no_barrier_is_too_many(kernel: Gemm, barriers: int, form: Any) -> None:
    """Of two tiles by one block: their sums end in the stage that c's tile takes the place of."""
    product = Product.of(kernel, (1, 1, 16, 128, 160), a={"turned": True})
    assert not fails(product, Simulated, **form)
    assert not fails(product, without("barrier", barriers), **form)
    for number in range(barriers):
        assert fails(product, without("barrier", number), **form), f"barrier {number}"


def test_no_wait_is_too_many() -> None:
    product = Product.of(Gemm("bfloat16"), (1, 1, 16, 128, 160))
    assert not fails(product, without("wait", 2))
    for number in range(2):
        assert fails(product, without("wait", number)), f"wait {number}"


# Epilogues ---------------------------------------------------------------------------------------


def bias_gelu(dtype: str) -> RowProgram:
    """x = c + bias; y = x / 2 (1 + tanh(x + x^3 / 16)) where it is kept, plus the residual. Out:
    y, the same as bfloat16, and whether it is positive."""
    p = Program()
    c = p.do("cast", "float32", p.load(dtype))
    x = p.do("add", "float32", c, p.load("float32"))  # the bias: the same for each row
    cube = p.do("mul", "float32", x, p.do("mul", "float32", x, x))
    scaled = p.do("mul", "float32", cube, p.do("const", "float32", value=1 / 16))
    t = p.do("tanh", "float32", p.do("add", "float32", x, scaled))
    t = p.do("add", "float32", t, p.do("const", "float32", value=1.0))
    half = p.do("mul", "float32", x, p.do("const", "float32", value=0.5))
    y = p.do("mul", "float32", half, t)
    y = p.do("where", "float32", p.load("bool"), y, p.do("const", "float32", value=0.0))
    y = p.do("add", "float32", y, p.load("float32"))
    p.store(y)
    p.store(p.do("cast", "bfloat16", y))
    p.store(p.do("gt", "bool", y, p.do("const", "float32", value=0.0)))
    return p.rows(2)


def of_rows(dtype: str) -> RowProgram:
    """c times a number of its row, plus the numbers of its row and column; an output for each row,
    one in columns that do not lie side by side."""
    p = Program()
    scale = p.load("float32", "same")
    c = p.do("cast", "float32", p.load(dtype))
    x = p.do("mul", "float32", c, scale)
    row, column = p.do("row", "int64"), p.do("col", "int64")
    x = p.do("add", "float32", x, p.do("cast", "float32", row))
    x = p.do("sub", "float32", x, p.do("cast", "float32", column))
    p.store(x, "any")
    p.store(p.do("exp", "float32", scale), "same")
    return p.rows(2)


def following(program: RowProgram, product: Product, c: int, outer: tuple[int, int], pad: int
              ) -> tuple[list[Array], list[int]]:  # fmt: skip
    """Arrays and words of a program that follows a product, whose rows are counted by two axes."""
    n, rng = product.c.shape[-1], np.random.default_rng(5)
    arrays: list[Array] = []
    for number, given in enumerate(program.inputs):
        if number == c:
            arrays.append(product.c.reshape(*outer, n))
        elif given.dtype == "bool":
            arrays.append(lying(rng.random((*outer, n)) < 0.5, pad=pad))
        elif given.column == "same":
            arrays.append(np.broadcast_to(numbers(rng, given.dtype, *outer, 1), (*outer, n)))
        elif number == 1:
            arrays.append(np.broadcast_to(lying(numbers(rng, given.dtype, 1, n)), (*outer, n)))
        else:
            arrays.append(lying(numbers(rng, given.dtype, *outer, n), pad=pad))
    for output in program.outputs:
        x = numbers(rng, "float32", *outer, 1 if output.column == "same" else n)
        dtype = program.instrs[output.instr].dtype
        x = x.astype("bool") if dtype == "bool" else x.astype(interpreter.ALL[dtype].np)
        arrays.append(lying(x, pad=pad, step=2 if output.column == "any" else 1))
    words = [*outer, n, 3]
    for array in arrays:
        words += operand(array)
    for k, output in enumerate(program.outputs):  # one value for each row has no step
        if output.column == "same":
            words[-4 * (len(program.outputs) - k) + 3] = 0
    return arrays, words


def check_epilogue(
    kernel: Gemm, make: Callable[[str], RowProgram], c: int, sizes: Any, keep: bool, pad: int
) -> Any:
    """An epilogue's outputs are those of its program, run on the product afterwards."""
    program = make(kernel.out)
    b0, b1, m, *_ = sizes
    outer = (b0 * b1 * m // 3, 3)
    product = Product.of(kernel, sizes)
    whole = product.again()
    run(whole)
    wanted, words = following(program, whole, c, outer, pad)
    run_native(program, words)
    before = np.array(product.c)
    found, more = following(program, product, c, outer, pad)
    follows = GemmEpilogue(kernel, program, c, keep)
    form = run(replace(product, follows=follows, more=more), 2)
    for mine, theirs in list(zip(found, wanted, strict=True))[len(program.inputs) :]:
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(product.c, whole.c if keep else before)
    product.c[...] = before
    return form, replace(product, follows=follows, more=more), found


@pytest.mark.parametrize(
    "kernel", [Gemm("float32"), Gemm("bfloat16"), Gemm("bfloat16", c="float32")]
)
@pytest.mark.parametrize(
    "keep, sizes, pad", [(False, (1, 1, 21, 72, 48), 0), (True, (2, 1, 9, 67, 40), 3)]
)
def test_an_epilogue_is_what_its_program_makes_of_c(
    kernel: Gemm, keep: bool, sizes: Any, pad: int
) -> None:
    form, product, arrays = check_epilogue(kernel, bias_gelu, 0, sizes, keep, pad)
    assert form.together == (pad == 0)
    # The interpreter's meaning of it: the same but for roundings.
    before, c = [np.array(x) for x in arrays[4:]], np.array(product.c)
    interpreter.run(product.whole, product.words, jit.host_target())
    for mine, theirs in zip(before[:2], arrays[4:], strict=False):
        error = 0.05 if mine.dtype != np.float32 or kernel.dtype == "bfloat16" else 1e-4
        np.testing.assert_allclose(mine.astype(float), theirs.astype(float), error, error)
    assert keep or np.array_equal(product.c, c)


def test_an_epilogue_knows_its_row() -> None:
    check_epilogue(Gemm("float16"), of_rows, 1, (2, 3, 20, 65, 40), True, 0)


def test_an_epilogue_that_adds_to_c() -> None:
    for kernel in (Gemm("float32", accumulate=True), Gemm("bfloat16", accumulate=True)):
        check_epilogue(kernel, bias_gelu, 0, (1, 1, 21, 72, 48), True, 0)


def test_what_is_no_epilogue_is_refused() -> None:
    reduces = Program()
    reduces.store(reduces.do("sum", "float32", reduces.load("float32")), "same")
    with pytest.raises(ValueError, match="reduces nothing"):
        GemmEpilogue(Gemm("float32"), reduces.rows(1), 0)
    with pytest.raises(ValueError, match="input 0 is no c"):
        GemmEpilogue(Gemm("float32"), of_rows("float32"), 0)
