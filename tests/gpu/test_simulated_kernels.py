"""The kernels for a GPU, run by the simulator: against the processor's, to the bit, and the
interpreter's."""

from __future__ import annotations

from collections.abc import Sequence
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from random_kernels import Case, arguments, arrays, cases

from tinygrad_tx.backends.kernels.describe import describe
from tinygrad_tx.backends.kernels.kinds import Kernel

pytest.importorskip("llvmlite")
from native_case import run as run_native
from simulator import guarded
from simulator.machine import Machine, code

from tinygrad_tx.backends.gpu import rows, writers
from tinygrad_tx.backends.llvm import libm

QUICK = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def run(kernel: Kernel, args: Sequence[int], seed: int = 0) -> None:
    """A call on the simulator. Its addresses are those of arrays, which may lie anywhere."""
    words = np.array(args, np.int64)
    chosen = writers.choose(kernel, args)
    made = code(kernel, chosen.form, chosen.threads)
    Machine(seed).launch(made, chosen.blocks, words.ctypes.data)


def check(case: Case) -> None:
    kernel = case.kernel
    wanted = arrays(case)
    apart = {id(x): guarded.moved(x) for x in wanted}  # an output may lie where an input does
    found = [apart[id(x)] for x in wanted]
    run_native(kernel, arguments(case, wanted))
    run(kernel, arguments(case, found), case.seed)
    guarded.require_intact()
    first = len(kernel.inputs)
    # The C library's functions are not those that a GPU has in their place.
    own = any(instr.op in libm.FUNCTIONS for instr in kernel.instrs)
    for number, tolerance in enumerate(case.tolerances):
        np.testing.assert_allclose(
            found[first + number],
            wanted[first + number],
            rtol=0,
            atol=tolerance if own else 0,
            err_msg=f"output {number}\n{describe(kernel)}",
        )


@QUICK
@given(cases(columns_kind=False))
def test_random_row_programs(case: Case) -> None:
    check(case)


@QUICK
@given(cases(columns_kind=False))
def test_random_row_programs_by_single_columns(case: Case) -> None:
    """As those are computed that have many results; some of which lie where operands do."""
    with mock.patch.object(rows, "_ROOM", 0):
        check(case)


@QUICK
@given(cases(columns_kind=True))
def test_random_reductions_along_rows(case: Case) -> None:
    check(case)
