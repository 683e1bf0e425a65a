"""Rewriting: the machinery, sharing, and each rule of simplify with its before and after."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from graph_case import PASSES, checked, evaluated, names, recorded, tensors, through

import tinygrad_tx as tx
from tinygrad_tx import ops
from tinygrad_tx.compiler.rewrite.cse import cse
from tinygrad_tx.compiler.rewrite.engine import about, rewrite, use
from tinygrad_tx.compiler.rewrite.simplify import simplify
from tinygrad_tx.nn import functional as F  # noqa: N812
from tinygrad_tx.node import CONST, INPUT, REBOUND, Graph, Node

RNG = np.random.default_rng(3)
X = RNG.standard_normal((3, 4))
X[0] = [-0.0, 0.0, np.inf, np.nan]
Y = RNG.standard_normal((3, 4))
Y[0] = [0.0, -0.0, -np.inf, 1.0]


# The machinery ------------------------------------------------------------------------------------


def test_without_rules_nothing_is_made() -> None:
    roots, _ = recorded(lambda x: (x.exp() + 1, x.sum()), tensors([X]))
    assert rewrite(roots, ()) == roots == rewrite(roots, (), differentiable=True)


@about(ops.EXP)
def seen(node: Node) -> Node | None:
    """exp(x) -> sqrt(exp(-x)), which is no truth, but easily seen."""
    if node.ndim < 2 or node.srcs[0].op is ops.NEG:
        return None
    made = use(ops.EXP, (use(ops.NEG, node.srcs, {}, like=node),), {}, like=node)
    return use(ops.SQRT, (use(ops.COPY, (made,), {}, like=node),), {}, like=node)


@about(ops.COPY)
def uncopied(node: Node) -> Node | None:
    return node.srcs[0]


def test_what_a_rule_makes_is_rewritten_too_and_knows_its_place() -> None:
    module = tx.nn.Linear(4, 4)
    (root,), _ = recorded(lambda x: module(x).exp().sum(), tensors([X.astype("f")]))
    (made,) = rewrite((root,), (seen, uncopied))
    linear = ["permute", "matmul", "add"]
    assert names((root,)) == [*linear, "exp", "sum", "reshape"]
    assert names((made,)) == [*linear, "neg", "exp", "sqrt", "sum", "reshape"]
    for what in ("line", "scope", "trace", "requires_grad", "spec"):
        assert getattr(made, what) == getattr(root, what)
    by_name = {n.op.name: n for n in Graph((made,))}
    old = next(n for n in Graph((root,)) if n.op is ops.EXP)
    assert by_name["neg"].line == by_name["sqrt"].line == old.line != ""
    assert by_name["neg"].requires_grad and by_name["neg"].scope == old.scope
    inputs = [[n for n in Graph((r,)) if n.op is INPUT] for r in (root, made)]
    assert inputs[0] == inputs[1]


def test_equal_nodes_are_told_as_the_first_of_them() -> None:
    one, two = tx.nn.ReLU(), tx.nn.Sequential(tx.nn.ReLU())

    def f(x: tx.Tensor) -> tx.Tensor:
        first = one(x)
        second = two(x)
        return second.exp() + first.sin()

    (root,), _ = recorded(f, tensors([X.astype("f")]))
    scopes = [n.scope for n in Graph((root,)) if n.op is ops.RELU]
    assert scopes == ["Sequential.0", "ReLU"]  # the graph has the second one first
    assert [n.scope for n in Graph(cse((root,))) if n.op is ops.RELU] == ["ReLU"]


def test_before_gradients_places_stay() -> None:
    def f(x: tx.Tensor, w: tx.Tensor) -> tuple[tx.Tensor, ...]:
        e = x.exp()
        return ops.COPY(e), e.detach() * w, e * w

    roots, _ = recorded(f, tensors([X, Y]))
    copy, detached, product = rewrite(roots, (seen,), differentiable=True)
    assert copy is roots[0] and copy.srcs[0].op is ops.EXP  # as it was, and what is before it
    assert detached.srcs[0].op is REBOUND and detached.srcs[0].srcs[0].op is ops.SQRT
    assert product.srcs[0] is detached.srcs[0].srcs[0] and product.requires_grad
    anywhere = rewrite(roots, (seen,))
    assert anywhere[0].srcs[0].op is ops.SQRT


def test_before_gradients_no_grad_can_be_seen() -> None:
    def f(x: tx.Tensor) -> tx.Tensor:
        with tx.no_grad():
            top = (x * 2).exp()
            places = x.argmax(1)
        return (x + top) * places.sum()

    (root,), _ = recorded(f, tensors([Y]))
    (made,) = rewrite((root,), (), differentiable=True)
    cut = [n for n in Graph((made,)) if n.op is REBOUND]
    assert len(cut) == 1 and cut[0].srcs[0].op is INPUT and not cut[0].requires_grad
    (plain,) = rewrite((root,), ())
    assert plain is root


# Sharing ------------------------------------------------------------------------------------------


def shared(f: Callable[..., Any], *arrays: np.ndarray, differentiable: bool = False) -> list[str]:
    args = tensors(arrays)
    roots, traced = recorded(f, args)
    after = cse(roots, differentiable=differentiable)
    for a, b in zip(evaluated(after, traced, args), evaluated(roots, traced, args), strict=True):
        np.testing.assert_array_equal(a, b)
    return names(after)


def test_share() -> None:
    assert shared(lambda x: (x * 2).exp() + (x * 2).exp(), X) == ["mul", "exp", "add"]
    assert shared(lambda x: x.sum(0) + x.sum(1)[:1], X).count("sum") == 2
    assert shared(lambda x: x.T.sum(0) * x.T.sum(0), X).count("permute") == 1


def test_numbers_that_are_equal_but_not_the_same() -> None:
    def f(x: tx.Tensor) -> tx.Tensor:
        return x / (x * 0.0 + 0.0) + x / (x * -0.0 + 0.0) + x * 1 + x * True

    (root,), _ = recorded(f, tensors([Y]))
    values = [n.attrs["value"] for n in Graph(cse((root,))) if n.op is CONST]
    assert sorted(map(repr, values)) == ["-0.0", "0.0", "1", "True"]
    nans = shared(lambda x: x * math.nan + x * math.nan, Y)
    assert nans == ["mul", "add"]


def test_random_numbers_are_drawn_as_often_as_before() -> None:
    tx.manual_seed(4)
    found = shared(lambda x: tx.rand(3, 4) + tx.rand(3, 4) + x, X)
    assert found.count("uniform") == 2
    key, stream = tx.tensor(5), tx.tensor(6)
    same = {"shape": (2,), "dtype": tx.float32}
    twice = lambda x: ops.UNIFORM(key, stream, **same) + ops.UNIFORM(key, stream, **same)  # noqa: E731
    assert shared(twice, X).count("uniform") == 1


def test_opaque_calls_and_attributes_without_a_hash() -> None:
    table = np.arange(4.0)
    calls: list[int] = []

    def forward(xp: Any, x: Any, table: Any) -> Any:
        calls.append(1)
        return x + table

    def rule(op: Any, x: Any, table: Any) -> Any:
        return x.spec

    tx.Op("test_opaque", forward=forward, rule=rule)
    tx.Op("test_table", kind="map", forward=forward, rule=rule)
    opaque, mapped = tx.node.OPS["test_opaque"], tx.node.OPS["test_table"]
    twice = lambda x: opaque(x.exp(), table=table) + opaque(x.exp(), table=table)  # noqa: E731
    assert shared(twice, X).count("test_opaque") == 2  # it may do anything
    twice = lambda x: mapped(x, table=table) + mapped(x, table=table)  # noqa: E731
    assert shared(twice, X).count("test_table") == 1
    other = lambda x: mapped(x, table=table) + mapped(x, table=table.copy())  # noqa: E731
    assert shared(other, X).count("test_table") == 2

    (call,), _ = recorded(lambda x: opaque(x, table=table), tensors([X]))
    again = Node(call.op, call.srcs, call.attrs, call.spec, call.device, trace=call.trace)
    assert cse((call, again)) == (call, call)  # copies of one call, as lifting makes them
    del tx.node.OPS["test_opaque"], tx.node.OPS["test_table"]


def test_gradients_keep_apart_what_has_none() -> None:
    def f(x: tx.Tensor) -> tx.Tensor:
        with tx.no_grad():
            e = x.exp()
        return e * x.exp()

    assert shared(f, Y) == ["exp", "mul"]
    assert shared(f, Y, differentiable=True) == ["exp", "exp", "mul"]
    copies = lambda x: ops.COPY(x) + ops.COPY(x)  # noqa: E731
    assert shared(copies, Y, differentiable=True) == ["copy", "copy", "add"]
    assert shared(copies, Y) == ["copy", "add"]


# simplify -----------------------------------------------------------------------------------------


def zeros(*shape: int) -> tx.Tensor:
    return tx.zeros(*shape, dtype=tx.float64)


INDEX = tx.tensor([2, 0, 2])
N = np.arange(-4, 8).reshape(3, 4)
B = N > 1
SIMPLER: dict[str, tuple[Callable[..., Any], tuple[np.ndarray, ...], str]] = {
    # rule and what it is about: (function, inputs, ops that are left)
    "reshape of reshape": (lambda x: x.reshape(2, 6).reshape(4, 3), (X,), "reshape"),
    "reshape and back": (lambda x: x.reshape(2, 6).reshape(3, 4), (X,), ""),
    "permute and back": (lambda x: x.T.T, (X,), ""),
    "permute of permute": (
        lambda x: x.reshape(3, 2, 2).permute(1, 2, 0).permute(1, 2, 0),
        (X,),
        "reshape permute",
    ),
    "map of channels": (
        lambda x: (-x.reshape(1, 3, 4).permute(0, 2, 1)).permute(0, 2, 1),
        (X,),
        "reshape neg",
    ),
    "map of channels and a number": (
        lambda x: (c := x.reshape(1, 3, 4).permute(0, 2, 1), c * 2 + c)[1],
        (X,),
        "reshape mul add permute",
    ),
    "pad and slice of channels": (
        lambda x: F.pad(x.reshape(1, 3, 4).permute(0, 2, 1), (2, 1))[:, 1:, 1:].mT,
        (X,),
        "reshape pad slice",
    ),
    "map of another permute": (lambda x: -x.T, (X,), "permute neg"),
    "sum of permute": (lambda x: x.T.sum(), (N,), "sum reshape"),
    "broadcast of broadcast": (
        lambda x: x[:, :1].expand(3, 4).expand(2, 3, 4),
        (X,),
        "slice broadcast",
    ),
    "broadcast to the same": (lambda x: x.expand(3, 4), (X,), ""),
    "broadcast operand": (lambda x, y: x[:1].expand(3, 4) + y, (X, Y), "slice add"),
    "broadcast that counts": (lambda x: x[:1].expand(3, 4).exp(), (X,), "slice broadcast exp"),
    "number moved": (lambda x: x + tx.full((4, 3), 2.0).reshape(3, 4), (X,), "add"),
    "times 1": (lambda x: 1 * x * 1.0 / 1, (X,), ""),
    "times ones": (lambda x: x * tx.ones(3, 4), (X,), ""),
    "times ones that stretch": (lambda x: x[:1] * tx.ones(3, 4), (X,), "slice mul"),
    "minus 0": (lambda x: x - 0.0, (X,), ""),
    "minus -0": (lambda x: x - -0.0, (X,), "sub"),
    "plus 0": (lambda x: x + 0.0, (X,), "add"),
    "plus -0": (lambda x: -0.0 + x, (X,), ""),
    "0 minus": (lambda x: 0.0 - x, (X,), "sub"),
    "integer plus 0": (lambda n: 0 + n - 0, (N,), ""),
    "negated twice": (lambda x: ops.NEG(-x), (X,), ""),
    "inverted twice": (lambda b: ~~b, (B,), ""),
    "flipped twice": (lambda x: x.flip(0).flip(0), (X,), ""),
    "flipped both ways": (lambda x: x.flip(0).flip(1), (X,), "flip flip"),
    "wider and back": (lambda x: x.float().double().float(), (X,), "cast"),
    "narrower and back": (lambda x: x.float().double(), (X,), "cast cast"),
    "bool through a number": (lambda b: b.to(tx.int32).to(tx.float32), (B,), "cast"),
    "large integers": (lambda n: n.to(tx.float64).to(tx.int64), (N,), "cast cast"),
    "a + -b": (lambda x, y: x + -y, (X, Y), "sub"),
    "-a + b": (lambda x, y: -x + y, (X, Y), "sub"),
    "a - -b": (lambda x, y: x - -y, (X, Y), "add"),
    "copy": (lambda x: ops.COPY(x) + x.detach(), (X,), "add"),
    "whole slice": (lambda x: ops.SLICE(x, ranges=((0, 3, 1), (0, 4, 1))), (X,), ""),
    "pad by nothing": (lambda x: ops.PAD(x, widths=((0, 0), (0, 0)), value=0.0), (X,), ""),
    "concat of one": (lambda x: tx.cat([x]), (X,), ""),
    "where True": (lambda x, y: x.where(tx.full((3, 4), True), y), (X, Y), ""),
    "where False": (lambda x, y: y[:1].where(tx.full((3, 4), True), x), (X, Y), "slice broadcast"),
    "where both": (lambda b, x: x.where(b, x), (B, X), ""),
    "where not": (lambda b, x, y: x.where(~b, y), (B, X, Y), "where"),
    "chosen number == 0": (lambda b, x: x.where(b.long() == 0, 1.0), (B, X), "where"),
    "tril": (lambda x: x.where(tx.tril(tx.ones(3, 4)).bool(), 0), (X,), "reshape le where"),
    "never": (lambda b: b.long() > 3, (B,), ""),
    "slice of slice": (lambda x: x[1:, ::2][:, ::-1], (X,), "slice"),
    "slice of reversed": (lambda x: x.flip(0)[::-1][1:][::-1][::2], (X,), "flip slice"),
    "slice of a pad": (
        lambda x: ops.PAD(x, widths=((1, 1), (2, 0)), value=0.5)[1:4, 4:1:-1],
        (X,),
        "slice",
    ),
    "all that was padded": (
        lambda x: ops.PAD(x, widths=((1, 1), (2, 0)), value=0.5)[1:4, 2:],
        (X,),
        "",
    ),
    "slice over the edge": (
        lambda x: ops.PAD(x, widths=((1, 1), (2, 0)), value=0.5)[:3, 2:],
        (X,),
        "pad slice",
    ),
    "part of a concat": (lambda x, y: tx.cat([x, y], 1)[:, 4:], (X, Y), ""),
    "piece of a concat": (lambda x, y: tx.cat([x, y], 1)[:, 6:3:-1], (X, Y), "slice"),
    "over two parts": (lambda x, y: tx.cat([x, y], 1)[:, 3:5], (X, Y), "concat slice"),
    "nothing of it": (lambda x: x[1:][2:], (X,), "slice slice"),
    "write over all": (
        lambda x, y: ops.SLICE_WRITE(x, y[0], ranges=((0, 3, 1), (0, 4, 1))),
        (X, Y),
        "slice reshape broadcast",
    ),
    "constant": (lambda x: x + tx.tensor(0.1).to(tx.float32).exp() * 0, (X,), "exp mul cast add"),
    "numbers": (lambda x: x * (tx.full((), 0.1, dtype=tx.float32) * 3 - 1).exp(), (X,), "mul"),
    "filled": (lambda x: x * (tx.full((3, 1), 2.0) ** 0.5), (X,), "mul"),
}


@pytest.mark.parametrize("what", SIMPLER)
def test_simplify(what: str) -> None:
    f, arrays, left = SIMPLER[what]
    args = tensors(arrays)
    roots, traced = recorded(f, args)
    after = simplify(roots)
    assert names(after) == left.split()
    (a,), (b,) = (evaluated(r, traced, args) for r in (roots, after))
    assert a.dtype == b.dtype and a.shape == b.shape
    np.testing.assert_array_equal(b, a)
    if a.dtype.kind == "f":
        numbers = ~np.isnan(a)
        np.testing.assert_array_equal(np.signbit(b)[numbers], np.signbit(a)[numbers])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "int64"])
def test_constants_are_numpys(dtype: str) -> None:
    """Folded in the dtype at hand, with its rounding and its overflow."""

    def f(x: tx.Tensor) -> tuple[tx.Tensor, ...]:
        a, b = (tx.full((), v, dtype=dtype) for v in (77, 3))
        floats = a.dtype.is_floating_point
        more = (a / b, (a / b).exp(), (a / b).sqrt() - 1) if floats else (a // b, a % b)
        return x + 0, a * a * a * a * a * b, -a - b, (a > b), a.to(tx.float16) * 3, *more

    args = tensors([N])
    roots, traced = recorded(f, args)
    after = simplify(roots)
    assert names(after) == []
    for a, b in zip(evaluated(roots, traced, args), evaluated(after, traced, args), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(b, a)


def test_the_gradient_of_a_split_is_a_concat() -> None:
    for pieces in ([2, 1, 3], [2, 2, 2]):
        for order in ([0, 1, 2], [2, 0, 1], [0, 2, 1]):

            def f(x: tx.Tensor, pieces: Any = pieces, order: Any = order) -> tx.Tensor:
                parts = x.split(pieces, -1)
                found = [parts[i].exp().sum() * (i + 1) for i in order]
                return found[0] * found[1] * found[2]

            _, after = checked(f, RNG.standard_normal((3, 6)))
            found = names(after)
            assert found.count("concat") == 1 and not {"pad", "add"} & set(found)


def test_what_is_no_concat() -> None:
    def pad(x: tx.Tensor, *widths: tuple[int, int], value: float = 0.0) -> tx.Tensor:
        return ops.PAD(x, widths=widths, value=value)

    for f, left in (
        (lambda x, y: pad(x, (0, 4), (0, 0)) + pad(y, (4, 0), (0, 0)), "pad pad add"),  # a gap
        (lambda x, y: pad(x, (0, 2), (0, 0)) + pad(y, (2, 0), (0, 0)), "pad pad add"),  # overlap
        (lambda x, y: pad(x, (0, 3), (0, 4)) + pad(y, (3, 0), (4, 0)), "pad pad add"),
        (lambda x, y: pad(x, (0, 3), (0, 0)) + pad(y, (3, 0), (0, 0), value=1.0), "pad pad add"),
        (lambda x, y: pad(x, (1, 0), (0, 0)) + pad(x, (1, 0), (0, 0)) + y[:1], "pad add slice add"),
        (lambda x, y: pad(x, (1, 5), (1, 1)) + pad(y, (4, 2), (1, 1)), "concat pad"),
    ):
        args = tensors([X, Y])
        roots, traced = recorded(f, args)
        after = cse(simplify(roots))
        assert names(after) == left.split()
        before, now = (evaluated(r, traced, args)[0] for r in (roots, after))
        np.testing.assert_array_equal(now, before)


def test_index_add_into_what_it_was_added_to() -> None:
    """The gradient of a matrix that is looked up and multiplied by: a tied embedding's."""
    f = lambda w: (w[INDEX] @ w.T).tanh()  # noqa: E731
    _, after = checked(f, RNG.standard_normal((3, 4)))
    found = names(after)
    assert found.count("index_add") == 1 and found[-1] == "index_add"
    for other in (
        lambda x, y: ops.INDEX_ADD(zeros(3, 4) + 1, INDEX, x, axis=0) + y,
        lambda x, y: ops.INDEX_ADD(zeros(3, 4), INDEX, x, axis=0) + y[0],
    ):
        roots, _ = recorded(other, tensors([X, Y]))
        assert "add" in names(simplify(roots))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32"])
