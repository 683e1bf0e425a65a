"""Device meta: shapes and dtypes of everything that the CPU computes, and no values."""

from __future__ import annotations

import copy
import pickle
import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from op_case import OpCase, arrays, call, laid_out
from op_table import CASES

import tinygrad_tx as tx
from tinygrad_tx import Tensor, nn
from tinygrad_tx.errors import DeviceError
from tinygrad_tx.models import GPT, GPTConfig
from tinygrad_tx.nn import functional as F  # noqa: N812


@pytest.fixture
def meta() -> Iterator[None]:
    """Device meta as the default one."""
    tx.set_default_device("meta")
    yield
    tx.set_default_device("cpu")


def memoryless(*given: Tensor) -> bool:
    assert all(t.device == "meta" for t in given)
    return not any(any(t.node.array.strides) for t in given if t.numel())


@pytest.mark.parametrize("name", sorted({c.name for c in CASES}))
def test_every_op_gives_what_its_rule_promises(name: str) -> None:
    """Results and gradients have the CPU's shapes and dtypes, and take no memory."""

    def of(case: OpCase, device: str) -> tuple[list[Tensor], list[Tensor]]:
        dtype = case.dtypes[0]
        leaves = [laid_out(a, device, "plain") for a in arrays(case, dtype)]
        leaves = [x.requires_grad_() if x.dtype.is_floating_point else x for x in leaves]
        made = [*call(case, leaves, device)]
        if case.grad:
            sum(out.double().sum() for out in made).backward()
        return made, [x.grad for x in leaves if x.grad is not None]

    for case in (c for c in CASES if c.name == name):
        for there, here in zip(of(case, "meta"), of(case, "cpu"), strict=True):
            assert memoryless(*there)
            assert [(t.shape, t.dtype) for t in there] == [(t.shape, t.dtype) for t in here]


def test_errors_of_shape_and_dtype_are_those_of_any_device() -> None:
    with pytest.raises(ValueError, match="matmul: the last axis of a"):
        tx.ones(2, 3, device="meta") @ tx.ones(4, 5, device="meta")
    with pytest.raises(DeviceError, match="add: one input is on meta, another on cpu"):
        tx.ones(2, device="meta") + tx.ones(2)


READS: list[Callable[[Tensor], object]] = [
    lambda x: x.sum().item(),
    lambda x: x.numpy(),
    lambda x: x.tolist(),
    lambda x: bool(x.any()),
    lambda x: x.to("cpu"),
    lambda x: np.asarray(x),
    lambda x: np.from_dlpack(x),
    lambda x: x[x > 0],
    lambda x: x.nonzero(),
    lambda x: f"{x.sum():.2f}",
    lambda x: x.repeat_interleave(tx.ones(3, dtype=tx.int64, device="meta"), 0),
]


@pytest.mark.parametrize("read", READS)
def test_reading_a_value_is_one_line(read: Callable[[Tensor], object]) -> None:
    with pytest.raises(DeviceError, match="on meta has a shape and a dtype, but no values") as why:
        read(tx.zeros(3, device="meta"))
    assert "\n" not in str(why.value)


def test_what_looks_at_values_only_to_complain_does_not_look(meta: None) -> None:
    assert tx.bernoulli(tx.rand(3)).shape == (3,)
    assert tx.rand(2, 5).multinomial(3).shape == (2, 3)
    assert tx.rand(8).quantile(0.5).shape == ()
    times = tx.ones(3, dtype=tx.int64)
    assert tx.zeros(3, 2).repeat_interleave(times, 0, output_size=7).shape == (7, 2)
    assert memoryless(nn.init.orthogonal_(tx.empty(5, 3)), nn.init.trunc_normal_(tx.empty(5, 3)))


def test_looks_and_copies() -> None:
    x = tx.zeros(2, 3, device="meta", dtype=tx.bfloat16, requires_grad=True)
    assert repr(x) == (
        "tensor(..., device='meta', size=(2, 3), dtype=tx.bfloat16, requires_grad=True)"
    )
    for again in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert (again.shape, again.dtype, again.requires_grad) == ((2, 3), tx.bfloat16, True)
        assert memoryless(again)
    assert len(pickle.dumps(tx.zeros(1000, 1000, device="meta"))) < 1000


def test_state_goes_to_meta_and_values_do_not_come_back() -> None:
    layer = nn.Linear(3, 4)
    weights = layer.state_dict()
    layer.to("meta")
    assert memoryless(*layer.parameters()) and layer(tx.zeros(2, 3, device="meta")).shape == (2, 4)
    layer.load_state_dict(weights)
    assert memoryless(*layer.parameters())
    with pytest.raises(DeviceError, match="no values"):
        layer.to("cpu")


def test_a_user_op_is_known_by_its_rule(meta: None) -> None:
    def never(xp: object, x: object) -> object:
        raise AssertionError("no forward runs on meta")

    twice = tx.Op(
        "halves_of_meta",
        forward=never,
        rule=lambda op, x: (tx.Spec((x.shape[0] // 2,), x.dtype), tx.Spec((), tx.int64)),
    )
    a, b = twice(tx.zeros(6))
    assert (a.shape, b.shape, b.dtype) == ((3,), (), tx.int64)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_step_of_training(meta: None, compiled: bool) -> None:
    """With dropout, a loop, clipping and an optimizer, in memory of which no array is; calls after
    the first run nothing anew, and gradients are there."""
    rnn, out = nn.GRU(6, 8, batch_first=True), nn.Linear(8, 3)
    parameters = [*rnn.parameters(), *out.parameters()]
    optimizer = tx.optim.AdamW(parameters, 1e-3)

    def step(x: Tensor, y: Tensor) -> Tensor:
        hidden, _ = rnn(x)
        loss = F.cross_entropy(out(F.dropout(hidden, 0.1)).flatten(0, 1), y.flatten())
        loss.backward()
        tx.optim.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return loss

    run = tx.compile(step) if compiled else step
    x, y = tx.zeros(4, 5, 6), tx.zeros(4, 5, dtype=tx.int64)
    before = tx.random.get_state()["cpu"][1]
    for _ in range(3):
        assert memoryless(run(x, y))
    assert tx.random.get_state()["cpu"][1] == before + 3  # the counter has a value
    grads = [p.grad for p in parameters]
    assert memoryless(*parameters) and [g.shape for g in grads] == [p.shape for p in parameters]
    assert all(memoryless(*moments.values()) for moments in optimizer.moments)


def test_gpt2_takes_no_memory(meta: None) -> None:
    """The 124 million parameters of the smallest, their moments, and a step on 32 x 1,024 tokens,
    whose logits alone would be 6.6 GB."""
    tracemalloc.start()
    try:
        model = GPT(GPTConfig(50257))
        optimizer = tx.optim.AdamW(model.parameters(), 1e-3)
        ids = tx.zeros(32, 1024, dtype=tx.int64)

        @tx.compile
        def step(ids: Tensor, targets: Tensor) -> Tensor:
            loss = model.loss(ids, targets)
            loss.backward()
            optimizer.step()
            return loss

        step(ids, ids)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(p.numel() for p in model.parameters()) == 124_337_664
    assert peak < 64e6
