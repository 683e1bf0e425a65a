"""Optimizers, clipping, moving averages and schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx import nn, optim
from tinygrad_tx.errors import GradError, UserError
from tinygrad_tx.optim import lr_scheduler

Array = np.ndarray[Any, Any]
SHAPES = [(3, 4), (5,), ()]


def parameters(dtype: Any = tx.float64) -> list[nn.Parameter]:
    rng = np.random.default_rng(0)
    return [nn.Parameter(tx.tensor(rng.standard_normal(s), dtype=dtype)) for s in SHAPES]


def gradients(steps: int = 8) -> list[list[Array]]:
    rng = np.random.default_rng(1)
    return [[np.asarray(rng.standard_normal(s)) for s in SHAPES] for _ in range(steps)]


def run(
    optimizer: optim.Optimizer, ps: list[nn.Parameter], steps: list[list[Array]]
) -> list[Array]:
    for grads in steps:
        for p, g in zip(ps, grads, strict=True):
            p.grad = tx.tensor(g, dtype=p.dtype)
        optimizer.step()
        optimizer.zero_grad()
    return [p.numpy().copy() for p in ps]


# The formulas -------------------------------------------------------------------------------------


def adam_by_hand(
    p: Array, grads: list[Array], lr: float, b1: float, b2: float, eps: float, l2: float, w: float
) -> Array:
    m = v = np.zeros_like(p)
    for t, g in enumerate(grads, 1):
        g = g + l2 * p
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        step = lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        p = p * (1 - lr * w) - step
    return p


@pytest.mark.parametrize(
    ("make", "l2", "w"),
    [
        (lambda ps: optim.Adam(ps, 0.1, (0.9, 0.98), 1e-3), 0.0, 0.0),
        (lambda ps: optim.Adam(ps, 0.1, (0.9, 0.98), 1e-3, weight_decay=0.2), 0.2, 0.0),
        (lambda ps: optim.AdamW(ps, 0.1, (0.9, 0.98), 1e-3), 0.0, 0.01),
        (lambda ps: optim.AdamW(ps, 0.1, (0.9, 0.98), 1e-3, weight_decay=0.3), 0.0, 0.3),
    ],
)
def test_adam_by_hand(make: Callable[..., optim.Optimizer], l2: float, w: float) -> None:
    ps = parameters()
    starts, steps = [p.numpy().copy() for p in ps], gradients()
    for i, got in enumerate(run(make(ps), ps, steps)):
        wanted = adam_by_hand(starts[i], [s[i] for s in steps], 0.1, 0.9, 0.98, 1e-3, l2, w)
        np.testing.assert_allclose(got, wanted, rtol=1e-12)


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd_by_hand(momentum: float, nesterov: bool) -> None:
    ps, steps = parameters(), gradients()
    x, b = ps[0].numpy().copy(), np.zeros(SHAPES[0])
    for grads in steps:
        g = grads[0] + 0.1 * x
        b = momentum * b + g
        x = x - 0.05 * (g + momentum * b if nesterov else b)
    got = run(optim.SGD(ps, 0.05, momentum, 0.0, 0.1, nesterov), ps, steps)
    np.testing.assert_allclose(got[0], x, rtol=1e-12)


def test_lion_by_hand() -> None:
    ps, steps = parameters(), gradients()
    p, m = ps[0].numpy().copy(), np.zeros(SHAPES[0])
    for grads in steps:
        p = p * (1 - 0.01 * 0.3) - 0.01 * np.sign(0.8 * m + 0.2 * grads[0])
        m = 0.7 * m + 0.3 * grads[0]
    got = run(optim.Lion(ps, 0.01, (0.8, 0.7), 0.3), ps, steps)
    np.testing.assert_allclose(got[0], p, rtol=1e-12)


TORCH: dict[str, Callable[[Any, Any], Any]] = {
    "sgd": lambda o, ps: o.SGD(ps, lr=0.1),
    "momentum": lambda o, ps: o.SGD(ps, lr=0.1, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda o, ps: o.SGD(ps, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda o, ps: o.Adam(ps),
    "adam_paper": lambda o, ps: o.Adam(ps, lr=0.01, betas=(0.9, 0.98), eps=1e-9),
    "adam_decay": lambda o, ps: o.Adam(ps, lr=0.1, weight_decay=0.1, eps=1e-2),
    "adamw": lambda o, ps: o.AdamW(ps, lr=0.1),
    "groups": lambda o, ps: o.AdamW(
        [{"params": ps[:1], "lr": 0.1}, {"params": ps[1:], "weight_decay": 0.5}], lr=0.01
    ),
}


@pytest.mark.parametrize("name", TORCH)
def test_same_as_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    ps, steps = parameters(), gradients()
    theirs = [torch.nn.Parameter(torch.tensor(p.numpy().copy())) for p in ps]
    got = run(TORCH[name](optim, ps), ps, steps)
    optimizer = TORCH[name](torch.optim, theirs)
    for grads in steps:
        for p, g in zip(theirs, grads, strict=True):
            p.grad = torch.tensor(g)
        optimizer.step()
    for ours, p in zip(got, theirs, strict=True):
        np.testing.assert_allclose(ours, p.detach().numpy(), rtol=1e-11)


def test_clipping_as_torch() -> None:
    torch = pytest.importorskip("torch")
    for bound in (0.5, 100.0):
        ps, grads = parameters(), gradients()[0]
        theirs = [torch.nn.Parameter(torch.tensor(p.numpy().copy())) for p in ps]
        for p, t, g in zip(ps, theirs, grads, strict=True):
            p.grad, t.grad = tx.tensor(g), torch.tensor(g)
        norm = optim.clip_grad_norm_(ps, bound)
        wanted = torch.nn.utils.clip_grad_norm_(theirs, bound)
        assert norm.item() == pytest.approx(wanted.item(), rel=1e-12)
        for p, t in zip(ps, theirs, strict=True):
            assert p.grad is not None
            np.testing.assert_allclose(p.grad.numpy(), t.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize("dtype", [tx.float16, tx.bfloat16], ids=lambda d: d.name)
def test_clipping_keeps_dtypes(dtype: tx.DType) -> None:
    """Also of a number, which beside a norm in float32 would become that."""
    ps = [nn.Parameter(tx.ones(shape, dtype=dtype)) for shape in ((), (2,))]
    for p in ps:
        p.grad = tx.full_like(p, 3.0)
    norm = optim.clip_grad_norm_(ps, 1.0)
    assert norm.dtype == tx.float32 and norm.item() == pytest.approx(27**0.5)
    for p in ps:
        assert p.grad is not None and p.grad.dtype == dtype
        np.testing.assert_allclose(p.grad.float().numpy(), 3 / 27**0.5, rtol=1e-2)


# What a step is -----------------------------------------------------------------------------------


def everything(optimizer: optim.Optimizer) -> dict[str, Array]:
    params = {f"p{i}": p.numpy().copy() for i, p in enumerate(optimizer.parameters)}
    return {**params, **{k: v.numpy().copy() for k, v in optimizer.state_dict().items()}}


OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    "sgd": lambda ps: optim.SGD(ps, 0.1, weight_decay=0.1),
    "momentum": lambda ps: optim.SGD(ps, 0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    "adam": lambda ps: optim.Adam(ps, 0.1, weight_decay=0.1),
    "adamw": lambda ps: optim.AdamW(ps, 0.1, weight_decay=0.1),
    "amsgrad": lambda ps: optim.AdamW(ps, 0.1, amsgrad=True),
    "rmsprop": lambda ps: optim.RMSprop(ps, 0.1, weight_decay=0.1, momentum=0.5, centered=True),
    "adagrad": lambda ps: optim.Adagrad(ps, 0.1, 0.1, 0.1),
    "adafactor": lambda ps: optim.Adafactor(ps, 0.1, weight_decay=0.1),
    "lion": lambda ps: optim.Lion(ps, 0.1, weight_decay=0.1),
}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_non_finite_gradients_change_nothing(name: str, bad: float, first: bool) -> None:
    ps, steps = parameters(tx.float32), gradients(3)
    optimizer = OPTIMIZERS[name](ps)
    if not first:
        run(optimizer, ps, steps[:2])
    before = everything(optimizer)
    spoilt = [g.copy() for g in steps[2]]
    spoilt[0][1, 2] = bad
    for p, g in zip(ps, spoilt, strict=True):
        p.grad = tx.tensor(g, dtype=tx.float32)
    norm = optim.clip_grad_norm_(ps, 1.0)
    assert not np.isfinite(norm.item())
    assert ps[1].grad is not None
    np.testing.assert_array_equal(ps[1].grad.numpy(), spoilt[1].astype(np.float32))
    optimizer.step()
    after = everything(optimizer)
    assert optimizer.skipped.item() == 1
    for key in before.keys() - {"skipped"}:
        np.testing.assert_array_equal(after[key], before[key])
    run(optimizer, ps, steps[2:])
    assert all(np.isfinite(x).all() for x in everything(optimizer).values())
    assert optimizer.step_count.item() == (1 if first else 3)
    assert optimizer.skipped.item() == 1


def test_gradients_whose_square_overflows_are_skipped() -> None:
    p = nn.Parameter(tx.ones(2))
    optimizer = optim.Adam([p])
    p.grad = tx.tensor([1e30, 1.0])
    optim.clip_grad_norm_(p, 1.0)
    optimizer.step()
    np.testing.assert_array_equal(p.numpy(), [1, 1])
    assert optimizer.skipped.item() == 1


def test_parameters_without_a_gradient_stay() -> None:
    ps = parameters()
    optimizer = optim.Adam(ps, 0.1, weight_decay=0.1)
    optimizer.step()
    assert optimizer.step_count.item() == 0
    before = ps[1].numpy().copy()
    ps[0].grad = tx.ones(3, 4, dtype=tx.float64)
    optimizer.step()
    np.testing.assert_array_equal(ps[1].numpy(), before)
    assert optimizer.step_count.item() == 1


def test_zero_grad() -> None:
    p = nn.Parameter(tx.ones(2))
    optimizer = optim.SGD([p])
    p.grad = tx.ones(2)
    optimizer.zero_grad(set_to_none=False)
    assert p.grad is not None and not p.grad.numpy().any()
    optimizer.zero_grad()
    assert p.grad is None


def test_lr_is_a_tensor_that_is_assigned() -> None:
    ps = parameters()
    optimizer = optim.Adam(ps, lr=0.1)
    group = optimizer.param_groups[0]
    lr = group["lr"]
    assert lr.shape == () and lr.item() == 0.1
    group["lr"] = 0.3
    group.update(lr=tx.tensor(0.5))
    assert group["lr"] is lr and lr.item() == 0.5


def test_state_exists_from_the_start_and_keeps_its_identity() -> None:
    ps = parameters()
    optimizer = optim.Adam(ps)
    tensors = [optimizer.step_count, *(t for m in optimizer.moments for t in m.values())]
    assert len(tensors) == 1 + 2 * len(ps)
    run(optimizer, ps, gradients(2))
    again = [optimizer.step_count, *(t for m in optimizer.moments for t in m.values())]
    assert all(a is b for a, b in zip(tensors, again, strict=True))
    assert optimizer.step_count.item() == 2


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_dict_resumes_to_the_bit(name: str) -> None:
    ps, others, steps = parameters(tx.float32), parameters(tx.float32), gradients(6)
    optimizer, other = OPTIMIZERS[name](ps), OPTIMIZERS[name](others)
    run(optimizer, ps, steps[:3])
    optimizer.param_groups[0]["lr"] = 0.03
    state = optimizer.state_dict()
    with tx.no_grad():
        for p, q in zip(ps, others, strict=True):
            q.assign(p)
    wanted = run(optimizer, ps, steps[3:])
    other.load_state_dict({k: v.numpy() for k, v in state.items()})
    for a, b in zip(run(other, others, steps[3:]), wanted, strict=True):
        np.testing.assert_array_equal(a, b)
    assert all(v.shape == state[k].shape for k, v in other.state_dict().items())


def test_state_dict_of_another_optimizer() -> None:
    optimizer = optim.Adam(parameters())
    with pytest.raises(UserError, match=r"Adam.*missing: exp_avg.0.*unexpected: momentum.0"):
        optimizer.load_state_dict(optim.SGD(parameters(), momentum=0.9).state_dict())


P = nn.Parameter(tx.ones(2))
ERRORS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: optim.Adam([]), UserError, "Adam got no parameters"),
    (lambda: optim.Adam([P, P]), UserError, "twice"),
    (lambda: optim.Adam([{"params": [P], "beta": 1}]), UserError, "no option 'beta'.*betas"),
    (lambda: optim.Adam([{"lr": 1.0}]), UserError, '"params"'),
    (lambda: optim.Adam([P], lr=-1), UserError, "lr is -1"),
    (lambda: optim.Adam([P], betas=(0.9, 1.0)), UserError, "betas"),
    (lambda: optim.Adam([P], eps=-1), UserError, "eps"),
    (lambda: optim.Adam([P], weight_decay=-1), UserError, "weight_decay"),
    (lambda: optim.SGD([P], momentum=1), UserError, "momentum"),
    (lambda: optim.SGD([P], nesterov=True), UserError, "used with momentum"),
    (lambda: optim.SGD([P * 2]), GradError, "leaf"),
    (lambda: optim.EMA([P], decay=1.5), UserError, "decay"),
    (lambda: lr_scheduler.Noam(optim.SGD([P]), 8, warmup=0), UserError, "warmup"),
    (lambda: lr_scheduler.Cosine(optim.SGD([P]), 5, warmup=5), UserError, "more than warmup"),
]


@pytest.mark.parametrize("i", range(len(ERRORS)))
def test_errors_say_what_is_wrong(i: int) -> None:
    call, kind, text = ERRORS[i]
    with pytest.raises(kind, match=text):
        call()


# Compiled -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_compiled_step_equals_eager_and_is_traced_once(name: str) -> None:
    x = tx.randn(6, 4)

    def trainer() -> tuple[nn.Linear, optim.Optimizer, Callable[[tx.Tensor], tx.Tensor]]:
        tx.manual_seed(0)
        model = nn.Linear(4, 2)
        optimizer = OPTIMIZERS[name](model.parameters())
        schedule = lr_scheduler.Noam(optimizer, 4, warmup=3)
        ema = optim.EMA(model.parameters(), 0.9)

        def step(x: tx.Tensor) -> tx.Tensor:
            loss: tx.Tensor = model(x).square().mean()
            loss.backward()
            optim.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            schedule.step()
            ema.update()
            optimizer.zero_grad()
            return loss

        return model, optimizer, step

    model, optimizer, step = trainer()
    eager = [step(x).item() for _ in range(12)]
    other, other_optimizer, step = trainer()
    compiled = tx.compile(step)
    got = [compiled(x).item() for _ in range(10)]
    other_optimizer.param_groups[0]["lr"] = other_optimizer.param_groups[0]["lr"].item()
    got += [compiled(x).item() for _ in range(2)]
    np.testing.assert_allclose(got, eager, rtol=2e-5)
    # Some optimizers divide a gradient by its own size, however small and rounded it is.
    np.testing.assert_allclose(other.weight.numpy(), model.weight.numpy(), rtol=2e-5, atol=2e-6)
    assert compiled.stats()["retraces"] == 0
    assert other_optimizer.step_count.item() == optimizer.step_count.item() == 12
    compiled(x * np.nan)
    assert other_optimizer.skipped.item() == 1
    assert np.isfinite(other.weight.numpy()).all()
    assert compiled.stats()["retraces"] == 0


# EMA ----------------------------------------------------------------------------------------------


def test_ema() -> None:
    ps, steps = parameters(tx.float32), gradients(4)
    optimizer, ema = optim.SGD(ps, 0.1), optim.EMA(ps, 0.75)
    average = ps[0].numpy().copy()
    for grads in steps:
        run(optimizer, ps, [grads])
        ema.update()
        average = 0.75 * average + 0.25 * ps[0].numpy()
    now = ps[0].numpy().copy()
    with ema.swapped():
        np.testing.assert_allclose(ps[0].numpy(), average, rtol=1e-6)
        assert ps[0].requires_grad
    np.testing.assert_array_equal(ps[0].numpy(), now)
    with pytest.raises(RuntimeError), ema.swapped():
        raise RuntimeError
    np.testing.assert_array_equal(ps[0].numpy(), now)
    other = optim.EMA(ps, 0.75)
    other.load_state_dict(ema.state_dict())
    with other.swapped():
        np.testing.assert_allclose(ps[0].numpy(), average, rtol=1e-6)
    with pytest.raises(UserError, match=r"EMA.*missing: average.0"):
        other.load_state_dict({})


# Schedules ----------------------------------------------------------------------------------------


def rates(make: Callable[[optim.Optimizer], lr_scheduler.Schedule], steps: int) -> list[float]:
    optimizer = optim.SGD([nn.Parameter(tx.ones(1))], lr=0.5)
    schedule = make(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"].item())
        schedule.step()
    return found


def noam(step: int) -> float:
    return float(512**-0.5 * min(step**-0.5, step * 4**-1.5))


SCHEDULES: dict[str, tuple[Callable[..., lr_scheduler.Schedule], list[float]]] = {
    "noam": (lambda o: lr_scheduler.Noam(o, 512, 4), [noam(n) for n in range(1, 11)]),
    "noam_scaled": (lambda o: lr_scheduler.Noam(o, 512, 4, 2.0), [2 * noam(n) for n in (1, 2)]),
    "inverse_sqrt": (
        lambda o: lr_scheduler.InverseSqrt(o, 4),
        [0.125, 0.25, 0.375, 0.5, *(0.5 * np.sqrt(4 / n) for n in (5, 6))],
    ),
    "constant": (lr_scheduler.Constant, [0.5] * 3),
    "constant_warm": (lambda o: lr_scheduler.Constant(o, 2), [0.25, 0.5, 0.5, 0.5]),
    "linear": (
        lambda o: lr_scheduler.Linear(o, 6, warmup=2, min_lr=0.1),
        [0.25, 0.5, 0.4, 0.3, 0.2, 0.1, 0.1],
    ),
    "cosine": (
        lambda o: lr_scheduler.Cosine(o, 6, warmup=2, min_lr=0.1),
        [0.25, *(0.1 + 0.2 * (1 + np.cos(np.pi * n / 4)) for n in range(5)), 0.1],
    ),
    "cosine_cold": (lambda o: lr_scheduler.Cosine(o, 2), [0.25, 0.0, 0.0]),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name: str) -> None:
    make, wanted = SCHEDULES[name]
    np.testing.assert_allclose(rates(make, len(wanted)), wanted, rtol=1e-12, atol=1e-15)


def test_noam_peaks_after_the_warmup() -> None:
    found = rates(lambda o: lr_scheduler.Noam(o, 512, 4000), 20)
    assert found[0] == pytest.approx(1 / np.sqrt(512) / 4000**1.5)
    assert found[9] == pytest.approx(10 * found[0])


def test_each_group_keeps_its_own_base() -> None:
    ps = parameters()
    optimizer = optim.SGD([{"params": ps[0], "lr": 1.0}, {"params": ps[1:]}], lr=0.1)
    schedule = lr_scheduler.Linear(optimizer, 4)
    schedule.step()
    assert [g["lr"].item() for g in optimizer.param_groups] == pytest.approx([0.5, 0.05])


def test_schedule_resumes() -> None:
    optimizers = [optim.SGD([nn.Parameter(tx.ones(1))], lr=0.5) for _ in range(2)]
    first, second = (lr_scheduler.Cosine(o, 10, 3) for o in optimizers)
    for _ in range(5):
        first.step()
    second.load_state_dict(first.state_dict())
    rate, same = (o.param_groups[0]["lr"].item() for o in optimizers)
    assert rate == same
    second.step()
    assert optimizers[1].param_groups[0]["lr"].item() < rate
