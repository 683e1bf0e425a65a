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
from tinygrad_tx.backends.arrays.numpy_backend import NumpyBackend
from tinygrad_tx.errors import DeviceError
from tinygrad_tx.nn import functional as F  # noqa: N812


class Twin(NumpyBackend):
    device = "cuda"


@pytest.fixture
def twin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A device "cuda" that computes with NumPy, as the default one."""
    monkeypatch.setitem(backends._LOADED, "cuda", Twin())
    monkeypatch.delitem(backends._TARGETS, "cuda")
    monkeypatch.setattr(tx.random, "_GENERATORS", {})
    tx.set_default_device("cuda")
    yield
    tx.set_default_device("cpu")


def test_an_unknown_device() -> None:
    with pytest.raises(DeviceError, match='no device "cudda": choose one of cpu, cuda, meta'):
        tx.zeros(2, device="cudda")


def test_cuda_without_cupy_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.delitem(backends._LOADED, "cuda", raising=False)
    monkeypatch.delitem(sys.modules, "tinygrad_tx.backends.arrays.cupy_backend", raising=False)
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
    arrays = "tinygrad_tx.backends.arrays"
    monkeypatch.setitem(sys.modules, f"{arrays}.cupy_random", type(sys)("cupy_random"))
    for part in ("cupy_backend", "cupy_kernels"):  # imported anew, with the fake
        monkeypatch.delitem(sys.modules, f"{arrays}.{part}", raising=False)
    module = importlib.import_module("tinygrad_tx.backends.arrays.cupy_backend")
    try:
        with pytest.raises(DeviceError, match=r"driver does not answer .*InsufficientDriver"):
            module.load()
        monkeypatch.setattr(RuntimeApi, "getDeviceCount", staticmethod(lambda: 0))
        with pytest.raises(DeviceError, match="sees no GPU"):
            module.load()
    finally:
        for part in ("cupy_backend", "cupy_kernels"):
            sys.modules.pop(f"{arrays}.{part}", None)
            vars(sys.modules[arrays]).pop(part, None)


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
    drawn = []
    for device in ("cuda", "cpu"):
        tx.manual_seed(5)
        drawn.append([tx.randn(7, device=device), tx.rand(3, device=device)])
        drawn[-1] += [tx.randint(9, (5,), device=device), F.dropout(tx.ones(40, device=device))]
    assert {t.device for t in drawn[0]} == {"cuda"} and {t.device for t in drawn[1]} == {"cpu"}
    assert [t.tolist() for t in drawn[0]] == [t.tolist() for t in drawn[1]]


def test_one_counter_of_streams_for_all_devices(twin: None) -> None:
    """Weights drawn on the CPU count for what is drawn on the GPU, and the other way round."""
    tx.manual_seed(5)
    want = [tx.rand(4, device="cpu").tolist() for _ in range(4)]
    tx.manual_seed(5)
    assert [tx.rand(4, device=d).tolist() for d in ("cpu", "cuda", "cuda", "cpu")] == want
    assert len({str(w) for w in want}) == 4
    tx.manual_seed(5)
    draw = tx.compile(lambda x: tx.rand(4) + 0 * x)
    assert [draw(tx.zeros(4)).tolist() for _ in range(3)] == want[:3]
    assert draw.stats()["retraces"] == 0 and tx.rand(4).tolist() == want[3]


def test_dropout_is_the_same_after_a_move(twin: None) -> None:
    losses = []
    for device in ("cpu", "cuda"):
        tx.manual_seed(1)
        config = tx.models.GPTConfig(20, 1, 2, 16, 8, dropout=0.5)
        tx.set_default_device("cpu")
        model = tx.models.GPT(config).to(device)
        ids = tx.tensor([[3, 4, 5]], device=device)
        losses.append([model.loss(ids, ids).item() for _ in range(3)])
    assert losses[0] == losses[1] and len(set(losses[0])) == 3


def test_states_of_a_counter_for_each_device_go_on(twin: None) -> None:
    """As checkpoints of earlier versions hold them: each device goes on from its own stream."""
    tx.manual_seed(7)
    streams = [tx.rand(3, device="cpu").tolist() for _ in range(9)]
    draw = tx.compile(lambda x: tx.rand(3) + 0 * x)
    draw(tx.zeros(3))
    tx.random.set_state({"cpu": (7, 5), "cuda": (7, 2)})
    assert [tx.rand(3, device=d).tolist() for d in ("cpu", "cuda", "cpu")] == [
        *(streams[5], streams[2], streams[6])
    ]
    assert draw(tx.zeros(3)).tolist() == streams[3]  # a function that was traced before
    assert tx.random.get_state() == {"cpu": (7, 7), "cuda": (7, 4)}
    tx.random.set_state(tx.random.get_state())
    assert tx.rand(3).tolist() == streams[4]
    tx.random.set_state({"cuda": (7, 3)})  # of one device: the one counter goes on from it
    assert tx.rand(3).tolist() == streams[3] and tx.rand(3, device="cpu").tolist() == streams[4]
    assert tx.random.get_state() == {"cpu": (7, 5)}
    assert draw(tx.zeros(3)).tolist() == streams[5]


def test_a_state_made_on_a_gpu_goes_on_without_one() -> None:
    try:
        tx.random.set_state({"cpu": (7, 5), "cuda": (7, 2)})
        assert tx.random.get_state() == {"cpu": (7, 5), "cuda": (7, 2)}
    finally:
        tx.manual_seed(0)


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
