"""Tensor functions against PyTorch's values and gradients, recorded by helpers/torch_ops.py; and
compiled against eager. The live comparison runs where PyTorch is installed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch_ops

import tinygrad_tx as tx
from tinygrad_tx import functions
from tinygrad_tx.nn import functional as F  # noqa: N812

RECORDED: dict[str, Any] = json.loads(torch_ops.FILE.read_text(encoding="utf-8"))
EAGER_ONLY = {"nonzero", "unique", "repeat_interleave"}
RECORDS = {  # mostly: of these the op table has the compiled forms
    *("comparisons", "logical", "halves", "logarithms", "angles", "special", "activations"),
    *("activations of zero", "activations far out", "prod of integers", "cumprod", "norms"),
    *("orders", "empty", "scatter_reduce amin", "scatter_reduce mean", "quantile of its share"),
    *("scatter_reduce of ties amin", "scatter_reduce of ties prod", "median of NaN", "rounding"),
}


@pytest.mark.parametrize("name", torch_ops.EXPRESSIONS)
def test_as_recorded(name: str) -> None:
    want = RECORDED[name]
    out, inputs = torch_ops.results(tx, F, name)
    assert len(out) == len(want["out"])
    for i, (o, w) in enumerate(zip(out, want["out"], strict=True)):
        torch_ops.close(o, w, f"{name}: result {i}")
    orders = torch_ops.gradients(tx, out, inputs)
    for order, w in enumerate(want["gradients"]):
        got = orders[order] if order < len(orders) else {}
        for k, g in w.items():
            if k in got:
                torch_ops.close(got[k], g, f"{name}: gradient {order + 1} by {k}")
            else:  # where PyTorch has zeros there may be none
                assert not np.any([float(v) for v in g[2]]), f"{name}: gradient {order + 1} by {k}"


@pytest.mark.parametrize("name", sorted(torch_ops.EXPRESSIONS.keys() - EAGER_ONLY - RECORDS))
def test_compiled(name: str) -> None:
    """The whole plan with its kernels in NumPy; the op table runs each record natively."""
    out, inputs = torch_ops.results(tx, F, name)
    eager = [*out, *(g for o in torch_ops.gradients(tx, out, inputs)[:1] for g in o.values())]

    @tx.compile
    def step() -> list[tx.Tensor]:
        out, inputs = torch_ops.results(tx, F, name)
        return [*out, *(g for o in torch_ops.gradients(tx, out, inputs)[:1] for g in o.values())]

    with mock.patch.dict(os.environ, TX_COMPILE="interp"):
        for a, b in zip(step(), eager, strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            rtol = 2e-3 if name == "half" else 1e-6
            np.testing.assert_allclose(a.tolist(), b.tolist(), rtol=rtol, atol=1e-6)


def test_the_file_is_of_this_pytorch() -> None:
    torch = pytest.importorskip("torch")
    for name in torch_ops.EXPRESSIONS:
        out, _ = torch_ops.results(torch, torch.nn.functional, name)
        for o, w in zip(out, RECORDED[name]["out"], strict=True):
            torch_ops.close(o, w, f"{name}: run tests/helpers/torch_ops.py")


X, I = tx.ones(2, 3), tx.tensor([[0, 1, 1]])  # noqa: E741
WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: X.scatter(0, I), "scatter: give one of src and value"),
    (lambda: X.scatter(0, I + 1, 1.0), "scatter: index 2 is outside the 2 entries"),
    (lambda: X.scatter(0, I, X.long()), "scatter: src is int64, self float32: use"),
    (lambda: X.scatter(0, I, X[:, :2]), r"scatter: src \(2, 2\) must be at least as large as .*3"),
    (lambda: X.scatter_add(1, tx.tensor([[0]] * 3), X), r"index \(3, 1\) does not fit \(2, 3\)"),
    (lambda: X.scatter_reduce(0, I, X, "max"), "reduce='max' is none of sum, prod, mean, amax"),
    (lambda: X.scatter(0, I, X, reduce="mean"), "reduce='mean' is none of"),
    (lambda: tx.einsum("ij,jk->ik", X), "names 2 operands, and 1 are given"),
    (lambda: tx.einsum("ij,jk", X, X), "the dimension j is 3 in one operand and 2 in another"),
    (lambda: tx.einsum("ijk", X), r"names 3 dimensions of an operand \(2, 3\)"),
    (lambda: tx.einsum("ij->ik", X), "the result has 'k', which must come once"),
    (lambda: tx.einsum("ii", X), r"names a diagonal of \(2, 3\), whose sizes differ"),
    (lambda: tx.einsum("i1", X), "names of dimensions are letters"),
    (lambda: X.outer(X), r"outer: two rows are needed, not \(2, 3\) and \(2, 3\)"),
    (lambda: X.repeat(2), r"repeat: \(2,\) of \(2, 3\): give a number"),
    (lambda: X.roll((1, 2), 0), "roll: 2 shifts for 1 dims"),
    (lambda: X.repeat_interleave(tx.ones(3), 1), "repeats must be integers, one or 3, not float32"),
    (lambda: X.repeat_interleave(2, 1, output_size=5), "2 times 3 slices cannot be 5 slices"),
    (lambda: X.diagonal(0, 1, -1), "dim1 and dim2 are both 1"),
    (lambda: X[0].trace(), r"trace: a matrix is needed, not \(3,\)"),
    (lambda: X.quantile(1.5), "q must be between 0 and 1"),
    (lambda: X.quantile(0.5, interpolation="cubic"), "interpolation='cubic' is none of linear"),
    (lambda: X[:0].median(0), r"median: axis 0 of \(0, 3\) is empty"),
    (lambda: X.div(2, rounding_mode="up"), "rounding_mode must be None, .* not 'up'"),
    (lambda: X.long().add(I, alpha=0.5), "add: alpha=0.5 of integers; use an int"),
    (lambda: X & 1, "and needs bools or integers, not float32: compare first"),
    (lambda: tx.searchsorted(X, X[:1]), r"a sequence \(2, 3\) does not fit values \(1, 3\)"),
    (lambda: tx.bucketize(X, X), "boundaries must be a row"),
    (lambda: tx.searchsorted(X[0], X, side="left", right=True), "exclude each other"),
    (lambda: tx.meshgrid(X), r"meshgrid: a Tensor \(2, 3\) must be a row"),
    (lambda: tx.linspace(0, 1, -1), "steps=-1 must not be negative"),
    (lambda: F.glu(X), r"glu: dimension -1 of \(2, 3\) has no halves: 3 is odd"),
    (lambda: tx.sum(X, 0, out=X), "sum: out=... is not supported; use the result"),
    (lambda: tx.exp(2.0), "exp: input must be a Tensor, not 2.0: wrap it in tx.tensor"),
]  # fmt: skip


@pytest.mark.parametrize("i", range(len(WRONG)))
def test_errors(i: int) -> None:
    call, message = WRONG[i]
    with pytest.raises((ValueError, TypeError, IndexError), match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_shapes_that_depend_on_data_are_for_eager_code() -> None:
    n = tx.tensor([2, 0, 1])
    for f in (lambda n: n.nonzero(), lambda n: n.unique(), lambda n: n.repeat_interleave(n)):
        with pytest.raises(
            tx.errors.TraceError, match=r"depends on .*: (call it|give output_size)"
        ):
            tx.compile(f)(n)
    step = tx.compile(lambda n: (n + 5).repeat_interleave(n, output_size=3))
    assert step(n).tolist() == (n + 5).repeat_interleave(n).tolist() == [7, 7, 6]
    assert step(tx.tensor([0, 3, 0])).tolist() == [5 + 3] * 3
    with pytest.raises(tx.errors.TraceError, match="while its function is traced"):
        tx.compile(lambda n: n.allclose(n))(n)
    assert n.allclose(n) is True and n.allclose(n + 1) is False


def test_methods_are_functions() -> None:
    """Each with the method's arguments, loaded when it is first used."""
    assert tx.sum(X, 1, keepdim=True).shape == (2, 1) and tx.exp(input=X).shape == X.shape
    assert tx.sum.__name__ == "sum" and tx.sum.__doc__ == tx.Tensor.sum.__doc__
    loaded = {n for n, f in vars(functions).items() if getattr(f, "__signature__", None)}
    assert loaded <= set(tx.__all__) and len(loaded) > 100
