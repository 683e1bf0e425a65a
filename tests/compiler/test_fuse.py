"""What fusing makes of programs: kernels by kind and what rides on what, so that a fusion that is
lost fails here. Counts are bounds: fewer kernels are welcome.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from plan_case import calls, floats, instrs, kinds, launches, plan, sizes, waves

import tinygrad_tx as tx
from tinygrad_tx import nn, optim
from tinygrad_tx.backends.kernels.kinds import RowProgram
from tinygrad_tx.compiler.schedule.records import Launch, Plan
from tinygrad_tx.models import GPT, GPTConfig, Transformer, TransformerConfig
from tinygrad_tx.nn import functional as F  # noqa: N812


def made(f: Callable[..., Any], *args: tx.Tensor) -> tuple[list[str], Plan]:
    found = plan(f, *args)
    return launches(found), found


def rows_with(op: str, found: Plan) -> tuple[list[Launch], list[Launch]]:
    """The launches whose row program has an operation: those on a product, and those alone."""
    having = [
        x
        for x in found.launches()
        if isinstance(x.calls[-1].kernel, RowProgram) and op in instrs(x.calls[-1].kernel)
    ]
    return [x for x in having if len(x.calls) > 1], [x for x in having if len(x.calls) == 1]


# Small programs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x.softmax(-1),
        lambda x: x.log_softmax(-1),
        lambda x: x.logsumexp(-1),
        lambda x: F.layer_norm(x, (64,)),
        lambda x: F.rms_norm(x, (64,)),
        lambda x: (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True),
        lambda x: F.gelu(x * 2 + 1).tanh() * x,
        lambda x: (x.exp() * 2).sum(-1),
        lambda x: x.argmax(-1),
        lambda x: (y := x.softmax(-1), y.amax(-1), (y * y).sum(-1)),
    ],
    ids=["softmax", "log_softmax", "logsumexp", "layer_norm", "rms_norm", "by_hand", "maps",
         "maps_and_sum", "argmax", "three_results"],
)  # fmt: skip
def test_one_row_program(f: Callable[..., Any]) -> None:
    assert made(f, floats(300, 64))[0] == ["RowProgram"]
    assert made(f, floats(5, 60, 64))[0] == ["RowProgram"]


@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh", "silu"])
def test_bias_and_activation_ride_on_their_product(activation: str) -> None:
    layer = nn.Linear(32, 64)
    found = plan(lambda x: F.activation(activation)(layer(x)), floats(16, 24, 32))
    assert launches(found) == ["Matmul+RowProgram"] and len(found.prepacked) == 1
    assert sizes(found, "arena") == [16 * 24 * 64]  # the product itself, of which a task is warm


def test_a_sublayer_rides_on_its_product() -> None:
    layer, norm = nn.Linear(64, 32), nn.LayerNorm(32)
    found = plan(
        lambda x, h: norm(x + F.dropout(layer(h), 0.1)), floats(16, 24, 32), floats(16, 24, 64)
    )
    # and the stream number's step, which is copied where the number lies when all have read that
    assert kinds(found) == {"RowProgram": 3, "DropoutMask": 1, "Matmul": 1}
    (riding,), _ = rows_with("sqrt", found)
    assert {"where", "add", "sum", "sqrt"} <= set(instrs(riding.calls[-1].kernel))
    assert "bool" in [i.dtype for i in riding.calls[-1].kernel.inputs]  # type: ignore[attr-defined]


def test_products_that_are_added_ride_together() -> None:
    a, b = nn.Linear(32, 64, bias=False), nn.Linear(32, 64, bias=False)
    names, _ = made(lambda x, y: (a(x) + b(y)).relu(), floats(400, 32), floats(400, 32))
    assert names == ["Matmul+Matmul+RowProgram"]


def test_a_norms_gradient_rides_on_the_product_that_brings_it() -> None:
    """Both of its sums along rows, and what they go into, though the weight's gradient reads the
    product as well."""
    norm, layer = nn.LayerNorm(32), nn.Linear(32, 64, bias=False)

    def f(x: tx.Tensor, g: tx.Tensor) -> tuple[Any, ...]:
        x.requires_grad_()
        (layer(norm(x)) * g).sum().backward()
        return x.grad, norm.weight.grad

    found = plan(f, floats(8, 24, 32), floats(8, 24, 64))
    (riding,) = (
        x for x in found.launches() if len(x.calls) > 1 and instrs(x.calls[-1].kernel).count("sum")
    )
    assert isinstance(riding.calls[-1].kernel, RowProgram)
    assert instrs(riding.calls[-1].kernel).count("sum") == 2


@pytest.mark.parametrize("length", [24, 1])
def test_gradients_of_queries_keys_and_values_are_not_copied_together(length: int) -> None:
    layer = nn.Linear(32, 96)

    def f(x: tx.Tensor, g: tx.Tensor) -> tx.Tensor:
        heads = (y.reshape(8, length, 4, 8).transpose(1, 2) for y in layer(x).split(32, -1))
        y = F.scaled_dot_product_attention(*heads)
        (y.transpose(1, 2).reshape(8, length, 32) * g).sum().backward()
        return layer.weight.grad

    found = plan(f, floats(8, length, 32), floats(8, length, 32))
    copied = [c for c in calls(found) if "concat" in [n.op.name for n in c.nodes]]
    assert kinds(found)["AttentionGrad"] == 1 and not copied


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 2, 0)])
def test_gradients_that_are_joined_and_handed_out_are_right(order: tuple[int, ...]) -> None:
    """Whether they lie together already or not, and though one goes out by itself."""

    def f(g: tx.Tensor, *x: tx.Tensor) -> tuple[tx.Tensor, ...]:
        heads = (t.requires_grad_().reshape(2, 5, 4, 8).transpose(1, 2) for t in x)
        y = F.scaled_dot_product_attention(*heads, is_causal=True)
        (y.transpose(1, 2).reshape(2, 5, 32) * g).sum().backward()
        joined = tx.cat([x[i].grad for i in order], -1)
        return joined, x[0].grad, joined * 2

    values = [np.random.default_rng(i).standard_normal((2, 5, 32)) for i in range(4)]
    for a, b in zip(*(h(*map(tx.tensor, values)) for h in (f, tx.compile(f))), strict=True):
        np.testing.assert_allclose(b.numpy(), a.numpy(), rtol=1e-12, atol=1e-14)


def test_loss_and_its_gradient_are_one_program_on_the_projection() -> None:
    projection = nn.Linear(32, 100)

    def step(x: tx.Tensor, t: tx.Tensor) -> tx.Tensor:
        loss = F.cross_entropy(projection(x), t, label_smoothing=0.1)
        loss.backward()
        return loss

    found = plan(step, floats(400, 32, grad=True), tx.zeros(400, dtype=tx.int64))
    (riding,), alone = rows_with("exp", found)
    assert not alone and instrs(riding.calls[-1].kernel).count("log") == 1
    written = sorted(v.buffer.size for v in riding.calls[-1].writes)
    assert written == [400, 400 * 100]  # losses, and the gradient of the logits
    assert not any("gather" in instrs(c.kernel) for c in calls(found))


def test_attention_keeps_no_scores() -> None:
    b, h, t, d = 4, 4, 48, 8

    def step(q: tx.Tensor, k: tx.Tensor, v: tx.Tensor) -> tx.Tensor:
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        loss = (y * y).sum()
        loss.backward()
        return loss

    found = plan(step, *(floats(b, h, t, d, grad=True) for _ in range(3)))
    assert kinds(found)["Attention"] == kinds(found)["AttentionGrad"] == 1
    assert max(sizes(found, "arena")) <= b * h * t * d < t * t * b * h

    def by_hand(q: tx.Tensor, k: tx.Tensor, v: tx.Tensor) -> tx.Tensor:
        return (q @ k.mT / d**0.5).softmax(-1) @ v

    assert made(by_hand, *(floats(b, h, t, d) for _ in range(3)))[0][0] == "Attention"


def test_heads_are_strides() -> None:
    """Neither splitting heads nor joining them copies."""
    attention = nn.MultiHeadAttention(32, 4)
    names, found = made(lambda x: attention(x, x, x), floats(8, 20, 32))
    assert sorted(names) == ["Attention", "Matmul", "Matmul", "Matmul", "Matmul"]
    assert [sorted(len(x.calls) for x in wave) for wave in waves(found)] == [[1, 1, 1], [1], [1]]


# What is stored and what is computed again -------------------------------------------------------


def test_cheap_maps_are_repeated() -> None:
    """y is read by two reductions that cannot share a kernel, and is never stored."""

    def f(x: tx.Tensor) -> tuple[tx.Tensor, ...]:
        y = x * 2 + 1
        return y.sum(-1), y.amax(0)

    found = plan(f, floats(200, 300))
    assert all(size <= 16 * 300 for size in sizes(found, "arena", "result"))


def test_costly_values_are_stored_once() -> None:
    def f(x: tx.Tensor) -> tuple[tx.Tensor, ...]:
        y = x.exp()
        return y.sum(-1), y.amax(0), y.mT @ x

    found = plan(f, floats(200, 300))
    assert sum(instrs(c.kernel).count("exp") for c in calls(found)) == 1
    assert sizes(found, "arena").count(200 * 300) == 1


def test_the_same_said_twice_is_computed_once() -> None:
    found = plan(lambda x: (x.exp() + 1, x.exp() * 3), floats(200, 300))
    assert launches(found) == ["RowProgram"]
    assert [instrs(c.kernel).count("exp") for c in calls(found)] == [1]


def test_sums_along_rows_share_a_kernel() -> None:
    """The gradients of a layer norm's weight and bias."""
    norm = nn.LayerNorm(32)

    def step(x: tx.Tensor, g: tx.Tensor) -> None:
        (norm(x) * g).sum().backward()

    found = plan(step, floats(40, 32), floats(40, 32))
    assert kinds(found)["ColumnReduce"] == 1
    (shared,) = (c for c in calls(found) if type(c.kernel).__name__ == "ColumnReduce")
    assert len(shared.writes) == 2


