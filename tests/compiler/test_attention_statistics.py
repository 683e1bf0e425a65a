"""Attention on a machine that keeps its statistics for gradients: the plans, and what they compute,
on the interpreter in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import plan_case as pc
import pytest

import tinygrad_tx as tx
from tinygrad_tx.backends.cpu.processor import Processor
from tinygrad_tx.backends.cpu.target import Interpreted
from tinygrad_tx.backends.kernels.kinds import Attention
from tinygrad_tx.compiler import compiled
from tinygrad_tx.compiler.capture.trace import trace
from tinygrad_tx.compiler.rewrite.lift import attention as lift_attention
from tinygrad_tx.compiler.run.execution import Execution
from tinygrad_tx.compiler.schedule.records import Plan
from tinygrad_tx.nn import functional as F  # noqa: N812

Step = Callable[..., Any]
SHAPE = 2, 4, 9, 8  # batch, heads, queries, width


@dataclass(frozen=True)
class Keeping(Interpreted):
    keeps_statistics = True


TARGET = Keeping(Processor("avx512", 64))


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """Compiled functions run on TARGET; their plans."""
    found: list[Plan] = []

    def planned(traced: Any) -> Execution:
        made = Execution(traced, TARGET)
        found.append(made.plan)
        return made

    monkeypatch.setattr(compiled, "_plan", planned)
    return found


def normal(*shape: int, seed: int = 0) -> tx.Tensor:
    return tx.tensor(np.random.default_rng([seed, *shape]).standard_normal(shape))


def operands(group: int = 1, grad: bool = True) -> list[tx.Tensor]:
    b, h, _, d = SHAPE
    shapes = SHAPE, (b, h // group, 12, d), (b, h // group, 12, d)
    made = [normal(*shape, seed=i) for i, shape in enumerate(shapes)]
    return [x.requires_grad_() for x in made] if grad else made


def check(f: Step, *args: tx.Tensor) -> None:
    """Compiled on TARGET, it is what eager code is."""
    wanted = f(*args)
    for x in args:
        x.grad = None
    found = tx.compile(f)(*args)
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-10, atol=1e-12)


def step(**how: Any) -> Step:
    """The output of attention and the gradients by all that is given."""

    def f(*args: tx.Tensor) -> tuple[tx.Tensor, ...]:
        y = F.scaled_dot_product_attention(*args, **how)
        (y * y).sum().backward()
        grads = [x.grad for x in args if x.requires_grad]
        return y.detach(), *(g for g in grads if g is not None)

    return f


def masks() -> list[tx.Tensor]:
    b, h, t, _ = SHAPE
    some = tx.tensor(np.random.default_rng(3).random((b, 1, t, 12)) < 0.6)
    return [some, normal(t, 12, seed=5), normal(b, h, t, 12, seed=6).requires_grad_()]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("group", [1, 2])
def test_gradients_read_what_attention_has_kept(kept: list[Plan], group: int, causal: bool) -> None:
    check(step(is_causal=causal, enable_gqa=group > 1), *operands(group))
    (plan,) = kept
    counted = pc.kinds(plan)
    assert counted["Attention"] == counted["AttentionQueryGrad"] == counted["AttentionKeyGrad"] == 1
    assert not counted["AttentionGrad"]


@pytest.mark.parametrize("number", range(3))
def test_masks_and_their_gradients(kept: list[Plan], number: int) -> None:
    mask = masks()[number]
    check(step(), *operands(), mask)
    counted = pc.kinds(kept[0])
    assert counted["Attention"] == counted["AttentionQueryGrad"] == 1
    assert not counted["AttentionGrad"]


def test_nothing_of_queries_times_keys_is_in_memory() -> None:
    b, h, t, d = 2, 2, 64, 8

    def f(*args: tx.Tensor) -> tuple[tx.Tensor, ...]:
        return step(is_causal=True)(*args)

    args = [tx.zeros(b, h, t, d, requires_grad=True) for _ in range(3)]
    plan = Execution(trace(f, tuple(args), {}), TARGET).plan
    assert max(pc.sizes(plan, "arena", "output")) <= b * h * t * d < b * h * t * t


def test_statistics_are_written_only_for_a_gradient(kept: list[Plan]) -> None:
    check(lambda *x: (F.scaled_dot_product_attention(*x),), *operands(grad=False))
    (kernel,) = [c.kernel for c in pc.calls(kept[0]) if isinstance(c.kernel, Attention)]
    assert not kernel.statistics


def test_a_gradient_whose_attention_is_another_plans_computes_it_for_its_statistics(
    kept: list[Plan],
) -> None:
    args = operands()

    def gradients(*x: tx.Tensor) -> tuple[tx.Tensor, ...]:
        from tinygrad_tx.ops import ATTENTION_GRAD

        g = normal(*SHAPE, seed=9)
        return ATTENTION_GRAD(g, *x, scale=0.5, causal=False)

    check(gradients, *[x.detach() for x in args])
    counted = pc.kinds(kept[0])
    assert counted["Attention"] == counted["AttentionQueryGrad"] == counted["AttentionKeyGrad"] == 1


def test_two_attentions_of_the_same_queries_keep_their_own(kept: list[Plan]) -> None:
    def f(q: tx.Tensor, k: tx.Tensor, v: tx.Tensor) -> tuple[tx.Tensor, ...]:
        y = F.scaled_dot_product_attention(q, k, v)
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        (y * y + z * z * z).sum().backward()
        return y.detach(), z.detach(), q.grad, k.grad, v.grad

    check(f, *operands())
    counted = pc.kinds(kept[0])
    assert counted["Attention"] == counted["AttentionQueryGrad"] == 2


def test_gradients_of_gradients(kept: list[Plan]) -> None:
    """They have no kernels, so all of it is decomposed."""

    def f(q: tx.Tensor, k: tx.Tensor, v: tx.Tensor) -> tuple[tx.Tensor, ...]:
        y = F.scaled_dot_product_attention(q, k, v)
        (g,) = tx.autograd.grad((y * y).sum(), [q], create_graph=True)
        (g * g).sum().backward()
        return q.grad, k.grad, v.grad

    check(f, *operands())


@pytest.mark.parametrize("masked", [False, True])
def test_dropout_of_weights_is_attentions(
    kept: list[Plan], monkeypatch: pytest.MonkeyPatch, masked: bool
) -> None:
    """Of the same words as in eager code; with its gradients, a mask's as well."""
    monkeypatch.setattr(lift_attention, "planned_for", lambda device: TARGET)
    mask = masks()[2 * masked] if masked else None

    def f(*args: tx.Tensor) -> tuple[tx.Tensor, ...]:
        y = F.scaled_dot_product_attention(*args, dropout_p=0.25, is_causal=not masked)
        (y * y).sum().backward()
        return y.detach(), *(x.grad for x in args if x.grad is not None)

    args = [*operands(), *([] if mask is None else [mask])]
    tx.manual_seed(5)
    wanted = f(*args)
    for x in args:
        x.grad = None
    tx.manual_seed(5)
    found = tx.compile(f)(*args)
    assert len(found) == len(wanted) == len(args) + 1
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-10, atol=1e-12)
    counted = pc.kinds(kept[0])
    assert counted["Attention"] == counted["AttentionQueryGrad"] == counted["AttentionKeyGrad"] == 1
    assert not counted["DropoutMask"] and not counted["AttentionGrad"]
    b, h, t, _ = SHAPE
    if not masked:
        assert max(pc.sizes(kept[0], "arena")) < b * h * t * 12


