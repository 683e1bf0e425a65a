"""PyTorch's recorded values on device "cuda": Tensor functions, losses, optimizers, schedules,
convolution and recurrent layers, each with gradients of first and second order."""

from __future__ import annotations

import json
from typing import Any

import convolution_case
import numpy as np
import pytest
import recurrent_case
import torch_ops
import torch_values
from device_case import default_device

import tinygrad_tx as tx
from tinygrad_tx import backends
from tinygrad_tx.nn import functional as F  # noqa: N812

pytestmark = pytest.mark.gpu
OPS, VALUES, CONVOLUTIONS, RECURRENT = (
    json.loads(module.FILE.read_text(encoding="utf-8"))
    for module in (torch_ops, torch_values, convolution_case, recurrent_case)
)


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    backends.get("cuda")  # conftest.py has chosen what must work, or skipped


@pytest.mark.parametrize("name", OPS)
def test_functions(name: str) -> None:
    with default_device("cuda"):
        out, inputs = torch_ops.results(tx, F, name)
        orders = torch_ops.gradients(tx, out, inputs)
    for i, (o, w) in enumerate(zip(out, OPS[name]["out"], strict=True)):
        assert o.device == "cuda"
        torch_ops.close(o, w, f"{name}: result {i}")
    for order, (got, want) in enumerate(zip(orders, OPS[name]["gradients"], strict=False)):
        for k in got.keys() & want.keys():
            assert got[k].device == "cuda"
            torch_ops.close(got[k], want[k], f"{name}: gradient {order + 1} by {k}")


@pytest.mark.parametrize("name", VALUES)
def test_losses_optimizers_and_schedules(name: str) -> None:
    """As nn/test_torch_values.py has them; of the Tensors none is without its device."""
    case = torch_values.CASES[name]
    made = case(torch_values.ours(device="cuda"))
    for x in made:
        assert not isinstance(x, tx.Tensor) or x.device == "cuda"
    for i, (a, b) in enumerate(zip(torch_values.flat(made), VALUES[name], strict=True)):
        np.testing.assert_allclose(a, b, 1e-9, 1e-11, err_msg=f"{name}, value {i}")


def projected(found: list[Any], wanted: list[Any]) -> None:
    for got, (shape, *numbers) in zip(found, wanted, strict=True):
        its = convolution_case.projections(got)
        assert its[0] == shape
        np.testing.assert_allclose(its[1:], numbers, rtol=1e-9, atol=1e-9 * np.abs(got).sum())


@pytest.mark.parametrize("name", convolution_case.CASES)
def test_convolution_and_pooling(name: str) -> None:
    projected(convolution_case.by_us(name, device="cuda"), CONVOLUTIONS[name])


@pytest.mark.parametrize("name", recurrent_case.CASES)
def test_recurrent_layers(name: str) -> None:
    projected(recurrent_case.by_us(name, device="cuda"), RECURRENT[name])


def test_drawing() -> None:
    """The same numbers as on the CPU."""
    found = []
    for device in ("cuda", "cpu"):
        with default_device(device):
            tx.manual_seed(3)
            w = tx.tensor([1.0, 2.0, 0.0, 4.0])
            drawn = [w.multinomial(2), w.multinomial(5, True), tx.randperm(7), (w / 4).bernoulli()]
            assert {x.device for x in drawn} == {device}
            found.append([x.tolist() for x in (*drawn, tx.rand_like(w), tx.randint_like(w, 5))])
    assert found[0] == found[1]