def test_refusals_have_reasons() -> None:
    found = plan(lambda x: x.cumsum(0).exp(), floats(30, 40))
    assert kinds(found)["Opaque"] == 1
    (why,) = found.refusals
    assert why.reason.startswith("called as it is: ") and "test_fuse.py" in why.node.line
    assert not plan(lambda x: x.exp(), floats(30, 40)).refusals


@pytest.mark.parametrize("turned", [lambda y: y.T, lambda y: y.flip(-1)], ids=["T", "flip"])
def test_a_reduction_that_its_kernel_refuses_is_listed(turned: Callable[..., Any]) -> None:
    """The elements are made in another order than they are summed in."""

    def f(x: tx.Tensor) -> tuple[tx.Tensor, tx.Tensor]:
        y = x.softmax(-1)
        return y, turned(y).sum(-1)

    (refused,) = plan(f, floats(300, 300)).refusals
    assert refused.node.op.name == "sum"
    assert refused.reason == "what it reduces is not at hand in the kernel before it"


# State -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [optim.Adam, optim.AdamW])
def test_an_optimizer_is_one_program_for_each_parameter(kind: Any) -> None:
    parameters = [floats(*s, grad=True) for s in ((200, 50), (9000,), (10, 20, 60))]
    optimizer = kind(parameters, lr=0.1)

    def step(*grads: tx.Tensor) -> None:
        for p, g in zip(parameters, grads, strict=True):
            p.grad = g
        optimizer.step()
        optimizer.zero_grad()

    found = plan(step, *(floats(*p.shape) for p in parameters))
    updates = [c for c in calls(found) if c.writes[0].buffer.size >= 9000]
    assert set(kinds(found)) == {"RowProgram"} and len(calls(found)) <= 14, (
        "sums, which must be finite"
    )
    assert [len(c.writes) for c in updates] == [3, 3, 3], "parameter and moments"
    written = {v.buffer for c in updates for v in c.writes}
    assert written <= found.aliases.keys(), "all of it is written where it lay"
    assert not [b for b, role in found.roles.items() if role == "result"]


