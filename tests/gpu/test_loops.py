"""Loops and random programs on device "cuda": tx.scan, tx.checkpoint and their gradients, eager and
replayed, are those of the CPU."""

from __future__ import annotations

import os
from typing import Any

import pytest
from device_case import default_device, same_on_both
from hypothesis import HealthCheck, given, settings
from random_cells import Loop
from random_graphs import PROGRAMS, Machine, Program, kept, require_same
from scan_cases import CELLS, LOOPS, STATE, fresh, gradients, loss, on

import tinygrad_tx as tx
from tinygrad_tx import backends, random

pytestmark = pytest.mark.gpu
MANY = int(os.environ.get("TX_FUZZ", "0"))  # random programs, instead of always the same few


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    backends.get("cuda")  # conftest.py has chosen what must work, or skipped


@pytest.mark.parametrize("name", LOOPS)
def test_loops(name: str) -> None:
    """What they give and change, twice; the CPU's eager code is the measure."""

    def run(device: str) -> list[Any]:
        with on(device):
            found = []
            for f in (LOOPS[name], tx.compile(LOOPS[name]) if device == "cuda" else LOOPS[name]):
                fresh()
                found += [f(), f(), *(x.detach() for x in STATE), list(random.get_state().values())]
            return found

    same_on_both(run)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", CELLS)
def test_gradients(name: str) -> None:
    def run(device: str) -> list[Any]:
        with on(device):
            found = []
            for options in ({}, {"reverse": True}, {"checkpoint": True}):

                def f(options: Any = options) -> list[tx.Tensor]:
                    return gradients(loss(name, **options))

                fresh()
                found += f()
                fresh()
                found += tx.compile(f)() if device == "cuda" else f()
            return found

    same_on_both(run, close=1e-4)


@pytest.mark.parametrize("seed", range(12))
def test_random_cells(seed: int) -> None:
    def run(device: str) -> list[Any]:
        with default_device(device):
            made = Loop(seed)
            tx.manual_seed(seed)
            return made.run()

    same_on_both(run, close=1e-4)


@given(PROGRAMS)
@settings(
    max_examples=MANY or 15,
    derandomize=not MANY,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_random_programs(program: Program) -> None:
    """What compiler/test_fuzz.py holds the compiler to, op by op on the device."""
    program = kept(program)
    wanted = Machine(program).run(compiled=False)
    with default_device("cuda"):
        for compiled in (False, True):
            found = Machine(program).run(compiled=compiled)
            require_same(found, wanted, program, f"on cuda, compiled: {compiled}")
