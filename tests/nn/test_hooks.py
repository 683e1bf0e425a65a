"""Hooks before and after forward, eager and compiled; Module.apply."""

from __future__ import annotations

from typing import Any

import pytest

import tinygrad_tx as tx
from tinygrad_tx import nn
from tinygrad_tx.errors import UserError


class Scale(nn.Module):
    def forward(self, x: tx.Tensor, by: float = 2.0) -> tx.Tensor:
        return x * by


def test_hooks_see_and_replace_what_goes_in_and_comes_out() -> None:
    scale, seen = Scale(), []
    hooks = [
        scale.register_forward_hook(lambda m, args, y: seen.append((m, args, y))),
        scale.register_forward_pre_hook(lambda m, args: args[0] + 1),
        scale.register_forward_pre_hook(lambda m, args: (args[0] * 10,), prepend=True),
        scale.register_forward_pre_hook(lambda m, args, kw: (args, {"by": 3}), with_kwargs=True),
        scale.register_forward_hook(lambda m, args, kw, y: y + kw["by"], with_kwargs=True),
    ]
    assert scale(tx.tensor(1.0), by=7).item() == 36
    assert seen[0][0] is scale and seen[0][1][0].item() == 11 and seen[0][2].item() == 33
    for hook in hooks:
        hook.remove()
        hook.remove()
    with scale.register_forward_hook(lambda m, args, y: -y):
        assert scale(tx.tensor(1.0)).item() == -2
    assert scale(tx.tensor(1.0)).item() == 2 and len(seen) == 1


def test_hooks_in_a_compiled_function() -> None:
    model = nn.Sequential(nn.Linear(2, 2), Scale())
    largest = tx.tensor(0.0)
    step, x = tx.compile(model), tx.ones(1, 2)
    plain = step(x)

    def watch(module: nn.Module, args: Any, y: tx.Tensor) -> tx.Tensor:
        with tx.no_grad():
            largest.assign(largest.maximum(y.abs().max()))
        return -y

    hook = model[0].register_forward_hook(watch)
    assert step(x).tolist() == (-plain).tolist() == model(x).tolist()
    for i in range(3):
        step(x * i)
    assert largest.item() == max(model[0](x * i).abs().max().item() for i in range(3)) > 0
    assert step.stats()["retraces"] == 1
    hook.remove()
    assert step(x).tolist() == plain.tolist()
    assert step.stats()["retraces"] == 1  # the plan of before


def test_hooks_that_are_wrong() -> None:
    scale = Scale()
    with pytest.raises(TypeError, match="a hook must be a function, not a int"):
        scale.register_forward_hook(3)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="always_call=True is not supported"):
        scale.register_forward_hook(print, always_call=True)
    with (
        scale.register_forward_pre_hook(lambda m, args, kw: args, with_kwargs=True),
        pytest.raises(UserError, match=r"must give \(args, kwargs\), a tuple and a dict"),
    ):
        scale(tx.ones(1))


def test_apply_reaches_all_modules_children_first() -> None:
    model, seen = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU())), []
    assert model.apply(lambda m: seen.append(type(m).__name__)) is model
    assert seen == ["Linear", "ReLU", "Sequential", "Sequential"]
