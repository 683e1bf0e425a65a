"""Our plan of GPT-2's training step beside llm.c's kernels, both counted on paper."""

from __future__ import annotations

import llmc
import pytest

from tinygrad_tx.backends.gpus import gpu

MOST_BYTES, MOST_LAUNCHES = 1.1, 1.0  # times llm.c's
HOW = "if that is meant: python tests/helpers/llmc.py write, and read what docs/gpu.md says of it"


@pytest.mark.parametrize(
    "precision, width", [("bf16", 2), pytest.param("fp32", 4, marks=pytest.mark.slow)]
)
def test_our_plan_moves_little_more_than_llmc(precision: str, width: int) -> None:
    _, theirs = llmc.totals(llmc.llmc(width=width))
    assert llmc.ours(precision).bytes <= MOST_BYTES * theirs


def test_our_plan_takes_few_more_launches_than_llmc() -> None:
    theirs, _ = llmc.totals(llmc.llmc())
    assert llmc.ours().launches <= MOST_LAUNCHES * theirs


def test_both_multiply_as_much() -> None:
    """But for the rows by which llm.c pads the vocabulary, and for the scores and their gradient,
    which both of our kernels of attention's gradient compute: neither count has left a product
    out."""
    theirs = sum(k.launches * k.flops for k in llmc.llmc())
    padding = 3 * 2 * 32 * llmc.T * llmc.C * (llmc.V - 50257)
    twice = llmc.L * 2 * 32 * llmc.T * llmc.T * llmc.C
    assert llmc.ours().flops == theirs - padding + twice


def test_the_count_of_llmc() -> None:
    """Some of its kernels by hand; what is asked of cuBLASLt is not done by another kernel."""
    x, found = 32 * 1024 * 768, {k.name: k for k in llmc.llmc()}
    assert found["qkv"].bytes == 2 * (4 * x + 3 * 768 * 768 + 3 * 768)
    assert found["gelu_backward_inplace"].bytes == 2 * 12 * x
    assert found["fused_residual_forward"].launches == 24
    assert sum(k.launches for k in llmc.llmc() if "attention" in k.name) == 24
    assert found["adamw"].launches * found["adamw"].bytes == 28 * 124_475_904
    launches, n_bytes = llmc.totals(llmc.llmc())
    fewer, less = llmc.totals(llmc.llmc(fused=True))
    assert (launches, fewer) == (393, 369)
    assert n_bytes - less == 2 * llmc.L * 12 * x


def test_groups_are_whole() -> None:
    assert {k.group for k in llmc.llmc()} <= set(llmc.GROUPS)
    assert {llmc.group_of(work) for work in llmc.ours().works} <= set(llmc.GROUPS)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n == "works" else []) for n in llmc.TABLES],
)
def test_the_page_has_these_tables(name: str) -> None:
    page = llmc.PAGE.read_text(encoding="utf-8")
    assert llmc.filled(page, [name]) == page, HOW


def test_no_step_is_faster_than_its_products() -> None:
    found, h100 = llmc.ours(), gpu("h100")
    assert found.seconds(h100) > found.flops / h100.bf16
    assert found.memory.peak < h100.memory
