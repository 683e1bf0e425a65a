"""What a GPU's kernels count in 32 bits: a call that is too large for that is refused, with the
reason, and run op by op."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from kernel_case import Program

pytest.importorskip("llvmlite")
from simulator.device import NAME, install

import tinygrad_tx as tx
from tinygrad_tx.backends.gpu import choice, writers
from tinygrad_tx.backends.kernels.arguments import word_count
from tinygrad_tx.backends.kernels.kinds import (
    Attention,
    AttentionKeyGrad,
    AttentionQueryGrad,
    CheckIndex,
    DropoutMask,
    Gemm,
    Kernel,
    ScatterAdd,
)
from tinygrad_tx.compiler.inspect.estimate import estimate
from tinygrad_tx.compiler.run.execution import Execution
from tinygrad_tx.compiler.run.replay import Replay
from tinygrad_tx.errors import NoKernel
from tinygrad_tx.nn import functional as F  # noqa: N812

HUGE = 1 << 31


def program(reduces: bool = False) -> Program:
    p = Program()
    x = p.load("float32")
    p.store(p.do("sum", "float32", x) if reduces else x, "same" if reduces else "unit")
    return p


def reduced() -> Program:
    p = Program()
    p.store(p.do("sum", "float32", p.load("float32")))
    return p


ATTENTION = "float32", 0.1, "none", False
CASES: list[tuple[Kernel, tuple[str, ...]]] = [
    (program().rows(2), ("outer", "columns")),
    (program(reduces=True).rows(2), ("outer", "columns")),
    (reduced().columns(2), ("outer", "columns", "rows_per_task")),
    (Gemm("float32"), ("b0", "b1", "m", "n", "k")),
    (Gemm("bfloat16"), ("b0", "b1", "m", "n", "k")),
    (Attention(*ATTENTION, "bfloat16"), ("b", "h", "t", "s")),
    (AttentionQueryGrad(*ATTENTION, False, "float32"), ("b", "h", "t", "s")),
    (AttentionKeyGrad(*ATTENTION, "float32"), ("b", "h", "t", "s")),
    (ScatterAdd("float32"), ("columns",)),
]


def chosen(kernel: Any, **sizes: int) -> choice.Choice:
    """The choice for a call of ones, but for some of its words."""
    words, at = [1] * word_count(kernel), kernel.layout
    for name, size in sizes.items():
        place = getattr(at, name)
        words[place[-1] if isinstance(place, tuple) else place] = size
    return writers.choose(kernel, words)


@pytest.mark.parametrize(("kernel", "extents"), CASES, ids=lambda x: getattr(x, "word", ""))
def test_each_extent_that_is_counted_in_32_bits(kernel: Kernel, extents: tuple[str, ...]) -> None:
    chosen(kernel)
    for name in extents:
        with pytest.raises(NoKernel, match=r"on a GPU counts .* in 32 bits, at most 2,146,435,072"):
            chosen(kernel, **{name: HUGE * (256 if name == "columns" else 1)})


def test_extents_that_are_too_large_together() -> None:
    part = 1 << 16
    for sizes in ({"b0": part, "b1": part}, {"b0": part, "m": part}):
        with pytest.raises(NoKernel, match="a product on a GPU counts rows"):
            chosen(Gemm("float32"), **sizes)
    with pytest.raises(NoKernel, match="tiles"):  # each of 16 x 64 elements
        chosen(Gemm("float32"), m=1 << 22, n=1 << 22)
    with pytest.raises(NoKernel, match="bytes along an axis"):
        chosen(Gemm("bfloat16"), k=1 << 30)
    chosen(Gemm("float32"), k=1 << 30)
    with pytest.raises(NoKernel, match="counts heads"):
        chosen(CASES[5][0], b=part, h=part)


def test_what_is_counted_in_64_bits_has_no_such_end() -> None:
    for kernel in (DropoutMask(1 << 20), CheckIndex("int64", True, False)):
        assert chosen(kernel, elements=1 << 40).blocks == choice.MOST
    chosen(ScatterAdd("float32"), rows=1 << 40)


def test_other_kernels_that_are_not_there() -> None:
    with pytest.raises(NoKernel, match="attention on a GPU takes heads of up to 256 columns"):
        chosen(CASES[5][0], d_k=300)
    with pytest.raises(NoKernel, match="AttentionGrad has no form for a GPU"):
        from tinygrad_tx.backends.kernels.kinds import AttentionGrad

        chosen(AttentionGrad(*ATTENTION, False, "float32"))


# Whole calls -------------------------------------------------------------------------------------


@pytest.fixture
def simulated() -> Iterator[None]:
    install()
    yield
    tx.set_default_device("cpu")


def test_a_call_that_is_too_large_is_run_op_by_op(
    simulated: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    f = tx.compile(lambda x: (x * 2).sum(-1))
    x = np.arange(60, dtype=np.float32).reshape(20, 3)
    first = f(tx.tensor(x, device=NAME))
    assert isinstance(f._plan(), Execution)
    monkeypatch.setattr(choice, "COUNTED", 19)
    f = tx.compile(lambda x: (x * 2).sum(-1))
    found = f(tx.tensor(x, device=NAME))
    assert isinstance(f._plan(), Replay)
    why = "a row program on a GPU counts rows in 32 bits, at most 19, and here are 20"
    assert f"nothing fused: {why}" in f.explain()
    np.testing.assert_array_equal(found.numpy(), first.numpy())


def test_heads_that_are_too_wide_are_computed_op_by_op(simulated: None) -> None:
    q = np.random.default_rng(0).standard_normal((1, 1, 4, 264)).astype(np.float32)
    f = tx.compile(lambda q: F.scaled_dot_product_attention(q, q, q))
    wanted = f(tx.tensor(q)).numpy()
    found = f(tx.tensor(q, device=NAME)).numpy()
    assert "takes heads of up to 256 columns, not 264" in f.explain()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_on_paper_it_is_said_as_well() -> None:
    x = tx.empty(HUGE, 2, device="meta")
    with pytest.raises(NoKernel, match="a row program on a GPU counts rows in 32 bits"):
        estimate(lambda x: x.softmax(-1), x)
