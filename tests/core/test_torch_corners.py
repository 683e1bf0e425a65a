"""Corners of calls that PyTorch takes: 0-d Tensors with a dimension, sizes by name, dtypes of what
is given, and Tensors where a number is meant. The right values are PyTorch 2.13's; PyTorch is not
needed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx.nn import functional as F  # noqa: N812

X = tx.tensor([[3.0, 4.0], [0.0, 1.0]])
S = tx.tensor(2.5)
EMPTY = tx.zeros(0, 4)
ROWS = tx.tensor([[0.1, 0.9], [0.5, -0.3]])

VALUES: dict[str, tuple[Callable[[], Any], Any, tx.DType]] = {
    # A 0-d Tensor is a row of one where a dimension is named.
    "softmax": (lambda: S.softmax(0), 1.0, tx.float32),
    "softmax by default": (lambda: F.softmax(S), 1.0, tx.float32),
    "log_softmax": (lambda: S.log_softmax(-1), 0.0, tx.float32),
    "cumsum": (lambda: S.cumsum(0), 2.5, tx.float32),
    "max": (lambda: S.max(0).values, 2.5, tx.float32),
    "max indices": (lambda: S.max(-1, True).indices, 0, tx.int64),
    "min": (lambda: S.min(0).values, 2.5, tx.float32),
    "argmax": (lambda: S.argmax(0), 0, tx.int64),
    "argmin": (lambda: S.argmin(-1, True), 0, tx.int64),
    "sort": (lambda: S.sort().values, 2.5, tx.float32),
    "argsort": (lambda: S.argsort(0, True), 0, tx.int64),
    "topk": (lambda: S.topk(1).values, 2.5, tx.float32),
    "topk smallest": (lambda: S.topk(1, 0, False).indices, 0, tx.int64),
    "transpose": (lambda: S.transpose(0, -1), 2.5, tx.float32),
    # Over nothing.
    "softmax of nothing": (lambda: EMPTY.softmax(0), np.zeros((0, 4)), tx.float32),
    "log_softmax of nothing": (lambda: EMPTY.log_softmax(-2), np.zeros((0, 4)), tx.float32),
    "logsumexp of nothing": (lambda: EMPTY.logsumexp(0), [-math.inf] * 4, tx.float32),
    "logsumexp of all": (lambda: EMPTY.logsumexp(keepdim=True), [[-math.inf]], tx.float32),
    "logsumexp of no rows": (lambda: EMPTY.logsumexp(1), np.zeros(0), tx.float32),
    # The result has the dtype that is asked for.
    "sum int32": (lambda: tx.tensor([2, 3]).sum(dtype=tx.int32), 5, tx.int32),
    "sum bool": (lambda: tx.tensor([2, 3]).sum(dtype=tx.bool_), True, tx.bool_),
    "sum of floats int32": (lambda: X.sum(0, dtype=tx.int32), [3, 5], tx.int32),
    "cumsum int32": (lambda: tx.tensor([2, 3]).cumsum(0, tx.int32), [2, 5], tx.int32),
    "mse of two dtypes": (
        lambda: F.mse_loss(tx.ones(2, dtype=tx.float16), tx.full((2,), 0.9)),
        0.01,
        tx.float32,
    ),
    "rms_norm and a float64 weight": (
        lambda: F.rms_norm(tx.tensor([3.0, 4.0]), 2, tx.ones(2, dtype=tx.float64), 0.0),
        [3 / 12.5**0.5, 4 / 12.5**0.5],
        tx.float32,
    ),
    # Names and places.
    "zeros by size": (lambda: tx.zeros(size=(1, 2)), [[0.0, 0.0]], tx.float32),
    "ones by size": (lambda: tx.ones(size=[2], dtype=tx.int32), [1, 1], tx.int32),
    "empty by size": (lambda: tx.empty(size=(1,)), [0.0], tx.float32),
    "rand by size": (lambda: tx.rand(size=(0, 2)), np.zeros((0, 2)), tx.float32),
    "randn by size": (lambda: tx.randn(size=(0,)), np.zeros(0), tx.float32),
    "view by size": (lambda: X.view(size=(4,)), [3.0, 4.0, 0.0, 1.0], tx.float32),
    "max other": (lambda: X.max(other=S), [[3.0, 4.0], [2.5, 2.5]], tx.float32),
    "min other": (lambda: X.min(other=S), [[2.5, 2.5], [0.0, 1.0]], tx.float32),
    "one_hot input": (lambda: F.one_hot(input=tx.tensor([1])), [[0, 1]], tx.int64),
    "randint of floats": (lambda: tx.randint(2, 3, (2,), dtype=tx.float16), [2, 2], tx.float16),
    "randint of bools": (lambda: tx.randint(0, 1, (1,), dtype=tx.bool_), [False], tx.bool_),
    # Numbers and lists keep the dtypes that they come with.
    "float64 scalars": (lambda: tx.tensor([np.float64(0.1), 2]), [0.1, 2.0], tx.float64),
    "float16 scalars": (lambda: tx.tensor([[np.float16(1)]]), [[1.0]], tx.float16),
    "int32 scalars": (lambda: tx.tensor([np.int32(1)]), [1], tx.int32),
    "Tensors in a list": (
        lambda: tx.tensor([tx.tensor(0.1, dtype=tx.float64), 1]),
        [0.1, 1.0],
        tx.float64,
    ),
    "int32 Tensors": (lambda: tx.tensor([tx.tensor(1, dtype=tx.int32)]), [1], tx.int32),
    "arrays in a list": (lambda: tx.tensor([np.ones(2)]), [[1.0, 1.0]], tx.float64),
    "a bool and an int": (lambda: tx.tensor([True, 2]), [1, 2], tx.int64),
    "bools": (lambda: tx.tensor([[True], [False]]), [[True], [False]], tx.bool_),
    "nothing": (lambda: tx.tensor([[], []]), np.zeros((2, 0)), tx.float32),
    "a huge int and a float": (lambda: tx.tensor([1.0, 2**70]), [1.0, 2.0**70], tx.float32),
    "full of a Tensor": (lambda: tx.full((2,), S), [2.5, 2.5], tx.float32),
    "full of an int Tensor": (lambda: tx.full((1,), tx.tensor([3])), [3], tx.int64),
    "arange of a Tensor": (lambda: tx.arange(tx.tensor(1.5)), [0.0, 1.0], tx.float32),
    # Indices.
    "index_select by a 0-d index": (
        lambda: X.index_select(0, tx.tensor(1)),
        [[0.0, 1.0]],
        tx.float32,
    ),
    "gather of a part": (lambda: X.gather(1, tx.tensor([[1]])), [[4.0]], tx.float32),
    "gather of fewer rows": (lambda: X.gather(0, tx.tensor([[1], [0]])), [[0], [3]], tx.float32),
    "take_along_dim broadcast": (
        lambda: X.take_along_dim(tx.tensor([[1]]), 1),
        [[4.0], [1.0]],
        tx.float32,
    ),
    "take_along_dim of one row": (
        lambda: X[:1].take_along_dim(tx.tensor([[1], [0]]), 1),
        [[4.0], [3.0]],
        tx.float32,
    ),
    "chunks of nothing": (lambda: len(EMPTY.chunk(3)), 3, tx.int64),
    "attention without features": (
        lambda: F.scaled_dot_product_attention(tx.ones(1, 0), tx.ones(2, 0), X),
        [[1.5, 2.5]],
        tx.float32,
    ),
}


@pytest.mark.parametrize("name", VALUES)
def test_values(name: str) -> None:
    call, wanted, dtype = VALUES[name]
    got = call()
    if isinstance(got, int):
        assert got == wanted
        return
    assert got.dtype == dtype and got.shape == np.shape(wanted)
    rtol = {8: 1e-12, 4: 1e-6, 2: 1e-3}.get(dtype.itemsize, 0)
    np.testing.assert_allclose(got.double().numpy(), np.asarray(wanted, float), rtol=rtol)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    # False means the sum, or no reduction: it was taken for nothing.
    "size_average": (
        lambda: F.cross_entropy(ROWS, tx.tensor([0, 1]), size_average=False),
        "cross_entropy: size_average=False",
    ),
    "reduce": (
        lambda: F.cross_entropy(ROWS, tx.tensor([0, 1]), reduce=False),
        "cross_entropy: reduce=False",
    ),
    "mse by place": (lambda: F.mse_loss(X, X, False), "mse_loss: size_average=False"),
    "mse reduce": (lambda: F.mse_loss(X, X, reduce=False), "mse_loss: reduce=False"),
    "two others": (lambda: X.max(0, other=X), "max: dim and other are given"),
    "softmax of 1": (lambda: S.softmax(1), "axis 1 is outside"),
    "softmax of ints": (lambda: EMPTY.long().softmax(0), "needs a floating dtype"),
    "softmax of axis 2": (lambda: EMPTY.softmax(2), "axis 2 is outside"),
    "flatten": (lambda: S.flatten(1), "axis 1 is outside"),
    "transpose": (lambda: S.transpose(0, 1), "axis 1 is outside"),
    "split": (lambda: X.split(True), "split: a size must be an int, not True"),
    "chunk": (lambda: X.chunk(True), "chunk: chunks must be an int, not True"),
    "pad by a Tensor": (lambda: F.pad(X, tx.tensor([1.0, 1.0])), "pad: pad must be a sequence"),
    "pad by a bool": (lambda: F.pad(X, (True, 1)), "pad: a width must be an int, not True"),
    "one_hot": (lambda: F.one_hot(tx.tensor([0]), 4.0), "one_hot: num_classes must be an int"),
    "index_select": (
        lambda: X.index_select(0, tx.tensor([[0]])),
        r"index_select: index must have one dimension, not \(1, 1\)",
    ),
    "full": (lambda: tx.full((2,), X), r"full: fill_value must be one number, not \(2, 2\)"),
    "dropout_p": (
        lambda: F.scaled_dot_product_attention(X, X, X, dropout_p=-0.1),
        "dropout_p = -0.1 must be between 0 and 1",
    ),
    "ignore_index": (
        lambda: F.cross_entropy(ROWS, tx.tensor([0, 1]), ignore_index=None),
        "cross_entropy: ignore_index must be an int, not None",
    ),
    "targets": (lambda: F.cross_entropy(ROWS, [0, 1]), "cross_entropy: target must be a Tensor"),
    "mse of a list": (lambda: F.mse_loss(X, [1]), "mse_loss: target must be a Tensor"),
    "matmul": (lambda: tx.matmul(None, None), "matmul: at least one input must be a Tensor"),
    "Tensor": (lambda: tx.Tensor([1, 2]), r"a Tensor is made by tx.tensor\(...\), not of a list"),
    "grad": (lambda: setattr(tx.ones(2), "grad", 0), "grad must be a Tensor or None, not 0"),
    "backward": (lambda: tx.ones(2, requires_grad=True).backward(3), "backward: gradient must be"),
    "backward inputs": (
        lambda: tx.ones((), requires_grad=True).backward(inputs=[3]),
        "backward: inputs must be a list of Tensors or one, not a list",
    ),
    "backward of no inputs": (
        lambda: tx.ones((), requires_grad=True).backward(inputs=[]),
        "backward: inputs is empty",
    ),
    "manual_seed": (lambda: tx.manual_seed("x"), "manual_seed: seed must be an int, not 'x'"),
    "Linear": (lambda: tx.nn.Linear(-1, 2), "negative size"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str) -> None:
    call, message = REFUSED[name]
    with pytest.raises((TypeError, ValueError, RuntimeError), match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


# Tensors where a number is meant: a plan must not keep the value that the first call gave.
FILLED: dict[str, Callable[[Any], Any]] = {
    "full": lambda v: tx.full((2,), v),
    "full float64": lambda v: tx.full((2,), v, dtype=tx.float64),
    "full_like": lambda v: tx.full_like(X, v),
    "constant_": lambda v: tx.nn.init.constant_(tx.zeros(2), v),
    "masked_fill": lambda v: X.masked_fill(X > 1, v),
}
NUMBERS: dict[str, Callable[[Any], Any]] = {
    "pad": lambda v: F.pad(X, (1, 1), value=v),
    "cross_entropy": lambda v: F.cross_entropy(ROWS, tx.tensor([0, 1]), ignore_index=v.long()),
    "one of one's own": lambda v: TIMES(X, by=v),
    "in a tuple": lambda v: FIRST(X, by=(v, 1)),
}
TIMES = tx.Op(
    "corners_times", kind="map", forward=lambda xp, x, by: x * by, vjp=lambda g, y, x, by: (g * by,)
)
FIRST = tx.Op("corners_first", kind="map", forward=lambda xp, x, by: x * float(by[0]))


@pytest.mark.parametrize("mode", ["native", "interp", "replay"])
def test_a_tensor_as_a_number_is_read_at_every_call(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TX_COMPILE", mode)
    for f in FILLED.values():
        step = tx.compile(f)
        for value in (2.0, 3.0, math.inf):
            got, wanted = step(tx.tensor(value)), f(value)
            np.testing.assert_array_equal(got.numpy(), wanted.numpy())
            assert got.dtype == wanted.dtype
    for f in NUMBERS.values():
        f(tx.tensor(1.0))
        with pytest.raises(tx.errors.TraceError, match=r"a Tensor|needs a value") as caught:
            tx.compile(f)(tx.tensor(1.0))
        assert "\n" not in str(caught.value)


def test_gradients_at_these_corners() -> None:
    for f, at, wanted in (
        (lambda x: x.softmax(0), 2.5, 0.0),
        (lambda x: x.cumsum(0) * 3, 2.5, 3.0),
        (lambda x: x.max(0).values * 2, 2.5, 2.0),
        (lambda x: x.topk(1).values, 2.5, 1.0),
        (lambda x: x.gather(1, tx.tensor([[1]])).sum(), X.tolist(), [[0.0, 1.0], [0.0, 0.0]]),
        (
            lambda x: x.take_along_dim(tx.tensor([[1]]), 1).sum(),
            X.tolist(),
            [[0.0, 1.0], [0.0, 1.0]],
        ),
        (
            lambda x: x[:1].take_along_dim(tx.tensor([[1], [0]]), 1).sum(),
            X.tolist(),
            [[1.0, 1.0], [0.0, 0.0]],
        ),
    ):
        for gradient in (tx.grad(f), tx.compile(tx.grad(f))):
            np.testing.assert_array_equal(gradient(tx.tensor(at)).numpy(), wanted)
