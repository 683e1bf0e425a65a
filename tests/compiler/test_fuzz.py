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
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from random_cells import Loop
from random_graphs import PROGRAMS, SMALL, Machine, Program, kept, sizes

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


def check(program: Program, small: bool, modes: tuple[str, ...]) -> None:
    program = kept(program)
    wanted = Machine(program).run(compiled=False)
    for mode in modes:
        with mock.patch.dict(os.environ, TX_COMPILE=mode), sizes(SMALL if small else {}):
            found = Machine(program).run(compiled=True)
        assert [(a.shape, a.dtype) for a in found] == [(a.shape, a.dtype) for a in wanted]
        off = np.array([distance(a, b) for a, b in zip(found, wanted, strict=True)])
        bad = np.flatnonzero(off > allowed(program))
        assume(not bad.size or not doubtful(program, wanted))
        assert not bad.size, (mode, [(i, off[i], found[i], wanted[i]) for i in bad], program)


def exact(program: Program) -> bool:
    return program.dtype == "float64" and not any(s.name == "halves" for s in program.steps)


def allowed(program: Program) -> float:
    return 1e-9 if exact(program) else 2e-4


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference, relative to the largest number where that is above 1."""
    if a.dtype.kind != "f" or not a.size:
        return float((a != b).any())
    if (np.isnan(a) != np.isnan(b)).any():
        return np.inf
    a, b = np.nan_to_num(a.astype("d")), np.nan_to_num(b.astype("d"))
    return float(np.abs(a - b).max() / max(1.0, np.abs(b).max()))


def doubtful(program: Program, wanted: list[np.ndarray]) -> bool:
    """Whether eager code gives something else where its inputs are off by a rounding error: a
    comparison of values that are equal but for rounding decides."""
    moved = 1e-12 if exact(program) else 1e-6
    for _ in range(5):
        other = Machine(program, moved).run(compiled=False)
        off = max(distance(a, b) for a, b in zip(other, wanted, strict=True))
        if off > allowed(program) / 3:
            return True
    return False


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
