"""The same call here and in PyTorch, where PyTorch is installed: operators on all pairs of dtypes
and scalars, and methods and functions with their arguments by place and by name."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_tx as tx

torch = pytest.importorskip("torch")

DTYPES = ["bool", "int32", "int64", "float16", "float32", "float64"]
OPERATORS = {
    name: getattr(operator, name)
    for name in "add sub mul truediv floordiv mod pow eq ne lt le gt ge".split()  # noqa: SIM905
}
SCALARS = [True, 2, -3, 2.0, 0.5, -1.5]


def both(f: Callable[[Any, Any], Any], *values: tuple[list[Any], str]) -> tuple[Any, Any]:
    """What f gives here and in PyTorch: an array, or None where it is refused."""
    found = []
    for lib in (tx, torch):
        made = [lib.tensor(v, dtype=getattr(lib, d + "_" if lib is tx and d == "bool" else d))
                for v, d in values]  # fmt: skip
        try:
            got = f(lib, *made)
        except (TypeError, ValueError, RuntimeError, NotImplementedError):
            found.append(None)
        else:
            found.append((str(got.dtype).removeprefix("torch.").removeprefix("tx."), got))
    return found[0], found[1]


REFUSED = {"pow bool True turned=False"}  # bool ** bool is refused here, computed in PyTorch


def check(ours: Any, theirs: Any, what: str) -> None:
    if theirs is None:  # no number to be wrong
        return
    if ours is None:
        assert what in REFUSED, f"{what}: refused"
        return
    assert ours[0].removesuffix("_") == theirs[0], f"{what}: {ours[0]}, not {theirs[0]}"
    a, b = np.asarray(ours[1].tolist(), float), np.asarray(theirs[1].tolist(), float)
    np.testing.assert_allclose(a, b, rtol=2e-3 if "16" in theirs[0] else 1e-6, err_msg=what)
    assert a.shape == b.shape, what


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_operators(name: str, dtype: str) -> None:
    f = OPERATORS[name]
    data = [1, 0, 1] if dtype == "bool" else [3, -2, 4]
    if name in ("truediv", "floordiv", "mod") and dtype == "bool":
        data = [1, 1, 1]
    for scalar in SCALARS:
        for turned in (False, True):
            if "int" in dtype and name == "pow" and not turned and scalar == -3:
                continue  # refused by both, each in its way
            call = lambda lib, x, s=scalar, t=turned: f(s, x) if t else f(x, s)  # noqa: E731
            check(*both(call, (data, dtype)), f"{name} {dtype} {scalar} turned={turned}")
    for other in DTYPES:
        for value in ([1, 1, 1], 1):
            call = lambda lib, x, y: f(x, y)  # noqa: E731
            check(*both(call, (data, dtype), (value, other)), f"{name} {dtype} {other} {value}")


X = [[3.0, -4.0, 0.5], [0.0, 1.0, 7.0]]
METHODS: dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]] = {
    "sum": [((), {}), ((1,), {}), ((1, True), {}), ((), {"axis": 0, "keepdims": True}),
            (((0, 1),), {}), ((), {"dim": ()}), ((0,), {"dtype": "int64"})],
    "mean": [((), {}), ((-1, True), {}), ((), {"dim": (0, 1), "dtype": "float64"})],
    "var": [((), {}), ((False,), {}), ((1, False), {}), ((1, True, True), {}),
            ((), {"dim": 1, "correction": 0, "keepdim": True}), ((), {"unbiased": False})],
    "std": [((True,), {}), ((0, False, True), {}), ((), {"axis": 1, "correction": 2})],
    "norm": [((), {}), ((1,), {}), ((3, 1), {}), (("fro", 1, True), {}), ((math.inf, 0), {}),
             ((-math.inf,), {}), ((0, 1), {}), ((0.5,), {}), ((), {"p": 2, "dim": (0, 1)}),
             ((), {"dtype": "float64"})],
    "amax": [((), {}), ((0, True), {}), ((), {"dim": ()})],
    "amin": [((1,), {}), (((0, 1),), {"keepdim": True})],
    "logsumexp": [((1,), {}), (((0, 1), True), {})],
    "argmax": [((), {}), ((1, True), {}), ((), {"axis": 0})],
    "argmin": [((0,), {"keepdim": True})],
    "any": [((), {}), ((1, True), {}), ((), {"dim": ()}), (((0, 1),), {})],
    "all": [((0,), {}), ((), {"axis": 1, "keepdims": True})],
    "cumsum": [((1,), {}), ((), {"dim": 0, "dtype": "float64"})],
    "softmax": [((1,), {}), ((), {"dim": 0, "dtype": "float64"})],
    "log_softmax": [((-1,), {})],
    "argsort": [((), {}), ((0, True), {}), ((), {"dim": 1, "descending": True, "stable": True})],
    "flatten": [((), {}), ((0, -1), {}), ((), {"start_dim": 1})],
    "unsqueeze": [((0,), {}), ((), {"dim": -1})],
    "squeeze": [((), {}), ((0,), {}), (((0, 1),), {})],
    "permute": [((1, 0), {}), (((1, 0),), {}), ((), {"dims": (1, 0)})],
    "transpose": [((0, 1), {}), ((), {"dim0": -1, "dim1": 0})],
    "expand": [((2, 2, 3), {}), (((2, -1, -1),), {}), ((), {"size": (1, 2, 3)})],
    "flip": [((0,), {}), (((0, 1),), {}), ((0, 1), {}), ((), {"dims": (1,)})],
    "reshape": [((3, 2), {}), (((6,),), {}), ((-1,), {}), ((), {"shape": (3, -1)})],
    "clip": [((-1, 2), {}), ((), {"max": 0.5}), ((0.5,), {})],
    "pow": [((2,), {}), ((3,), {}), ((), {"exponent": 2.0})],
    "to": [(("float64",), {}), (("cpu", "float64"), {}), ((), {"dtype": "int32"}),
           (("float64", False, True), {})],
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_methods(name: str) -> None:
    for args, named in METHODS[name]:

        def call(lib: Any, x: Any, args: Any = args, named: Any = named) -> Any:
            kinds = ("float64", "float32", "int64", "int32")
            there = lambda v: getattr(lib, v) if isinstance(v, str) and v in kinds else v  # noqa: E731
            return getattr(x, name)(*map(there, args), **{k: there(v) for k, v in named.items()})

        ours, theirs = both(call, (X, "float32"))
        assert ours is not None and theirs is not None, (name, args, named)
        check(ours, theirs, f"{name} {args} {named}")


def test_gradients_of_norms() -> None:
    rows = [[0.0, 0.0], [3.0, -4.0], [0.0, 2.0], [1.0, 1.0]]
    for p in (1, 2, 3, 1.5, math.inf, -math.inf, 0.5, -1):
        for row in rows:
            if p in (0.5, -1) and row == [0.0, 0.0]:
                continue  # PyTorch: NaN
            theirs = torch.tensor(row, requires_grad=True)
            theirs.norm(p).backward()
            ours = tx.grad(lambda x, p=p: x.norm(p))(tx.tensor(row))
            np.testing.assert_allclose(
                ours.numpy(), theirs.grad.numpy(), rtol=1e-5, err_msg=f"{p} {row}"
            )
    theirs = torch.tensor(rows, requires_grad=True)
    theirs.std(1).sum().backward()
    ours = tx.grad(lambda x: x.std(1).sum())(tx.tensor(rows))
    np.testing.assert_allclose(ours.numpy(), theirs.grad.numpy(), rtol=1e-5)
