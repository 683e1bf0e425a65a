"""The writers of native code: for each kind of Kernel the function that writes it and the scratch
memory that a call takes, in one table read by library.py and target.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..kernels import kinds as k
from ..llvm import ir
from . import small
from .attention import attention
from .matmul import gemm
from .processor import Processor
from .rows import columns, rows


class _Writer(NamedTuple):
    write: Callable[[Any, ir.Module, str, Processor], None]
    scratch: Callable[[Any, Sequence[int], Processor], int] | None = None  # None: it takes none


_WRITERS: dict[type[k.Kernel], _Writer] = {
    k.Pack: _Writer(gemm.pack),
    k.Matmul: _Writer(gemm.matmul, gemm.matmul_scratch),
    k.Attention: _Writer(attention.attention, attention.attention_scratch),
    k.AttentionGrad: _Writer(attention.attention_grad, attention.attention_grad_scratch),
    k.RowProgram: _Writer(rows.row_program, rows.row_program_scratch),
    k.ColumnReduce: _Writer(columns.column_reduce),
    k.DropoutMask: _Writer(small.dropout_mask),
    k.CheckIndex: _Writer(small.check_index),
    k.ScatterAdd: _Writer(small.scatter_add),
}


def render(kernel: k.Kernel, module: ir.Module, name: str, target: Processor) -> None:
    """Add to the module the function `void @name(ptr args, i64 task, ptr scratch)`, which does one
    task of a call of the kernel. TypeError for a kind that has no native form (Opaque)."""
    _writer(kernel).write(kernel, module, name, target)


def scratch(kernel: k.Kernel, args: Sequence[int], target: Processor) -> int:
    """Bytes of scratch memory that each thread needs for a call with these arguments."""
    needs = _writer(kernel).scratch
    return needs(kernel, args, target) if needs else 0


def _writer(kernel: k.Kernel) -> _Writer:
    kind = type(kernel)
    if kind not in _WRITERS:
        raise TypeError(f"{kind.__name__} has no native form")
    return _WRITERS[kind]
