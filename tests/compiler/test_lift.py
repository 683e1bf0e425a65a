"""Lifting: hand-written spellings become the ops known whole, and no value or gradient changes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from graph_case import PASSES, checked, evaluated, names, recorded, tensors, through

import tinygrad_tx as tx
import tinygrad_tx.nn.functional as F  # noqa: N812
from tinygrad_tx.compiler.rewrite.lift.idioms import lift
from tinygrad_tx.node import Graph

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def lifted(f: Callable[..., Any], *arrays: np.ndarray, heals: bool = False) -> list[str]:
    """The ops of f after lifting, whose values and gradients have been compared with eager ones."""
    roots, _ = checked(f, *arrays, heals=heals)
    return names(lift(roots))


# softmax and its relatives ------------------------------------------------------------------------


def exps(x: tx.Tensor, dim: int = -1) -> tx.Tensor:
    return (x - x.amax(dim, keepdim=True).detach()).exp()


def softmax_squeezed(x: tx.Tensor) -> tx.Tensor:
    e = (x - x.amax(-1).unsqueeze(-1)).exp()
    return e / e.sum(-1).unsqueeze(-1)


def softmax_expanded(x: tx.Tensor) -> tx.Tensor:
    e = (x - x.max(-1, keepdim=True).values.expand(*x.shape)).exp()
    return e / e.sum(-1, keepdim=True).expand(*x.shape)


def softmax_no_grad(x: tx.Tensor) -> tx.Tensor:
    with tx.no_grad():
        top = x.amax(0, keepdim=True)
    e = (x - top).exp()
    return e * e.sum(0, keepdim=True) ** -1


SOFTMAX = {
    "detached": lambda x: exps(x) / exps(x).sum(-1, keepdim=True),
    "first axis": lambda x: exps(x, 0) / exps(x, 0).sum(0, keepdim=True),
    "attached": softmax_squeezed,
    "values": softmax_expanded,
    "no_grad": softmax_no_grad,
    "reciprocal": lambda x: exps(x) * exps(x).sum(-1, keepdim=True).reciprocal(),
    "copied": lambda x: exps(x) / exps(x).sum(-1, keepdim=True) * 1,
}


@pytest.mark.parametrize("spelling", SOFTMAX)
def test_softmax(spelling: str) -> None:
    x = normal(3, 4, 5)
    x[0, 0, :3] = -np.inf
    x[1, 1] = -np.inf  # a row without a finite score is NaN, lifted or not
    assert lifted(SOFTMAX[spelling], x) == ["softmax"]


def test_what_is_no_softmax() -> None:
    """Without the maximum it overflows, and history may end inside: both stay as they are."""
    x = normal(3, 5)
    for f in (
        lambda x: x.exp() / x.exp().sum(-1, keepdim=True),
        lambda x: (x - x.amax()).exp() / (x - x.amax()).exp().sum(-1, keepdim=True),
        lambda x: exps(x) / exps(x).sum(0, keepdim=True),
        lambda x: exps(x) / exps(x).detach().sum(-1, keepdim=True),
    ):
        assert "softmax" not in lifted(f, x)

    def partly(x: tx.Tensor) -> tx.Tensor:
        e = exps(x)
        with tx.no_grad():
            total = e.sum(-1, keepdim=True)
        return e / total

    checked(partly, x)  # as a value it is one; its gradient must be that of a constant divisor


def shifted(x: tx.Tensor) -> tx.Tensor:
    return x - x.amax(-1, keepdim=True).detach()


def log_softmax_outside(x: tx.Tensor) -> tx.Tensor:
    top = x.amax(-1, keepdim=True)
    return x - ((x - top).exp().sum(-1, keepdim=True).log() + top)


LOG_SOFTMAX = {
    "shifted": lambda x: shifted(x) - shifted(x).exp().sum(-1, keepdim=True).log(),
    "outside": log_softmax_outside,
}


def less_logsumexp(x: tx.Tensor) -> tx.Tensor:
    return x - x.logsumexp(-1, keepdim=True)


@pytest.mark.parametrize("spelling", LOG_SOFTMAX)
def test_log_softmax(spelling: str) -> None:
    x = normal(4, 5)
    x[0, :3] = -np.inf
    assert lifted(LOG_SOFTMAX[spelling], x) == ["log_softmax"]
    x[1] = -np.inf
    roots, traced = recorded(LOG_SOFTMAX[spelling], tensors([x]))
    (before,), (after,) = (evaluated(r, traced, tensors([x])) for r in (roots, lift(roots)))
    np.testing.assert_allclose(after, before, rtol=1e-12)


def test_less_logsumexp_is_no_log_softmax() -> None:
    """Where a row has inf, or all is -inf, its values and gradients are others."""
    x = normal(4, 3)
    x[0, :2] = -np.inf
    x[1] = -np.inf
    x[2, 1] = np.inf
    assert "log_softmax" not in lifted(less_logsumexp, x)
    wanted = [np.nan, -np.inf, -np.inf]
    for f in (less_logsumexp, tx.compile(less_logsumexp)):
        assert np.isnan(f(tx.tensor(x))[1].numpy()).all()
        np.testing.assert_array_equal(f(tx.tensor([[np.inf, 1.0, 2.0]]))[0].numpy(), wanted)
    weighted = tx.grad(lambda x: (less_logsumexp(x) * tx.tensor([1.0, 2.0, 3.0])).sum())
    for g in (weighted, tx.compile(weighted)):
        np.testing.assert_array_equal(g(tx.tensor([[np.inf, 1.0, 2.0]])).numpy(), [[np.nan, 2, 3]])
        np.testing.assert_array_equal(g(tx.tensor([[-np.inf] * 3])).numpy(), [[1, 2, 3]])


def guarded_logsumexp(x: tx.Tensor) -> tx.Tensor:
    top = x.amax(-1, keepdim=True).detach()
    top = top.where(top.isfinite(), 0)
    return ((x - top).exp().sum(-1, keepdim=True).log() + top).squeeze(-1)


def test_logsumexp() -> None:
    x = normal(4, 5)
    x[0, :3] = -np.inf
    assert lifted(guarded_logsumexp, x) == ["logsumexp", "reshape"]
    x[1] = -np.inf  # the op gives -inf
    assert lifted(guarded_logsumexp, x[:2], heals=True) == ["logsumexp", "reshape"]

    def unguarded(x: tx.Tensor) -> tx.Tensor:
        top = x.amax(-1, keepdim=True)
        return (x - top).exp().sum(-1, keepdim=True).log() + top

    assert "logsumexp" not in lifted(unguarded, x)  # which gives NaN


# layer norm ---------------------------------------------------------------------------------------


def deviation(x: tx.Tensor) -> tuple[tx.Tensor, tx.Tensor]:
    centred = x - x.mean(-1, keepdim=True)
    return centred, (centred * centred).mean(-1, keepdim=True)


def norm_power(x: tx.Tensor) -> tx.Tensor:
    centred, var = deviation(x)
    return centred * (var + 1e-5) ** -0.5


def norm_by_hand(x: tx.Tensor) -> tx.Tensor:
    n = x.shape[-1]
    centred = x - (x.sum(-1) * (1 / n)).unsqueeze(-1)
    return centred * ((centred**2).sum(-1) / n + 1e-5).sqrt().reciprocal().unsqueeze(-1)


NORM = {
    "sqrt": lambda x: (
        (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    ),
    "rsqrt": lambda x: deviation(x)[0] * (1e-5 + deviation(x)[1]).rsqrt(),
    "power": norm_power,
    "by hand": norm_by_hand,
    "no eps": lambda x: deviation(x)[0] / deviation(x)[1] ** 0.5,
}


@pytest.mark.parametrize("spelling", NORM)
def test_layer_norm(spelling: str) -> None:
    f, x, w, b = NORM[spelling], normal(3, 4, 6), normal(6), normal(6)
    assert lifted(f, x) == ["layer_norm"]
    assert lifted(lambda x, w: w * f(x), x, w) == ["layer_norm"]
    assert lifted(lambda x, w, b: f(x) * w + b, x, w, b) == ["layer_norm"]
    assert lifted(lambda x, w, b: b + w.reshape(1, -1) * f(x), x, w, b)[-1] == "layer_norm"


def test_layer_norm_with_the_weight_before_the_division() -> None:
    def norm(x: tx.Tensor, w: tx.Tensor, b: tx.Tensor) -> tx.Tensor:
        centred, var = deviation(x)
        return w * centred / (var + 1e-6).sqrt() + b

    assert lifted(norm, normal(5, 6), normal(6), normal(6)) == ["layer_norm"]


def test_what_is_no_layer_norm() -> None:
    for f in (
        lambda x: deviation(x)[0] / (deviation(x)[1].sqrt() + 1e-5),  # eps beside the root
        lambda x: deviation(x)[0] / (x.var(-1, keepdim=True) + 1e-5).sqrt(),  # n - 1
        lambda x: x / (deviation(x)[1] + 1e-5).sqrt(),
        lambda x: deviation(x)[0] / (deviation(x)[1].detach() + 1e-5).sqrt(),
        lambda x: deviation(x.mT)[0] / (deviation(x)[1] + 1e-5).sqrt(),
    ):
        assert "layer_norm" not in lifted(f, normal(6, 6))
    wide = lifted(lambda x, w: norm_power(x) * w, normal(4, 6), normal(4, 6))
    assert wide == ["layer_norm", "mul"]


# cross-entropy ------------------------------------------------------------------------------------


def nll_gather(x: tx.Tensor, t: tx.Tensor) -> tx.Tensor:
    return -x.log_softmax(-1).gather(-1, t.unsqueeze(-1)).squeeze(-1)


CROSS_ENTROPY = {
    "gather": nll_gather,
    "by hand": lambda x, t: -LOG_SOFTMAX["shifted"](x).take_along_dim(t.unsqueeze(-1), -1),
    "indexed": lambda x, t: -x.log_softmax(-1)[tx.arange(x.shape[0]), t],
    "logsumexp": lambda x, t: x.logsumexp(-1) - x.gather(-1, t.unsqueeze(-1)).squeeze(-1),
    "less logsumexp": lambda x, t: -less_logsumexp(x).gather(-1, t.unsqueeze(-1)),
}


@pytest.mark.parametrize("spelling", CROSS_ENTROPY)
def test_cross_entropy(spelling: str) -> None:
    f, x = CROSS_ENTROPY[spelling], normal(6, 5)
    x[0, :2] = -np.inf
    t = np.array([3, 0, 4, -1, 2, -5])  # counted from the end, too
    found = lifted(f, x, t)
    assert found.count("cross_entropy") == 1 and "log_softmax" not in found
    assert not {"gather", "take", "take_along", "logsumexp"} & set(found)
    lossy = lambda x, t: (f(x, t).reshape(-1) * tx.tensor(x.shape[0])).mean()  # noqa: E731
    assert "cross_entropy" in lifted(lossy, x, t)


def test_cross_entropy_of_batches() -> None:
    found = lifted(nll_gather, normal(2, 3, 5), RNG.integers(0, 5, (2, 3)))
    assert "cross_entropy" in found and "log_softmax" not in found


SMOOTHED = {
    "mixed": lambda x, t: 0.9 * nll_gather(x, t) + 0.1 * -x.log_softmax(-1).mean(-1),
    "logsumexp": lambda x, t: (
        -0.9 * less_logsumexp(x).gather(-1, t.unsqueeze(-1)).squeeze(-1)
        - 0.1 * less_logsumexp(x).mean(-1)
    ),
    "minus": lambda x, t: nll_gather(x, t) * 0.9 - x.log_softmax(-1).sum(-1) * (0.1 / x.shape[-1]),
    "kept": lambda x, t: (
        -0.1 * x.log_softmax(-1).mean(-1, keepdim=True)
        - 0.9 * x.log_softmax(-1).gather(-1, t.unsqueeze(-1))
    ),
}


@pytest.mark.parametrize("spelling", SMOOTHED)
def test_label_smoothing(spelling: str) -> None:
    x, t = normal(6, 5), np.array([3, 0, 4, 1, 2, 0])
    x[2, :2] = -np.inf
    roots, _ = checked(SMOOTHED[spelling], x, t, heals=True)
    found = Graph(lift(roots))
    (loss,) = [n for n in found if n.op.name == "cross_entropy"]
    assert math.isclose(loss.attrs["label_smoothing"], 0.1, rel_tol=1e-9)
    assert "log_softmax" not in names(lift(roots))
    uneven = lambda x, t: 0.8 * nll_gather(x, t) - 0.1 * x.log_softmax(-1).mean(-1)  # noqa: E731
    assert "log_softmax" in lifted(uneven, normal(6, 5), t)


def test_what_is_no_cross_entropy() -> None:
    x, t = normal(4, 5), np.array([[3, 0], [1, 1], [0, 4], [2, 2]])
    assert "cross_entropy" not in lifted(lambda x, t: x.log_softmax(-1).gather(-1, t), x, t)
    assert "cross_entropy" not in lifted(lambda x, t: x.log_softmax(0).gather(-1, t[:, :1]), x, t)
    crossed = lambda x, t: x.log_softmax(-1)[t[:, 0], t[:, 1]]  # noqa: E731
    assert "cross_entropy" not in lifted(crossed, x, t)
    with pytest.raises(IndexError):
        tx.compile(nll_gather)(tx.tensor(x), tx.tensor([0, 1, 2, 5]))


# attention ----------------------------------------------------------------------------------------

Q, K, V = normal(2, 3, 4, 6), normal(2, 3, 5, 6), normal(2, 3, 5, 7)
KEEP = RNG.random((2, 1, 4, 5)) > 0.4
KEEP[0, 0, 0] = True
DEAD = KEEP.copy()
DEAD[1, 0, 2] = False  # a row without a key
D = math.sqrt(6)


def dot(q: tx.Tensor, k: tx.Tensor) -> tx.Tensor:
    return q @ k.transpose(-2, -1)


SCALES = {
    "scores / c": lambda q, k: dot(q, k) / D,
    "c * scores": lambda q, k: (1 / D) * dot(q, k),
    "q": lambda q, k: dot(q / D, k),
    "k": lambda q, k: dot(q, k * (1 / D)),
    "both": lambda q, k: dot(q * 6**-0.25, k / 6**0.25),
    "kt": lambda q, k: q @ (k.mT / D),
    "three": lambda q, k: dot(q / 2, k) * 3 / (1.5 * D),
}


@pytest.mark.parametrize("spelling", SCALES)
def test_attention_scales(spelling: str) -> None:
    f = lambda q, k, v: SCALES[spelling](q, k).softmax(-1) @ v  # noqa: E731
    roots, _ = checked(f, Q, K, V)
    (node,) = lift(roots)
    assert names((node,)) == ["attention"] and math.isclose(node.attrs["scale"], 1 / D)
    assert not node.attrs["causal"] and len(node.srcs) == 3


def hand_softmax(s: tx.Tensor) -> tx.Tensor:
    return SOFTMAX["detached"](s)


def heads(x: tx.Tensor) -> tx.Tensor:
    return x.reshape(2, 4, 3, 2).transpose(1, 2)


def test_attention_of_heads_by_hand() -> None:
    def f(x: tx.Tensor, w: tx.Tensor) -> tx.Tensor:
        q, k, v = (heads(x @ w[i]) for i in range(3))
        y = hand_softmax(q @ k.permute(0, 1, 3, 2) / math.sqrt(2)) @ v
        return y.transpose(1, 2).reshape(2, 4, 6)

    found = lifted(f, normal(2, 4, 5), normal(3, 5, 6))
    assert "attention" in found and "softmax" not in found

    def turned(q: tx.Tensor, k: tx.Tensor, v: tx.Tensor) -> tx.Tensor:
        kt = k.reshape(2, 4, 3, 2).permute(0, 2, 3, 1)
        return (heads(q) @ kt).softmax(-1) @ heads(v)

    assert "softmax" not in lifted(turned, *(normal(2, 4, 6) for _ in "qkv"))


def scores(q: tx.Tensor, k: tx.Tensor) -> tx.Tensor:
    return dot(q, k) / D


def causal(s: tx.Tensor) -> tx.Tensor:
    return tx.arange(s.shape[-1]) <= tx.arange(s.shape[-2]).unsqueeze(-1)


def guard(s: tx.Tensor, allowed: tx.Tensor) -> tx.Tensor:
    alive = allowed.any(-1, keepdim=True)
    return s.where(allowed, -math.inf).where(alive, 0).softmax(-1).where(alive, 0)


MASKS: dict[str, tuple[Callable[..., tx.Tensor], bool, str]] = {
    # spelling: (weights of (scores, mask), causal, what becomes of the mask: "", "guarded", or
    # "dead" and "mean": what rows without a key are made afterwards)
    "where": (lambda s, m: s.where(m, -math.inf).softmax(-1), False, "dead"),
    "masked_fill": (lambda s, m: s.masked_fill(~m, -math.inf).softmax(-1), False, "dead"),
    "== 0": (lambda s, m: s.masked_fill(m.long() == 0, -math.inf).softmax(-1), False, "dead"),
    "by hand": (lambda s, m: hand_softmax(s.where(m, -math.inf)), False, "dead"),
    "scaled after": (lambda s, m: (s.where(m, -math.inf) * 0.5).softmax(-1), False, "dead"),
    "-1e9": (lambda s, m: s.masked_fill(~m, -1e9).softmax(-1), False, "mean"),
    "smallest": (
        lambda s, m: (s.where(m, float(np.finfo("f4").min)) * 0.5).softmax(-1),
        False,
        "mean",
    ),
    "causal and -1e9": (
        lambda s, m: s.where(causal(s), -1e9).where(m, -1e9).softmax(-1),
        True,
        "mean",
    ),
    "guarded": (guard, False, "guarded"),
    "causal": (lambda s, m: s.where(causal(s), -math.inf).softmax(-1), True, ""),
    "not later": (
        lambda s, m: s.masked_fill(~causal(s), -math.inf).softmax(-1),
        True,
        "",
    ),
    "later": (
        lambda s, m: s.masked_fill(
            tx.arange(s.shape[-2])[:, None] < tx.arange(s.shape[-1])[None], -math.inf
        ).softmax(-1),
        True,
        "",
    ),
    "tril": (
        lambda s, m: s.masked_fill(tx.tril(tx.ones(*s.shape[-2:])) == 0, -math.inf).softmax(-1),
        True,
        "",
    ),
    "triu": (
        lambda s, m: s.masked_fill(tx.triu(tx.ones(*s.shape[-2:]), 1).bool(), -math.inf).softmax(
            -1
        ),
        True,
        "",
    ),
    "causal and where": (
        lambda s, m: s.where(causal(s), -math.inf).where(m, -math.inf).softmax(-1),
        True,
        "dead",
    ),
    "causal or filled": (
        lambda s, m: s.masked_fill(~causal(s) | ~m, -math.inf).softmax(-1),
        True,
        "dead",
    ),
    "causal and guarded": (lambda s, m: guard(s, causal(s) & m), True, "guarded"),
}


@pytest.mark.parametrize("spelling", MASKS)
@pytest.mark.parametrize("mask", [KEEP, DEAD], ids=["keep", "dead row"])
def test_attention_masks(spelling: str, mask: np.ndarray) -> None:
    weights, is_causal, kind = MASKS[spelling]
    f = lambda q, k, v, m: weights(scores(q, k), m) @ v  # noqa: E731
    roots, _ = checked(f, Q, K, V, mask, heals=kind == "dead")
    (node,) = lift(roots)
    if kind in ("dead", "mean"):
        assert node.op.name == "where" and node.srcs[0].op.name == "any"
        node = node.srcs[1]
    assert node.op.name == "attention" and node.attrs["causal"] == is_causal
    assert [m.dtype for m in node.srcs[3:]] == ([tx.bool_] if kind else [])


ADDED = {
    "plain": lambda s, a: s + a,
    "before": lambda s, a: a + s,
    "twice": lambda s, a: s + a + a[:1],
    "masked": lambda s, a: (s + a).where(a > 0, -math.inf),
    "masked far": lambda s, a: (s + a).where(a > 0, -1e9),
    "causal": lambda s, a: s.where(causal(s), -math.inf) + a,
}


@pytest.mark.parametrize("spelling", ADDED)
def test_attention_with_added_masks(spelling: str) -> None:
    """They stay additive, and have a gradient: T5's biases."""
    f = lambda q, k, v, a: ADDED[spelling](scores(q, k), a).softmax(-1) @ v  # noqa: E731
    added = normal(2, 1, 4, 5)
    added[1, 0, 2] = -1.0
    roots, _ = checked(f, Q, K, V, added, heals=True)
    (node,) = lift(roots)
    node = node.srcs[1] if "masked" in spelling else node
    assert node.op.name == "attention" and node.srcs[3].dtype == tx.float64
    assert node.attrs["causal"] == (spelling == "causal")


