"""Devices: errors in one line, and nothing that works on one device forgets which one it is.

A second NumPy backend stands in under the name "cuda": Nodes know devices by name only, so whatever
makes a Tensor on the wrong one meets the error for mixed devices, without a GPU.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx import backends
from tinygrad_tx.backends.numpy_backend import NumpyBackend
from tinygrad_tx.errors import DeviceError


class Twin(NumpyBackend):
    device = "cuda"


@pytest.fixture
def twin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A device "cuda" that computes with NumPy, as the default one."""
    monkeypatch.setitem(backends._LOADED, "cuda", Twin())
    monkeypatch.setattr(tx.random, "_GENERATORS", {})
    tx.set_default_device("cuda")
    yield
    tx.set_default_device("cpu")


def test_an_unknown_device() -> None:
    with pytest.raises(DeviceError, match='no device "cudda": choose one of cpu, cuda'):
        tx.zeros(2, device="cudda")


def test_cuda_without_cupy_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.delitem(backends._LOADED, "cuda", raising=False)
    monkeypatch.delitem(sys.modules, "tinygrad_tx.backends.cupy_backend", raising=False)
    with pytest.raises(DeviceError, match="needs CuPy, which is not installed: pip install"):
        tx.zeros(2, device="cuda")
    with pytest.raises(DeviceError):
        tx.set_default_device("cuda")
    assert tx.get_default_device() == "cpu"


def test_cuda_without_a_driver_or_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    class RuntimeApi:
        class CUDARuntimeError(RuntimeError):
            pass

        @staticmethod
        def getDeviceCount() -> int:  # noqa: N802 - CuPy's name
            raise RuntimeApi.CUDARuntimeError("cudaErrorInsufficientDriver")

    fake = type(sys)("cupy")
    fake.cuda = type(sys)("cuda")
    fake.cuda.runtime = RuntimeApi
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setitem(sys.modules, "tinygrad_tx.backends.cupy_random", type(sys)("cupy_random"))
    monkeypatch.delitem(sys.modules, "tinygrad_tx.backends.cupy_backend", raising=False)
    module = importlib.import_module("tinygrad_tx.backends.cupy_backend")
    try:
        with pytest.raises(DeviceError, match=r"driver does not answer .*InsufficientDriver"):
            module.load()
        monkeypatch.setattr(RuntimeApi, "getDeviceCount", staticmethod(lambda: 0))
        with pytest.raises(DeviceError, match="sees no GPU"):
            module.load()
    finally:
        del sys.modules["tinygrad_tx.backends.cupy_backend"]


def test_mixed_devices_are_an_error_that_names_both(twin: None) -> None:
    with pytest.raises(DeviceError, match=r"add: one input is on cuda, another on cpu; move"):
        tx.ones(2) + tx.ones(2, device="cpu")
    assert (tx.ones(2) + tx.ones(2, device="cpu").to("cuda")).device == "cuda"


def test_moving_is_differentiable(twin: None) -> None:
    x = tx.tensor([1.0, 2.0], device="cpu", requires_grad=True)
    y = (x.to("cuda") ** 3).sum()
    assert y.device == "cuda"
    y.backward()
    assert x.grad is not None and x.grad.device == "cpu" and x.grad.tolist() == [3.0, 12.0]
    moved = tx.compile(lambda v: v.to("cuda") + 1)(x)
    assert moved.device == "cuda" and moved.tolist() == [2.0, 3.0]


def test_creation_indexing_and_random_stay_on_the_default_device(twin: None) -> None:
    x = tx.randn(3, 4)
    made = [
        tx.zeros(2), tx.arange(3), tx.eye(2), tx.rand(2), tx.randint(0, 5, (2,)), tx.tensor([1]),
        tx.zeros_like(x), tx.tril(x), x[1], x[:, [0, 2]], x[x > 0], x.topk(2).indices,
        x.sort().values, x.max(1).indices, tx.cat([x, x]), x.cumsum(0), x.var(0), x @ x.T,
    ]  # fmt: skip
    assert {t.device for t in made} == {"cuda"}
    x[0] = 1.0
    x[tx.tensor([1, 2])] = np.zeros(4)
    x[:, tx.tensor(0)] = 5
    x.assign(np.ones((3, 4)))
    assert x.device == "cuda" and x.sum().item() == 12


def test_random_numbers_are_those_of_the_cpu(twin: None) -> None:
    tx.manual_seed(5)
    here, there = tx.randn(7), tx.randn(7, device="cpu")
    assert here.device == "cuda" and here.tolist() == there.tolist()


@pytest.mark.parametrize("kind", ["transformer", "gpt"])
def test_models_train_and_decode_on_the_default_device(twin: None, kind: str) -> None:
    tx.manual_seed(0)
    if kind == "transformer":
        config = tx.models.TransformerConfig(
            20, d_model=16, n_heads=2, d_ff=32, n_encoder_layers=1, n_decoder_layers=1
        )
        model = tx.models.Transformer(config)
        batch = (tx.tensor([[3, 4, 2]]), tx.tensor([[1, 5, 6]]), tx.tensor([[5, 6, 2]]))
    else:
        model = tx.models.GPT(tx.models.GPTConfig(20, 1, 2, 16, 8, dropout=0.1, eos_id=2))
        batch = (tx.tensor([[3, 4, 5]]), tx.tensor([[4, 5, 2]]))
    optimizer = tx.optim.Adam(model.parameters(), lr=1e-2)

    @tx.compile
    def step(*args: tx.Tensor) -> tx.Tensor:
        loss = model.loss(*args)
        loss.backward()
        tx.optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    losses = [step(*batch).item() for _ in range(10)]
    assert losses[-1] < losses[0] and step.stats()["retraces"] == 0
    assert {p.device for p in model.parameters()} == {"cuda"}
    for options in ({"beam_size": 2}, {"do_sample": True, "top_k": 3}):
        (found,) = tx.decoding.generate(model, batch[0], max_new_tokens=4, **options)
        assert 0 <= len(found[0].tokens) <= 4
