"""describe() and trace() of a plan for a GPU, on the simulator."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

pytest.importorskip("llvmlite")
from simulator.device import NAME, install

import tinygrad_tx as tx
from tinygrad_tx.errors import UserError


@pytest.fixture(autouse=True)
def simulated(tmp_path: Path) -> Iterator[None]:
    with mock.patch.dict(os.environ, TX_CACHE_DIR=str(tmp_path / "cache")):
        install()
        tx.set_default_device(NAME)
        yield
        tx.set_default_device("cpu")


def test_a_plan_for_a_gpu(tmp_path: Path) -> None:
    """The third run is the one that is timed: before, nobody waits for a run."""
    weight = tx.ones(4, 3, requires_grad=True)

    @tx.compile
    def step(x: tx.Tensor) -> tx.Tensor:
        loss = (x @ weight).relu().sum()
        loss.backward()
        with tx.no_grad():
            weight.assign(weight - weight.grad * 0.1)
        weight.grad = None
        return loss

    step(tx.ones(2, 4))
    with pytest.raises(UserError, match="run 3 of a plan is timed, and there were 1"):
        step.trace(tmp_path / "trace.json")
    for _ in range(2):
        step(tx.ones(2, 4))
    found = step.describe()
    assert (found["device"], found["kind"], found["timed"]) == (NAME, "kernels", 3)
    assert any(source["kind"] == "gemm" for source in found["kernels"]["sources"])
    assert all("define" in source["code"] for source in found["kernels"]["sources"])
    assert step.trace(tmp_path / "trace.json").stat().st_size > 100
    assert step.explore(tmp_path / "step.html").stat().st_size > 10_000
