"""model.summary(): parameters, shapes, FLOPs by hand, activations; and that nothing is changed."""

from __future__ import annotations

from typing import Any

import pytest

import tinygrad_tx as tx
from tinygrad_tx import nn
from tinygrad_tx.errors import UserError
from tinygrad_tx.models import Transformer, TransformerConfig

X = tx.ones(2, 7, 16)
# Modules with their inputs, and a hand's count of the operations in a call.
COUNTED: dict[str, tuple[Any, tuple[tx.Tensor, ...], int]] = {
    "linear": (nn.Linear(3, 5), (tx.ones(4, 3),), 2 * 4 * 3 * 5),
    "linear, batches": (nn.Linear(16, 3), (X,), 2 * 14 * 16 * 3),
    # Four projections, the scores of 4 heads of 4 columns, and the sums of values.
    "attention": (
        nn.MultiHeadAttention(16, 4),
        (X, X, X),
        4 * 2 * 14 * 16 * 16 + 2 * 2 * 4 * 7 * 7 * 4 * 2,
    ),
    "conv1d": (nn.Conv1d(3, 4, 5), (tx.ones(2, 3, 12),), 2 * 2 * 4 * 8 * 3 * 5),
    "conv2d": (nn.Conv2d(3, 8, 3, padding=1), (tx.ones(2, 3, 10, 9),), 2 * 2 * 8 * 90 * 27),
    "groups and steps": (
        nn.Conv2d(4, 8, 3, groups=2, stride=2),
        (tx.ones(2, 4, 11, 11),),
        2 * 2 * 8 * 25 * 2 * 9,
    ),
    # Four gates of each step: of the input, and of what was before.
    "lstm": (nn.LSTM(6, 7), (tx.ones(5, 2, 6),), 2 * 5 * 2 * (6 + 7) * 4 * 7),
    "gru, both ways": (nn.GRU(6, 7, bidirectional=True), (tx.ones(5, 2, 6),), 2 * 2 * 10 * 13 * 21),
}


@pytest.mark.parametrize("name", COUNTED)
def test_flops_are_those_of_a_hand(name: str) -> None:
    model, inputs, flops = COUNTED[name]
    found = model.summary(*inputs)
    assert found.flops == flops
    assert found.parameters == sum(p.numel() for p in model.parameters())


class Twice(nn.Module):
    """One layer called twice, a weight that two have, a view, a product of its own."""

    def __init__(self) -> None:
        self.inner = nn.Linear(4, 4, bias=False)
        self.again = self.inner
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.inner.weight
        self.dropout = nn.Dropout(0.5)
        self.tied.bias.requires_grad_(False)

    def forward(self, x: tx.Tensor) -> dict[str, tx.Tensor]:
        x = self.dropout(self.again(self.inner(x)))
        return {"y": self.tied(x), "z": (x @ x.mT).reshape(9)}


def test_what_is_shared_counts_once() -> None:
    rows = {row.path: row for row in Twice().summary(tx.ones(3, 4))}
    assert list(rows) == ["", "inner", "tied", "dropout"]
    assert [row.parameters for row in rows.values()] == [20, 16, 4, 0]
    assert [row.learnt for row in rows.values()] == [16, 16, 0, 0]
    assert (rows["tied"].elsewhere, rows["inner"].calls, rows["tied"].calls) == (16, 2, 1)
    layer = 2 * 3 * 4 * 4
    assert [row.flops for row in rows.values()] == [3 * layer + 2 * 3 * 3 * 4, 2 * layer, layer, 0]
    # Each call of a layer hands on 3 x 4 floats, and the whole its 3 x 3; dropout is off.
    assert [row.activations for row in rows.values()] == [4 * (3 * 12 + 9), 96, 48, 0]
    assert rows[""].outputs == ((3, 4), (9,)) and rows["inner"].outputs == ((3, 4),)


