"""Calls on paper: each launch's bytes and operations, counted by hand; memory; times."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import plan_fingerprint
import pytest

import tinygrad_tx as tx
from tinygrad_tx import Tensor, nn
from tinygrad_tx.backends import gpus
from tinygrad_tx.compiler.inspect.estimate import Estimate, Work, estimate
from tinygrad_tx.errors import UserError
from tinygrad_tx.nn import functional as F  # noqa: N812


@pytest.fixture
def meta() -> Iterator[None]:
    """Device meta as the default one."""
    tx.set_default_device("meta")
    yield
    tx.set_default_device("cpu")


def on_paper(f: Callable[..., Any], *shapes: tuple[int, ...], precision: str = "fp32") -> Estimate:
    """f on Tensors of these shapes, as a processor runs it, whose plans are known."""
    given = (tx.zeros(shape, device="meta") for shape in shapes)
    return estimate(f, *given, precision=precision, device="cpu")


def only(found: Estimate, kernel: str) -> Work:
    (work,) = (work for work in found.works if work.kernel == kernel)
    return work


@pytest.mark.parametrize("case", ["W1", "W4"])
def test_a_plan_made_of_shapes_is_the_plan(case: str, meta: None) -> None:
    """The plans recorded for the CPU, with dropout and without."""
    recorded = (plan_fingerprint.PLANS / f"{case}.txt").read_text(encoding="utf-8")
    assert plan_fingerprint.listing(case) == recorded


def test_a_map_reads_and_writes_once() -> None:
    (work,) = on_paper(lambda x, y: x * x + y * x, (64, 512), (64, 512)).works
    assert (work.kernel, work.times, work.flops) == ("rows", 1, 0)
    assert work.bytes == 3 * 4 * 64 * 512 and work.result == "f32[64,512]"


def test_what_is_broadcast_counts_once() -> None:
    (work,) = on_paper(lambda x, row: x + row, (64, 512), (512,)).works
    assert work.bytes == 4 * (2 * 64 * 512 + 512)


def test_the_same_places_under_other_shapes_count_once() -> None:
    (work,) = on_paper(lambda x: x.flip(0) + x.flip(1).flip(1) + x, (64, 512)).works
    assert work.bytes == 2 * 4 * 64 * 512


def test_parts_count_as_parts() -> None:
    (work,) = on_paper(lambda x: x[:, :128] + x[:, 128:256], (64, 512)).works
    assert work.bytes == 4 * 64 * (128 + 128 + 128)


def test_windows_count_no_more_than_there_is() -> None:
    """Elements that windows share are read once."""
    pool, *_ = on_paper(lambda x: F.avg_pool1d(x, 9, 1), (1, 32, 4096)).works
    assert pool.bytes == 4 * (32 * 4096 + 32 * 4088)


def test_a_gather_counts_its_rows() -> None:
    table, ids = tx.zeros(10_000, 64, device="meta"), tx.zeros(100, dtype=tx.int64, device="meta")
    work = only(estimate(lambda i: table[i] * 2, ids, device="cpu"), "rows")
    assert work.bytes == 100 * 64 * 4 * 2 + 100 * 8
    many = tx.zeros(100_000, dtype=tx.int64, device="meta")
    work = only(estimate(lambda i: table[i] * 2, many, device="cpu"), "rows")
    assert work.bytes == 4 * 64 * (10_000 + 100_000) + 100_000 * 8  # no more than all of them


def test_a_scattered_sum_counts_its_rows() -> None:
    model = nn.Embedding(10_000, 64).to("meta")
    ids = tx.zeros(100, dtype=tx.int64, device="meta")

    def step(ids: Tensor) -> Tensor | None:
        (model(ids) ** 2).sum().backward()
        return model.weight.grad

    work = only(estimate(step, ids, device="cpu"), "scatteradd")
    assert work.bytes == 100 * 8 + 100 * 64 * 4 * 3  # the indices; the values, and rows twice


def test_a_product_and_what_rides_on_it() -> None:
    """The product's own result stays on the chip: it is read by the program behind it alone."""
    m, k, n = 512, 128, 256
    found = on_paper(lambda a, b: (a @ b).relu() + 1, (m, k), (k, n))
    work = only(found, "matmul + rows")
    assert work.flops == 2 * m * k * n
    assert work.bytes == 4 * (m * k + k * n + m * n)
    found = on_paper(lambda a, b: ((a @ b).relu(), (a @ b).sum(0)), (m, k), (k, n))
    work = only(found, "matmul + rows")  # another launch reads the product, too, so it is written
    assert work.bytes == 4 * (m * k + k * n + 2 * m * n)


