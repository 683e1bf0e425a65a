"""Every registered op, driven by the op table; then what single ops promise beyond it."""

from __future__ import annotations

import os
from typing import Any
from unittest import mock

import numpy as np
import op_reference as ref
import pytest
from op_case import (
    LAYOUTS,
    RTOL,
    Bad,
    OpCase,
    arrays,
    assert_close,
    call,
    double,
    expected,
    tensors,
)
from op_table import CASES, STRUCTURAL

import tinygrad_tx as tx
from tinygrad_tx import ops
from tinygrad_tx.autograd import gradients
from tinygrad_tx.nn import functional as F  # noqa: N812
from tinygrad_tx.op import OPS


def cases(rows: list[OpCase]) -> Any:
    return pytest.mark.parametrize("case", [pytest.param(c, id=c.id) for c in rows])


DIFFERENTIABLE = [c for c in CASES if c.grad]


def test_every_op_has_a_row() -> None:
    ours = {n for n, op in OPS.items() if op.forward.__module__.startswith("tinygrad_tx.")}
    rows = {c.name for c in CASES}
    assert not rows & STRUCTURAL.keys()
    assert ours == rows | STRUCTURAL.keys()


def test_every_gradient_is_checked() -> None:
    differentiable = {c.name for c in CASES if c.op.vjp or c.op.decompose}
    assert differentiable == {c.name for c in DIFFERENTIABLE}


def test_every_op_that_takes_inputs_has_an_error_row() -> None:
    internal = {"copy", "cast", "argsort", "cumsum", "cumprod", "flip", "slice", "full", "arange"}
    grads = {name for name in OPS if name.endswith("_grad")}
    made = {"uniform", "normal"}  # as randint
    bad = {c.name for c in CASES if c.bad}
    assert {c.name for c in CASES} - bad == internal | grads | made


@cases(CASES)
def test_forward(case: OpCase) -> None:
    """Values, shape and dtype, in each dtype of the row."""
    for dtype in case.dtypes:
        given = arrays(case, dtype)
        inputs = tensors(case, dtype)
        for got, want in zip(call(case, inputs), expected(case, given), strict=True):
            assert got.shape == want.shape
            assert got.dtype.name == (dtype if case.result == "same" else case.result)
            assert_close(case, got.numpy(), want, dtype)
        for tensor, array in zip(inputs, given, strict=True):  # nothing writes into its inputs
            _assert_unchanged(tensor, array)


@cases([c for c in CASES if any(np.ndim(a) for a in c.inputs)])
def test_layouts(case: OpCase) -> None:
    """The same values from memory in any order: transposed, with gaps, backwards."""
    dtype = case.dtypes[0]
    wanted = expected(case, arrays(case, dtype))
    for layout in LAYOUTS:
        inputs = tensors(case, dtype, layout=layout)
        wide = [t.numpy() for t in inputs if min(t.shape, default=1) > 1 and t.ndim > 1]
        assert not any(a.flags.c_contiguous for a in wide)
        for got, want in zip(call(case, inputs), wanted, strict=True):
            assert_close(case, got.numpy(), want, dtype)


def _reads_indices(case: OpCase) -> bool:
    """Not of ops whose integers are values, nor of random ones, whose key is int64."""
    integers = any(np.asarray(a).dtype.kind == "i" for a in case.inputs)
    return integers and "int64" not in case.dtypes and case.op.kind != "random"


@cases([c for c in CASES if _reads_indices(c)])
def test_index_dtype(case: OpCase) -> None:
    """int32 indices mean what int64 ones do."""
    dtype = case.dtypes[0]
    inputs = [t.int() if t.dtype == tx.int64 else t for t in tensors(case, dtype)]
    for got, want in zip(call(case, inputs), expected(case, arrays(case, dtype)), strict=True):
        assert_close(case, got.numpy(), want, dtype)


@cases(DIFFERENTIABLE)
def test_gradcheck_to_second_order(case: OpCase) -> None:
    inputs = tensors(case, "float64")
    assert tx.gradcheck(lambda *xs: call(case, list(xs)), inputs, order=2, atol=1e-7, rtol=1e-6)


