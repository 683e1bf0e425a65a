"""Random graphs with gradients and state: compiled, natively and by the interpreter, they are what
eager code computes.

An ordinary run takes 200 graphs through the interpreter of kernels and 50 through LLVM, always the
same ones. `TX_FUZZ=10000 pytest tests/test_fuzz.py -k interpreter` takes that many new ones (and
`-k native`, through LLVM).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from random_graphs import LAYOUTS, Machine, Program, Step, kept
from random_steps import STEPS

from tinygrad_tx.compiler import fuse, groups, segment

MANY = int(os.environ.get("TX_FUZZ", "0"))
NUMBER = st.integers(0, 255)
DIMENSION = st.sampled_from([1, 2, 2, 3, 4, 4, 5, 6, 7, 17])
PROGRAMS = st.builds(
    Program,
    steps=st.lists(
        st.builds(
            Step, st.sampled_from(sorted(STEPS)), st.integers(0, 5), st.integers(0, 9), NUMBER
        ),
        min_size=1,
        max_size=12,
    ).map(tuple),
    base=(st.lists(DIMENSION, max_size=4) | st.lists(DIMENSION, min_size=2, max_size=4)).map(tuple),
    shapes=st.tuples(*(st.tuples(st.sampled_from([15, 15, 14, 7, 5]), st.integers(0, 2)),) * 3),
    layouts=st.tuples(*(st.sampled_from(LAYOUTS),) * 3),
    dtype=st.sampled_from(["float64", "float64", "float64", "float32"]),
    seed=st.integers(0, 1000),
)
# Sizes at which the compiler decides otherwise, made so small that small graphs meet them.
SMALL: dict[Any, dict[str, int]] = {
    fuse: {"SMALL": 2},
    groups: {"TASK_ELEMENTS": 8, "CHUNK_ROWS": 3, "CHUNKS": 3, "TASK_COLUMNS": 3},
    segment: {"ALONE": 0},
}


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
@configured(200)
def test_through_the_interpreter(program: Program, small: bool) -> None:
    check(program, small, ("interp",))


@given(PROGRAMS, st.booleans())
@configured(50)
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


class sizes:  # noqa: N801
    """The compiler's sizes changed, for a while."""

    def __init__(self, changes: dict[Any, dict[str, int]]) -> None:
        self.patches = [mock.patch.multiple(module, **new) for module, new in changes.items()]

    def __enter__(self) -> None:
        for patch in self.patches:
            patch.start()

    def __exit__(self, *error: object) -> None:
        for patch in self.patches:
            patch.stop()


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
