"""Every layer on device "cuda": results, gradients and buffers are those of the CPU, whether it was
moved there or made there, eager and compiled; its inputs stay as they were."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from device_case import default_device, leaf, loss_of, same_on_both
from device_layers import LAYERS, Layer

import tinygrad_tx as tx
from tinygrad_tx import backends, nn, tree

pytestmark = pytest.mark.gpu
ABSTRACT = {"Module"}


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    backends.get("cuda")  # conftest.py has chosen what must work, or skipped


def test_none_is_missing() -> None:
    modules = {n for n in nn.__all__ if inspect.isclass(t := getattr(nn, n))
               and issubclass(t, nn.Module)}  # fmt: skip
    assert modules - ABSTRACT == LAYERS.keys()


def used(layer: Layer, module: Any, device: str, compiled: bool) -> list[Any]:
    """Results in training and in evaluation, gradients, and buffers after."""
    inputs = [leaf(a, device) for a in layer.inputs]
    leaves = [x for x in (*inputs, *module.parameters()) if x.requires_grad]

    def step(*inputs: tx.Tensor) -> list[Any]:
        out = module(*inputs, **layer.options)
        results = [x.detach() for x in tree.leaves(out) if isinstance(x, tx.Tensor)]
        if not leaves:
            return results
        loss_of(out).backward()
        found = [*results, *(x.grad for x in leaves)]
        for x in leaves:
            x.grad = None
        return found

    run = tx.compile(step) if compiled else step
    tx.manual_seed(7)
    found = [*run(*inputs), *module.buffers()]
    module.eval()
    with tx.no_grad():
        found += tree.leaves(module(*inputs, **layer.options))
    for x, given in zip(inputs, layer.inputs, strict=True):
        assert x.numpy().tobytes() == np.ascontiguousarray(given).tobytes()
    return found


@pytest.mark.parametrize("name", LAYERS)
def test_as_on_the_cpu(name: str) -> None:
    for layer in LAYERS[name]:
        # Its own Tensors are made on the CPU and moved; what forward makes must follow the inputs.
        same_on_both(lambda d, one=layer: used(one, one.make().to(d), d, compiled=False))


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", LAYERS)
def test_made_there_and_compiled(name: str) -> None:
    def made(device: str, layer: Layer) -> list[Any]:
        with default_device(device):
            module = layer.make()
        for x in (*module.parameters(), *module.buffers()):
            assert x.device == device
        return used(layer, module, device, compiled=device == "cuda")

    for layer in LAYERS[name]:
        same_on_both(lambda d, one=layer: made(d, one))
