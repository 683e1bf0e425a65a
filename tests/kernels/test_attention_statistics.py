"""Attention with statistics and dropout, and its gradients of these, as the interpreter has them:
against NumPy, and the gradients against differences."""

from __future__ import annotations

import numpy as np
import pytest
from attention_case import Array, AttentionCase, documents, outputs, place, some

from tinygrad_tx.backends.arrays import numpy_random
from tinygrad_tx.backends.cpu.processor import Processor
from tinygrad_tx.backends.kernels.interpreter import run
from tinygrad_tx.backends.kernels.kinds import Attention, AttentionKeyGrad, AttentionQueryGrad

MACHINE = Processor("plain", 16)
KEY, STREAM = np.array(11), np.array(3)
DRAWN = [KEY.ctypes.data, STREAM.ctypes.data]
B, H, T, S, D = 2, 2, 5, 7, 4


def given(mask: str) -> Array | None:
    rng = np.random.default_rng(1)
    if mask == "bool":
        found = some((B, H, T, S))
        found[0, 0, 2] = False
        return found
    if mask == "bounds":
        return documents(B, T)
    return rng.standard_normal((B, H, T, S)) if mask == "float" else None


def out(case: AttentionCase, dropout: float, statistics: Array) -> Array:
    (found,) = outputs("float64", case.q.shape)
    masks = [] if case.mask is None else [case.mask]
    args = [*case.sizes, *place(case.q, case.k, case.v, found, *masks), statistics.ctypes.data]
    kernel = Attention("float64", case.scale, case.kind, case.causal, "", True, dropout)
    run(kernel, [*args, *(DRAWN if dropout else [])], MACHINE)
    return found


@pytest.mark.parametrize("dropout", [0.0, 0.25])
@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("mask", ["none", "bool", "float", "bounds"])
def test_attention_and_its_gradients(mask: str, group: int, dropout: float) -> None:
    case = AttentionCase(B, H, T, S, D, D, "float64", given(mask), mask == "none", group)
    statistics, delta = np.zeros((B, H, T)), np.zeros((B, H, T))
    y = out(case, dropout, statistics)
    p = case.weights()
    kept = numpy_random.bernoulli_keep(11, 3, dropout, p.shape) / (1 - dropout)
    np.testing.assert_allclose(y, (p * kept) @ case.wide(case.v), rtol=1e-10, atol=1e-12)
    assert (np.isposinf(statistics) == (p.sum(-1) == 0)).all()

    dq, dk, dv = outputs("float64", *(x.shape for x in (case.q, case.k, case.v)))
    dmask = [np.zeros((B, H, T, S))] if case.added else []
    masks = [] if case.mask is None else [case.mask]
    form = "float64", case.scale, case.kind, case.causal
    rows, drawn = [statistics.ctypes.data, delta.ctypes.data], DRAWN if dropout else []
    operands = place(case.q, case.k, case.v, y, case.g, dq)
    args = [*case.sizes, *operands, *rows, *place(*masks, *dmask), *drawn]
    run(AttentionQueryGrad(*form, case.added, dropout=dropout), args, MACHINE)
    np.testing.assert_allclose(delta, (case.g * y).sum(-1), rtol=1e-10, atol=1e-12)
    operands = place(case.q, case.k, case.v, case.g, dk, dv)
    args = [*case.sizes, *operands, *rows, *place(*masks), *drawn]
    run(AttentionKeyGrad(*form, dropout=dropout), args, MACHINE)

    if case.added:
        case.mask = np.array(case.mask)
    moved = [(case.q, dq), (case.k, dk), (case.v, dv)]
    for x, found in [*moved, *((case.mask, d) for d in dmask)]:
        assert x is not None
        way = np.random.default_rng(2).standard_normal(x.shape) * 1e-5
        x += way
        more = (out(case, dropout, statistics) * case.g).sum()
        x -= 2 * way
        less = (out(case, dropout, statistics) * case.g).sum()
        x += way
        np.testing.assert_allclose((found * 2 * way).sum(), more - less, rtol=1e-5, atol=1e-12)
