"""Kernels on NumPy arrays: what the tests of kernels share.

An operand of a call is an array (views with any strides included) and becomes its address and its
strides in elements, as kinds.py wants them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from tinygrad_tx.backends.kernels.instructions import Instr
from tinygrad_tx.backends.kernels.kinds import ColumnReduce, Input, Output, RowProgram

Array = NDArray[Any]


def operand(array: Array, axes: int | None = None) -> list[int]:
    """Address and strides of an array; of its first `axes` axes."""
    assert all(stride % array.itemsize == 0 for stride in array.strides)
    strides = [stride // array.itemsize for stride in array.strides]
    return [array.ctypes.data, *strides[:axes]]


class Program:
    """Writes a row program down: each method adds an instruction and returns its number."""

    def __init__(self) -> None:
        self.inputs: list[Input] = []
        self.instrs: list[Instr] = []
        self.outputs: list[Output] = []

    def load(self, dtype: str, column: str = "unit") -> int:
        self.inputs.append(Input(dtype, column))
        return self.do("load", dtype, value=len(self.inputs) - 1)

    def gather(self, dtype: str, row: int, column: str = "unit") -> int:
        self.inputs.append(Input(dtype, column))
        return self.do("gather", dtype, row, value=len(self.inputs) - 1)

    def do(self, op: str, dtype: str, *args: int, value: Any = None) -> int:
        self.instrs.append(Instr(op, args, dtype, value))
        return len(self.instrs) - 1

    def store(self, instr: int, column: str = "unit", at: int = -1) -> None:
        self.outputs.append(Output(instr, column, at))

    def rows(self, outer: int) -> RowProgram:
        return RowProgram(outer, tuple(self.inputs), tuple(self.instrs), tuple(self.outputs))

    def columns(self, outer: int) -> ColumnReduce:
        return ColumnReduce(outer, tuple(self.inputs), tuple(self.instrs), tuple(self.outputs))


def row_args(domain: Sequence[int], arrays: Sequence[Array], rows_per_task: int = 3) -> list[int]:
    """Arguments of a RowProgram without `at`; arrays have the domain's shape (broadcast views)."""
    args = [*domain, rows_per_task]
    for array in arrays:
        args += operand(array)
    return args