def test_a_write_into_a_cache_is_a_write() -> None:
    cache, at = tx.zeros(4, 64, 32), tx.tensor(0)

    def write(value: tx.Tensor) -> None:
        cache[:, at] = value
        at.assign(at + 1)

    found = plan(write, floats(4, 32))
    assert max(v.buffer.size for c in calls(found) for v in c.reads if v.shape != (4, 64, 32)) < 200
    assert not [b for b, role in found.roles.items() if role == "result"]


# Whole steps -------------------------------------------------------------------------------------

B, S, T, VOCABULARY = 16, 24, 20, 100


def trained(model: nn.Module, loss: Callable[..., tx.Tensor], *ids: tx.Tensor) -> Plan:
    optimizer = optim.Adam(model.parameters(), lr=0.1)

    def step(*ids: tx.Tensor) -> tx.Tensor:
        found = loss(*ids)
        found.backward()
        optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return found

    return plan(step, *ids)


def ids(length: int) -> tx.Tensor:
    return tx.tensor(np.ones((B, length), np.int64))


@pytest.mark.parametrize(("norm", "most"), [("post", 560), ("pre", 574)])
def test_a_transformers_training_step(norm: str, most: int) -> None:
    config = TransformerConfig(
        VOCABULARY, d_model=32, n_heads=4, d_ff=64, n_encoder_layers=2, n_decoder_layers=2,
        dropout=0.1, norm=norm,
    )  # fmt: skip
    model = Transformer(config)
    found = trained(model, lambda *x: model.loss(*x, label_smoothing=0.1), ids(S), ids(T), ids(T))
    count = kinds(found)
    parameters = len(list(model.parameters()))
    assert count["Attention"] == count["AttentionGrad"] == 6 and not count["Opaque"]
    assert count["DropoutMask"] == 2 + 2 * 2 + 2 * 3, "dropout: two embeddings and every sublayer"
    assert sum(count.values()) <= most and not found.refusals
    norms, others = rows_with("sqrt", found)
    assert len(norms) == 10, "every layer norm but those of the embeddings rides on a product"
    assert len(others) <= parameters + 2 + 2 * (norm == "pre"), "and Adam is one for each parameter"
    assert len(rows_with("maximum", found)[0]) == 4, "bias and relu ride"
    assert [len(x) for x in rows_with("log", found)] == [1, 0], "the loss rides on the projection"
    assert [len(x) for x in rows_with("exp", found)] == [1, 0]
    for keys, queries in ((S, S), (T, T), (S, T)):
        assert B * 4 * keys * queries not in sizes(found, "arena")
    assert len(found.aliases) >= 3 * parameters, "parameters and moments are written in place"
    new = [b.size for b, role in found.roles.items() if role == "result"]
    assert set(new) == {1}, "the loss, and numbers"
    assert found.arena_bytes < 0.4 * sum(
        b.bytes for b, role in found.roles.items() if role == "arena"
    )


