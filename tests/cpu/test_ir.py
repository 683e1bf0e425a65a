"""Functions of LLVM IR: called by the names of their parameters, checked as the code is written."""

from __future__ import annotations

import pytest

from tinygrad_tx.backends.llvm import ir
from tinygrad_tx.backends.llvm.ir import Function, Module, integer


def half(module: Module) -> Function:
    if found := module.find("half"):
        return found
    b = module.function("half", [("i64", "x"), ("ptr noalias", "to")], "i64", internal=True)
    b.end(b.binary("sdiv", b.params[0], integer(2)))
    return b.function


def test_arguments_go_by_name_in_any_order() -> None:
    module = Module()
    b = module.function("f", [("ptr", "place"), ("i64", "n")], "i64")
    place, n = b.params
    b.end(half(module)(b, to=place, x=n))
    assert "call i64 @half(i64 %n, ptr %place)" in module.text()


def test_a_function_is_added_once() -> None:
    module = Module()
    assert module.find("half") is None
    assert half(module) == half(module)
    assert module.text().count("define") == 1


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"x": integer(1)},
        {"x": integer(1), "to": integer(2)},
        {"x": integer(1), "place": ir.Value("ptr", "null")},
        {"x": integer(1), "to": ir.Value("ptr", "null"), "more": integer(3)},
    ],
)
def test_wrong_arguments_are_refused(given: dict[str, ir.Value]) -> None:
    module = Module()
    b = module.function("f", [])
    with pytest.raises(TypeError, match="half takes"):
        half(module)(b, **given)
