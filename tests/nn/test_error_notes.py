"""Errors inside a module's forward: the module, its line, and where each operand was made."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import pytest

import tinygrad_tx as tx
from tinygrad_tx import nn
from tinygrad_tx.errors import ShapeError
from tinygrad_tx.nn import functional as F  # noqa: N812


class Block(nn.Module):
    def __init__(self) -> None:
        self.fc = nn.Linear(4, 5)  # here the weight is made

    def forward(self, x: tx.Tensor) -> tx.Tensor:
        h = x.reshape(2, 3)  # here h is made
        return self.fc(h)  # here it fails


class Buffered(nn.Module):
    def __init__(self) -> None:
        self.register_buffer("b", tx.ones(7))

    def forward(self, x: tx.Tensor) -> Any:
        z = x * 2
        return z + self.b


class Joined(nn.Module):
    def forward(self, x: tx.Tensor) -> tx.Tensor:
        return tx.cat([x, tx.ones(3)])


class Attending(nn.Module):
    def forward(self, x: tx.Tensor, mask: tx.Tensor) -> tx.Tensor:
        q = x.reshape(1, 2, 3)
        return F.scaled_dot_product_attention(q, q, q, mask)


class Net(nn.Module):
    def __init__(self) -> None:
        self.blocks = nn.ModuleList([Block()])

    def forward(self, x: tx.Tensor) -> Any:
        return self.blocks[0](x)


def failed(f: Callable[..., Any], *args: Any) -> tuple[Exception, str]:
    """The error of a call, and its notes about modules."""
    with pytest.raises(Exception) as found:
        f(*args)
    notes = [n for n in getattr(found.value, "__notes__", []) if n.startswith("in the module")]
    assert len(notes) == 1, notes
    return found.value, notes[0]


@pytest.mark.parametrize("wrap", [lambda f: f, tx.compile], ids=["eager", "traced"])
def test_the_module_and_its_operands_are_named(wrap: Callable[[Any], Any]) -> None:
    error, note = failed(wrap(Net()), tx.ones(6))
    assert isinstance(error, ShapeError)
    assert str(error).startswith("linear: an input (2, 3) does not fit a weight (5, 4)")
    first, x, weight, bias = note.splitlines()
    assert first.startswith("in the module Net.blocks.0.fc (Linear), at ")
    assert first.endswith("return self.fc(h)  # here it fails")
    assert "test_error_notes.py:" in first
    assert x.startswith("  input: float32 (2, 3), made in Net.blocks.0 at ")
    assert x.endswith("h = x.reshape(2, 3)  # here h is made")
    assert weight.startswith("  weight: float32 (5, 4), Net.blocks.0.fc.weight, made at ")
    assert weight.endswith("self.fc = nn.Linear(4, 5)  # here the weight is made")
    assert bias.startswith("  bias: float32 (5,), Net.blocks.0.fc.bias")
    shown = traceback.format_exception_only(error)
    assert shown[0].startswith("tinygrad_tx.errors.ShapeError: linear: an input")


@pytest.mark.parametrize("wrap", [lambda f: f, tx.compile], ids=["eager", "traced"])
def test_operators_and_buffers(wrap: Callable[[Any], Any]) -> None:
    x = tx.ones(2, 3)  # x comes from outside
    error, note = failed(wrap(Buffered()), x)
    assert isinstance(error, ShapeError)
    assert "in the module Buffered, at" in note and "return z + self.b" in note
    assert "self: float32 (2, 3), made in Buffered at" in note and "z = x * 2" in note
    assert "Buffered.b, made at" in note and 'self.register_buffer("b", tx.ones(7))' in note


def test_operands_from_outside_lists_and_functions() -> None:
    x = tx.ones(2, 2)  # made outside
    _, note = failed(Joined(), x)
    assert "tensors[0]: float32 (2, 2), made at" in note
    assert "x = tx.ones(2, 2)  # made outside" in note
    assert "tensors[1]: float32 (3,), made in Joined at" in note
    x = tx.ones(6)
    _, note = failed(Attending(), x, tx.ones(5, 5))
    assert [line.split(":")[0].strip() for line in note.splitlines()[1:]] == [
        *("query", "key", "value", "attn_mask")
    ]


def test_what_a_compiled_function_gave_was_made_where_it_was_traced() -> None:
    @tx.compile
    def double(x: tx.Tensor) -> tx.Tensor:
        return x * 2  # the line of the result

    for _ in range(2):
        _, note = failed(nn.Linear(2, 2), double(tx.ones(3)))
        assert "return x * 2  # the line of the result" in note


def test_other_errors_have_the_module_too() -> None:
    class Refusing(nn.Module):
        def forward(self, x: tx.Tensor) -> tx.Tensor:
            raise KeyError("mine")

    error, note = failed(Refusing(), tx.ones(3))
    assert isinstance(error, KeyError) and error.args == ("mine",)
    assert "in the module Refusing, at" in note and 'raise KeyError("mine")' in note
    error, note = failed(nn.Linear(3, 4), [1, 2])
    assert str(error).startswith("Linear: input must be a Tensor, not a list")
    assert "in the module Linear, at" in note


@pytest.mark.cpu  # a GPU is not waited for: there the error comes later
def test_an_index_outside_has_the_module_too() -> None:
    error, note = failed(nn.Embedding(3, 4), tx.tensor([7]))
    assert isinstance(error, IndexError) and "weight: float32 (3, 4), Embedding.weight" in note


def test_an_error_is_told_once_though_it_passes_through_many_modules() -> None:
    inner = nn.Sequential(nn.Sequential(nn.Sequential(nn.Linear(3, 2))))
    _, note = failed(inner, tx.ones(4))
    assert "in the module Sequential.0.0.0 (Linear), at" in note