def test_dropout_that_kernels_do_not_take_is_spelled_out() -> None:
    """The op itself: forward and both gradients are those of what it stands for."""
    q, k, v = operands()
    key, stream = tx.tensor(7), tx.tensor(3)
    attrs = {"scale": 0.3, "causal": True}

    def spelled(*x: tx.Tensor) -> tx.Tensor:
        weights = F.attention_weights(x[0], x[1], None, True, 0.3)
        keep = tx.ops.KEEP(key, stream, p=0.4, shape=weights.shape)
        return (weights * (1 / 0.6)).where(keep, 0) @ x[2]

    def whole(*x: tx.Tensor) -> tx.Tensor:
        return tx.ops.ATTENTION(*x, key, stream, dropout=0.4, **attrs)

    def step(f: Step) -> Step:
        def run(*x: tx.Tensor) -> tuple[Any, ...]:
            y = f(*x)
            (g,) = tx.autograd.grad((y * y).sum(), [x[0]], create_graph=True)
            (g * g).sum().backward()
            return y.detach(), g.detach(), *(t.grad for t in x)

        return run

    wanted = step(spelled)(q, k, v)
    for run in (step(whole), tx.compile(step(whole))):
        for x in (q, k, v):
            x.grad = None
        for got, want in zip(run(q, k, v), wanted, strict=True):
            np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-9, atol=1e-11)


def test_attention_in_a_scan(kept: list[Plan]) -> None:
    """The rounds of the gradient are a plan of their own, which keeps its own statistics."""

    def f(q: tx.Tensor, k: tx.Tensor, v: tx.Tensor) -> tuple[tx.Tensor, ...]:
        def layer(x: tx.Tensor) -> tx.Tensor:
            return x + F.scaled_dot_product_attention(x, k, v)

        y = tx.checkpoint(layer)(q)
        (y * y).sum().backward()
        return y.detach(), q.grad, k.grad, v.grad

    check(f, *operands())