def test_attention_weights_by_the_library() -> None:
    for mask, is_causal in ((None, False), (None, True), (DEAD, False), (DEAD, True)):
        bound = None if mask is None else tx.tensor(mask)
        f = lambda q, k, v, m=bound, c=is_causal: F.attention_weights(q, k, m, c) @ v  # noqa: E731
        roots, _ = checked(f, Q, K, V)
        (node,) = lift(roots)
        assert node.op.name == "attention" and node.attrs["causal"] == is_causal
        assert [m.dtype for m in node.srcs[3:]] == ([] if mask is None else [tx.bool_])


def test_what_is_no_attention() -> None:
    for weights in (
        lambda s, m: s.softmax(-2),
        lambda s, m: s.where(m, -1e4).softmax(-1),  # too near
        lambda s, m: (s.where(m, -1e9) * 0.01).softmax(-1),
        lambda s, m: s.where(m, -1e9).where(causal(s), -math.inf).softmax(-1),
        lambda s, m: (s.where(m, -1e9) + m.long() * 2.0).softmax(-1),
        lambda s, m: s.where(m, math.nan).softmax(-1),
        lambda s, m: s.where(m, -math.inf).softmax(-1).where(m, 0),  # zero, but NaN gradients
        lambda s, m: F.dropout(s.softmax(-1), 0.5),
        lambda s, m: guard(s + 1.0, m) * 2,
        lambda s, m: s.where(m.any(-2, keepdim=True), -math.inf).where(m, 0).softmax(-1),
    ):
        f = lambda q, k, v, m: weights(scores(q, k), m) @ v  # noqa: B023, E731
        tx.manual_seed(1)
        roots, _ = recorded(f, tensors([Q, K, V, DEAD]))
        assert "attention" not in names(lift(roots))


