"""Decisions of fuse, as TX_DEBUG=3 prints them: what becomes of a node, and why it is not in the
unit before it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_tx as tx


@pytest.fixture
def decided(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., list[str]]:
    """The decisions on a function's nodes, without numbers and places; all kinds of inputs and
    views are left out."""

    def lines(f: Callable[..., Any], *args: tx.Tensor) -> list[str]:
        monkeypatch.setenv("TX_DEBUG", "3")
        monkeypatch.setenv("TX_COMPILE", "interp")
        tx.compile(f)(*args)
        text = capsys.readouterr().err.partition("after fuse:\n")[2].partition("after outputs")[0]
        found = re.findall(r"^  %\d+ (.*?)(?:  \S.*)?$", text, re.MULTILINE)
        return [line for line in found if not re.search(r": (given|viewed|folded)$", line)]

    return lines


def test_maps_and_sums_of_rows_join(decided: Callable[..., list[str]]) -> None:
    assert decided(lambda x: (x.exp() * 2).sum(-1), tx.ones(30, 40)) == [
        "exp 30x40: deferred (cost 1)",
        "mul 30x40: deferred (cost 2)",
        "sum 30x1: begins a group of rows, [30] x 40 -> unit 0",
    ]


def test_other_rows_do_not_fit(decided: Callable[..., list[str]]) -> None:
    *_, last = decided(lambda x: x.sum(-1).sum(), tx.ones(30, 40))
    assert last == (
        "sum 1: begins a group of rows, [] x 30 "
        "(not in unit 0: its 30 rows of 40 columns do not fit) -> unit 1"
    )


def test_a_transposed_value_is_made_in_another_order(decided: Callable[..., list[str]]) -> None:
    def f(x: tx.Tensor) -> tuple[tx.Tensor, tx.Tensor]:
        y = (x.exp() / x.exp().sum(-1, keepdim=True)).sin()
        return y, y.T + y

    *_, last = decided(f, tx.ones(300, 300))
    assert "add 300x300" in last and "is made by it in another order, or by a later unit" in last


def test_a_product_takes_no_maps(decided: Callable[..., list[str]]) -> None:
    product, relu = decided(lambda x, w: (x @ w).relu(), tx.ones(200, 64), tx.ones(64, 64))
    assert product == "matmul 200x64: emits matmul -> unit 1"
    assert relu.startswith("relu 200x64: begins a group of rows, [200] x 64 (not in unit 1: ")


def test_what_no_kernel_does_is_opaque(decided: Callable[..., list[str]]) -> None:
    (line,) = decided(lambda x: x.cumsum(0), tx.ones(30, 40))
    assert line == "cumsum 30x40: opaque: called as it is: no kernel does this -> unit 0"


def doubled(x: tx.Tensor, move: Callable[[tx.Tensor], tx.Tensor] = lambda x: x) -> tx.Tensor:
    """2^60 x if `move` changes nothing: 60 additions, or 2^60 if what they share is written out."""
    for _ in range(60):
        x = x + move(x)
    return x


@pytest.mark.parametrize("shape", [(64,), (1000, 64)])
@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (lambda x: x * doubled(tx.arange(64).float()), np.arange(64) * 2.0**60),
        (lambda x: x * doubled(tx.arange(64).float(), lambda c: c.flip(0)), 63 * 2.0**59),
        (lambda x: doubled(x), 2.0**60),
        (lambda x: doubled(x.sin(), lambda c: c.flip(0)), np.sin(np.float32(1)) * 2.0**60),
    ],
    ids=["constant", "constant-flipped", "input", "input-flipped"],
)
def test_what_is_shared_is_not_judged_anew_for_each_reader(
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, ...],
    function: Callable[[tx.Tensor], tx.Tensor],
    wanted: Any,
) -> None:
    """A compiler that followed every path would not end."""
    monkeypatch.setenv("TX_COMPILE", "interp")
    found = tx.compile(function)(tx.ones(*shape)).numpy()
    np.testing.assert_allclose(found, np.broadcast_to(wanted, shape), rtol=1e-6)
