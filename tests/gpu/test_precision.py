"""Mixed precision on a GPU: products on tensor cores, the scale of fp16 inside the step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx import backends
from tinygrad_tx.nn import functional as F  # noqa: N812

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    backends.get("cuda")  # conftest.py has chosen what must work, or skipped


def trained(device: str, precision: Any, compiled: bool) -> list[float]:
    tx.manual_seed(0)
    model = tx.nn.Sequential(tx.nn.Linear(24, 40), tx.nn.GELU(), tx.nn.Linear(40, 8)).to(device)
    optimizer = tx.optim.AdamW(model.parameters(), lr=1e-2)
    scaler = tx.optim.GradScaler(enabled=precision == "fp16", device=device)

    def step(x: tx.Tensor, y: tx.Tensor) -> tx.Tensor:
        with tx.autocast(precision):
            loss = F.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        tx.optim.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        return loss

    run = tx.compile(step) if compiled else step
    rng = np.random.default_rng(0)
    x = tx.tensor(rng.standard_normal((16, 24)).astype("f"), device=device)
    y = tx.tensor(rng.integers(0, 8, 16), device=device)
    return [run(x, y).item() for _ in range(5)]


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_a_step_in_tf32(compiled: bool) -> None:
    """As in float32, but for the rounding of operands; a processor refuses it."""
    wanted = trained("cpu", "fp32", compiled)
    np.testing.assert_allclose(trained("cuda", "tf32", compiled), wanted, rtol=2e-3)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_a_step_in_16_bits(precision: str, compiled: bool) -> None:
    wanted = trained("cpu", precision, compiled)
    found = trained("cuda", precision, compiled)
    np.testing.assert_allclose(found, wanted, rtol=0.02)
    assert found[-1] < found[0]
