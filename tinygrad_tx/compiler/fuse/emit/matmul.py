"""Products: a packed right operand, and a times it.

In: Values and a node. Out: calls added to the Values. Called by fuse.py through KERNELS.
"""

from __future__ import annotations

from math import ceil, prod

from ....backends.kernels.arguments import MatmulArgs, Matrix, PackArgs, Packed, Product
from ....backends.kernels.kinds import Matmul, Pack
from ....backends.target import Cut
from ....node import Node
from ...schedule.layout import Shape, collapse
from ...schedule.records import Call, View, whole
from ..build import add, materialise, note_made, store_flat
from ..group import fresh
from ..values import Values


def fits(values: Values, node: Node) -> bool:
    """True if a product is of floats, and its batch axes collapse into two."""
    a, b = (values.layout(src)[0] for src in node.srcs)
    if not node.dtype.is_floating_point or _is_tall(b):
        return node.dtype.is_floating_point
    extents, _ = _batch(a, b, fresh(node.dtype.name, node.shape))
    return len(extents) <= 2


def emit(values: Values, node: Node) -> None:
    a, b = (materialise(values, src) for src in node.srcs)
    out = c = fresh(node.dtype.name, node.shape, node)
    if _is_tall(b):
        a = store_flat(values, node.srcs[0], (prod(a.shape[:-1]), a.shape[-1]))
        b = View(b.buffer, b.shape[-2:], b.strides[-2:], b.offset)
        c = whole(out.buffer, (a.shape[0], b.shape[-1]))
    (m, k), n = a.shape[-2:], b.shape[-1]
    extents, strides = _batch(a, b, c)
    lead = 2 - len(extents)
    b0, b1 = (*(1,) * lead, *extents)
    sa, sb, sc = ((*(0,) * lead, *s) for s in strides)
    a = a.broadcast((*c.shape[:-2], m, k))
    b = b.broadcast((*c.shape[:-2], k, n))
    rows, columns, panels = _tasks(values, node, m, n, k, b0 * b1)
    packed, sp = _pack(values, node, b, (b0, b1), sb, panels)
    left, right = Matrix(a.place, *sa, *a.strides[-2:]), Packed(packed.place, *sp)
    args = MatmulArgs(b0, b1, m, n, k, rows, columns, left, right, Product(c.place, *(*sc, n)))
    add(values, Call(Matmul(node.dtype.name), args, (a, packed), (c,), (node,)))
    note_made(values, node, out)


def _is_tall(b: View) -> bool:
    """True if all rows share one right operand: one tall product."""
    return prod(b.shape[:-2]) == 1


def _batch(a: View, b: View, c: View) -> tuple[Shape, list[Shape]]:
    """The batch axes of c, collapsed, and the strides of a, b and c along them."""
    batch = c.shape[:-2]
    stretched = (x.broadcast((*batch, *x.shape[-2:])) for x in (a, b, c))
    return collapse(batch, [x.strides[:-2] for x in stretched])


def _tasks(values: Values, node: Node, m: int, n: int, k: int, batch: int) -> Cut:
    """Rows and columns per task of a product, and panels per task of its packing. Where maps read
    it, a task has whole rows: then these can be its epilogue."""
    dtype = node.dtype.name
    full_rows = values.target.takes_epilogues(m, dtype) and all(
        user.op.kind in ("map", "reduce") for user in values.readers_of(node)
    )
    return values.target.cut(m, n, k, batch, dtype, full_rows=full_rows)


def _pack(
    values: Values,
    node: Node,
    b: View,
    batch: tuple[int, int],
    strides: tuple[int, ...],
    panels: int,
) -> tuple[View, tuple[int, int]]:
    """b as the product reads it; packed once for all products that share it."""
    k, n = b.shape[-2:]
    width = values.target.pack_width(node.dtype.name)
    b0, b1 = (e if s else 1 for e, s in zip(batch, strides, strict=True))  # repeats are not packed
    size = k * ceil(n / width) * width
    where = (size * b1 if b0 > 1 else 0, size if b1 > 1 else 0)
    key = (b.buffer, b.offset, b0, b1, strides, k, n, b.strides[-2:])
    if key not in values.packed:
        packed = fresh(node.dtype.name, (b0 * b1 * size,))
        matrix = Matrix(b.place, *strides, *b.strides[-2:])
        args = PackArgs(b0, b1, k, n, panels, matrix, Packed(packed.place, *where))
        add(values, Call(Pack(node.dtype.name, width), args, (b,), (packed,), (node,)))
        values.packed[key] = packed
    return values.packed[key], where
