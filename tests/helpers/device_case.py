"""The same calls on device "cpu" and on device "cuda": what is compared, and how closely.

In: a function of a device. Out: its results there, and an AssertionError where those of the two
devices differ in structure, shape, dtype or values, or lie on the wrong one. Called by tests/gpu.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np

import tinygrad_tx as tx
from tinygrad_tx import tree

DEVICES = ("cpu", "cuda")
Run = Callable[[str], Any]
# Of the largest number in a result; what is no float is equal to the bit.
CLOSE = {"float64": 1e-9, "float32": 1e-5, "float16": 5e-3, "bfloat16": 4e-2}


def numbers(*shape: int, seed: float = 0.0, dtype: str = "float32") -> np.ndarray[Any, Any]:
    """The same in every NumPy, none near another one or an integer."""
    at = np.arange(np.prod(shape, dtype=int))
    return (np.sin(at * 1.7 + seed) + np.cos(at * (0.9 + seed))).reshape(shape).astype(dtype)


def whole(high: int, *shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Ids below `high`."""
    return np.random.default_rng(seed).integers(0, high, shape)


@contextmanager
def default_device(device: str) -> Iterator[None]:
    """Inside, new Tensors lie on the device unless it is named."""
    before = tx.get_default_device()
    tx.set_default_device(device)
    try:
        yield
    finally:
        tx.set_default_device(before)


def same_on_both(run: Run, *, close: float | None = None, seed: int = 3) -> None:
    """What run(device) gives, a nest of Tensors, arrays, numbers and texts, is the same on both
    devices: to CLOSE, or within `close` times the largest number. Tensors lie on the device. On the
    CPU, the measure, nothing is compiled."""
    here, there = (_results(run, device, seed) for device in DEVICES)
    assert len(here) == len(there)
    for i, (want, got) in enumerate(zip(here, there, strict=True)):
        assert_alike(got, want, f"result {i}", close)


def _results(run: Run, device: str, seed: int) -> list[Any]:
    tx.manual_seed(seed)
    found = []
    with mock.patch.dict(os.environ, {"TX_COMPILE": "0"} if device == "cpu" else {}):
        made = run(device)
    for leaf in tree.leaves(made):
        if isinstance(leaf, tx.Tensor):
            assert leaf.device == device, f"a result {leaf.shape} is on {leaf.device}"
            leaf = leaf.numpy()
        found.append(leaf)
    return found


def assert_alike(got: Any, want: Any, what: str, close: float | None = None) -> None:
    if not isinstance(want, (np.ndarray, float)):
        assert got == want, what
        return
    got, want = np.asarray(got), np.asarray(want)
    assert (got.shape, got.dtype) == (want.shape, want.dtype), what
    if want.dtype.name not in CLOSE:
        np.testing.assert_array_equal(got, want, err_msg=what)
        return
    rtol = CLOSE[want.dtype.name] if close is None else close
    got, want = got.astype(np.float64), want.astype(np.float64)
    largest = np.abs(want[np.isfinite(want)]).max(initial=0.1)  # below it may be noise around 0
    np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol * largest, err_msg=what)


def leaf(array: Any, device: str) -> tx.Tensor:
    """A Tensor there, which asks for a gradient if it is of floats."""
    made = tx.tensor(array, device=device)
    return made.requires_grad_() if made.dtype.is_floating_point else made


def loss_of(results: Any) -> tx.Tensor:
    """A number that depends on all floats of a nest, on each in another way."""
    total = None
    for i, x in enumerate(tree.leaves(results)):
        if isinstance(x, tx.Tensor) and x.requires_grad and x.numel():
            shift = tx.tensor(numbers(*x.shape, seed=i + 11), dtype=x.dtype, device=x.device)
            part = ((x + shift) * x).sum()
            total = part if total is None else total + part
    assert total is not None, "nothing asks for a gradient"
    return total