@cases(DIFFERENTIABLE)
def test_gradients_have_shape_and_dtype_of_their_inputs(case: OpCase) -> None:
    for dtype in case.dtypes:
        leaves = [_leaf(t) for t in tensors(case, dtype)]
        sum(out.float().sum() for out in call(case, leaves)).backward()
        for leaf in leaves:
            if leaf.requires_grad:
                assert leaf.grad is not None
                assert (leaf.grad.shape, leaf.grad.dtype) == (leaf.shape, leaf.dtype)


def _leaf(x: tx.Tensor) -> tx.Tensor:
    return x.requires_grad_() if x.dtype.is_floating_point else x


@cases([c for c in CASES if c.op.decompose])
def test_fused_equals_its_decomposition(case: OpCase) -> None:
    """Forward and gradients, in float64."""
    rng = np.random.default_rng(0)
    attrs = dict(case.attrs)
    if case.op.kind == "reduce":
        attrs = {"axis": attrs["axis"], "keepdims": attrs.get("keepdims", False)}
    found = []
    for plain in (False, True):
        leaves = [_leaf(t) for t in tensors(case, "float64")]
        out = _decomposed(case, leaves) if plain else call(case, leaves)
        if not found:
            cotangents = [tx.tensor(rng.standard_normal(o.shape)) for o in out]
        grads = gradients([o.node for o in out], cotangents) if case.grad else {}
        found.append([*out, *(grads[x.node] for x in leaves if x.node in grads)])
    fused, simple = found
    assert len(fused) == len(simple) > 0
    for a, b in zip(fused, simple, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-10, atol=1e-12)


def _decomposed(case: OpCase, inputs: list[tx.Tensor]) -> tuple[tx.Tensor, ...]:
    attrs = dict(case.attrs)
    if case.op.kind == "reduce":  # inside, axes are a tuple and kept
        want = call(case, inputs)[0].shape
        axis = tx.rules.axes(case.name, attrs["axis"], inputs[0].ndim)
        return (case.op.decompose(*inputs, axis=axis).reshape(want),)
    out = case.op.decompose(*inputs, **attrs)
    return out if isinstance(out, tuple) else (out,)


@pytest.mark.parametrize(
    ("case", "bad"),
    [pytest.param(c, b, id=f"{c.name}-{b.message[:40]}") for c in CASES for b in c.bad],
)
def test_errors(case: OpCase, bad: Bad) -> None:
    inputs = [tx.tensor(a) for a in bad.inputs]
    attrs = case.attrs if bad.attrs is None else bad.attrs
    with pytest.raises(bad.error, match=bad.message) as caught:
        case.op(*inputs, **attrs)
    assert "\n" not in str(caught.value)


@pytest.mark.one_in(2)
@cases([c for c in CASES if c.inputs])
def test_compiled(case: OpCase) -> None:
    """A compiled call gives the same values, and so do its gradients: kernels add in another order
    than NumPy, and compute exp, erf, ... by formulas of their own."""
    _agrees(case, case.dtypes[0], "native")


HALVES = ("float16", "bfloat16")
ONE_OF_EACH = {c.name: c for c in reversed(CASES) if HALVES[0] in c.dtypes and c.inputs}


@pytest.mark.one_in(4)
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", sorted(ONE_OF_EACH))
def test_compiled_in_half_precision(name: str, dtype: str) -> None:
    """Each op natively and replayed, and through the interpreter of kernels: there every row of it
    in bfloat16, one in float16."""
    for mode in ("native", "replay"):
        _agrees(ONE_OF_EACH[name], dtype, mode)
    for case in CASES if dtype == "bfloat16" else [ONE_OF_EACH[name]]:
        if case.name == name and dtype in case.dtypes and case.inputs:
            _agrees(case, dtype, "interp")


def _agrees(case: OpCase, dtype: str, mode: str) -> None:
    """Results and gradients, compiled, are eager code's; and nothing has written into an input."""

    def f(*xs: tx.Tensor) -> Any:
        out = call(case, list(xs))
        if case.grad:
            sum((o * o).sum() for o in out).backward()
        return out

    eager, compiled = ([_leaf(t) for t in tensors(case, dtype)] for _ in range(2))
    wanted, step = f(*eager), tx.compile(f)
    with mock.patch.dict(os.environ, TX_COMPILE=mode):
        for _ in range(2):  # traced, then replayed
            for x in compiled:
                x.grad = None
            got = step(*compiled)
            for a, b in zip(got, wanted, strict=True):
                _close(a, b, case)
            for a, b in zip(compiled, eager, strict=True):
                assert (a.grad is None) == (b.grad is None)
                if a.grad is not None and b.grad is not None:
                    _close(a.grad, b.grad, case)
    for a, b, given in zip(eager, compiled, arrays(case, dtype), strict=True):
        _assert_unchanged(a, given)
        _assert_unchanged(b, given)


