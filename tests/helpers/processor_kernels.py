"""A kernel of every kind, for tests that look at what is made for other processors and systems."""

from __future__ import annotations

from tinygrad_tx.backends.kernels.instructions import Instr
from tinygrad_tx.backends.kernels.kinds import (
    Attention,
    AttentionGrad,
    CheckIndex,
    ColumnReduce,
    DropoutMask,
    Input,
    Kernel,
    Matmul,
    Output,
    Pack,
    RowProgram,
    ScatterAdd,
)

_LOAD = Instr("load", (), "float32", 0)
KERNELS: tuple[Kernel, ...] = (
    RowProgram(
        1,
        (Input("float32", "unit"),),
        (
            _LOAD,
            Instr("max", (0,), "float32"),
            Instr("sub", (0, 1), "float32"),
            Instr("exp", (2,), "float32"),
            Instr("sum", (3,), "float32"),
            Instr("div", (3, 4), "float32"),
            Instr("argmax", (0,), "int64"),
        ),
        (Output(5, "unit"), Output(4, "same"), Output(6, "same")),
    ),
    RowProgram(
        1,
        (Input("float32", "any"),),
        (
            _LOAD,
            Instr("sin", (0,), "float32"),
            Instr("pow", (1, 0), "float32"),
            Instr("remainder", (2, 0), "float32"),
            Instr("tanh", (3,), "float32"),
            Instr("erf", (4,), "float32"),
        ),
        (Output(5, "any"),),
    ),
    ColumnReduce(
        1, (Input("float32", "unit"),), (_LOAD, Instr("sum", (0,), "float32")), (Output(1, "unit"),)
    ),
    Pack("float32", 16),
    Pack("float32", 16, source="bfloat16"),
    Pack("float32", 16, rounded="float16"),
    Matmul("float32"),
    Matmul("float32", left="bfloat16", out="bfloat16"),
    Matmul("float32", left="float16", out="float16"),
    Matmul("float64", accumulate=True),
    Attention("float32", 0.125, "bool", False),
    AttentionGrad("float32", 0.125, "none", True),
    Attention("float32", 0.125, "float", False, "bfloat16"),
    AttentionGrad("float32", 0.125, "float", True, True, "float16"),
    DropoutMask(1 << 20),
    CheckIndex("int64", True),
    ScatterAdd("float32"),
)
