"""Random graphs with gradients and state: compiled, natively and by the interpreter, they are what
eager code computes.

An ordinary run takes 200 graphs through the interpreter of kernels and 50 through LLVM, always the
same ones. `TX_FUZZ=10000 pytest tests/compiler/test_fuzz.py -k interpreter` takes that many new
ones (and `-k native`, through LLVM).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_cells import Loop
from random_graphs import PROGRAMS, SMALL, Machine, Program, kept, require_same, sizes

import tinygrad_tx as tx

MANY = int(os.environ.get("TX_FUZZ", "0"))


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's cache is not filled with kernels that nobody needs again."""
    with mock.patch.dict(os.environ, TX_CACHE_DIR=str(tmp_path_factory.mktemp("cache"))):
        yield


def configured(count: int) -> settings:
    return settings(
        max_examples=MANY or count,
        derandomize=not MANY,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@given(PROGRAMS, st.booleans())
@configured(40)
def test_through_the_interpreter(program: Program, small: bool) -> None:
    check(program, small, ("interp",))


@given(PROGRAMS, st.booleans())
@configured(20)
def test_native(program: Program, small: bool) -> None:
    check(program, small, ("interp", "native"))


@given(PROGRAMS, st.booleans(), st.sampled_from(["bf16", "fp16"]))
@configured(30)
def test_under_autocast(program: Program, small: bool, precision: str) -> None:
    with tx.autocast(precision):
        check(program._replace(dtype="float32"), small, ("interp",), precision)


def check(program: Program, small: bool, modes: tuple[str, ...], precision: str = "fp32") -> None:
    program = kept(program)
    wanted = Machine(program).run(compiled=False)
    for mode in modes:
        with mock.patch.dict(os.environ, TX_COMPILE=mode), sizes(SMALL if small else {}):
            found = Machine(program).run(compiled=True)
        require_same(found, wanted, program, mode, precision)


@pytest.mark.parametrize("seed", range(MANY or 12))
def test_loops(seed: int) -> None:
    """A loop, compiled, gives what it gives eagerly, and its gradients."""
    loop = Loop(seed)
    tx.manual_seed(seed)
    eager = [x.numpy().copy() for x in loop.run()]
    compiled = tx.compile(loop.run)
    for _ in range(2):
        tx.manual_seed(seed)
        for a, b in zip(compiled(), eager, strict=True):
            np.testing.assert_allclose(a.numpy(), b, rtol=0, atol=2e-3 * max(1, abs(b).max()))
