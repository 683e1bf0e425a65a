"""The table of scalar instructions, and those who have to agree with it."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

from tinygrad_tx.backends.kernels import interpreter_math
from tinygrad_tx.backends.kernels.instructions import REDUCTIONS, SCALARS, Instr, cost
from tinygrad_tx.backends.llvm import ir, scalars
from tinygrad_tx.compiler.fuse.symbolic import Namespace, Program, Symbol

BOOL = ("and", "or", "xor", "not")


def dtypes(op: str) -> tuple[str, ...]:
    """Of the arguments of a function."""
    number = "bool" if op in BOOL else "float32"
    return ("bool", number, number) if op == "where" else (number,) * SCALARS[op].arity


def result(op: str) -> str:
    return SCALARS[op].dtype or dtypes(op)[-1]


@pytest.mark.parametrize("op", SCALARS)
def test_code_is_written_for_each(op: str) -> None:
    b = ir.Module().function("f", [("ptr", "args")])
    args = [b.load(f"<4 x {scalars.register(d)}>", b.params[0]) for d in dtypes(op)]
    made = scalars.scalar(b, Instr(op, (), result(op)), args, dtypes(op))
    assert made.type == f"<4 x {scalars.register(result(op))}>"


@pytest.mark.parametrize("op", SCALARS)
def test_each_means_something_on_arrays(op: str) -> None:
    args = [np.ones(3, d) for d in dtypes(op)]
    made = interpreter_math.apply(op, result(op), *args)
    assert made.shape == (3,) and made.dtype == result(op)
    xp: Any = SCALARS[op].xp
    function = getattr(interpreter_math._XP, xp) if isinstance(xp, str) else xp
    assert function(*args).dtype == result(op), "the interpreter's cast changes nothing"


def test_a_forward_finds_each_by_its_name() -> None:
    for op, scalar in SCALARS.items():
        if not isinstance(scalar.xp, str):
            continue
        program = Program()
        args = [Symbol(program, program.add("load", (), d, i)) for i, d in enumerate(dtypes(op))]
        made = getattr(Namespace(program), scalar.xp)(*args)
        assert program.instrs[made.number] == Instr(op, (*range(len(args)),), result(op))


def test_nothing_is_written_that_the_table_does_not_have() -> None:
    assert set(scalars._FUNCTIONS) | set(scalars._SIGNED) == set(SCALARS)
    own = {name for name, _ in inspect.getmembers(Namespace, inspect.isfunction)}
    named = {s.xp for s in SCALARS.values() if isinstance(s.xp, str)}
    assert own - named == {"__init__", "__getattr__", "cast", "cast_like", "scalar"}
    assert not set(SCALARS) & {*REDUCTIONS, "load", "gather", "const", "col", "row", "cast"}


def test_costs() -> None:
    assert cost("load") == cost("add") == cost("sum") == 1 and cost("const") == 0
    assert cost("gather") == cost("exp") == 20