def test_a_loop_counts_its_rounds() -> None:
    def run(x: Tensor, w: Tensor) -> Tensor:
        last, _ = tx.scan(lambda h, row: ((h + row) @ w, None), tx.zeros(8, 128, device="meta"), x)
        return last

    found = on_paper(run, (20, 8, 128), (128, 128))
    rounds = [work for work in found.works if work.times == 20]
    assert sum(work.flops for work in rounds) == 2 * 8 * 128 * 128
    assert found.flops == 20 * 2 * 8 * 128 * 128
    assert found.launches == sum(work.times for work in found.works) > len(found.works)


def test_an_op_without_a_kernel_is_named() -> None:
    found = on_paper(lambda x: x.cumsum(0) * 2, (64, 64))
    assert found.opaque == ("cumsum",) and found.launches == 2


def test_memory() -> None:
    """Parameters, moments, what comes in, and the arena, in which gradients lie."""
    model = nn.Linear(256, 1024).to("meta")
    optimizer = tx.optim.Adam(model.parameters(), 1e-3)

    def step(x: Tensor) -> Tensor:
        loss = (model(x).relu() ** 2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    x = tx.zeros(512, 256, device="meta")
    wide, half = (estimate(step, x, precision=p, device="cpu").memory for p in ("fp32", "bf16"))
    weights = 4 * (256 * 1024 + 1024)
    assert wide.weights == weights and 2 * weights <= wide.state < 2 * weights + 100
    assert wide.inputs == 4 * 512 * 256 and wide.gradients == 0
    assert wide.arena > weights + 4 * 512 * 1024
    assert half.arena < wide.arena
    assert (half.weights, half.state, half.inputs) == (wide.weights, wide.state, wide.inputs)
    assert wide.peak == sum(wide)


def test_bf16_is_that_of_autocast() -> None:
    """Operands are cast once, and products written and read in 16 bits."""

    def f(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b) @ b

    a = tx.zeros(256, 256, device="meta")
    wide, half = (estimate(f, a, a + 1, precision=p, device="cuda") for p in ("fp32", "bf16"))
    assert wide.bytes == 4 * 6 * 256 * 256
    assert half.bytes == (2 * (4 + 2) + 2 * 6) * 256 * 256
    assert wide.flops == half.flops


def test_what_is_on_paper_takes_no_memory() -> None:
    """A gigabyte on paper."""
    tracemalloc.start()
    found = on_paper(lambda x: (x * 2).sum(), (1 << 14, 1 << 14))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.bytes >= 1 << 30 and peak < 1 << 22


def test_times_are_a_roofline() -> None:
    h100 = gpus.gpu("H100")
    shape = (4096, 4096)
    found = on_paper(lambda a, b: ((a @ b) @ b.T).exp().sum(), shape, shape, precision="tf32")
    product, *_, last = found.works
    assert found.seconds_of(product, h100) == product.flops / 494.7e12 + gpus.LAUNCH
    assert found.seconds_of(last, h100) == last.bytes / 3.35e12 + gpus.LAUNCH
    assert found.seconds(h100) == sum(found.seconds_of(work, h100) for work in found.works)


def test_gpus() -> None:
    assert gpus.gpu("RTX 4090") is gpus.GPUS["4090"]
    for one in gpus.GPUS.values():
        assert one.fp32 <= one.tf32 < one.bf16 and one.memory > one.bandwidth / 100
    with pytest.raises(UserError, match="GPU 'h20' is unknown here: did you mean h200"):
        gpus.gpu("h20")
    with pytest.raises(UserError, match="the GPUs are h200, h100"):
        gpus.gpu("tpu")
