"""The C library's functions in code of our own, on a GPU: in a kernel on the simulator, and as
PTX, where nothing is left to be found elsewhere and NVIDIA's assembler keeps all values in
registers."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from kernel_case import Program, row_args

pytest.importorskip("llvmlite")
import ptxas
from simulator.machine import Machine, code

from tinygrad_tx.backends.gpu import writers
from tinygrad_tx.backends.gpu.ptx import Ptx, compile_ptx
from tinygrad_tx.backends.llvm import ir, libm

LANES = 4  # of a thread in row programs
REGISTERS = 64  # as many as 1,024 threads of a multiprocessor of 65,536 have
NAMES = (*libm.FUNCTIONS, "frem")
OF_TWO = ("atan2", "pow", "frem")
NUMPY = {"atan2": "arctan2", "pow": "power"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_kernel_on_the_simulator(dtype: str) -> None:
    rng = np.random.default_rng(5)
    x, y = (rng.standard_normal((3, 70)).astype(dtype) * 9 for _ in range(2))
    p = Program()
    a, b = p.load(dtype), p.load(dtype)
    size, wide = p.do("abs", dtype, a), [v.astype(np.longdouble) for v in (abs(x), y)]
    wanted = []
    for op in libm.FUNCTIONS:
        count = 1 + (op in OF_TWO)
        p.store(p.do(op, dtype, *(size, b)[:count]))
        wanted.append(getattr(np, NUMPY.get(op, op))(*wide[:count]).astype(dtype))
    p.store(p.do("remainder", dtype, a, b))
    kernel, found = p.rows(1), [np.zeros_like(x) for _ in p.outputs]
    args = row_args(x.shape, [x, y, *found])
    choice, words = writers.choose(kernel, args), np.array(args, np.int64)
    made = code(kernel, choice.form, choice.threads)
    Machine().launch(made, choice.blocks, words.ctypes.data)
    # Floats are correctly rounded, as few a C library's are.
    rtol = 0 if dtype == "float32" else 3 * np.finfo(dtype).eps
    for op, mine, theirs in zip(libm.FUNCTIONS, found, wanted, strict=False):
        np.testing.assert_allclose(mine, theirs, rtol=rtol, err_msg=op)
    np.testing.assert_array_equal(found[-1], np.remainder(x, y))


def kernel(name: str, element: str) -> str:
    """The PTX of a kernel that computes LANES results in each thread."""
    module = ir.Module(libm=False)
    thread = Ptx(module, "kernel", 256)
    b, type = thread.b, ir.vector(LANES, element)
    count = 1 + (name in OF_TWO)
    to, *sources = (b.at(thread.words.place(i), thread.thread, type) for i in range(1 + count))
    args = [b.load(type, source) for source in sources]
    b.store(libm.frem(b, *args) if name == "frem" else libm.call(b, name, *args), to)
    thread.end()
    return compile_ptx(module.text(), "sm_80")


@pytest.mark.ptxas
@pytest.mark.parametrize("element", ["float", "double"])
@pytest.mark.parametrize("name", NAMES)
def test_ptx(name: str, element: str, tmp_path: Path) -> None:
    text = kernel(name, element)
    assert ".visible .entry kernel(" in text
    assert not re.search(r"\.extern|\bcall\b", text)
    (used,) = ptxas.measure(text, "sm_80", tmp_path).values()
    assert not used.spilled and used.registers <= REGISTERS, used
