"""Forms: how calls of attention are cut, and with what they are multiplied.

In: a kernel and the words of a call. Out: a Choice, whose form says what the code is made for; for
a thread of it, its Products. Called by writers.py, and by forward.py and gradients.py.

What is rounded before it is multiplied (16 bits, tf32) goes to tensor cores where registers and
shared memory hold its tiles; all else is multiplied without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ....dtypes import ALL
from ....errors import NoKernel
from ...kernels.arguments import Matrix
from ...kernels.kinds import Attention, AttentionKeyGrad, AttentionQueryGrad
from ..choice import Choice, limited, require_counted
from ..thread import PIECE, Thread
from . import exact
from .exact import Exact
from .products import Products
from .tensor import Layout, Tensor

_Kernel = Attention | AttentionQueryGrad | AttentionKeyGrad
_FEW = 16  # rows of the smallest tile
_MOST = 1 << 14  # registers of sums that all threads of a block have room for
_WIDTHS = 32, 64, 128, 256  # of heads


class Form(NamedTuple):
    """rows: of a tile. widths: of the sums of a row, powers of 2 that are wide enough. layout: on
    tensor cores. resident: as of Thread. fours: True if the number of keys is a multiple of 4, and
    dropout asks."""

    rows: int
    widths: tuple[int, ...]
    layout: Layout | None = None
    resident: int = 1
    fours: bool = False

    @property
    def threads(self) -> int:
        return self.layout.threads if self.layout else exact.THREADS

    def products(self, t: Thread, dtype: str) -> Products:
        t.resident = self.resident
        return Tensor(t, self.layout) if self.layout else Exact(t, dtype, self.rows, self.widths)


def choose(kernel: Attention, words: Sequence[int]) -> Choice:
    at, few = kernel.layout, words[kernel.layout.t] <= 64
    k, v = _widths(kernel, words)
    blocks, columns = (2 if max(k, v) <= 64 and kernel.mask in ("none", "bounds") else 1), 64
    if kernel.tf32:
        blocks, columns = (1, 64) if max(k, v) <= 64 else (1, 32)
    operands = (at.q, at.k, at.v), (at.out,)
    form = _form(
        *(kernel, words, words[at.t], (v,), operands),
        *(1 if few else blocks, columns, (k,), (k, v)),
    )
    if not form.layout and v <= 64 and kernel.dtype == "float32":
        form = form._replace(resident=2)
    return _cut(kernel, words, form, words[at.b] * words[at.h], words[at.t])


def choose_queries(kernel: AttentionQueryGrad, words: Sequence[int]) -> Choice:
    at = kernel.layout
    k, v = _widths(kernel, words)
    operands = (at.q, at.k, at.v, at.g), (at.dq,)
    small = max(k, v) <= 64
    columns = 64 if max(k, v) <= (32 if kernel.tf32 else 64) else 32
    form = _form(
        *(kernel, words, words[at.t], (k,), operands), *(1, columns, (k, v), (v, k)),
        kept=small or not (kernel.dropout or kernel.mask == "bool"),
        fits=small or not kernel.tf32,
    )  # fmt: skip
    return _cut(kernel, words, form, words[at.b] * words[at.h], words[at.t])


def choose_keys(kernel: AttentionKeyGrad, words: Sequence[int]) -> Choice:
    at = kernel.layout
    k, v = _widths(kernel, words)
    operands = (at.q, at.k, at.v, at.g), (at.dk, at.dv)
    small = max(k, v) <= 64
    columns = 64 if max(k, v) <= 32 and kernel.mask == "none" and not kernel.tf32 else 32
    if kernel.dropout:  # its bits are four for each of a thread's columns, of which a word has room
        columns = 16 if kernel.tf32 and max(k, v) > 32 else 32
    form = _form(
        *(kernel, words, words[at.s], (k, v), operands), *(1, columns, (k, v), (k, v)),
        kept=small and not kernel.tf32, fits=small or not kernel.tf32,
    )  # fmt: skip
    heads = words[at.b] * (words[at.h] // words[at.group])
    return _cut(kernel, words, form, heads, words[at.s])


def _widths(kernel: _Kernel, words: Sequence[int]) -> tuple[int, int]:
    """Of queries and keys, and of values: powers of 2 that are wide enough. NoKernel beyond the
    widest."""
    at = kernel.layout
    found = []
    for columns in (words[at.d_k], words[at.d_v]):
        if columns > _WIDTHS[-1]:
            raise NoKernel(
                f"attention on a GPU takes heads of up to {_WIDTHS[-1]} columns, not {columns}"
            )
        found.append(next(width for width in _WIDTHS if columns <= width))
    return found[0], found[1]


def _cut(kernel: _Kernel, words: Sequence[int], form: Form, heads: int, rows: int) -> Choice:
    """heads: each of which has tiles of so many rows."""
    at, tiles = kernel.layout, heads * -(-rows // form.rows)
    all_heads = words[at.b] * words[at.h]
    require_counted(
        "attention", heads=all_heads, queries=words[at.t], keys=words[at.s], tiles=tiles
    )
    return Choice(form, form.threads, limited(tiles))


def _form(
    kernel: _Kernel,
    words: Sequence[int],
    count: int,
    sums: tuple[int, ...],
    operands: tuple[Sequence[Matrix[int]], Sequence[Matrix[int]]],
    blocks: int,
    columns: int,
    staying: tuple[int, ...],
    moving: tuple[int, int],
    kept: bool = True,
    fits: bool = True,
) -> Form:
    """count: of rows. operands: those that are multiplied, and results. fits: False where tensor
    cores would take too many registers. The others are as of Layout."""
    half, fours = ALL[kernel.stored].is_half, kernel.dropout > 0 and words[kernel.layout.s] % 4 == 0
    if (half or kernel.tf32) and fits and max(*staying, *moving) <= 128:
        kind = kernel.stored if half else "tf32"
        read, written = operands
        copy = _aligned(kernel, words, read, (PIECE, 8, 4))
        pairs = _aligned(kernel, words, written, (2 * ALL[kernel.stored].itemsize,)) > 0
        pairs &= all(words[n] % 2 == 0 for n in (kernel.layout.d_k, kernel.layout.d_v))
        layout = Layout(kind, blocks, columns, staying, moving, kept, copy, pairs)
        return Form(layout.rows, sums, layout, fours=fours)
    size = 2 if kernel.dtype == "float64" else 1
    rows = 64 // size
    while rows > _FEW and (rows >= 2 * count or rows * sum(sums) * size > _MOST):
        rows //= 2
    return Form(rows, sums, fours=fours)


def _aligned(
    kernel: _Kernel, words: Sequence[int], matrices: Sequence[Matrix[int]], sizes: Sequence[int]
) -> int:
    """The first of some sizes in bytes to which all rows of some matrices are aligned; 0 where it
    is none. Addresses are offsets of what is aligned."""
    at, bytes = kernel.layout, ALL[kernel.stored].itemsize
    steps = []
    for matrix in matrices:
        steps.append(words[matrix.place])
        strides = (at.b, matrix.b0), (at.h, matrix.b1), (at.t, matrix.row), (at.s, matrix.row)
        steps += [words[stride] * bytes for extent, stride in strides if words[extent] > 1]
    return next((size for size in sizes if all(n % size == 0 for n in steps)), 0)
