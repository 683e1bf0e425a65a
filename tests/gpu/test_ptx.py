"""Kernels for a GPU as PTX: NVIDIA's assembler takes each in every form, for both architectures,
and none spills registers or takes more of a multiprocessor than helpers/ptxas.py lets it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llvmlite")
import ptxas
from kernel_case import Program
from processor_kernels import KERNELS
from ptxas import ARCHITECTURES, Case, Used

from tinygrad_tx.backends.gpu import gemm, rows, tensor_core, writers
from tinygrad_tx.backends.gpu.ptx import Ptx, compile_ptx
from tinygrad_tx.backends.gpu.shared_tiles import How
from tinygrad_tx.backends.gpu.thread import WARP
from tinygrad_tx.backends.kernels.kinds import Gemm, GemmEpilogue, RowProgram, Scored
from tinygrad_tx.backends.llvm import ir

BF16, TF32 = Gemm("bfloat16"), Gemm("float32", tf32=True)
TENSOR = (BF16, Gemm("float16", accumulate=True, c="float32"), TF32)


def gelu(dtype: str) -> RowProgram:
    """residual + gelu(c + bias), which is dropped where a mask says so; two outputs."""
    p = Program()
    x = p.do("cast", "float32", p.load(dtype))
    x = p.do("add", "float32", x, p.load("float32"))
    inner = p.do("mul", "float32", x, p.do("const", "float32", value=0.7071))
    one = p.do("const", "float32", value=1.0)
    y = p.do("mul", "float32", x, p.do("add", "float32", p.do("erf", "float32", inner), one))
    y = p.do("where", "float32", p.load("bool"), y, p.do("const", "float32", value=0.0))
    y = p.do("add", "float32", y, p.do("cast", "float32", p.load("bfloat16")))
    p.store(p.do("cast", "bfloat16", y))
    p.store(x)
    return p.rows(2)


def with_epilogue(kernel: Gemm) -> GemmEpilogue:
    return GemmEpilogue(kernel, gelu(kernel.out), 0, keep=True)


def tensor(kernel: Any, size: tuple[int, ...], a: How, b: How, together: bool) -> Case:
    form = tensor_core.Form(*size, a, b, together)
    return kernel, form, form.threads


def few() -> Iterator[Case]:
    """Every kind of kernel, in the forms that take most."""
    for kernel in KERNELS:  # attention has a file of its own
        apart = isinstance(kernel, (RowProgram, Scored))
        if type(kernel) in writers._WRITERS and not apart:
            (form, threads) = {"columns": (8, 256), "scatteradd": (256, 256)}.get(
                kernel.word, (None, 256)
            )
            yield kernel, form, threads
    softmax = KERNELS[0]
    yield from ((softmax, rows.Form(warps=warps), rows.THREADS) for warps in (1, 8))
    yield gelu("float32"), rows.Form(256, together=True), rows.THREADS
    yield Gemm("float32", True), gemm.Form(128, True, False), gemm.THREADS
    yield with_epilogue(Gemm("float32")), gemm.Form(16, True, True, True), gemm.THREADS
    large, middle, small = tensor_core._SIZES
    yield tensor(BF16, large, How(True, 16), How(False, 16), True)
    yield tensor(with_epilogue(BF16), large, How(True, 16), How(True, 16), True)
    yield tensor(with_epilogue(TF32), large, How(False, 0), How(False, 0), False)
    yield tensor(TF32, middle, How(False, 4), How(True, 8), False)
    yield tensor(BF16, small, How(False, 0), How(True, 16), False)


def all_forms() -> Iterator[Case]:
    """What choose() can give, of kernels with little and with much in them."""
    for kernel in KERNELS:
        if type(kernel) not in writers._WRITERS or isinstance(kernel, Scored):
            continue
        if kernel.word == "columns":
            yield from ((kernel, warps, warps * WARP) for warps in (1, 8))
        elif kernel.word == "scatteradd":
            yield from ((kernel, groups, threads) for groups, threads in ((1, 32), (256, 256)))
        elif kernel.word == "rows":
            yield from ((kernel, rows.Form(warps=warps), rows.THREADS) for warps in (1, 8))
        else:
            yield kernel, None, 256
    for along, together in product((1, 4, 32, 256), (False, True)):
        yield gelu("bfloat16"), rows.Form(along, together), rows.THREADS
    for dtype, size, ways in product(("float32", "float64"), (16, 32, 64, 128), range(8)):
        if size == 128 and dtype == "float64":
            continue
        plain = Gemm(dtype, accumulate=bool(ways & 1))
        form = gemm.Form(size, bool(ways & 2), bool(ways & 4), bool(ways & 1))
        yield plain, form, gemm.THREADS
        if dtype == "float32":
            yield with_epilogue(plain), form, gemm.THREADS
    sides, copies = product((True, False), repeat=2), (0, 4, 8, 16)
    for (a, b), size, (plain, tile) in product(sides, copies, product(TENSOR, tensor_core._SIZES)):
        hows = How(a, size), How(b, size)
        yield tensor(plain, tile, *hows, together=a)
        if plain is not TENSOR[1]:
            yield tensor(with_epilogue(plain), tile, *hows, together=b)


@pytest.mark.ptxas
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_ptxas_takes_every_kind_of_kernel(architecture: str, tmp_path: Path) -> None:
    ptxas.require(list(few()), architecture, tmp_path)


@pytest.mark.ptxas
@pytest.mark.slow
@pytest.mark.parametrize("part", range(16))
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_ptxas_takes_every_form(architecture: str, part: int, tmp_path: Path) -> None:
    ptxas.require(list(all_forms())[part::16], architecture, tmp_path)


@pytest.mark.ptxas
def test_a_kernel_that_takes_too_many_registers_is_found(tmp_path: Path) -> None:
    kernel, form, threads = tensor(BF16, tensor_core._SIZES[0], How(True, 0), How(True, 0), True)
    module = ir.Module()
    writers.write(kernel, form, Ptx(module, "kernel", threads))
    text = module.text().replace('"nvvm.minctasm"="1"', '"nvvm.minctasm"="3"')
    assert ptxas.measure(compile_ptx(text, "sm_80"), "sm_80", tmp_path)["kernel"].spilled > 0


def test_what_is_beyond_a_bound_is_said() -> None:
    assert Used(255, 0, 48 << 10).beyond(256, 1) == Used(128, 0, 20 << 10).beyond(256, 2) == ""
    assert "8 bytes of registers are spilled" in Used(10, 8, 0).beyond(256, 1)
    for registers, threads, resident in ((129, 256, 2), (249, 264, 1), (256, 32, 1)):
        assert "registers are more than 65536" in Used(registers, 0, 0).beyond(threads, resident)
    for shared, resident in ((49153, 1), (48 << 10, 4)):
        assert "of shared memory each" in Used(20, 0, shared).beyond(128, resident)
