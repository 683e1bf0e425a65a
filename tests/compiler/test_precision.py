"""What the compiler makes of autocast: kernels on 16 bits, half the memory from the forward to the
backward pass, and results that are the eager ones to the precision of the dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from modes import MODES, running
from plan_case import TARGET

import tinygrad_tx as tx
from tinygrad_tx import nn, ops
from tinygrad_tx.backends.kernels.kinds import Attention, AttentionGrad, Matmul, Pack, RowProgram
from tinygrad_tx.compiler.capture.trace import trace
from tinygrad_tx.compiler.run.execution import Execution
from tinygrad_tx.compiler.schedule.records import Buffer, Plan
from tinygrad_tx.models import GPT, GPTConfig
from tinygrad_tx.nn import functional as F  # noqa: N812

VOCAB = 80
HALVES = {"bf16": tx.bfloat16, "fp16": tx.float16}
halves = pytest.mark.parametrize("precision", HALVES)


def kernels(plan: Plan, kind: type[Any]) -> list[Any]:
    calls = (call for launch in plan.launches() for call in launch.calls)
    return [call.kernel for call in calls if isinstance(call.kernel, kind)]


def gpt_step(precision: str) -> Execution:
    """A training step, planned."""
    tx.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=VOCAB, block_size=64, n_layer=3, n_head=2, n_embd=64))
    optimizer = tx.optim.AdamW(model.parameters(), lr=1e-3)

    def step(ids: tx.Tensor, targets: tx.Tensor) -> tx.Tensor:
        with tx.autocast(precision):
            loss = model.loss(ids, targets)
        loss.backward()
        optimizer.step()
        return loss

    ids = tx.zeros(8, 64, dtype=tx.int64)
    return Execution(trace(step, (ids, ids), {}), TARGET)


def kept(plan: Plan) -> list[Buffer]:
    """The values, as large as activations, that lie in memory when the logits are made, and that
    something reads later."""
    waves = list(plan.waves())
    products = {
        wave: [v.buffer for launch in waves[wave] for c in launch.calls for v in c.writes]
        for wave in range(len(waves))
    }
    turn = next(n for n, made in products.items() if any(_is_logits(b) for b in made))
    written = {v.buffer for wave in waves[:turn] for launch in wave for v in launch.writes}
    read = {v.buffer for wave in waves[turn + 1 :] for launch in wave for v in launch.reads}
    return [b for b in written & read - packed(plan) if b in plan.offsets and b.size >= 8 * 64 * 64]


def _is_logits(buffer: Buffer) -> bool:
    return buffer.node is not None and buffer.node.shape[-1:] == (VOCAB,)


def packed(plan: Plan) -> set[Buffer]:
    calls = (call for launch in plan.launches() for call in launch.calls)
    return {v.buffer for call in calls if isinstance(call.kernel, Pack) for v in call.writes}


@pytest.fixture(scope="module")
def steps() -> dict[str, Execution]:
    return {precision: gpt_step(precision) for precision in ("fp32", *HALVES)}


@halves
def test_a_training_step_takes_products_in_16_bits(steps: Any, precision: str) -> None:
    plan, half = steps[precision].plan, HALVES[precision].name
    products = kernels(plan, Matmul)
    assert len(products) == len(kernels(steps["fp32"].plan, Matmul)) > 20
    assert {(k.dtype, k.left, k.out) for k in products} == {("float32", half, half)}
    for kernel in [*kernels(plan, Attention), *kernels(plan, AttentionGrad)]:
        assert (kernel.dtype, kernel.stored) == ("float32", half)
    assert {k.dtype for k in kernels(plan, Pack)} == {"float32"}
    assert {k.source for k in kernels(plan, Pack)} == {half, "float32"}


@halves
def test_what_is_kept_for_the_backward_pass_is_half_as_large(steps: Any, precision: str) -> None:
    wide, plan = steps["fp32"].plan, steps[precision].plan
    held = kept(plan)
    # In float32 is what float32 values are added to, the residual stream, twice for each layer; and
    # what the last norm makes, of which the gradient is next.
    float32 = [b.node for b in held if b.dtype == "float32" and b.node is not None]
    stream = [node for node in float32 if node.op is ops.ADD]
    assert len(stream) <= 2 * 3 + 1
    assert {node.scope for node in float32 if node not in stream} <= {"GPT.ln_f"}
    assert sum(b.bytes for b in held) <= 0.6 * sum(b.bytes for b in kept(wide))
    assert plan.arena_bytes <= 0.72 * wide.arena_bytes  # with what is packed, in float32
    assert steps[precision].peak_bytes() < 0.8 * steps["fp32"].peak_bytes()


@halves
def test_weights_are_rounded_while_they_are_packed(precision: str) -> None:
    """No copy of them is made, and where nothing changes them they stay packed."""
    tx.manual_seed(0)
    net = nn.Sequential(nn.Linear(96, 128), nn.ReLU(), nn.Linear(128, 96))
    x = tx.randn(64, 96)

    @tx.compile
    @tx.no_grad()
    def forward(x: tx.Tensor) -> tx.Tensor:
        with tx.autocast(precision):
            y: tx.Tensor = net(x)
        return y

    got = forward(x)
    plan = forward._last.plan
    assert [c.kernel.rounded for c in plan.prepacked] == [HALVES[precision].name] * 2
    assert not kernels(plan, Pack)
    with tx.autocast(precision), tx.no_grad():
        want = net(x)
    tolerance = 4 * HALVES[precision].eps
    np.testing.assert_allclose(
        got.float().numpy(), want.float().numpy(), rtol=tolerance, atol=tolerance
    )


def slopes(function: Callable[[tx.Tensor], tx.Tensor], precision: str) -> tuple[Any, Plan]:
    """The gradients of an activation between two products, and the plan."""
    tx.manual_seed(0)
    x = tx.randn(128, 64)
    first, second = tx.randn(64, 128).mul(0.1), tx.randn(128, 64).mul(0.1)

    @tx.compile
    def gradients(first: tx.Tensor, second: tx.Tensor) -> Any:
        def loss(first: tx.Tensor, second: tx.Tensor) -> tx.Tensor:
            with tx.autocast(precision):
                return ((function(x @ first) @ second).float() ** 2).mean()

        return tx.grad(loss, (0, 1))(first, second)

    return gradients(first, second), gradients._last.plan


@pytest.mark.parametrize(
    "function", [F.gelu, F.gelu_tanh, F.silu, tx.tanh, tx.sigmoid, F.elu], ids=lambda f: f.__name__
)
def test_slopes_are_computed_from_what_is_kept(function: Any) -> None:
    """And not kept themselves, which are float32 where an activation has 16 bits."""
    got, plan = slopes(function, "bf16")
    large = [b for b in plan.offsets if b.dtype == "float32" and b.size == 128 * 128]
    assert set(large) <= packed(plan)
    want, _ = slopes(function, "fp32")
    for a, b in zip(got, want, strict=True):
        assert (a - b).abs().max().item() <= 0.03 * b.abs().max().item()


@halves
@pytest.mark.parametrize("mode", MODES[1:])
def test_convolutions(precision: str, mode: str) -> None:
    """Lines of windows are runs, whose products are added up before they are rounded."""
    tx.manual_seed(0)
    x, w = tx.randn(2, 20, 12, 12), tx.randn(24, 20, 3, 3).mul(0.1)

    def gradients(x: tx.Tensor, w: tx.Tensor) -> Any:
        def loss(x: tx.Tensor, w: tx.Tensor) -> tx.Tensor:
            with tx.autocast(precision):
                y = F.conv2d(x, w, padding=1)
            assert y.dtype == HALVES[precision]
            return (y.float() ** 2).mean()

        return tx.value_and_grad(loss, (0, 1))(x, w)

    compiled = tx.compile(gradients)
    value, grads = running(gradients, mode)(x, w)
    want, wanted = gradients(x, w)
    np.testing.assert_allclose(value.numpy(), want.numpy(), rtol=1e-3)
    for a, b in zip(grads, wanted, strict=True):
        assert (a - b).abs().max().item() <= 8 * HALVES[precision].eps * b.abs().max().item()
    if mode == "native":
        compiled(x, w)
        products = kernels(compiled._last.plan, Matmul)
        assert any(k.accumulate for k in products)
        assert {k.left for k in products} == {HALVES[precision].name}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("mode", ["native", "interp"])
def test_a_step_of_odd_sizes(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TX_COMPILE", mode)
    losses = []
    for precision in ("fp32", "bf16"):
        tx.manual_seed(0)
        config = GPTConfig(vocab_size=37, block_size=23, n_layer=1, n_head=3, n_embd=21)
        model = GPT(config)

        @tx.compile
        def step(ids: tx.Tensor) -> tx.Tensor:
            with tx.autocast(precision):  # noqa: B023
                loss = model.loss(ids[:, :-1], ids[:, 1:])  # noqa: B023
            loss.backward()
            return loss

        ids = tx.tensor(np.random.default_rng(1).integers(0, 37, (3, 20)))
        losses.append([step(ids).item(), *(p.grad.numpy() for p in model.parameters())])
    for a, b in zip(*losses, strict=True):
        np.testing.assert_allclose(a, b, rtol=0.05, atol=0.04 * np.abs(b).max())


@halves
def test_attention_of_masks_in_16_bits(precision: str) -> None:
    """An added mask, its gradient, which is a sum over the batch, and heads that share keys, in one
    kernel each."""
    tx.manual_seed(0)
    q, k, v = tx.randn(2, 4, 9, 8), tx.randn(2, 2, 9, 8), tx.randn(2, 2, 9, 8)
    mask = tx.randn(4, 9, 9).where(tx.tril(tx.ones(9, 9)) > 0, -1e30)

    def gradients(*xs: tx.Tensor) -> Any:
        def loss(q: tx.Tensor, k: tx.Tensor, v: tx.Tensor, m: tx.Tensor) -> tx.Tensor:
            with tx.autocast(precision):
                y = F.scaled_dot_product_attention(q, k, v, m, enable_gqa=True)
            return (y.float() ** 2).sum()

        return tx.grad(loss, (0, 1, 2, 3))(*xs)

    compiled = tx.compile(gradients)
    got, want = compiled(q, k, v, mask), gradients(q, k, v, mask)
    plan = compiled._last.plan
    (grad,) = kernels(plan, AttentionGrad)
    assert grad.stored == HALVES[precision].name and grad.dmask
    for a, b in zip(got, want, strict=True):
        assert a.dtype == tx.float32
        assert (a - b).abs().max().item() <= 0.02 * b.abs().max().item()


def test_float32_plans_know_no_16_bits(steps: Any) -> None:
    plan = steps["fp32"].plan
    assert {(k.left, k.out) for k in kernels(plan, Matmul)} == {("float32", "float32")}
    assert {(k.source, k.rounded) for k in kernels(plan, Pack)} == {("float32", "")}
    dtypes = {i.dtype for k in kernels(plan, RowProgram) for i in k.inputs}
    assert dtypes.isdisjoint({"float16", "bfloat16"})


@halves
def test_products_through_the_interpreter_are_the_eager_ones(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit, which decides a tie of sums that NumPy adds up in another order."""
    monkeypatch.setenv("TX_COMPILE", "interp")
    tx.manual_seed(0)
    x, w = tx.randn(3, 17, 40), tx.randn(29, 40)

    def f(x: tx.Tensor, w: tx.Tensor) -> Any:
        with tx.autocast(precision):
            return F.linear(x, w), x.mT @ x, w @ x[1].mT

    for got, want in zip(tx.compile(f)(x, w), f(x, w), strict=True):
        assert got.dtype == want.dtype == HALVES[precision]
        a, b = got.numpy().view(np.int16), want.numpy().view(np.int16)
        assert np.abs(a.astype(int) - b).max() <= 1 and (a == b).mean() > 0.99
