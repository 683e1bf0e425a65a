"""The writers of kernels for a GPU: for each kind of Kernel what chooses the form of its code and
what writes it, in one table. Read by library.py and target.py."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

from ...errors import NoKernel
from ..kernels import kinds as k
from . import columns, products, rows, small
from .attention import forms, forward, gradients
from .choice import Choice
from .thread import Thread


class _Writer(NamedTuple):
    choose: Callable[[Any, Sequence[int]], Choice]
    write: Callable[[Any, Any, Thread], None]


_WRITERS: dict[type[k.Kernel], _Writer] = {
    k.RowProgram: _Writer(rows.choose, rows.row_program),
    k.ColumnReduce: _Writer(columns.choose, columns.column_reduce),
    k.Gemm: _Writer(products.choose, products.product),
    k.GemmEpilogue: _Writer(products.choose, products.product),
    k.Attention: _Writer(forms.choose, forward.attention),
    k.AttentionQueryGrad: _Writer(forms.choose_queries, gradients.query_grad),
    k.AttentionKeyGrad: _Writer(forms.choose_keys, gradients.key_grad),
    k.DropoutMask: _Writer(small.choose_mask, small.dropout_mask),
    k.CheckIndex: _Writer(small.choose_index, small.check_index),
    k.ScatterAdd: _Writer(small.choose_scatter, small.scatter_add),
}


def choose(kernel: k.Kernel, words: Sequence[int]) -> Choice:
    """The form of the code of a call, and the threads that run it. words: its arguments; addresses
    are bytes behind the beginning of an allocation. NoKernel where there is none: its kind has no
    form here, or it is too large."""
    return _writer(kernel).choose(kernel, words)


def write(kernel: k.Kernel, form: Hashable, t: Thread) -> None:
    """Write the code of one thread."""
    _writer(kernel).write(kernel, form, t)


def _writer(kernel: k.Kernel) -> _Writer:
    kind = type(kernel)
    if kind not in _WRITERS:
        raise NoKernel(f"{kind.__name__} has no form for a GPU")
    return _WRITERS[kind]
