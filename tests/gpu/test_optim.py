"""Optimizers and schedules on device "cuda" that PyTorch has not, and what all of them do beside
steps: test_torch_ops.py has the others, held to PyTorch's values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from device_case import numbers, same_on_both

import tinygrad_tx as tx
from tinygrad_tx import backends, nn, optim

pytestmark = pytest.mark.gpu
OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "SGD": lambda ps: optim.SGD(ps, 0.1, momentum=0.9, nesterov=True),
    "Adam": lambda ps: optim.Adam(ps, 0.1, amsgrad=True),
    "AdamW": lambda ps: optim.AdamW(ps, 0.1, weight_decay=0.2),
    "RMSprop": lambda ps: optim.RMSprop(ps, 0.1, centered=True, momentum=0.5),
    "Adagrad": lambda ps: optim.Adagrad(ps, 0.1, 0.1),
    "Adafactor": lambda ps: optim.Adafactor(ps, 0.1),
    "Lion": lambda ps: optim.Lion(ps, 0.1, weight_decay=0.1),
}
SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "Noam": lambda o: optim.lr_scheduler.Noam(o, 16, 3),
    "InverseSqrt": lambda o: optim.lr_scheduler.InverseSqrt(o, 3),
    "Constant": lambda o: optim.lr_scheduler.Constant(o, 2),
    "Cosine": lambda o: optim.lr_scheduler.Cosine(o, 6, 2, 0.01),
    "Linear": lambda o: optim.lr_scheduler.Linear(o, 6, 2),
    "ReduceLROnPlateau": lambda o: optim.lr_scheduler.ReduceLROnPlateau(o, patience=1),
}


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    backends.get("cuda")  # conftest.py has chosen what must work, or skipped


def test_none_is_missing() -> None:
    kinds = {n for n in optim.__all__ if isinstance(t := getattr(optim, n), type)
             and issubclass(t, optim.Optimizer)}  # fmt: skip
    assert kinds - {"Optimizer"} == OPTIMIZERS.keys()


@pytest.mark.parametrize("dtype", [tx.float32, tx.float16, tx.bfloat16], ids=lambda d: d.name)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps(name: str, dtype: tx.DType) -> None:
    """Of matrices, vectors and numbers; the second gradient is infinite, and no step is taken; the
    third lacks one."""

    def run(device: str) -> list[Any]:
        shapes = ((3, 4), (5,), ())
        values = (tx.tensor(numbers(*shape), dtype=dtype, device=device) for shape in shapes)
        ps = [nn.Parameter(value) for value in values]
        optimizer = OPTIMIZERS[name](ps)
        for i in range(4):
            for p in ps:
                grad = numbers(*p.shape, seed=i + 1)
                p.grad = tx.tensor(grad * (np.inf if i == 1 else 1), dtype=dtype, device=device)
            if i == 2:
                ps[1].grad = None
            optim.clip_grad_norm_(ps, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=i % 2 == 0)
        return [*(p.detach() for p in ps), *optimizer.state_dict().values()]

    same_on_both(run)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name: str) -> None:
    def run(device: str) -> list[Any]:
        p = nn.Parameter(tx.ones(3, device=device))
        optimizer = optim.SGD([p], 0.1)
        schedule, rates = SCHEDULES[name](optimizer), []
        for i in range(7):
            p.grad = p.detach() * 0.5
            optimizer.step()
            schedule.step(1.0 + i % 2) if "Plateau" in name else schedule.step()
            rates += schedule.get_last_lr()
        return [p.detach(), *rates, *schedule.state_dict().values()]

    same_on_both(run, close=1e-6)


def test_groups_closures_and_averages() -> None:
    def run(device: str) -> list[Any]:
        model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)).to(device)
        groups = optim.parameter_groups(model, {"*.bias": {"weight_decay": 0.0}})
        optimizer = optim.AdamW(groups, lr=0.05)
        ema = optim.EMA(model.parameters(), 0.5)
        x = tx.tensor(numbers(5, 3), device=device)

        def closure() -> tx.Tensor:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), x[:, :2])
            loss.backward()
            optim.clip_grad_value_(model.parameters(), 0.01)
            return loss

        found = []
        for _ in range(3):
            found.append(optimizer.step(closure).detach())
            ema.update()
        with ema.swapped():
            found.append(model(x).detach())
        return [*found, *model.parameters(), *ema.state_dict().values()]

    same_on_both(run)


def test_options_that_are_tensors() -> None:
    """lr from either device: it is a number."""
    for device in ("cpu", "cuda"):
        p = nn.Parameter(tx.ones(2, device="cuda"))
        optimizer = optim.SGD([p], tx.tensor(0.5, device=device))
        p.grad = tx.ones(2, device="cuda")
        optimizer.step()
        optimizer.param_groups[0]["lr"] = tx.tensor(0.25, device=device)
        optimizer.step()
        assert p.is_leaf and p.tolist() == [0.25, 0.25]
