"""GradScaler: PyTorch's to the bit, eagerly and in a compiled step; what a skipped step leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from modes import MODES, running

import tinygrad_tx as tx
from tinygrad_tx import optim
from tinygrad_tx.errors import DTypeError, UserError

modes = pytest.mark.parametrize("mode", MODES)


def parameter(*values: float) -> tx.Tensor:
    return tx.tensor(list(values), requires_grad=True)


class Run:
    """A parameter whose gradient is the input, scaled."""

    def __init__(self, make: Callable[..., Any] = optim.SGD, **options: Any) -> None:
        self.p = parameter(1.0, 2.0)
        self.optimizer = make([self.p], lr=0.125)
        self.scaler = optim.GradScaler(**{"init_scale": 8.0, "growth_interval": 3, **options})

    def step(self, x: tx.Tensor) -> tx.Tensor:
        self.scaler.scale((self.p * x).sum()).backward()
        found = self.p.grad
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        return found

    def state(self) -> list[np.ndarray]:
        own = (*self.optimizer.state_dict().values(), self.p)
        return [t.numpy().copy() for t in own]


GOOD, BAD = tx.tensor([1.0, -2.0]), tx.tensor([1.0, float("inf")])


@modes
def test_the_scale_shrinks_and_grows(mode: str) -> None:
    run = Run()
    step = running(run.step, mode)
    seen = []
    for x in (GOOD, BAD, GOOD, GOOD, GOOD, GOOD, BAD, BAD, GOOD):
        grad = step(x)
        seen.append(run.scaler.get_scale())
    assert seen == [8, 4, 4, 4, 8, 8, 4, 2, 2]
    assert grad.tolist() == [2, -4]  # of the scaled loss
    assert run.optimizer.step_count.item() == 6 and run.optimizer.skipped.item() == 3
    # Six steps of 0.125 times the gradient, exact in float32.
    assert run.p.tolist() == [1 - 6 * 0.125, 2 + 6 * 0.25]


@modes
@pytest.mark.parametrize("make", [optim.SGD, optim.AdamW, optim.RMSprop])
def test_a_step_that_is_skipped_changes_nothing_else(make: Any, mode: str) -> None:
    run = Run(make)
    step = running(run.step, mode)
    step(GOOD)
    before = run.state()
    step(tx.tensor([float("nan"), 1.0]))
    names = [*run.optimizer.state_dict(), "p"]
    for name, a, b in zip(names, before, run.state(), strict=True):
        if name == "skipped":
            assert (a, b) == (0, 1)
        else:
            np.testing.assert_array_equal(a, b)
    assert run.scaler.get_scale() == 4.0


@modes
def test_gradients_can_be_clipped_between(mode: str) -> None:
    run = Run()

    def step(x: tx.Tensor) -> tx.Tensor:
        run.scaler.scale((run.p * x).sum()).backward()
        run.scaler.unscale_(run.optimizer)
        run.scaler.unscale_(run.optimizer)  # once is enough
        norm = optim.clip_grad_norm_([run.p], 1.0)
        run.scaler.step(run.optimizer)
        run.scaler.update()
        run.optimizer.zero_grad()
        return norm

    f = running(step, mode)
    assert f(tx.tensor([3.0, 4.0])).item() == 5.0
    np.testing.assert_allclose(run.p.numpy(), [1 - 0.125 * 0.6, 2 - 0.125 * 0.8], rtol=1e-6)
    f(BAD)
    assert f(tx.tensor([0.3, 0.4])).item() == pytest.approx(0.5)
    assert run.scaler.get_scale() == 4.0


@modes
def test_two_optimizers_share_a_scale(mode: str) -> None:
    p, q = parameter(1.0), parameter(1.0)
    scaler = optim.GradScaler(init_scale=4.0)
    both = [optim.SGD([x], lr=1.0) for x in (p, q)]

    def step(x: tx.Tensor, y: tx.Tensor) -> tx.Tensor:
        loss = p * x + q * y
        scaler.scale(loss.sum()).backward()
        for optimizer in both:
            scaler.unscale_(optimizer)
        for optimizer in both:
            scaler.step(optimizer)
            optimizer.zero_grad()
        scaler.update()
        return loss

    running(step, mode)(tx.tensor([float("inf")]), tx.tensor([0.25]))
    assert (p.item(), q.item()) == (1.0, 0.75)  # the other one has taken its step
    assert scaler.get_scale() == 2.0


def test_in_parts_of_compiled_functions() -> None:
    """Gradients of several batches by one, the step by another; and clipped by a third between."""
    run = Run(growth_interval=100)
    add = tx.compile(lambda x: run.scaler.scale((run.p * x).sum()).backward())
    unscale = tx.compile(lambda: run.scaler.unscale_(run.optimizer))

    @tx.compile
    def end() -> None:
        run.scaler.step(run.optimizer)
        run.scaler.update()
        run.optimizer.zero_grad()

    for n in range(3):
        add(GOOD)
        add(GOOD)
        if n:  # in some steps it is unscaled before
            unscale()
            assert run.p.grad is not None and run.p.grad.tolist() == [2, -4]
        end()
        assert run.p.tolist() == [1 - (n + 1) * 0.25, 2 + (n + 1) * 0.5]
    assert end.stats()["retraces"] == 0


def test_a_trace_that_fails_leaves_no_mark() -> None:
    run, fail = Run(), True

    @tx.compile
    def step(x: tx.Tensor) -> None:
        run.scaler.scale((run.p * x).sum()).backward()
        run.scaler.unscale_(run.optimizer)
        if fail:
            raise ZeroDivisionError
        run.scaler.step(run.optimizer)
        run.scaler.update()

    with pytest.raises(ZeroDivisionError):
        step(GOOD)
    fail = False
    step(GOOD)
    assert run.p.tolist() == [0.875, 2.25]


def test_as_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(2).astype(np.float32) for _ in range(40)]
    for n in (3, 4, 17, 30):
        inputs[n][n % 2] = (np.inf, np.nan)[n % 2]
    run = Run(optim.AdamW, init_scale=2.0**10, growth_interval=5)
    p = torch.tensor([1.0, 2.0], requires_grad=True)
    optimizer = torch.optim.AdamW([p], lr=0.125)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=5)
    step = tx.compile(run.step)
    for x in inputs:
        step(tx.tensor(x))
        scaler.scale((p * torch.from_numpy(x)).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        assert run.scaler.get_scale() == scaler.get_scale()
        np.testing.assert_allclose(run.p.numpy(), p.detach().numpy(), rtol=2e-5, atol=1e-5)


def test_states() -> None:
    runs = [Run() for _ in range(2)]
    for x in (GOOD, BAD, GOOD, GOOD):
        runs[0].step(x)
    state = runs[0].scaler.state_dict()
    assert {k: v.item() for k, v in state.items()} == {"scale": 4.0, "growth_tracker": 2}
    runs[1].scaler.load_state_dict({k: v.numpy() for k, v in state.items()})
    for run in runs:
        run.step(GOOD)
        assert run.scaler.get_scale() == 8.0
    with pytest.raises(UserError, match=r"GradScaler: this state does not fit; missing: growth_tr"):
        runs[0].scaler.load_state_dict({"scale": state["scale"]})


def test_disabled_it_does_nothing() -> None:
    run = Run(enabled=False)
    assert run.step(GOOD).tolist() == [1, -2]
    assert run.p.tolist() == [0.875, 2.25]
    assert run.scaler.get_scale() == 1.0 and run.scaler.state_dict() == {}
    assert not run.scaler.is_enabled()
    run.scaler.load_state_dict({})


def test_nests_and_halves_are_scaled() -> None:
    scaler = optim.GradScaler(init_scale=4.0)
    one, (two,) = scaler.scale((GOOD, [tx.tensor([0.5], dtype=tx.float16)]))
    assert one.tolist() == [4, -8]
    assert two.dtype == tx.float16 and two.tolist() == [2]


def test_a_scale_that_cannot_grow_stays() -> None:
    run = Run(init_scale=3e38, growth_interval=1)
    run.scaler.update()
    assert run.scaler.get_scale() == np.float32(3e38)
    run.scaler.update(16.0)
    assert run.scaler.get_scale() == 16.0
    run.scaler.update(tx.tensor(32.0))
    assert run.scaler.get_scale() == 32.0


def test_mistakes() -> None:
    run = Run()
    half = tx.ones(2, dtype=tx.float16).requires_grad_()
    half.sum().backward()
    with pytest.raises(DTypeError, match="keep parameters in float32"):
        run.scaler.step(optim.SGD([half], lr=0.1))
    with pytest.raises(UserError, match="a closure cannot be scaled"):
        run.scaler.step(run.optimizer, lambda: 1.0)
    with pytest.raises(TypeError, match="an optimizer is wanted, not"):
        run.scaler.unscale_(run.p)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="outputs must be Tensors of floats"):
        run.scaler.scale(3)
    for name, wrong in [
        ("init_scale", 0.0),
        ("growth_factor", 1.0),
        ("backoff_factor", 1.0),
        ("growth_interval", 0),
    ]:
        with pytest.raises(UserError, match=f"GradScaler: {name}") as caught:
            optim.GradScaler(**{name: wrong})
        assert "\n" not in str(caught.value)


def test_a_step_inside_autocast_is_one_outside() -> None:
    for make in (optim.AdamW, optim.SGD, optim.Adafactor, optim.Lion, optim.RMSprop):
        found = []
        for precision in ("fp32", "bf16"):
            p = tx.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], requires_grad=True)
            optimizer = make([p], lr=0.1)
            p.grad = p.detach() * 0.3
            with tx.autocast(precision):
                optim.clip_grad_norm_([p], 1.0)
                optimizer.step()
            found.append(p.numpy().copy())
        np.testing.assert_array_equal(*found)
