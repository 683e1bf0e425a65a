"""Arguments of kernels by name: their words, what is read back of them, and what plans make."""

from __future__ import annotations

from typing import Any

import plan_case as pc
import pytest

import tinygrad_tx as tx
from tinygrad_tx.backends.kernels import arguments as a
from tinygrad_tx.backends.kernels import kinds as k
from tinygrad_tx.backends.kernels.instructions import Instr
from tinygrad_tx.nn import functional as F  # noqa: N812

INPUT, OUTPUT = k.Input("float32", "unit"), k.Output(0, "unit")
RIDES = k.RowProgram(
    2, (INPUT, k.Input("float32", "same")), (Instr("load", (), "float32", 0),), (OUTPUT,)
)
KEPT = k.Attention("float32", 1.0, "bool", False, statistics=True, dropout=0.5)
ADDED = k.AttentionQueryGrad("float32", 1.0, "float", False, dmask=True, dropout=0.5)
# No plan for a processor has them.
OF_GPUS = {k.Gemm, k.GemmEpilogue, k.AttentionQueryGrad, k.AttentionKeyGrad}
KERNELS: list[Any] = [
    k.RowProgram(2, (INPUT, INPUT), (), (OUTPUT, k.Output(0, "unit", at=1), OUTPUT)),
    k.RowProgram(1, (), (), (OUTPUT,)),
    k.ColumnReduce(3, (INPUT,), (), (OUTPUT, OUTPUT)),
    k.Pack("float32", 16),
    k.Matmul("float32"),
    k.Gemm("float32"),
    k.GemmEpilogue(k.Gemm("float32"), RIDES, 0),
    *(k.Attention("float32", 1.0, mask, False) for mask in ("none", "bool", "float")),
    *(k.AttentionGrad("float32", 1.0, mask, False) for mask in ("none", "bool", "float")),
    k.AttentionGrad("float32", 1.0, "float", False, dmask=True),
    k.DropoutMask(1),
    k.CheckIndex("int64", True),
    k.ScatterAdd("float32"),
    KEPT,
    ADDED,
    *(k.AttentionQueryGrad("float32", 1.0, mask, False) for mask in ("none", "bool")),
    *(k.AttentionKeyGrad("float32", 1.0, mask, False) for mask in ("none", "bool")),
    k.AttentionKeyGrad("float32", 1.0, "float", False, dropout=0.5),
]


def name(kernel: k.Kernel) -> str:
    return type(kernel).__name__


@pytest.mark.parametrize("kernel", KERNELS, ids=name)
def test_what_is_read_of_words_has_these_words(kernel: Any) -> None:
    numbers = a.words(kernel.layout)
    assert numbers == list(range(len(numbers)))
    given = [100 + n for n in numbers]
    args = a.read(kernel.layout, given)
    assert type(args) is type(kernel.layout) and a.words(args) == given
    assert a.read(kernel.layout, a.words(args)) == args


def test_every_kind_of_arguments_is_tried() -> None:
    tried = {type(kernel.layout).__name__ for kernel in KERNELS}
    assert tried == {name for name in vars(a) if name.endswith("Args")} - {"Args"}


def test_words_stand_where_the_kernels_code_has_them() -> None:
    """The order of words is part of the code that is kept on disk and of recorded plans."""
    at = k.Matmul.layout
    assert (at.b0, at.m, at.k, at.columns_per_task) == (0, 2, 4, 6)
    assert (at.a.place, at.a.row, at.a.column, at.b.place, at.c.place) == (7, 10, 11, 12, 15)
    rows = KERNELS[0].layout
    assert (rows.outer, rows.columns, rows.rows_per_task) == ((0, 1), 2, 3)
    assert [x.place for x in (*rows.inputs, *rows.outputs)] == [4, 8, 12, 16, 21]
    assert [x.at for x in rows.outputs] == [None, 20, None]
    epilogue = KERNELS[6].layout
    assert (epilogue.product.c.row, epilogue.program.outer) == (18, (19, 20))
    assert epilogue.program.outputs[0].column == 34
    assert KERNELS[7].layout.mask is None and KERNELS[8].layout.mask.place == 27
    assert k.CheckIndex.layout.report == 7
    kept, added = KEPT.layout, ADDED.layout
    assert (kept.statistics, kept.key, kept.stream) == (32, 33, 34)
    assert (added.statistics, added.delta, added.mask.place, added.dmask.place) == (37, 38, 39, 44)


def test_a_place_is_one_word() -> None:
    buffer = object()
    args = a.DropoutMaskArgs(
        5, 64, a.Place(buffer, 0), a.Place(buffer, 1).ahead(2), a.Place(buffer, 7)
    )
    assert a.words(args) == [5, 64, (buffer, 0), (buffer, 3), (buffer, 7)]


def step(x: tx.Tensor, index: tx.Tensor, cache: tx.Tensor, at: tx.Tensor) -> tx.Tensor:
    """Whose plan has every kind of kernel."""
    q = x.reshape(2, 1, 4, 8)
    y = F.dropout(F.scaled_dot_product_attention(q, q, q)) @ x.T
    cache[:, at] = y[0, 0, :2, 0].detach()
    loss = y.softmax(-1).sum() + x[index].sum() + (y * y).sum(0).sum(0).exp().sum()
    loss.backward()
    return x.detach().sort(-1)[0]


def test_a_plans_arguments_fit_their_kernels() -> None:
    x = tx.randn(8, 8, requires_grad=True)
    plan = pc.plan(step, x, tx.tensor([1, 2, 1]), tx.zeros(2, 3), tx.tensor(1))
    found = pc.calls(plan)
    for call in (*found, *plan.prepacked):
        if isinstance(call.kernel, k.Opaque):
            assert call.args == ()
            continue
        layout = call.kernel.layout
        assert type(call.args) is type(layout)
        assert a.read(layout, a.words(call.args)) == call.args
        places = {w.buffer for w in a.words(call.args) if isinstance(w, a.Place)}
        assert places == {view.buffer for view in (*call.reads, *call.writes)}
    tried = {type(x) for x in KERNELS} | {k.Opaque}
    assert {type(call.kernel) for call in found} == tried - OF_GPUS