def test_a_gpts_training_step() -> None:
    config = GPTConfig(VOCABULARY, n_layer=2, n_head=4, n_embd=32, block_size=T)
    model = GPT(config)
    found = trained(model, model.loss, ids(T), ids(T))
    count = kinds(found)
    assert count["Attention"] == count["AttentionGrad"] == 2
    assert not count["DropoutMask"] and not count["Opaque"] and not found.refusals
    assert sum(count.values()) <= 165
    assert len(rows_with("erf", found)[0]) >= 2, "gelu rides, forward"
    assert [len(x) for x in rows_with("log", found)] == [1, 0]
    assert B * 4 * T * T not in sizes(found, "arena")
    assert len(found.aliases) >= 3 * len(list(model.parameters()))


def test_a_forward_that_is_no_expression_is_called_as_it_is() -> None:
    """Whatever it does with its arrays, alone or among maps that would repeat it."""
    for name, forward in {
        "cube_root": lambda xp, x: np.cbrt(x),
        "turned": lambda xp, x: x + x[::-1],
        "chooses": lambda xp, x: x if x.max() > 0 else -x,
    }.items():
        op = tx.Op(f"test_{name}", kind="map", forward=forward)
        try:
            x = floats(100, 200)
            f = tx.compile(lambda x, op=op: (op(x * 2) + 1, op(x * 2) * 3))
            with pytest.warns(UserWarning, match=f"the map op test_{name} is called as it is"):
                found = f(x)
            for a, b in zip(found, (op(x * 2) + 1, op(x * 2) * 3), strict=True):
                np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6)
            assert "no scalar expression" in f.explain()
        finally:
            del tx.node.OPS[op.name]


def test_a_failed_attempt_leaves_nothing_behind() -> None:
    """x.exp() cannot take the sum of c and its own transpose in: nor does it read c for that."""
    c = floats(64, 64)

    def alone(x: tx.Tensor) -> tx.Tensor:
        return x.exp()

    def both(x: tx.Tensor) -> tuple[tx.Tensor, tx.Tensor]:
        y = x.exp()
        return y, (c * 3 + y.T) + c

    x = floats(64, 64)
    (wanted,) = calls(plan(alone, x))
    found = next(call for call in calls(plan(both, x)) if "exp" in instrs(call.kernel))
    assert found.kernel == wanted.kernel and len(found.reads) == 1
