"""Buffers: Tensors of a module that are no Parameters."""

from __future__ import annotations

import copy
import pickle

import pytest

import tinygrad_tx as tx
from tinygrad_tx import nn


class Averaging(nn.Module):
    """Counts its calls and averages what it sees."""

    def __init__(self) -> None:
        self.register_buffer("mean", tx.zeros(2))
        self.register_buffer("calls", tx.tensor(0))
        self.register_buffer("mask", tx.ones(3), persistent=False)
        self.register_buffer("later", None)
        self.linear = nn.Linear(2, 2)

    def forward(self, x: tx.Tensor) -> tx.Tensor:
        with tx.no_grad():
            self.mean = self.mean * 0.5 + x.mean(0) * 0.5
            self.calls += 1
        y: tx.Tensor = self.linear(x) - self.mean
        return y


def test_buffers_are_listed_saved_and_loaded() -> None:
    outer = nn.Sequential(Averaging())
    assert [name for name, _ in outer.named_buffers()] == ["0.mean", "0.calls", "0.mask"]
    assert [name for name, _ in outer.named_buffers("a", recurse=False)] == []
    assert len(list(outer.buffers())) == 3 and len(list(outer.parameters())) == 2
    assert list(outer.state_dict()) == ["0.mean", "0.calls", "0.linear.weight", "0.linear.bias"]
    outer(tx.ones(4, 2))
    for copied in (copy.deepcopy(outer), pickle.loads(pickle.dumps(outer))):
        assert copied[0].calls.item() == 1 and list(copied.state_dict()) == list(outer.state_dict())
    other = nn.Sequential(Averaging())
    before = other[0].mean
    other.load_state_dict(outer.state_dict())
    assert other[0].mean is before and before.tolist() == [0.5, 0.5]
    assert other[0].calls.dtype == tx.int64
    outer.to(tx.float64)
    assert [b.dtype for b in outer.buffers()] == [tx.float64, tx.int64, tx.float64]


def test_a_compiled_step_carries_buffers_as_state() -> None:
    model = Averaging()
    twin = copy.deepcopy(model)
    step = tx.compile(model)
    for i in range(3):
        x = tx.ones(4, 2) * i
        assert step(x).tolist() == twin(x).tolist()
    assert model.mean.tolist() == twin.mean.tolist() == [1.25, 1.25]
    assert model.calls.item() == 3 and not step.stats()["retraces"]


def test_a_buffer_is_set_and_deleted() -> None:
    model = Averaging()
    mean = model.mean
    model.mean = tx.ones(5, dtype=tx.float64)
    assert model.mean is mean and mean.shape == (5,)
    model.later = tx.ones(1)
    assert "later" in model.state_dict()
    model.mean = None
    assert "mean" not in model.state_dict()
    del model.later
    model.later = "anything"
    with pytest.raises(TypeError, match="calls is a buffer, which a int cannot replace"):
        model.calls = 3
    with pytest.raises(TypeError, match='"linear" is an attribute already'):
        model.register_buffer("linear", tx.ones(1))
    with pytest.raises(TypeError, match='buffer "x" must be a Tensor or None, not a list'):
        model.register_buffer("x", [1])  # type: ignore[arg-type]
