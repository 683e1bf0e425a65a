"""Arguments mean what PyTorch's mean: each call here was taken for another one, or refused, or gave
other values. The right values are PyTorch 2.13's, or worked out by hand; PyTorch is not needed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_tx as tx

X = tx.tensor([[3.0, 4.0], [0.0, 1.0]])
INF, NAN = math.inf, math.nan

VALUES: dict[str, tuple[Callable[[], Any], Any]] = {
    # The first argument of norm is p; a bool in the first place of var and std is unbiased.
    "norm 1": (lambda: X.norm(1), 8.0),
    "norm 1 dim": (lambda: X.norm(1, 0), [3.0, 5.0]),
    "norm fro": (lambda: X.norm("fro", 1, True), [[5.0], [1.0]]),
    "norm None": (lambda: X.norm(None), math.sqrt(26)),
    "norm 0": (lambda: X.norm(0), 3.0),
    "norm inf": (lambda: X.norm(INF), 4.0),
    "norm -inf": (lambda: X.norm(-INF, 1), [3.0, 0.0]),
    "norm 3": (lambda: X.norm(p=3), (27 + 64 + 1) ** (1 / 3)),
    "norm 0.5": (lambda: X.norm(0.5, 1), [(3**0.5 + 2) ** 2, 1.0]),
    "norm -1": (lambda: X.norm(-1, dim=1), [12 / 7, 0.0]),
    "var False": (lambda: X.var(False), 2.5),
    "var True": (lambda: X.var(True), 10 / 3),
    "std False": (lambda: X.std(False), math.sqrt(2.5)),
    "var dim unbiased keepdim": (lambda: X.var(0, False, True), [[2.25, 2.25]]),
    "var correction": (lambda: X.var(1, correction=0), [0.25, 0.25]),
    # An empty dim is all dimensions, but nothing for any, all, squeeze and flip.
    "sum ()": (lambda: X.sum(dim=()), 8.0),
    "sum []": (lambda: X.sum([]), 8.0),
    "mean ()": (lambda: X.mean(()), 2.0),
    "amax ()": (lambda: X.amax(()), 4.0),
    "amin ()": (lambda: X.amin(dim=()), 0.0),
    "var ()": (lambda: X.var(()), 10 / 3),
    "std ()": (lambda: X.std(dim=()), math.sqrt(10 / 3)),
    "norm ()": (lambda: X.norm(dim=()), math.sqrt(26)),
    "sum () keepdim": (lambda: X.sum((), True), [[8.0]]),
    "any ()": (lambda: X.any(dim=()), [[True, True], [False, True]]),
    "all ()": (lambda: X.all(dim=()), [[True, True], [False, True]]),
    "squeeze ()": (lambda: X[:1].squeeze(()), [[3.0, 4.0]]),
    # NumPy's spelling, in methods and in the ops themselves.
    "axis": (lambda: X.sum(axis=0, keepdims=True), [[3.0, 5.0]]),
    "axis mixed": (lambda: X.mean(axis=1, keepdim=True), [[3.5], [0.5]]),
    "axis amax": (lambda: X.amax(axis=(0, 1), keepdims=True), [[4.0]]),
    "axis max": (lambda: X.max(axis=0, keepdims=True).indices, [[0, 0]]),
    "axis cumsum": (lambda: X.cumsum(axis=1), [[3.0, 7.0], [0.0, 1.0]]),
    "axis std": (lambda: X.std(axis=1, keepdims=True), [[0.5**0.5], [0.5**0.5]]),
    "axis sort": (lambda: X.sort(axis=0).values, [[0.0, 1.0], [3.0, 4.0]]),
    "axis of a Tensor": (lambda: X.sum(tx.tensor(1)), [7.0, 1.0]),
    "dims by name": (lambda: X.permute(dims=(1, 0)), [[3.0, 0.0], [4.0, 1.0]]),
    "flip by name": (lambda: X.flip(dims=[0]), [[0.0, 1.0], [3.0, 4.0]]),
    "shape by name": (lambda: X.reshape(shape=(4,)), [3.0, 4.0, 0.0, 1.0]),
    "size by name": (lambda: X[0].expand(size=(2, -1)), [[3.0, 4.0], [3.0, 4.0]]),
    "sizes one by one": (lambda: X[0].broadcast_to(2, 2), [[3.0, 4.0], [3.0, 4.0]]),
    # dtype=: the input is converted first.
    "sum dtype": (lambda: tx.tensor([1.5, 1.5]).sum(dtype=tx.int64), 2),
    "mean dtype": (lambda: tx.tensor([1, 2]).mean(dtype=tx.float32), 1.5),
    "softmax dtype": (lambda: tx.tensor([0, 0]).softmax(0, dtype=tx.float32), [0.5, 0.5]),
    "cumsum dtype": (lambda: tx.tensor([True, True]).cumsum(0, tx.float32), [1.0, 2.0]),
    # Order.
    "topk smallest": (lambda: X.topk(1, 1, False).values, [[3.0], [0.0]]),
    "topk smallest NaN": (
        lambda: tx.tensor([NAN, 2.0, 1.0]).topk(2, largest=False).values,
        [1.0, 2.0],
    ),
    "topk unsorted": (lambda: X.topk(k=1, dim=0, largest=True, sorted=False).indices, [[0, 0]]),
    "sort stable": (lambda: X.sort(1, True, stable=True).indices, [[1, 0], [1, 0]]),
    "argsort stable": (lambda: X.argsort(dim=1, stable=True), [[0, 1], [0, 1]]),
    "index_add alpha": (
        lambda: X.index_add(0, tx.tensor([0]), tx.ones(1, 2), alpha=2),
        [[5.0, 6.0], [0.0, 1.0]],
    ),
    "take_along_dim flat": (lambda: X.take_along_dim(tx.tensor([[2], [1]])), [0.0, 4.0]),
    # Promotion: every spelling of a square as of any other power.
    "int ** 2.0": (lambda: tx.tensor([10**10]) ** 2.0, [1e20]),
    "pow 2.0": (lambda: tx.tensor([3]).pow(2.0), [9.0]),
    "int32 ** 2": (lambda: tx.tensor([3], dtype=tx.int32) ** 2, [9]),
    "bool ** 2": (lambda: tx.tensor([True]) ** 2, [1]),
    "bool ** 2.0": (lambda: tx.tensor([True]) ** 2.0, [1.0]),
    "bool square": (lambda: tx.tensor([True, False]).square(), [1, 0]),
}


@pytest.mark.parametrize("name", VALUES)
def test_values(name: str) -> None:
    call, wanted = VALUES[name]
    got = call()
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-6)
    assert got.shape == np.shape(wanted)
    kind = np.asarray(wanted).dtype.kind
    assert got.dtype.kind == kind, got.dtype


def test_dtypes_of_squares() -> None:
    for dtype, exponent, wanted in [
        (tx.int64, 2.0, tx.float32),
        (tx.int64, 2, tx.int64),
        (tx.int32, 2, tx.int32),
        (tx.int32, 2.0, tx.float32),
        (tx.bool_, 2, tx.int64),
        (tx.bool_, 2.0, tx.float32),
        (tx.float16, 2.0, tx.float16),
        (tx.float64, 2, tx.float64),
    ]:
        x = tx.ones(2, dtype=dtype)
        assert (x**exponent).dtype == x.pow(exponent).dtype == wanted
        assert tx.compile(lambda x, e=exponent: x**e)(x).dtype == wanted


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "sum True": (lambda: X.sum(True), "axis must be an int, not True"),
    "sum 1.0": (lambda: X.sum(1.0), "axis must be an int, not 1.0"),
    "sum keepdim 1": (lambda: X.sum(0, 1), "keepdims must be a bool, not 1"),
    "softmax True": (lambda: X.softmax(True), "dim must be an int, not True"),
    "argmax True": (lambda: X.argmax(True), "dim must be an int, not True"),
    "max of two": (lambda: X.max((0, 1)), r"dim must be an int, not \(0, 1\)"),
    "cumsum of two": (lambda: X.cumsum((0, 1)), r"dim must be an int, not \(0, 1\)"),
    "unsqueeze": (lambda: X.unsqueeze(True), "axis must be an int, not True"),
    "reshape": (lambda: X.reshape(2.0, 2), "must be an int, not 2.0"),
    "both spellings": (lambda: X.sum(dim=0, axis=0), "dim and axis are one argument"),
    "var 2": (lambda: X.var(0, 2), "unbiased is True or False, not 2.*correction=2"),
    "var twice": (lambda: X.var(False, False), "unbiased is given twice"),
    "var both": (lambda: X.var(0, False, correction=1), "unbiased or correction, not both"),
    "norm nuc": (lambda: X.norm("nuc"), "p='nuc' is not supported"),
    "norm True": (lambda: X.norm(True), "p=True is not supported"),
    "norm of ints": (lambda: tx.tensor([1, 2]).norm(), "norm needs a floating dtype"),
    "gather": (lambda: X.gather(0, tx.tensor([[0, 0]]), sparse_grad=True), "sparse_grad=True"),
    "matmul out": (lambda: tx.matmul(X, X, out=X), "matmul: out=.* is not supported"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str) -> None:
    call, message = REFUSED[name]
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_both_spellings_in_an_op_of_ones_own() -> None:
    total = tx.Op(
        "total_of_squares",
        kind="reduce",
        forward=lambda xp, x, axis: xp.sum(x * x, axis),
        vjp=lambda g, y, x, axis: (2 * x * g,),
    )
    wanted = [[9.0, 17.0]]
    for named in (
        {"axis": 0, "keepdims": True},
        {"dim": 0, "keepdim": True},
        {"axis": 0, "keepdim": True},
    ):
        assert total(X, **named).tolist() == wanted
        assert tx.compile(lambda x, n=named: total(x, **n))(X).tolist() == wanted
    with pytest.raises(TypeError, match="axis and dim are one argument"):
        total(X, axis=0, dim=0)


# Gradients at corners --------------------------------------------------------------------------

CORNERS: dict[str, tuple[Callable[[Any], Any], Any, Any]] = {
    "norm": (lambda x: x.norm(), [0.0, 0.0], [0.0, 0.0]),
    "norm dim": (lambda x: x.norm(dim=1).sum(), [[0.0, 0.0], [3.0, 4.0]], [[0, 0], [0.6, 0.8]]),
    "norm 1": (lambda x: x.norm(1), [0.0, -2.0], [0.0, -1.0]),
    "norm 3": (lambda x: x.norm(3), [0.0, 0.0], [0.0, 0.0]),
    "norm 0.5": (lambda x: x.norm(0.5), [0.0, 4.0], [0.0, 1.0]),
    "norm inf": (lambda x: x.norm(INF), [0.0, 0.0], [0.0, 0.0]),
    "std": (lambda x: x.std(), [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]),
    "std dim": (
        lambda x: x.std(1, keepdim=True).sum(),
        [[2.0, 2.0], [0.0, 2.0]],
        [[0, 0], [-(0.5**0.5), 0.5**0.5]],
    ),
    "std unbiased": (lambda x: x.std(0, False).sum(), [[5.0], [5.0]], [[0.0], [0.0]]),
}


@pytest.mark.parametrize("mode", ["eager", "compiled"])
@pytest.mark.parametrize("name", CORNERS)
def test_gradients_at_corners(name: str, mode: str) -> None:
    f, at, wanted = CORNERS[name]
    gradient = tx.grad(f) if mode == "eager" else tx.compile(tx.grad(f))
    np.testing.assert_allclose(gradient(tx.tensor(at)).numpy(), wanted, rtol=1e-6, atol=1e-7)

    def second(x: Any) -> Any:
        return (tx.grad(f)(x) * tx.tensor(at)).sum()

    twice = tx.grad(second) if mode == "eager" else tx.compile(tx.grad(second))
    assert np.isfinite(twice(tx.tensor(at)).numpy()).all()


# A row with what is not finite: its gradient is exp(x - logsumexp(x)), NaN where that is.
NOT_FINITE = [
    ([INF, 1.0, 2.0], [NAN, 0.0, 0.0]),
    ([NAN, 1.0], [NAN, NAN]),
    ([INF, -INF], [NAN, 0.0]),
    ([-INF, 1.0], [0.0, 1.0]),
    ([-INF, -INF], [0.0, 0.0]),  # PyTorch: NaN
    ([1e38, -1e38], [1.0, 0.0]),
]


@pytest.mark.parametrize("mode", ["eager", "native", "interp", "replay"])
def test_gradient_of_logsumexp(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TX_COMPILE", mode)
    gradient = tx.grad(lambda x: x.logsumexp(0))
    gradient = gradient if mode == "eager" else tx.compile(gradient)
    for at, wanted in NOT_FINITE:
        np.testing.assert_array_equal(gradient(tx.tensor(at)).numpy(), wanted)
    rows = tx.tensor([row + [0.0] * (3 - len(row)) for row, _ in NOT_FINITE[:2]])
    got = tx.grad(lambda x: x.logsumexp(dim=1).sum())(rows)
    np.testing.assert_array_equal(got.numpy(), [[NAN, 0, 0], [NAN, NAN, NAN]])


# PyTorch's gradients at NaN, and at 0 to a negative power. Gradients are weighted by 1, 2, 3.
AWKWARD: dict[str, tuple[Callable[[Any], Any], list[float], list[float]]] = {
    "relu": (lambda x: x.relu(), [NAN, -1.0, 2.0], [1.0, 0.0, 3.0]),
    "maximum": (lambda x: x.maximum(x.flip(0) * 2), [NAN, -1.0, 2.0], [7.0, 2.0, 5.0]),
    "minimum": (lambda x: x.minimum(x * 0 + NAN), [1.0, 2.0, NAN], [1.0, 2.0, 3.0]),
    "minimum of one": (lambda x: x.minimum(tx.tensor([NAN, 0.0, 0.0])), [1.0, 0.0, 5.0],
                       [1.0, 1.0, 0.0]),
    "0 ** x": (lambda x: 0.0**x, [-1.0, 0.0, 2.0], [-INF, 0.0, 0.0]),
}  # fmt: skip


@pytest.mark.parametrize("mode", ["eager", "native", "interp", "replay"])
def test_a_row_whose_only_score_overflows_is_nan(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a key, so it is none of those that are 0."""
    monkeypatch.setenv("TX_COMPILE", mode)
    q, k, v = tx.full((1, 1, 2, 1), 1e20), tx.tensor([[[[-1e20], [1.0]]]]), tx.ones(1, 1, 2, 1)

    def f(q: Any, k: Any, v: Any) -> Any:
        return tx.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    got = (f if mode == "eager" else tx.compile(f))(q, k, v)
    np.testing.assert_array_equal(got.numpy().reshape(-1), [NAN, 1.0])


