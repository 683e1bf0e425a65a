"""Forms: how calls of attention are cut and multiplied.

In: a kernel and the words of a call. Out: a Choice, whose form says what the code is made for; for a
thread of it, its Products. Called by writers.py, and by forward.py and gradients.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...kernels.kinds import Attention, AttentionKeyGrad, AttentionQueryGrad
from ..choice import Choice, limited
from ..thread import Thread
from . import exact
from .exact import Exact
from .products import Products

_FEW = 16  # rows of the smallest tile
_AT_MOST = 1 << 14  # registers' worth of sums that a block keeps


class Form(NamedTuple):
    """Without tensor cores. rows: of a tile. widths: of the sums of a row, powers of 2 that are wide
    enough."""

    rows: int
    widths: tuple[int, ...]

    @property
    def threads(self) -> int:
        return exact.THREADS

    def products(self, t: Thread, dtype: str) -> Products:
        return Exact(t, dtype, self.rows, self.widths)


def choose(kernel: Attention, words: Sequence[int]) -> Choice:
    at = kernel.layout
    form = _form(kernel.dtype, words[at.t], words[at.d_k], words[at.d_v], (words[at.d_v],))
    return _choice(form, words[at.b] * words[at.h], words[at.t])


def choose_queries(kernel: AttentionQueryGrad, words: Sequence[int]) -> Choice:
    at = kernel.layout
    form = _form(kernel.dtype, words[at.t], words[at.d_k], words[at.d_v], (words[at.d_k],))
    return _choice(form, words[at.b] * words[at.h], words[at.t])


def choose_keys(kernel: AttentionKeyGrad, words: Sequence[int]) -> Choice:
    at = kernel.layout
    widths = words[at.d_k], words[at.d_v]
    form = _form(kernel.dtype, words[at.s], *widths, widths)
    return _choice(form, words[at.b] * (words[at.h] // words[at.group]), words[at.s])


def _choice(form: Form, heads: int, rows: int) -> Choice:
    return Choice(form, form.threads, limited(heads * -(-rows // form.rows)))


def _form(dtype: str, count: int, d_k: int, d_v: int, sums: Sequence[int]) -> Form:
    """count: of rows. sums: how many columns a row has sums of."""
    wide = max(map(_wide_enough, (d_k, d_v)))
    assert wide, "heads have columns"
    widths = tuple(map(_wide_enough, sums))
    size = 2 if dtype == "float64" else 1
    rows = 64 // size
    while rows > _FEW and (rows >= 2 * count or rows * sum(widths) * size > _AT_MOST):
        rows //= 2
    return Form(rows, widths)


def _wide_enough(columns: int) -> int:
    """The width of a row of sums for a matrix of so many columns. ValueError beyond 256."""
    for width in (32, 64, 128, 256):
        if columns <= width:
            return width
    raise ValueError(f"attention on a GPU takes heads of up to 256 columns, not {columns}")
