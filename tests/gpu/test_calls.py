"""Methods and functions of Tensors, F and initial values on device "cuda": as on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from device_calls import CALLS, DATA, inputs
from device_case import loss_of, same_on_both

import tinygrad_tx as tx
from tinygrad_tx import backends, tree

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    backends.get("cuda")  # conftest.py has chosen what must work, or skipped


def called(name: str, device: str) -> list[Any]:
    """What a call gives, and the gradients by its inputs, which stay as they were."""
    given = inputs(CALLS[name], device)
    out = CALLS[name](**given)
    found = [x.detach() if isinstance(x, tx.Tensor) else x for x in tree.leaves(out)]
    if any(isinstance(x, tx.Tensor) and x.requires_grad for x in tree.leaves(out)):
        loss_of(out).backward()
        found += [x.grad for x in given.values() if isinstance(x, tx.Tensor) and x.grad is not None]
    for key, x in given.items():
        if isinstance(x, tx.Tensor):
            assert x.numpy().tobytes() == np.ascontiguousarray(DATA[key]).tobytes(), key
    return found


@pytest.mark.parametrize("name", CALLS)
def test_as_on_the_cpu(name: str) -> None:
    same_on_both(lambda device: called(name, device))


def test_what_is_printed_names_the_device() -> None:
    for x in (tx.tensor([1.5, 2.0]), tx.tensor(3), tx.tensor([True]).requires_grad):
        if isinstance(x, tx.Tensor):
            assert repr(x.to("cuda")) == repr(x)[:-1] + ", device='cuda')"