@pytest.mark.parametrize("mode", ["eager", "native", "interp", "replay"])
def test_gradients_at_awkward_numbers(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TX_COMPILE", mode)
    weights = tx.tensor([1.0, 2.0, 3.0])
    for name, (f, at, wanted) in AWKWARD.items():
        gradient = tx.grad(lambda x, f=f: (f(x) * weights).sum())
        gradient = gradient if mode == "eager" else tx.compile(gradient)
        np.testing.assert_array_equal(gradient(tx.tensor(at)).numpy(), wanted, err_msg=name)


# Creation ---------------------------------------------------------------------------------------

MADE: dict[str, tuple[Callable[[], Any], Any]] = {
    "arange fraction": (lambda: tx.arange(3.1, dtype=tx.int64), [0, 1, 2, 3]),
    "arange down": (lambda: tx.arange(0, -3, -1), [0, -1, -2]),
    "arange end by name": (lambda: tx.arange(end=3), [0, 1, 2]),
    "cat with an empty list": (lambda: tx.cat([X, tx.tensor([])]), [[3.0, 4.0], [0.0, 1.0]]),
    "cat axis": (lambda: tx.cat((X[:, :1], X[:, :1]), axis=1), [[3.0, 3.0], [0.0, 0.0]]),
    "stack axis": (lambda: tx.stack([X[0], X[1]], axis=1), [[3.0, 0.0], [4.0, 1.0]]),
    "full bool": (lambda: tx.full((2,), True), [True, True]),
    "full int of float": (lambda: tx.full((1,), 2.5, dtype=tx.int64), [2]),
    "zeros None": (lambda: tx.zeros(1, dtype=None), [0.0]),
    "ones_like dtype": (lambda: tx.ones_like(X[0], dtype=tx.int64), [1, 1]),
    "tensor truncates": (lambda: tx.tensor([1.9, -1.9], dtype=tx.int32), [1, -1]),
    "where scalars": (lambda: tx.where(X > 2, 1, 2.5), [[1.0, 1.0], [2.5, 2.5]]),
    "from_dlpack copy": (lambda: tx.from_dlpack(np.ones(2), copy=True), [1.0, 1.0]),
}


@pytest.mark.parametrize("name", MADE)
def test_creation(name: str) -> None:
    call, wanted = MADE[name]
    got = call()
    np.testing.assert_array_equal(got.numpy(), wanted)
    assert got.dtype.kind == np.asarray(wanted).dtype.kind


def test_everything_made_may_ask_for_a_gradient() -> None:
    for made in (
        tx.zeros(2, requires_grad=True),
        tx.empty(2, requires_grad=True),
        tx.full((2,), 1.0, requires_grad=True),
        tx.zeros_like(X, requires_grad=True),
        tx.full_like(X, 2.0, requires_grad=True),
        tx.arange(3.0, requires_grad=True),
        tx.eye(2, requires_grad=True),
        tx.rand(2, requires_grad=True),
        tx.randn(2, requires_grad=True),
    ):
        assert made.requires_grad and made.is_leaf


def test_randint_by_name() -> None:
    for x in (
        tx.randint(3, (50,)),
        tx.randint(high=3, size=(50,)),
        tx.randint(3, size=(50,)),
        tx.randint(0, 3, (50,)),
    ):
        assert set(x.tolist()) == {0, 1, 2}


NOT_MADE: dict[str, tuple[Callable[[], Any], str]] = {
    "eye": (lambda: tx.eye(-1), "eye: .*negative size"),
    "eye m": (lambda: tx.eye(2, -1), "eye: .*negative size"),
    "zeros 2.0": (lambda: tx.zeros(2.0), "zeros: a size must be an int, not 2.0"),
    "zeros True": (lambda: tx.zeros(True), "zeros: a size must be an int, not True"),
    "zeros dtype": (lambda: tx.zeros((2, 3), tx.float32), "a size must be an int"),
    "cat None": (lambda: tx.cat([X, None]), "cat: element 1 must be a Tensor, not NoneType"),
    "stack array": (lambda: tx.stack([np.ones(2)]), "stack: element 0 must be a Tensor"),
    "cat Tensor": (lambda: tx.cat(X), "cat: tensors must be a list or tuple, not Tensor"),
    "arange step": (lambda: tx.arange(0, 3, 0.5, dtype=tx.int64), "step=0.5 of int64"),
    "randint": (lambda: tx.randint(3), "randint: size is missing"),
    "zeros out": (lambda: tx.zeros(2, out=X), "zeros: out=... is not supported"),
    "rand generator": (lambda: tx.rand(2, generator=1), "rand: generator=1 .*manual_seed"),
    "tensor pinned": (lambda: tx.tensor([1], pin_memory=True), "tensor: pin_memory=True"),
}


@pytest.mark.parametrize("name", NOT_MADE)
def test_creation_refuses(name: str) -> None:
    call, message = NOT_MADE[name]
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


# Data from outside --------------------------------------------------------------------------------


def _written(index: Any, value: Any, dtype: Any = tx.int32) -> Any:
    x = tx.ones(2, dtype=dtype)
    x[index] = value
    return x


I32 = tx.ones(2, dtype=tx.int32)
TOO_LARGE: dict[str, Callable[[], Any]] = {
    "tensor": lambda: tx.tensor([2**31], dtype=tx.int32),
    "tensor below": lambda: tx.tensor([-(2**31) - 1], dtype=tx.int32),
    "tensor NaN": lambda: tx.tensor([NAN], dtype=tx.int64),
    "tensor inf": lambda: tx.tensor(INF, dtype=tx.int32),
    "tensor float": lambda: tx.tensor([1.0, 2.0**63], dtype=tx.int64),
    "tensor float32 array": lambda: tx.tensor(np.float32([3e9]), dtype=tx.int32),
    "tensor huge": lambda: tx.tensor([2**70]),
    "tensor uint64": lambda: tx.tensor([2**63]),
    "tensor huge int32": lambda: tx.tensor([1, -(2**70)], dtype=tx.int32),
    "array": lambda: tx.tensor(np.array([2**31]), dtype=tx.int32),
    "array uint64": lambda: tx.tensor(np.array([2**63], np.uint64), dtype=tx.int64),
    "array uint32": lambda: tx.tensor(np.array([2**31], np.uint32), dtype=tx.int32),
    "full": lambda: tx.full((2,), 2**31, dtype=tx.int32),
    "full NaN": lambda: tx.full((2,), NAN, dtype=tx.int64),
    "full huge": lambda: tx.full((2,), 2**63),
    "full_like": lambda: tx.full_like(I32, INF),
    "arange": lambda: tx.arange(2**31 - 1, 2**31 + 1, dtype=tx.int32),
    "arange start": lambda: tx.arange(-(2**31) - 1, 0, 2**31, dtype=tx.int32),
    "randint": lambda: tx.randint(0, 2**40, (2,), dtype=tx.int32),
    "x[0]": lambda: _written(0, 2**31),
    "x[0] NaN": lambda: _written(0, NAN),
    "x[0] NaN int64": lambda: _written(0, NAN, tx.int64),
    "x[0] array": lambda: _written(slice(None), np.array([1, 2**31])),
    "x[0] list": lambda: _written(slice(None), [1.0, INF]),
    "x[0] NumPy scalar": lambda: _written(0, np.float64(3e9)),
    "x[index]": lambda: _written([0, 1], 2**31),
    "x[mask]": lambda: _written(np.array([True, False]), 2**31),
    "x[mask] NaN": lambda: _written(np.array([True, False]), NAN),
    "masked_fill": lambda: I32.masked_fill(I32 > 0, 2**31),
    "masked_fill NaN": lambda: I32.masked_fill(I32 > 0, NAN),
    "where": lambda: tx.where(I32 > 0, 2**31, I32),
    "+": lambda: I32 + 2**31,
    "-": lambda: 2**31 - I32,
    "*": lambda: tx.ones(2, dtype=tx.int64) * 2**63,
    "<": lambda: I32 < 2**40,
    "maximum": lambda: tx.maximum(I32, -(2**40)),
    "clip": lambda: I32.clip(0, 2**40),
    "assign": lambda: tx.ones(2, dtype=tx.int32).assign(2**31),
    "assign array": lambda: tx.ones(2, dtype=tx.int32).assign(np.array([1.0, NAN])),
    "matmul": lambda: tx.ones(1, dtype=tx.int32) @ [2**31],
}


@pytest.mark.parametrize("mode", ["eager", "compiled"])
@pytest.mark.parametrize("name", TOO_LARGE)
def test_an_integer_that_does_not_fit_is_refused(name: str, mode: str) -> None:
    call = TOO_LARGE[name] if mode == "eager" else tx.compile(TOO_LARGE[name])
    with pytest.raises(tx.errors.RangeError, match=r"does not fit int(32|64), which holds -\d+"):
        call()


def test_integers_at_the_limits_fit() -> None:
    for bits, dtype in ((31, tx.int32), (63, tx.int64)):
        low, high = -(2**bits), 2**bits - 1
        assert tx.tensor([low, high], dtype=dtype).tolist() == [low, high]
        assert tx.full((1,), high, dtype=dtype).tolist() == [high]
        assert _written(0, low, dtype).tolist() == [low, 1]
        x = tx.zeros(2, dtype=dtype)
        assert x.masked_fill(x == 0, high).tolist() == [high, high]
        assert (x + high).tolist() == [high, high]
    assert tx.tensor([-(2.0**31), 2.0**31 - 0.5], dtype=tx.int32).tolist() == [-(2**31), 2**31 - 1]
    assert tx.tensor(np.array([5], np.uint64), dtype=tx.int32).tolist() == [5]
    assert tx.tensor([1e40]).tolist() == [INF]
    assert tx.tensor([70000.0], dtype=tx.float16).tolist() == [INF]
    assert tx.tensor([NAN, 0.0, INF], dtype=tx.bool_).tolist() == [True, False, True]


@pytest.mark.parametrize("data", [["a"], [None, 1.0], [1j], np.array(["2020"], "M8[Y]"), [{}]])
def test_what_is_no_number_is_refused(data: Any) -> None:
    for dtype in (None, tx.float32, tx.int64):
        with pytest.raises(TypeError):
            tx.tensor(data, dtype=dtype)
