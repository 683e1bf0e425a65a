"""How many functions of Python an operation of eager code calls: what it costs beside arithmetic.

Counted, for times depend on the machine. A bound is what was counted when it was written: lower it
where the count gets lower."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any

import pytest

import tinygrad_tx as tx
from tinygrad_tx import nn, optim


def calls(f: Callable[[], Any]) -> int:
    """Python functions called by f, once everything is warm."""
    f()
    f()
    found = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal found
        found += event == "call"

    before = sys.getprofile()
    gc.collect()  # the ends of other tests' generators are calls, too
    gc.disable()
    sys.setprofile(count)
    try:
        f()
    finally:
        sys.setprofile(before)
        gc.enable()
    return found


def adam() -> Callable[[], None]:
    p = nn.Parameter(tx.ones(4))
    optimizer, grad = optim.Adam([p]), tx.ones(4)

    def step() -> None:
        p.grad = grad
        optimizer.step()

    return step


A, B = tx.ones(4, 4), tx.ones(4, 4)
ASKS = tx.ones(4, 4, requires_grad=True)
LINEAR = nn.Linear(4, 4)
CASES: dict[str, tuple[Callable[[], Any], int]] = {
    "add": (lambda: A + B, 25),
    "multiply by a number": (lambda: A * 2.0, 36),
    "sum": (lambda: A.sum(0), 46),
    "recorded sum": (lambda: ASKS.sum(0), 64),
    "matmul": (lambda: A @ B, 45),
    "Linear": (lambda: LINEAR(A), 162),
    "Adam": (adam(), 1071),
}


@pytest.mark.parametrize("name", CASES)
def test_calls(name: str) -> None:
    call, most = CASES[name]
    assert calls(call) <= most


def test_a_step_of_adam_is_one_op_for_each_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []
    apply = tx.node.apply

    def noted(op: Any, *rest: Any) -> Any:
        used.append(op.name)
        return apply(op, *rest)

    monkeypatch.setattr(tx.node, "apply", noted)
    ops = []
    for count in (3, 4):
        ps = [nn.Parameter(tx.ones(2)) for _ in range(count)]
        optimizer = optim.Adam(ps)
        for p in ps:
            p.grad = tx.ones(2)
        used.clear()
        optimizer.step()
        ops.append(list(used))
    more = sorted(ops[1])
    for name in ops[0]:
        more.remove(name)
    assert (
        set(more) == {"add", "adam", "mul", "sum"} and len(more) == 4
    )  # the three others are the gradients' norm
