"""Lowering: ops that are known whole become simple ops with the same values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from graph_case import PASSES, Roots, evaluated, names, recorded, tensors, through
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_tx as tx
from tinygrad_tx import ops
from tinygrad_tx.compiler.lower.lower import lower
from tinygrad_tx.nn import functional as F  # noqa: N812
from tinygrad_tx.node import Graph

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def lowered(f: Callable[..., Any], *arrays: np.ndarray) -> Roots:
    """f's results after lowering, whose values are those of eager code."""
    eager, args = tensors(arrays), tensors(arrays)
    wanted = f(*eager)
    roots, traced = recorded(f, args)
    found = lower(through(PASSES, roots))
    for a, b in zip(
        evaluated(found, traced, args),
        wanted if isinstance(wanted, tuple) else (wanted,),
        strict=True,
    ):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-10, atol=1e-12)
        assert a.dtype == b.dtype.np and a.shape == b.shape
    return found


def gradients(f: Callable[..., Any]) -> Callable[..., Any]:
    def step(*xs: tx.Tensor) -> tuple[tx.Tensor, ...]:
        (f(*xs) * 1.5).sum().backward()
        return tuple(x.grad for x in xs if x.grad is not None)

    return step


@pytest.mark.parametrize(
    ("f", "left"),
    [
        (lambda x: x.softmax(-1), {"max", "sub", "exp", "sum", "div", "mul"}),
        (lambda x: x.log_softmax(-1), {"max", "sub", "exp", "sum", "log"}),
        (lambda x: x.logsumexp(-1), {"max", "sub", "exp", "sum", "log", "add", "reshape"}),
    ],
    ids=["softmax", "log_softmax", "logsumexp"],
)
def test_what_is_known_whole_becomes_maps_and_reductions(f: Any, left: set[str]) -> None:
    for function in (f, gradients(lambda x: f(x) ** 2)):
        found = lowered(function, normal(3, 5))
        assert all(n.op.kind in ("map", "reduce", "move", "create", "leaf") for n in Graph(found))
    assert set(names(lowered(f, normal(3, 5)))) <= left | {"where", "isfinite"}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("skip", [-100, 2])
def test_cross_entropy_compares_instead_of_gathering(smoothing: float, skip: int) -> None:
    targets = np.array([0, 2, 6, 2])

    def loss(x: tx.Tensor, t: tx.Tensor) -> tx.Tensor:
        return F.cross_entropy(x, t, ignore_index=skip, reduction="none", label_smoothing=smoothing)

    for f in (loss, gradients(loss)):
        left = set(names(lowered(f, normal(4, 7), targets)))
        assert "eq" in left and "wrap_index" in left
        assert not left & {"take", "take_along", "cross_entropy", "cross_entropy_grad"}


def test_a_target_outside_is_still_an_error() -> None:
    f = tx.compile(lambda x, t: F.cross_entropy(x, t))
    x = tx.tensor(normal(2, 7))
    f(x, tx.tensor([0, 6]))
    with pytest.raises(IndexError, match="7"):
        f(x, tx.tensor([0, 7]))


@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.integers(1, 15), st.booleans())
@settings(max_examples=100, derandomize=True, deadline=None, database=None)
def test_reductions_are_along_the_last_axis_or_the_first_ones(
    shape: list[int], bits: int, keepdim: bool
) -> None:
    axes = tuple(i for i in range(len(shape)) if bits >> i & 1) or (0,)
    for name in ("sum", "amax", "amin"):
        found = lowered(lambda x, how=name: getattr(x, how)(axes, keepdim=keepdim), normal(*shape))
        for node in Graph(found):
            if node.op.kind == "reduce":
                x = node.srcs[0]
                wide = [i for i, n in enumerate(x.shape) if n != 1]
                over = [i for i in wide if i in node.attrs["axis"]]
                assert over in (wide[-1:], wide[: len(over)])


def test_the_gradient_of_relu_reads_its_result() -> None:
    """So that its argument need not be kept."""

    def f(x: tx.Tensor) -> tuple[tx.Tensor, tx.Tensor]:
        y = x.relu()
        (y * y).sum().backward()
        assert x.grad is not None
        return y, x.grad

    found = lowered(f, normal(4, 5))
    (test,) = (n for n in Graph(found) if n.op is ops.LE)
    assert test.srcs[0].op is ops.RELU


