"""Rewrite rules of users: registered, applied in every mode, held to their word, forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from modes import MODES, running

import tinygrad_tx as tx
from tinygrad_tx.compiler import check_rule, forget_rule, number, register_rule, replace
from tinygrad_tx.compiler.rewrite import registered
from tinygrad_tx.errors import CheckError, OpError


@pytest.fixture(autouse=True)
def _none_left() -> Iterator[None]:
    yield
    for rule in registered._Rules.all:
        forget_rule(rule.rule)


def log_of_exp(node: Any) -> Any:
    """log(exp(x)) -> x."""
    (x,) = node.srcs
    return x.srcs[0] if x.op.name == "exp" else None


def log_of_one_plus(node: Any) -> Any:
    """log(x + 1) -> log1p(x)."""
    (x,) = node.srcs
    if x.op.name == "add" and number(x.srcs[1]) == 1:
        return replace(node, lambda y: y.log1p(), x.srcs[0])
    return None


def f(x: tx.Tensor) -> tx.Tensor:
    return (x + 1).log() * 2


def ops(compiled: Any) -> list[str]:
    return [node.op.name for node in compiled.graph()]


@pytest.mark.parametrize("mode", MODES)
def test_it_is_applied_with_its_gradient(mode: str) -> None:
    register_rule(log_of_one_plus, "log", before_gradients=True)

    def step(x: tx.Tensor) -> Any:
        return tx.autograd.grad(f(x).sum(), x)[0]

    x = tx.tensor([1e-9, 0.5, 3.0], requires_grad=True)
    assert running(step, mode)(x).tolist() == pytest.approx([2.0, 4 / 3, 0.5])
    y = running(f, mode)(tx.tensor([1e-9]))
    assert y.item() == pytest.approx(2e-9 if mode in ("native", "interp") else 0.0)


def test_functions_are_traced_again_and_know_their_lines() -> None:
    compiled = tx.compile(f)
    x = tx.tensor([1.0])
    compiled(x)
    assert "log" in ops(compiled)
    register_rule(log_of_one_plus, "log")
    compiled(x)
    assert "log1p" in ops(compiled) and "log" not in ops(compiled)
    node = next(n for n in compiled.graph() if n.op.name == "log1p")
    assert "test_registered_rules.py" in node.line
    forget_rule(log_of_one_plus)
    compiled(x)
    assert "log" in ops(compiled)
    assert compiled.stats()["retraces"] == 1  # the first plan serves again


def test_its_test() -> None:
    x = tx.tensor([0.5, float("inf"), float("nan"), -3.0])
    assert check_rule(log_of_one_plus, f, x, ops=("log",), before_gradients=True)
    with pytest.raises(CheckError, match="log_of_one_plus has replaced nothing in <lambda>"):
        check_rule(log_of_one_plus, lambda x: x.log(), x, ops=("log",))
    # exp overflows, and what the rule makes does not.
    with pytest.raises(
        CheckError, match=r"with log_of_exp, result 0 .* is 1000.0 at \(0,\), and inf"
    ):
        check_rule(log_of_exp, lambda x: x.exp().log(), tx.tensor([1000.0]), ops=("log",))

    def endless(node: Any) -> Any:
        """Finds its own result again."""
        return replace(node, lambda y: (y * 1.5).log(), node.srcs[0])

    with pytest.raises(OpError, match="rule endless: it has replaced log 200 times in one place"):
        check_rule(endless, lambda x: (x * 2).log(), tx.tensor([1.0]), ops=("log",))
    with pytest.raises(ValueError, match="not registered"):
        forget_rule(endless)


def test_what_is_no_rule() -> None:
    with pytest.raises(ValueError, match=r"register_rule: no op 'logg'; did you mean log"):
        register_rule(log_of_exp, "logg")
    with pytest.raises(TypeError, match="rule must be a function, not 3"):
        register_rule(3)  # type: ignore[arg-type]

    def shapes(node: Any) -> Any:
        return replace(node, lambda x: x.sum(), node.srcs[0])

    register_rule(shapes, "log")
    with pytest.raises(OpError, match=r"rule shapes: it replaces log, float32 \(2,\), by .*\(\)"):
        tx.compile(f)(tx.ones(2))
    forget_rule(shapes)

    def breaking(node: Any) -> Any:
        return node.nothing

    register_rule(breaking, "log")
    with pytest.raises(AttributeError) as found:
        tx.compile(f)(tx.ones(2))
    assert "in the rewrite rule breaking, of a node of log" in found.value.__notes__

    def number_given(node: Any) -> Any:
        return 3

    forget_rule(breaking)
    register_rule(number_given, "log")
    with pytest.raises(OpError, match=r"rule number_given: it must give a node, .* not 3"):
        tx.compile(f)(tx.ones(2))
