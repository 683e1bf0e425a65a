"""Compiled functions on device "cuda": the op table, attention against float64, steps of training
against the CPU's, a step that is run again and again, and memory that does not suffice.

On a GPU with all rows, steps and lengths, on a stand-in with some of them.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from attention_case import AttentionCase, documents, some
from op_case import RTOL, OpCase, arrays, call, tensors
from op_table import CASES
from stand_in import few, stand_in, waits

import tinygrad_tx as tx
from tinygrad_tx import backends
from tinygrad_tx.dtypes import ALL
from tinygrad_tx.nn import functional as F  # noqa: N812

pytestmark = pytest.mark.gpu
TABLE = [case for case in CASES if case.inputs]
NAMES = sorted({case.name for case in TABLE})


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    backends.get("cuda")  # conftest.py has chosen what must work, or skipped


# The op table ----------------------------------------------------------------------------------


def computed(case: OpCase, dtype: str, device: str) -> list[np.ndarray[Any, Any]]:
    """The results of an op and the gradients of its inputs, which stay as they were; on "cuda"
    compiled, at the second run, which a graph is captured in."""
    inputs = tensors(case, dtype, device)
    for x in inputs:
        if x.dtype.is_floating_point and case.grad:
            x.requires_grad_()

    def f(*xs: tx.Tensor) -> tuple[tx.Tensor, ...]:
        out = call(case, list(xs), device)
        if case.grad:
            sum((o * o).sum() for o in out).backward()
        return out

    run = tx.compile(f) if device == "cuda" else f
    out = run(*inputs)
    if device == "cuda":
        for x in inputs:
            x.grad = None
        out = run(*inputs)
    assert all(x.device == device for x in out)
    for x, given in zip(inputs, arrays(case, dtype), strict=True):
        assert x.numpy().tobytes() == given.tobytes()
    return [x.numpy() for x in (*out, *(x.grad for x in inputs if x.grad is not None))]


def as_on_the_cpu(case: OpCase, dtype: str) -> None:
    found, wanted = (computed(case, dtype, device) for device in ("cuda", "cpu"))
    for got, want in zip(found, wanted, strict=True):
        assert (got.shape, got.dtype) == (want.shape, want.dtype)
        if want.dtype.kind not in "fV":
            np.testing.assert_array_equal(got, want)
            continue
        rtol = RTOL[want.dtype.name] * case.scale
        got, want = got.astype("d"), want.astype("d")
        largest = np.abs(want[np.isfinite(want)]).max(initial=1)
        np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol * largest, err_msg=case.id)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", NAMES)
def test_an_op(name: str) -> None:
    """One row of it in its first dtype that training has."""
    case = next(case for case in TABLE if case.name == name)
    as_on_the_cpu(case, "float32" if "float32" in case.dtypes else case.dtypes[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_row_of_an_op(name: str) -> None:
    for case in (case for case in TABLE if case.name == name):
        for dtype in case.dtypes:
            as_on_the_cpu(case, dtype)


# Attention -------------------------------------------------------------------------------------

LENGTHS = [(2, 3, 33, 47, 16), (1, 2, 64, 64, 64)]
LONG = [(2, 4, 1000, 1000, 64), (1, 2, 2048, 1024, 128), (4, 12, 1024, 1024, 64)]
MASKS: dict[str, Callable[[int, int, int], Any]] = {
    "none": lambda b, t, s: None,
    "causal": lambda b, t, s: None,
    "padding": lambda b, t, s: np.arange(s) < np.linspace(s, s // 2, b)[:, None, None, None],
    "some": lambda b, t, s: some((b, 1, t, s)),
    "added": lambda b, t, s: np.random.default_rng(5).standard_normal((b, 1, t, s)).astype("f"),
    "documents": lambda b, t, s: documents(b, t),
}  # fmt: skip
WITHIN = {"float32": 2e-5, "bfloat16": 2e-2, "float16": 3e-3}  # of the largest number


@pytest.mark.one_in(3)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("dtype", WITHIN)
@pytest.mark.parametrize("mask", MASKS)
def test_attention_against_float64(mask: str, dtype: str, compiled: bool) -> None:
    """The output and the gradients of queries, keys and values."""
    for b, h, t, s, d in LENGTHS[: few(2, 1)] + LONG[: few(3, 0)]:
        if mask in ("causal", "documents"):
            s = t
        values = MASKS[mask](b, t, s)
        if mask == "added":
            values = values.astype(ALL[dtype].np)
        case = AttentionCase(b, h, t, s, d, d, dtype, values, mask == "causal")
        case.scale = d**-0.5
        attend = tx.compile(_attended) if compiled else _attended
        q, k, v, g = (tx.tensor(np.ascontiguousarray(x), device="cuda") for x in
                      (case.q, case.k, case.v, case.g))  # fmt: skip
        given = None if values is None else tx.tensor(values, device="cuda")
        for _ in range(2):
            found = attend(q, k, v, g, given, mask)
        wanted = [case.reference(), *case.reference_grads()[:3]]
        for got, want in zip(found, wanted, strict=True):
            largest = np.abs(want).max()
            apart = np.abs(got.numpy().astype("d") - want).max() / largest
            assert apart < WITHIN[dtype], (mask, dtype, t, s, d)


def _attended(
    q: tx.Tensor, k: tx.Tensor, v: tx.Tensor, g: tx.Tensor, given: tx.Tensor | None, mask: str
) -> tuple[tx.Tensor, ...]:
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]
    if mask == "documents":
        out = F.scaled_dot_product_attention(*leaves, bounds=given)
    else:
        out = F.scaled_dot_product_attention(*leaves, given, is_causal=mask == "causal")
    (out * g).sum().backward()
    return (out.detach(), *(x.grad for x in leaves))


# Steps of training -----------------------------------------------------------------------------


def trainable(device: str) -> tuple[Any, Callable[..., tx.Tensor], list[tx.Tensor]]:
    """A small Transformer with dropout, its step, and a batch."""
    tx.manual_seed(0)
    sizes = {"d_model": 32, "n_heads": 2, "d_ff": 48, "dropout": 0.1}
    config = tx.models.TransformerConfig(31, **sizes, n_encoder_layers=2, n_decoder_layers=2)
    model = tx.models.Transformer(config).to(device)
    optimizer = tx.optim.AdamW(model.parameters(), lr=3e-3)

    def step(precision: str, *batch: tx.Tensor) -> tx.Tensor:
        with tx.autocast(precision):
            loss: tx.Tensor = model.loss(*batch, label_smoothing=0.1)
        loss.backward()
        tx.optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    rng = np.random.default_rng(0)
    src, tgt = (rng.integers(3, 31, (6, 11)) for _ in range(2))
    src[1, 7:] = 0
    batch = [tx.tensor(x, device=device) for x in (src, np.roll(tgt, 1, 1), tgt)]
    return model, step, batch


@pytest.mark.one_in(4)
@pytest.mark.parametrize(("precision", "within"), [("fp32", 1e-4), ("bf16", 2e-2)])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_steps_are_the_cpus(precision: str, within: float, compiled: bool) -> None:
    """50 of them on a GPU, with the same dropout."""
    losses = []
    for device in ("cpu", "cuda"):
        _, step, batch = trainable(device)
        run = tx.compile(step) if compiled else step
        losses.append([run(precision, *batch).item() for _ in range(few(50, 4))])
    np.testing.assert_allclose(losses[1], losses[0], rtol=within)
    assert losses[1][-1] < losses[1][0]


def pool() -> int:
    """The bytes of the device that are in use."""
    import cupy

    tx.backends.get("cuda").synchronize()
    return int(cupy.get_default_memory_pool().used_bytes())


def test_memory_is_flat_where_a_step_is_run_a_thousand_times() -> None:
    if os.environ.get("CPU_CUDA_GUARD"):
        pytest.skip("with guard pages there is no pool")
    _, step, batch = trainable("cuda")
    run = tx.compile(step)
    for _ in range(4):
        run("fp32", *batch)
    gc.collect()  # what other tests have left, and at the end what may be in cycles
    before, first = pool(), run("fp32", *batch).item()
    for _ in range(few(1000, 8)):
        loss = run("fp32", *batch)
    assert loss.item() < first
    del loss
    gc.collect()
    assert pool() == before
    if not stand_in():
        assert "runs as a CUDA graph, captured once" in run.explain()


def test_a_compiled_step_never_waits() -> None:
    """On a stand-in it is counted. On a GPU the steps are given while it is still at work on what
    it was given before, so that a wait would take until that is done."""
    _, step, batch = trainable("cuda")
    run = tx.compile(step)
    for _ in range(4):
        run("fp32", *batch)
    if stand_in():
        before = waits()
        for _ in range(5):
            run("fp32", *batch)
        assert waits() == before
        return
    import cupy

    spin = cupy.RawKernel(
        'extern "C" __global__ void spin(long long n) { long long t = clock64(); '
        "while (clock64() - t < n); }",
        "spin",
    )
    spin((1,), (1,), (np.int64(1),))
    tx.backends.get("cuda").synchronize()
    spin((1,), (1,), (np.int64(2_000_000_000),))  # a second
    done = cupy.cuda.Event()
    done.record()
    for _ in range(5):
        run("fp32", *batch)
    assert not done.done


# Memory that does not suffice ------------------------------------------------------------------

HUGE = 1 << 45  # elements


def test_what_does_not_fit_is_an_error_and_the_device_goes_on() -> None:
    x = tx.ones(3, device="cuda")
    big = tx.compile(lambda x: (x.reshape(3, 1) + tx.ones(HUGE, device="cuda")).sum(1))
    for f in (lambda: tx.zeros(HUGE, device="cuda"), lambda: big(x)):
        with pytest.raises(MemoryError):
            f()
        assert tx.compile(lambda x: x * 2)(x).tolist() == [2, 2, 2]
