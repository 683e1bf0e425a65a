"""The kernels for a GPU, run by the simulator: against the processor's, to the bit, and the
interpreter's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from random_kernels import Case, arguments, arrays, cases

from tinygrad_tx.backends.kernels.describe import describe
from tinygrad_tx.backends.kernels.kinds import Kernel

pytest.importorskip("llvmlite")
from native_case import run as run_native
from simulator.machine import Machine, code

from tinygrad_tx.backends.gpu import writers

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
    wanted, found = arrays(case), arrays(case)
    run_native(kernel, arguments(case, wanted))
    run(kernel, arguments(case, found), case.seed)
    first = len(kernel.inputs)
    for number in range(len(case.tolerances)):
        mine, theirs = found[first + number], wanted[first + number]
        assert np.array_equal(mine, theirs, equal_nan=mine.dtype.kind == "f"), (
            f"output {number}\n{describe(kernel)}\n{mine}\n{theirs}"
        )


@QUICK
@given(cases(columns_kind=False))
def test_random_row_programs(case: Case) -> None:
    check(case)


@QUICK
@given(cases(columns_kind=True))
def test_random_reductions_along_rows(case: Case) -> None:
    check(case)