def test_without_inputs_it_is_of_parameters_alone() -> None:
    found = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).summary()
    assert [row.parameters for row in found] == [32, 20, 0, 12] and found["0"].bytes == 80
    assert found.flops is found.activations is found["1"].calls is found["1"].outputs is None
    assert str(found).splitlines() == [
        "module                        parameters  bytes",
        "Sequential                            32  128 B",
        "  0: Linear(3, 5, bias=True)          20   80 B",
        "  1: ReLU",
        "  2: Linear(5, 2, bias=True)          12   48 B",
        "",
        "32 parameters, 128 B",
    ]


def test_a_tree_and_its_depth() -> None:
    config = TransformerConfig(
        vocab_size=20, d_model=8, n_heads=2, d_ff=16, n_encoder_layers=2, n_decoder_layers=1
    )
    model, ids = Transformer(config), tx.ones(2, 5, dtype=tx.int64)
    found = model.summary(ids, ids)
    assert [row.path for row in found] == [path for path, _ in model.named_modules()]
    for row in found:
        inside = [r for r in found if row.path in (r.path.rpartition(".")[0], "") and r is not row]
        inside = [r for r in inside if r.depth == row.depth + 1]
        for name in ("parameters", "flops", "activations"):
            assert getattr(row, name) >= sum(getattr(r, name) for r in inside)
    assert found.parameters == sum(p.numel() for p in model.parameters())
    short = model.summary(ids, ids, depth=1)
    assert {row.depth for row in short} == {0, 1} and short.flops == found.flops
    assert len(model.summary(depth=0)) == 1
    for wrong in (-1, True, 1.0):
        with pytest.raises(UserError, match="depth must be a number from 0 up"):
            model.summary(ids, ids, depth=wrong)


def test_nothing_is_changed() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            self.norm, self.dropout = nn.BatchNorm1d(3), nn.Dropout(0.5)
            self.register_buffer("calls", tx.zeros(()))

        def forward(self, x: tx.Tensor) -> tx.Tensor:
            self.calls += 1
            self.seen = x
            return self.dropout(self.norm(x))

    model, x = Counting(), tx.ones(4, 3, requires_grad=True)
    heard: list[Any] = []
    model.norm.register_forward_hook(lambda *args: heard.append(args))
    model.dropout.eval()
    before, drawn = (
        {name: t.tolist() for name, t in model.state_dict().items()},
        tx.random.get_state(),
    )
    attributes = [dict(vars(module)) for module in model.modules()]
    found = model.summary(x)
    assert found["norm"].calls == 1 and len(heard) == 1
    assert {name: t.tolist() for name, t in model.state_dict().items()} == before
    assert [dict(vars(module)) for module in model.modules()] == attributes
    assert [m.training for m in model.modules()] == [True, True, False]
    assert tx.random.get_state() == drawn and x.grad is None


def test_a_call_that_asks_for_values() -> None:
    class Asking(nn.Module):
        def __init__(self) -> None:
            self.layer = nn.Linear(2, 2)
            self.register_buffer("calls", tx.zeros(()))

        def forward(self, x: tx.Tensor) -> tx.Tensor:
            self.calls += 1
            return self.layer(x) if x.sum().item() > 0 else x

    model = Asking()
    found = model.summary(tx.ones(3, 2))
    assert found.flops is None and found["layer"].outputs == ((3, 2),)
    assert "are not known: it cannot be recorded: .item()" in str(found) and "?" in str(found)
    assert model.calls.item() == 0
    with pytest.raises(Exception, match="Linear"):
        nn.Linear(3, 3).summary(tx.ones(2, 2))


def test_it_shows_itself_in_a_notebook() -> None:
    class Odd(nn.Linear):
        def describe(self) -> str:
            return "<b>"

    shown = nn.Sequential(Odd(2, 2)).summary(tx.ones(1, 2))._repr_html_()
    assert shown.startswith("<table>") and "&lt;b&gt;" in shown and "<b>" not in shown
