"""A device of a user's: arrays of its own, eagerly and compiled, with and without a Target."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx.errors import DeviceError


class Counting(tx.backends.NumpyBackend):
    """NumPy's arrays, and how many came and went."""

    device = "counting"

    def __init__(self) -> None:
        super().__init__()
        self.came = self.went = 0

    def from_host(self, array: np.ndarray) -> Any:
        self.came += 1
        return super().from_host(array)

    def to_host(self, array: Any) -> np.ndarray:
        self.went += 1
        return super().to_host(array)


@pytest.fixture
def device() -> Iterator[Counting]:
    own = Counting()
    tx.backends.register("counting", own)
    yield own
    tx.backends.forget("counting")


def step(model: tx.nn.Module, x: tx.Tensor) -> tx.Tensor:
    loss: tx.Tensor = (model(x) ** 2).mean()
    loss.backward()
    return loss


@pytest.mark.parametrize("kernels", [False, True])
def test_a_model_on_it(device: Counting, kernels: bool) -> None:
    if kernels:
        tx.backends.register("counting", device, tx.backends.target_of("cpu"))
    tx.manual_seed(0)
    model = tx.nn.Sequential(tx.nn.Linear(4, 8), tx.nn.GELU(), tx.nn.Linear(8, 2))
    x = tx.randn(3, 4)
    here = step(model, x).item()
    grad = model[0].weight.grad.numpy()
    model.zero_grad()
    model.to("counting")
    x = x.to("counting")
    assert x.device == "counting" and device.came
    for f in (step, tx.compile(step)):
        loss = f(model, x)
        assert loss.device == "counting" and loss.item() == pytest.approx(here, rel=1e-5)
        np.testing.assert_allclose(model[0].weight.grad.numpy(), grad, rtol=1e-4, atol=1e-6)
        model.zero_grad()
    compiled = tx.compile(lambda x: (x * 2).exp())
    compiled(x)
    assert ("nothing fused" in compiled.explain()) is not kernels


def test_what_cannot_be_registered(device: Counting) -> None:
    with pytest.raises(DeviceError, match='"cpu" is a device of the library'):
        tx.backends.register("cpu", device)
    with pytest.raises(DeviceError, match='attribute device must be "other"'):
        tx.backends.register("other", device)
    with pytest.raises(TypeError, match="backend must be an object of a class derived from Back"):
        tx.backends.register("counting", np)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="target must be a Target or None, not 3"):
        tx.backends.register("counting", device, 3)  # type: ignore[arg-type]
    with pytest.raises(DeviceError, match=r"no device \"nope\": choose one of .*counting"):
        tx.ones(2, device="nope")
    with pytest.raises(DeviceError, match="'nope' is not registered"):
        tx.backends.forget("nope")
