"""Random numbers of some rows of a batch are those that the rows have in the whole: drawn eagerly,
compiled, by the interpreter, and by the code of a GPU's thread."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinygrad_tx as tx
from tinygrad_tx import drawing, random
from tinygrad_tx.random import Rows

DRAWS: dict[str, Any] = {
    "rand": lambda shape: tx.rand(*shape),
    "randn": lambda shape: tx.randn(*shape, dtype=tx.float64),
    "randint": lambda shape: tx.randint(0, 1000, shape),
    "keep": lambda shape: drawing.bernoulli_keep(shape, 0.3),
    "dropout": lambda shape: tx.nn.functional.dropout(tx.ones(*shape), 0.3),
}


@pytest.mark.parametrize("mode", ["eager", "compiled", "interp", "replay"])
@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("inner", [(), (3,), (2, 5), (64,)])
def test_rows_have_their_numbers(
    name: str, inner: tuple[int, ...], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mode in ("interp", "replay"):
        monkeypatch.setenv("TX_COMPILE", mode)
    draw = DRAWS[name] if mode == "eager" else tx.compile(DRAWS[name])
    tx.manual_seed(5)
    whole = draw((9, *inner)).numpy()
    for first, count in ((0, 4), (4, 2), (5, 4), (7, 1)):
        tx.manual_seed(5)
        with random.drawing_for(Rows(first, count, 9)):
            part = draw((count, *inner)).numpy()
        np.testing.assert_array_equal(part, whole[first : first + count])


def test_rows_that_are_joined_with_other_axes() -> None:
    tx.manual_seed(5)
    whole = drawing.bernoulli_keep((12 * 5, 3), 0.5).numpy().reshape(12, 5, 3)
    tx.manual_seed(5)
    with random.drawing_for(Rows(7, 5, 12)):
        part = drawing.bernoulli_keep((5 * 5, 3), 0.5).numpy()
        other = drawing.bernoulli_keep((7, 3), 0.5)  # no batch: drawn alike on all ranks
    assert (part.reshape(5, 5, 3) == whole[7:]).all()
    tx.manual_seed(5)
    drawing.bernoulli_keep((1,), 0.5)
    assert (other.numpy() == drawing.bernoulli_keep((7, 3), 0.5).numpy()).all()


def test_rows_along_another_axis() -> None:
    """As recurrent layers have them."""
    tx.manual_seed(5)
    whole = drawing.dropped(tx.ones(4, 6, 3), 0.5, axis=1).numpy()
    tx.manual_seed(5)
    with random.drawing_for(Rows(2, 3, 6)):
        part = drawing.dropped(tx.ones(4, 3, 3), 0.5, axis=1).numpy()
    assert (part == whole[:, 2:5]).all()


def test_a_traced_function_sees_other_rows() -> None:
    draw = tx.compile(lambda: drawing.bernoulli_keep((4, 3), 0.5))
    found = []
    for rows in (None, Rows(4, 4, 12), Rows(8, 4, 12), None):
        tx.manual_seed(5)
        with random.drawing_for(rows):
            found.append(draw().numpy())
    assert (found[0] == found[3]).all()
    tx.manual_seed(5)
    whole = drawing.bernoulli_keep((12, 3), 0.5).numpy()
    assert (np.concatenate(found[:3]) == whole).all()