def test_a_sum_of_copies(dtype: str) -> None:
    x = (RNG.standard_normal((3, 1, 2)) * 8).astype(dtype)
    for shape, axis, merges in (
        ((3, 5, 2), (1,), True),
        ((4, 3, 5, 2), (0, 2), True),
        ((4, 3, 5, 2), (0,), True),
        ((3, 5, 2), (1, 2), False),
        ((0, 3, 5, 2), (0,), False),
    ):
        f = lambda x, s=shape, a=axis: ops.SUM(ops.BROADCAST(x, shape=s), axis=a, keepdims=True)  # noqa: E731
        args = tensors([x])
        roots, traced = recorded(f, args)
        after = simplify(roots)
        assert ("sum" not in names(after)) == (merges and dtype in ("float32", "float64"))
        (a,), (b,) = (evaluated(r, traced, args) for r in (roots, after))
        assert a.dtype == b.dtype
        np.testing.assert_allclose(b, a, rtol=1e-6)


# All passes ---------------------------------------------------------------------------------------


def test_a_training_step_of_a_model() -> None:
    """Forward as recorded and forward as lifted are computed once, and the values are eager's."""
    tx.manual_seed(0)
    config = tx.models.TransformerConfig(
        11, d_model=8, n_heads=2, d_ff=16, n_encoder_layers=1, n_decoder_layers=1, dropout=0.2
    )
    model = tx.models.Transformer(config).to(tx.float64)
    optimizer = tx.optim.Adam(model.parameters(), 1e-2)

    def step(*batch: tx.Tensor) -> tx.Tensor:
        loss = model.loss(*batch, label_smoothing=0.1)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    batch = [tx.tensor(RNG.integers(0, 11, (2, 5))) for _ in range(3)]
    roots, traced = recorded(step, batch)
    roots = (*roots, *(i.node for i in traced.changed))
    after = through(PASSES, roots)
    for a, b in zip(evaluated(after, traced, batch), evaluated(roots, traced, batch), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    found = names(after)
    assert found.count("attention") == 3 and found.count("layer_norm") == 5
    assert found.count("keep") == 7
    assert not {"copy", "rebound"} & set(found) and len(found) < len(names(roots))


def test_passes_are_idempotent() -> None:
    f = lambda x, y: ((x - x.amax(-1, keepdim=True)).exp() * 1 + y.T.T).reshape(4, 3)  # noqa: E731
    once = through(PASSES, recorded(f, tensors([X, Y]))[0])
    assert through(PASSES, once) == once