def _assert_unchanged(tensor: tx.Tensor, given: np.ndarray) -> None:
    assert tensor.numpy().tobytes() == given.tobytes()


def _close(a: tx.Tensor, b: tx.Tensor, case: OpCase) -> None:
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    if not a.dtype.is_floating_point:
        np.testing.assert_array_equal(a.numpy(), b.numpy())
        return
    rtol = RTOL[a.dtype.name] * case.scale
    got, want = (x.numpy().astype(np.float64) for x in (a, b))
    large = np.abs(want[np.isfinite(want)]).max(initial=1) if a.dtype.itemsize == 2 else 1
    np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol * large)


# What single ops promise -------------------------------------------------------------------------


def grad_of(f: Any, *xs: tx.Tensor) -> list[np.ndarray]:
    leaves = [x.detach().requires_grad_() for x in xs]
    f(*leaves).sum().backward()
    return [x.grad.numpy() for x in leaves]


@pytest.mark.parametrize("causal", [False, True])
def test_fully_masked_rows_are_zero_and_so_are_their_gradients(causal: bool) -> None:
    q, k, v = (double(2, 4, 3, seed=i) for i in range(3))
    mask = tx.tensor(np.ones((2, 4, 4), bool))
    mask[0, 1] = mask[1] = False
    run = lambda *x: ops.ATTENTION(*x, mask, scale=0.5, causal=causal)  # noqa: E731
    out = run(q, k, v)
    assert not out[0, 1].any() and not out[1].any() and out[0, 0].all()
    dq, dk, dv = grad_of(run, q, k, v)
    assert not dq[0, 1].any() and not any(d[1].any() for d in (dq, dk, dv))
    assert np.isfinite(np.stack([dq, dk, dv])).all() and dq[0, 3].all()
    mask[...] = False
    assert not any(d.any() for d in grad_of(run, q, k, v))


def test_an_additive_mask_stays_additive() -> None:
    q, k, v = (double(3, 2, seed=i) for i in range(3))
    mask = tx.zeros(3, 3, dtype=tx.float64)
    mask[1] = -np.inf
    out = ops.ATTENTION(q, k, v, mask, scale=1.0, causal=False).numpy()
    assert np.isnan(out[1]).all() and np.isfinite(out[[0, 2]]).all()


def test_a_row_of_minus_infinity_has_no_softmax() -> None:
    x = tx.tensor([[-np.inf, -np.inf], [0.0, 0.0]])
    assert x.softmax(1).isnan().tolist() == [[True, True], [False, False]]
    assert x.logsumexp(1).tolist()[0] == -np.inf
    assert grad_of(lambda x: x.logsumexp(1), x)[0].tolist() == [[0, 0], [0.5, 0.5]]


def test_ties_share_the_gradient() -> None:
    x = tx.tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
    assert grad_of(lambda x: x.amax(1), x)[0] == pytest.approx(
        np.array([[0, 0.5, 0.5], [1 / 3, 1 / 3, 1 / 3]])
    )
    assert grad_of(lambda x: x.max(1).values, x)[0].tolist() == [[0, 1, 0], [1, 0, 0]]
    one, two = grad_of(tx.maximum, tx.tensor([1.0, 2.0]), tx.tensor([1.0, 1.0]))
    assert (one.tolist(), two.tolist()) == ([0.5, 1.0], [0.5, 0.0])
    one, two = grad_of(tx.minimum, tx.tensor([1.0, 2.0]), tx.tensor([1.0, 1.0]))
    assert (one.tolist(), two.tolist()) == ([0.5, 0.0], [0.5, 1.0])


