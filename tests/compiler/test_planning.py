"""What planning costs, counted in calls of Python and C functions, not in seconds; and what it does
not do: look for garbage, write code for each number of parameters."""

from __future__ import annotations

import gc
import sys
from threading import Barrier, Thread
from types import FrameType
from typing import Any

import numpy as np
import pytest
from plan_case import TARGET, calls, floats, kinds, plan, waves

import tinygrad_tx as tx
from tinygrad_tx.backends.kernels.kinds import RowProgram
from tinygrad_tx.compiler.capture.trace import trace
from tinygrad_tx.compiler.run.execution import Execution
from tinygrad_tx.compiler.run.garbage import REST
from tinygrad_tx.compiler.schedule.memory import _Gaps
from tinygrad_tx.models import Transformer, TransformerConfig


def training(layers: int) -> tuple[Any, tuple[tx.Tensor, ...]]:
    config = TransformerConfig(
        vocab_size=3000,
        d_model=32,
        n_heads=2,
        d_ff=64,
        n_encoder_layers=layers,
        n_decoder_layers=layers,
    )
    model = Transformer(config)
    optimizer = tx.optim.Adam(model.parameters(), lr=1e-3)

    def step(src: tx.Tensor, tgt: tx.Tensor, out: tx.Tensor) -> tx.Tensor:
        loss = model.loss(src, tgt, out, label_smoothing=0.1)
        loss.backward()
        tx.optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    ids = tx.randint(3, 3000, (4, 16))
    return step, (ids, ids, ids)


def planning(layers: int) -> tuple[int, Execution]:
    """How many functions are called on the way from a call to its plan, and the plan."""
    step, args = training(layers)
    count = 0

    def seen(frame: FrameType, event: str, arg: object) -> None:
        nonlocal count
        count += event == "call" or event == "c_call"

    sys.setprofile(seen)
    try:
        made = Execution(trace(step, args, {}), TARGET)
    finally:
        sys.setprofile(None)
    return count, made


def test_twice_the_layers_cost_twice_the_calls() -> None:
    planning(1)  # what is done once by each process
    (few, one), (many, two) = planning(2), planning(4)
    assert one.kernels() > 350 and two.kernels() > 1.9 * one.kernels()
    assert many <= 2.2 * few


def test_the_code_of_a_step_is_that_of_any_number_of_layers() -> None:
    found = []
    for layers in (2, 3):
        step, args = training(layers)
        made = Execution(trace(step, args, {}), TARGET)
        found.append({call.kernel for call in calls(made.plan)})
    assert len(found[0] ^ found[1]) <= 2  # one adds up what each layer wants of the encoder


# Sums of numbers ----------------------------------------------------------------------------------


def norm(*xs: tx.Tensor) -> tx.Tensor:
    total = tx.zeros(())
    for x in xs:
        total = total + (x * x).sum()
    return total.sqrt()


def test_a_norm_of_many_is_the_sum_of_a_row() -> None:
    made = plan(norm, *(floats(8, 8) for _ in range(20)))
    assert set(kinds(made)) == {"RowProgram"} and kinds(made)["RowProgram"] <= 42
    assert max(len(call.reads) for call in calls(made)) <= 2
    assert len(list(waves(made))) <= 4  # they do not wait for each other
    few, many = (
        {c.kernel for c in calls(plan(norm, *(floats(8, 8) for _ in range(n))))} for n in (20, 33)
    )
    assert few == many and all(isinstance(kernel, RowProgram) for kernel in few)


def test_a_short_sum_stays_one() -> None:
    made = plan(norm, *(floats(8, 8) for _ in range(5)))
    assert max(len(call.reads) for call in calls(made)) == 5


@pytest.mark.parametrize("mode", ["native", "interp", "replay"])
def test_sums_of_all_kinds_of_numbers(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Terms that are handed out too, inputs, constants, repeated ones, other shapes."""
    monkeypatch.setenv("TX_COMPILE", mode)
    rng = np.random.default_rng(0)
    xs = [tx.tensor(rng.standard_normal((3, 4)).astype(np.float32)) for _ in range(12)]
    given = tx.tensor(2.5)

    def f(given: tx.Tensor, *xs: tx.Tensor) -> tuple[tx.Tensor, ...]:
        parts = [x.exp().sum() for x in xs]
        total = given + 1.5
        for part in parts:
            total = total + part
        half = total * 1
        for part in parts[::2]:
            total = part + total
        total = total + parts[0] + parts[0] + xs[0].max().reshape(1)
        return total, half, parts[3], parts[3] * parts[4]

    wanted = f(given, *xs)
    compiled = tx.compile(f)
    for _ in range(2):
        for a, b in zip(compiled(given, *xs), wanted, strict=True):
            assert a.shape == b.shape
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5)


# Memory and garbage -------------------------------------------------------------------------------


def test_gaps_are_the_lowest_and_come_together_again() -> None:
    gaps = _Gaps()
    assert [gaps.take(n) for n in (64, 128, 64, 192)] == [0, 64, 192, 256]
    gaps.free(64, 192)
    gaps.free(256, 448)
    assert [gaps.take(n) for n in (192, 64, 64)] == [256, 64, 128]
    for start, end in ((0, 64), (128, 192), (64, 128), (192, 256), (256, 448)):
        gaps.free(start, end)
    assert (gaps.starts, len(gaps.ends)) == ([0], 1)


def test_garbage_is_looked_for_again_whatever_happens() -> None:
    seen = []

    def f(x: tx.Tensor, fails: bool) -> tx.Tensor:
        seen.append(gc.isenabled())
        if fails:
            raise KeyError("mine")
        return x + 1

    compiled = tx.compile(f)
    assert gc.isenabled()
    compiled(tx.zeros(1), False)
    assert seen == [False] and gc.isenabled()
    with pytest.raises(KeyError):
        compiled(tx.zeros(1), True)
    assert gc.isenabled()
    gc.disable()
    try:
        compiled(tx.zeros(2), False)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_threads_rest_together() -> None:
    both, found = Barrier(2), []

    def work(first: bool) -> None:
        with REST:
            both.wait()
            if first:
                found.append(gc.isenabled())
            both.wait()
        both.wait()

    threads = [Thread(target=work, args=(i == 0,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [False] and gc.isenabled()
