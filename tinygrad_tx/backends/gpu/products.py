"""Products for a GPU: which of the writers makes the code of a Gemm kernel, or of one with its
epilogue.

In: the kernel, the words of a call. Out: the form of its code, and the code. Called by writers.py.
What is rounded before it is multiplied (16 bits, tf32) goes to tensor cores, all else is added up
in the order of every other machine.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...dtypes import ALL
from ..kernels.kinds import Gemm
from . import gemm, tensor_core
from .choice import Choice, require_counted
from .thread import Thread
from .tile import Product, gemm_of

Form = gemm.Form | tensor_core.Form
_LEAST = 16, 64  # rows and columns of the smallest tile


def choose(kernel: Product, words: Sequence[int]) -> Choice:
    """The form of a call's code. words: addresses are offsets of what is aligned."""
    of = gemm_of(kernel)
    _require_counted(of, words)
    return gemm.choose(kernel, words) if of.exact else tensor_core.choose(kernel, words)


def _require_counted(of: Gemm, words: Sequence[int]) -> None:
    at = of.layout
    m, n, k, b0, b1 = (words[i] for i in (at.m, at.n, at.k, at.b0, at.b1))
    rows, columns = _LEAST
    tiles = b0 * b1 * -(-m // rows) * -(-n // columns)
    require_counted("a product", rows=b0 * b1 * m, columns=n, terms=k, tiles=tiles)
    if not of.exact:
        size = max(m, n, k) * ALL[of.dtype].itemsize
        require_counted("a product on tensor cores", bytes_along_an_axis=size)


def product(kernel: Product, form: Form, t: Thread) -> None:
    """Write the code of a product, and of what is computed of c before it is written."""
    if isinstance(form, gemm.Form):
        gemm.gemm(kernel, form, t)
    else:
        tensor_core.gemm(kernel, form, t)