def test_gradients_at_the_kinks() -> None:
    x = tx.tensor([-1.0, 0.0, 2.0])
    assert grad_of(tx.Tensor.relu, x)[0].tolist() == [0, 0, 1]
    assert grad_of(tx.Tensor.abs, x)[0].tolist() == [-1, 0, 1]
    assert grad_of(lambda x: x.clip(0, 2), x)[0].tolist() == [0, 1, 1]
    assert grad_of(tx.Tensor.sign, x)[0].tolist() == [0, 0, 0]
    assert grad_of(tx.Tensor.floor, x)[0].tolist() == [0, 0, 0]
    assert grad_of(lambda x: x**2.0 + x**1.0 + x**0.0, x)[0].tolist() == [-1, 1, 5]
    base, power = grad_of(lambda x, p: x**p, tx.tensor([0.0, 0.0]), tx.tensor([2.0, 0.0]))
    assert (base.tolist(), power.tolist()) == ([0, 0], [0, 0])


def test_reductions_of_half_precision_do_not_overflow() -> None:
    x = tx.full((70000,), 2, dtype=tx.float16)
    assert x.mean().item() == 2 and x.var().item() == 0
    assert tx.full((4096,), 8, dtype=tx.float16).norm().item() == 512
    wide = tx.full((2, 70000), 60000.0, dtype=tx.float16)
    wide[:, ::2] = -60000.0
    assert F.layer_norm(wide, (70000,)).abs().max().item() == 1
    assert tx.zeros(70000, dtype=tx.float16).softmax(0).dtype == tx.float16
    assert tx.zeros(70000, dtype=tx.float16).logsumexp(0).item() == pytest.approx(11.156, rel=1e-3)
    ones = tx.ones(4, 5000, dtype=tx.float16)
    assert (ones @ ones.T).tolist() == [[5000.0] * 4] * 4
    assert ones.cumsum(1)[0, -1].item() == 5000
    same = tx.zeros(5000, dtype=tx.int64)
    assert tx.zeros(1, dtype=tx.float16).index_add(0, same, ones[0]).item() == 5000
    assert ops.SCATTER_ADD(same, ones[0], shape=(1,), axis=0).item() == 5000


def test_bfloat16_is_stored_and_computed() -> None:
    pytest.importorskip("ml_dtypes")
    x = tx.tensor([1.0, 2.5, -3.0], dtype=tx.bfloat16, requires_grad=True)
    y = (x * 2 + 1).exp().sum() + (x.reshape(1, 3) @ x.reshape(3, 1)).sum() + x.softmax(0)[0]
    assert y.dtype == tx.bfloat16
    y.backward()
    assert x.grad.dtype == tx.bfloat16 and bool(x.grad.isfinite().all())
    assert (x + tx.ones(3, dtype=tx.float16)).dtype == tx.float32
    assert x.argsort().tolist() == [2, 0, 1] and x.item is not None


def test_matmul_reads_any_strides() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((2, 6, 8)), rng.standard_normal((8, 4))
    for left in (np.s_[:, ::2, ::-1], np.s_[:, :1], np.s_[:1, 3:4]):
        for right in (np.s_[:, ::-1], np.s_[:, :1], np.s_[:, ::2]):
            got = tx.tensor(a)[left] @ tx.tensor(b)[right]
            np.testing.assert_allclose(got.numpy(), a[left] @ b[right], rtol=1e-12, atol=1e-12)
    wide = tx.tensor(a[:, :1]).expand(2, 5, 8)
    np.testing.assert_allclose((wide @ tx.tensor(b)).numpy(), np.repeat(a[:, :1] @ b, 5, 1))


def test_a_released_index_array_is_checked_before_anything_is_written() -> None:
    x = tx.zeros(3)
    with pytest.raises(IndexError, match="outside the 3"):
        x[[0, 3]] = 1.0
    assert x.tolist() == [0, 0, 0]


def test_nan_is_not_lost() -> None:
    x = tx.tensor([1.0, float("nan"), 2.0])
    assert np.isnan([x.max().item(), x.min().item(), x.sum().item(), x.relu()[1].item()]).all()
    assert x.argmax().item() == 1
    assert x.maximum(0).isnan().tolist() == [False, True, False]
    assert np.isnan(x.sigmoid()[1].item()) and np.isnan(x.clip(0, 1)[1].item())


def test_sigmoid_neither_overflows_nor_cancels() -> None:
    x = np.array([-800.0, -40.0, 0.0, 40.0, 800.0])
    with np.errstate(over="ignore"):
        want = ref.sigmoid(x)
    np.testing.assert_allclose(tx.tensor(x).sigmoid().numpy(), want, rtol=1e-15)
    assert tx.tensor(-40.0).sigmoid().item() > 0