@pytest.mark.parametrize(
    ("f", "op"),
    [
        (lambda x, i: x[i], ops.TAKE),
        (lambda x, i: F.embedding(i, x), ops.TAKE),
        (lambda x, i: x.index_add(0, i, x[:3]), ops.INDEX_ADD),
    ],
    ids=["take", "embedding", "index_add"],
)
def test_indices_are_checked_before_they_are_used(f: Any, op: Any) -> None:
    found = lowered(f, normal(6, 4), np.array([5, 0, 5]))
    (node,) = (n for n in Graph(found) if n.op is op)
    assert node.srcs[1].op is ops.WRAP_INDEX


def test_a_write_at_a_position_is_checked() -> None:
    def f(x: tx.Tensor, at: tx.Tensor, value: tx.Tensor) -> tx.Tensor:
        return F.write_at(x, value, at, 1)

    found = lowered(f, normal(2, 5, 3), np.array(4), normal(2, 1, 3))
    (node,) = (n for n in Graph(found) if n.op is ops.UPDATE)
    assert node.srcs[2].op is ops.WRAP_INDEX


def test_attention_stays_whole_where_its_kernels_take_it() -> None:
    q, k, v = normal(2, 3, 4, 5), normal(2, 3, 6, 5), normal(2, 3, 6, 5)

    def plain(*x: tx.Tensor) -> tx.Tensor:
        return F.scaled_dot_product_attention(*x)

    assert names(lowered(plain, q, k, v)) == ["attention"]
    assert "attention_grad" in names(lowered(gradients(plain), q, k, v))
    assert "attention_grad" in names(lowered(gradients(plain), q, k, v, normal(4, 6)))
    # Not where there are more axes than heads have.
    five = [x[None] for x in (q, k, v)]
    assert "attention" not in names(lowered(plain, *five))


def test_a_mask_that_leaves_no_key() -> None:
    mask = np.array([[True, False, True], [False, False, False]])
    q, k = normal(1, 1, 1, 2, 4), normal(1, 1, 1, 3, 4)  # decomposed: five axes

    def f(q: tx.Tensor, k: tx.Tensor, mask: tx.Tensor) -> tx.Tensor:
        return F.scaled_dot_product_attention(q, k, k, mask)

    lowered(f, q, k, mask)
    lowered(gradients(f), q, k, mask)


def test_the_transpose_of_a_product_is_a_product() -> None:
    (product,) = lowered(lambda a, b: (a @ b).T, normal(3, 4), normal(4, 5))
    assert product.op is ops.MATMUL and product.shape == (5, 3)


def test_few_of_the_largest_are_searched_for() -> None:
    """No sort, no gather; and ties are broken as in a stable sort."""
    left = names(lowered(lambda x: x.topk(2).values, normal(3, 20)))
    assert "argtopk" not in left and "take_along" not in left
    tied = np.array([[1.0, 3.0, 3.0, 0.0, 3.0, *[2.0] * 5]])
    lowered(lambda x: x.topk(3).indices, tied)


def test_what_adds_up_16_bits_does_so_in_float32() -> None:
    left = lowered(lambda x: x.to(tx.float16).softmax(0).to(tx.float64), normal(2, 3))
    sums = [n for n in Graph(left) if n.op.name in ("sum", "max", "exp")]
    assert len(sums) == 3 and all(n.dtype == tx.float32 for n in sums)


def test_what_kernels_cannot_compute_stays() -> None:
    assert "cumsum" in names(lowered(lambda x: x.cumsum(0), normal(2, 3)))


def test_lowering_moves_no_node_that_it_does_not_replace() -> None:
    first, second = tx.nn.Linear(3, 4), tx.nn.Linear(4, 2)

    @tx.compile
    def step(x: tx.Tensor) -> tx.Tensor:
        loss = second(first(x).relu()).sum()
        loss.backward()
        return loss

    step(tx.ones(2, 3))
    scopes = {node.op.name: node.scope for node in step.graph() if node.gradient_of is None}
    assert scopes["relu"] == scopes["sum"] == ""
