"""Prepacking: which operands are packed once and kept, and which at each run."""

from __future__ import annotations

from plan_case import floats, kinds, plan

import tinygrad_tx as tx


def test_an_operand_that_no_run_changes_is_packed_once() -> None:
    weight = floats(64, 32)
    found = plan(lambda x: x @ weight, floats(24, 64))
    assert len(found.prepacked) == 1 and "Pack" not in kinds(found)
    assert list(found.roles.values()).count("prepacked") == 1


def test_an_operand_that_the_run_changes_is_packed_at_each_run() -> None:
    weight = floats(64, 32)

    def f(x: tx.Tensor) -> tx.Tensor:
        y = x @ weight
        weight.assign(weight * 0.5)
        return y

    found = plan(f, floats(24, 64))
    assert not found.prepacked and kinds(found)["Pack"] == 1
    assert "prepacked" not in found.roles.values()


def test_a_value_that_the_run_computes_is_packed_at_each_run() -> None:
    weight = floats(64, 32)
    found = plan(lambda x: x @ (weight * 2).relu(), floats(24, 64))
    assert not found.prepacked and kinds(found)["Pack"] == 1


def test_products_that_share_an_operand_share_its_packing() -> None:
    weight = floats(64, 32)
    found = plan(lambda x, y: (x @ weight, y @ weight), floats(24, 64), floats(40, 64))
    assert len(found.prepacked) == 1
