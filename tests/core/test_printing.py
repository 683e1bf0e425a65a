"""repr() of Tensors, as PyTorch 2.13 prints them (with tx. for torch.), and of what holds them."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest

import tinygrad_tx as tx
from tinygrad_tx import nn

PRINTED: list[tuple[Any, dict[str, Any], str]] = [
    ([[1, 2.5], [-3.14159, 0]], {}, "[[ 1.0000,  2.5000],\n        [-3.1416,  0.0000]]"),
    ([1.0, -2.0, 30.0], {}, "[ 1., -2., 30.]"),
    ([0.00001, 1.0], {}, "[1.0000e-05, 1.0000e+00]"),
    ([1.0, 1001.5], {}, "[1.0000e+00, 1.0015e+03]"),
    ([2e8, 3e8], {}, "[2.0000e+08, 3.0000e+08]"),
    ([1.0, nan, -inf, 22.0], {}, "[ 1., nan, -inf, 22.]"),
    ([1.5, nan, -inf], {}, "[1.5000,    nan,   -inf]"),
    ([nan, inf], {}, "[nan, inf]"),
    ([0.0, 0.0], {}, "[0., 0.]"),
    ([1, -20, 300], {"dtype": tx.int32}, "[  1, -20, 300], dtype=tx.int32"),
    ([True, False], {}, "[ True, False]"),
    (True, {}, "True"),
    (7, {}, "7"),
    (0.1, {}, "0.1000"),
    (
        3.0,
        {"dtype": tx.float64, "requires_grad": True},
        "3., dtype=tx.float64, requires_grad=True",
    ),
    ([], {}, "[]"),
    ([[], []], {"dtype": tx.int64}, "[], size=(2, 0), dtype=tx.int64"),
    ([[[]]], {"dtype": tx.bool_}, "[], size=(1, 1, 0), dtype=tx.bool_"),
    ([1.5, -2.25], {"dtype": tx.bfloat16}, "[ 1.5000, -2.2500], dtype=tx.bfloat16"),
    (
        [[[1, 2], [3, 4]], [[5, 6], [7, 80]]],
        {},
        "[[[ 1,  2],\n         [ 3,  4]],\n\n        [[ 5,  6],\n         [ 7, 80]]]",
    ),
]


@pytest.mark.parametrize("value, options, text", PRINTED)
def test_values(value: Any, options: dict[str, Any], text: str) -> None:
    assert repr(tx.tensor(value, **options)) == f"tensor({text})"


def test_long_lines_are_broken() -> None:
    assert repr(tx.arange(20) / 3) == (
        "tensor([0.0000, 0.3333, 0.6667, 1.0000, 1.3333, 1.6667, 2.0000, 2.3333, 2.6667,\n"
        "        3.0000, 3.3333, 3.6667, 4.0000, 4.3333, 4.6667, 5.0000, 5.3333, 5.6667,\n"
        "        6.0000, 6.3333])"
    )
    noted = repr((tx.arange(9) / 3).requires_grad_())  # the line is full
    assert noted.endswith("2.3333, 2.6667],\n       requires_grad=True)")


def test_of_many_elements_the_ends_are_shown() -> None:
    assert repr(tx.arange(2000).reshape(2, 1000)) == (
        "tensor([[   0,    1,    2,  ...,  997,  998,  999],\n"
        "        [1000, 1001, 1002,  ..., 1997, 1998, 1999]])"
    )
    assert repr(tx.arange(1001, dtype=tx.float32)[:, None]) == (
        "tensor([[   0.],\n        [   1.],\n        [   2.],\n        ...,\n"
        "        [ 998.],\n        [ 999.],\n        [1000.]])"
    )
    assert "..." not in repr(tx.zeros(1000)) and len(repr(tx.zeros(8, 8, 8, 8))) < 9800
    middle = tx.zeros(2000)
    middle[1000] = 1e9  # what is not shown does not decide how the rest is
    assert repr(middle) == "tensor([0., 0., 0.,  ..., 0., 0., 0.])"


def test_tensors_without_values() -> None:
    seen: list[str] = []
    tx.compile(lambda x: seen.append(repr(x * 2)) or x)(tx.ones(2, 3))
    assert seen == ["tensor(<traced, shape=(2, 3)>)"]
    assert repr(tx.zeros(3, device="meta")) == "tensor(..., device='meta', size=(3,))"


def test_parameters_optimizers_compiled_functions_and_graphs() -> None:
    p = nn.Parameter(tx.zeros(2))
    assert repr(p) == "Parameter containing:\ntensor([0., 0.], requires_grad=True)"
    optimizer = tx.optim.SGD([{"params": [p]}, {"params": [nn.Parameter(tx.ones(3, 4))], "lr": 2}])
    first, *groups, count, last = repr(optimizer).splitlines()
    assert (first, count, last) == ("SGD(", "  step_count=0", ")")
    assert "(0): Group(1 parameters of 2 numbers, lr=0.001, momentum=0" in groups[0]
    assert "(1): Group(1 parameters of 12 numbers, lr=2.0, momentum=0" in groups[1]

    @tx.compile
    def step() -> tx.Tensor:
        seen.append(repr(optimizer))
        loss = (p * p).sum()
        loss.backward()
        optimizer.step()
        return loss

    seen: list[str] = []
    assert repr(step) == "Compiled(step, not called yet)"
    step()
    step()  # it has a gradient now: another plan
    assert "lr=..." in seen[0]  # a look at a value is no part of the trace
    text = repr(step)
    assert text.startswith("Compiled(step, 2 plans; the last: ") and text.endswith(", 1 run)")
    assert f"the last: {step.stats()['kernels']} kernel" in text
    assert repr(step.graph()).startswith(f"Graph({len(step.graph())} nodes: ")
    assert repr(tx.compile(lambda x: x.exp())).startswith("Compiled(")