def test_attention_with_weights_that_are_also_returned() -> None:
    """The weights stay alive by themselves; the product is lifted all the same."""

    def f(q: tx.Tensor, k: tx.Tensor, v: tx.Tensor) -> tuple[tx.Tensor, tx.Tensor]:
        p = scores(q, k).softmax(-1)
        return p @ v, p

    args = tensors([Q, K, V])
    roots, traced = recorded(f, args)
    after = lift(roots)
    assert sorted(set(names(after))) == ["attention", "div", "matmul", "permute", "softmax"]
    for a, b in zip(evaluated(after, traced, args), evaluated(roots, traced, args), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


# activations --------------------------------------------------------------------------------------

ROOT = math.sqrt(2 / math.pi)
ACTIVATIONS = {
    "sigmoid": ("sigmoid", lambda x: 1 / (1 + (-x).exp())),
    "sigmoid power": ("sigmoid", lambda x: ((-x).exp() + 1) ** -1),
    "silu": ("silu", lambda x: x * x.sigmoid()),
    "silu by hand": ("silu", lambda x: (1 / (1 + (-x).exp())) * x),
    "silu quotient": ("silu", lambda x: x / (1 + (-x).exp())),
    "gelu": ("gelu", lambda x: 0.5 * x * (1 + (x / math.sqrt(2)).erf())),
    "gelu last": ("gelu", lambda x: x * (0.5 * (1 + (x * math.sqrt(0.5)).erf()))),
    "gelu halved": ("gelu", lambda x: x * ((x / math.sqrt(2)).erf() + 1) / 2),
    "gelu spread": ("gelu", lambda x: x * (0.5 + 0.5 * (x / math.sqrt(2)).erf())),
    "tanh": (
        "gelu_tanh",
        lambda x: 0.5 * x * (1 + (ROOT * (x + 0.044715 * x**3)).tanh()),
    ),
    "tanh factored": (
        "gelu_tanh",
        lambda x: x * 0.5 * ((x * ROOT * (1 + 0.044715 * x * x)).tanh() + 1),
    ),
}


@pytest.mark.parametrize("spelling", ACTIVATIONS)
def test_activations(spelling: str) -> None:
    name, f = ACTIVATIONS[spelling]
    x = np.array([-30.0, -3.0, -0.5, -0.0, 0.0, 1e-3, 2.0, 30.0])
    assert lifted(f, x) == [name]
    around = lifted(lambda x, w: f(x @ w + 1) @ w.T, normal(3, 4), normal(4, 5))
    assert around == ["matmul", "add", name, "permute", "matmul"]


def test_what_is_no_activation() -> None:
    for f in (
        lambda x: 0.5 * x * (1 + (x / 1.5).erf()),
        lambda x: 0.4 * x * (1 + (x / math.sqrt(2)).erf()),
        lambda x: x * (1 + (ROOT * (x + 0.05 * x**3)).tanh()) * 0.5,
        lambda x: 1 / (2 + (-x).exp()),
        lambda x: x * (x * 2).sigmoid(),
    ):
        assert not {"gelu", "gelu_tanh", "silu"} & set(lifted(f, normal(4)))


# Before gradients ---------------------------------------------------------------------------------


def test_gradients_are_those_of_the_lifted_graph() -> None:
    def step(q: tx.Tensor, k: tx.Tensor, v: tx.Tensor) -> tuple[tx.Tensor, ...]:
        y = hand_softmax(scores(q, k)) @ v
        y.sum().backward()
        return y, q.grad, k.grad, v.grad

    found = names(through(PASSES, recorded(step, tensors([Q, K, V]))[0]))
    assert sorted(found) == ["attention", "attention_grad", "item", "item", "item"]


def test_tx_grad_finds_its_arguments() -> None:
    """What a gradient is asked for stays the very same node, lifted things before it or not."""

    def slope(x: tx.Tensor, w: tx.Tensor) -> tx.Tensor:
        inner = SOFTMAX["detached"](x @ w)
        got = tx.grad(lambda a, b: (SOFTMAX["reciprocal"](a * b) * w).sum(), argnums=(0, 1))
        return got(inner, inner)[0] + 2 * got(inner, x)[1]

    checked(slope, normal(4, 4), normal(4, 4))


def test_a_clone_in_the_middle() -> None:
    checked(lambda x: SOFTMAX["detached"](SOFTMAX["attached"](x).clone() * 2), normal(3, 4))


def test_two_backwards_and_reassigned_parameters() -> None:
    x, w = normal(3, 4), normal(4)
    results = []
    for compiled in (False, True):
        a, b = tensors([x, w])

        def step(a: tx.Tensor, b: tx.Tensor) -> tx.Tensor:
            y = NORM["rsqrt"](a) * b
            y.sum().backward(retain_graph=True)
            with tx.no_grad():
                b -= 0.1 * b.grad
                b.grad = None
            loss = (SOFTMAX["detached"](y * b) ** 2).sum()
            loss.backward()
            return loss

        loss = (tx.compile(step) if compiled else step)(a, b)
        results.append([loss.numpy(), a.grad.numpy(), b.grad.numpy(), b.numpy()])
    for eager, traced in zip(*results, strict=True):
        np.testing.assert_allclose(traced, eager, rtol=1e-9, atol=1e-12)
