"""Products: a packed right operand, and a times it.

In: Values and a node. Out: calls added to the Values. Called by fuse.py through KERNELS.
"""

from __future__ import annotations

from math import ceil, prod

from .... import ops
from ....backends.kernels.arguments import (
    GemmArgs,
    MatmulArgs,
    Matrix,
    PackArgs,
    Packed,
    Place,
    Product,
)
from ....backends.kernels.kinds import Gemm, Matmul, Pack
from ....dtypes import float32
from ....node import CAST, INPUT, Node
from ...schedule.layout import Shape, collapse
from ...schedule.records import Buffer, Call, View, whole
from ..body import copying
from ..build import add, copy_dense, materialise, note_made
from ..group import fresh, moved
from ..values import Values

_SHORTEST = 16  # columns: shorter runs are rather copied


def fits(values: Values, node: Node) -> bool:
    """True if a product is of floats, and its batch axes collapse into two."""
    a, b = (values.layout(src)[0] for src in node.srcs)
    if not node.dtype.is_floating_point or _is_tall(b):
        return node.dtype.is_floating_point
    extents, _ = _batch(a, b, fresh(node.dtype.name, node.shape))
    return len(extents) <= 2


def emit(values: Values, node: Node) -> None:
    out = fresh(node.dtype.name, node.shape, node)
    rounded = _rounded_input(values, node.srcs[1]) if values.target.packs else None
    b = materialise(values, node.srcs[1]) if rounded is None else rounded
    runs = _runs(values, node, b)
    if runs is None:
        a = materialise(values, node.srcs[0])
        if _is_tall(b) and _flat(a) is None and not _overlaps(a):
            copy_dense(values, node.srcs[0])
            a = values.places[node.srcs[0]]
        _product(values, node, a, b, out)
    else:
        sums = fresh("float32", node.shape, node) if node.dtype.is_half else out
        for i, (part, rest) in enumerate(runs):
            _product(values, node, part, rest, sums, accumulate=i > 0)
        if sums is not out:
            add(values, copying(sums, out, node))
    note_made(values, node, out)


def _product(
    values: Values, node: Node, a: View, b: View, out: View, accumulate: bool = False
) -> None:
    """A call that writes a b to out, or adds it to what is there. Its sums are float32 where
    operands have 16 bits."""
    sums = "float32" if node.dtype.is_half else node.dtype.name
    c, flat = out, _flat(a)
    if _is_tall(b):
        b = View(b.buffer, b.shape[-2:], b.strides[-2:], b.offset)
        if flat is not None:
            a, c = flat, whole(out.buffer, (flat.shape[0], b.shape[-1]))
    (m, k), n = a.shape[-2:], b.shape[-1]
    extents, strides = _batch(a, b, c)
    lead = 2 - len(extents)
    b0, b1 = (*(1,) * lead, *extents)
    sa, sb, sc = ((*(0,) * lead, *s) for s in strides)
    a = a.broadcast((*c.shape[:-2], m, k))
    b = b.broadcast((*c.shape[:-2], k, n))
    left, product = Matrix(a.place, *sa, *a.strides[-2:]), Product(c.place, *(*sc, n))
    kernel: Matmul | Gemm
    args: MatmulArgs[Place[Buffer]] | GemmArgs[Place[Buffer]]
    if values.target.packs:
        rows, columns, panels = values.target.cut(m, n, k, b0 * b1, sums)
        right, sp = _pack(values, node, b, (b0, b1), sb, panels)
        packed = Packed(right.place, *sp)
        kernel = Matmul(sums, accumulate, a.dtype, c.dtype)
        args = MatmulArgs(b0, b1, m, n, k, rows, columns, left, packed, product)
    else:
        wider, tf32 = c.dtype if c.dtype != a.dtype else "", "tf32" in node.attrs
        right, kernel = b, Gemm(a.dtype, accumulate, wider, tf32)
        args = GemmArgs(b0, b1, m, n, k, left, Matrix(b.place, *sb, *b.strides[-2:]), product)
    reads = (a, right, c) if accumulate else (a, right)
    add(values, Call(kernel, args, reads, (c,), (node,)))


# Windows -----------------------------------------------------------------------------------------


def _flat(a: View) -> View | None:
    """All rows of all matrices as those of one; None where strides cannot say it."""
    return a.reshape((prod(a.shape[:-1]), a.shape[-1]))


def _overlaps(a: View) -> bool:
    """True of windows that share elements: a copy would be larger than what it is made of. Their
    batch is at most of two axes."""
    steps = [(n - 1, abs(s)) for n, s in zip(a.shape, a.strides, strict=True) if n > 1]
    last = sum(n * s for n, s in steps)
    extents, _ = collapse(a.shape[:-2], [a.strides[:-2]])
    return last + 1 < prod(a.shape) and all(s for _, s in steps) and len(extents) <= 2


def _runs(values: Values, node: Node, b: View) -> list[tuple[View, View]] | None:
    """The left operand in runs of columns, which each lie in one stride, as the lines of a window
    do, and the rows of b that belong to each: where it is a reshape that would be copied, and
    adding up the products of the runs moves less memory than that. None otherwise."""
    a = node.srcs[0]
    if a.op is not ops.RESHAPE or a in values.places or not values.layout(a)[1]:
        return None
    view, new = values.layout(a.srcs[0])
    depth = a.shape[-1]
    split = None
    for axis in range(1, len(view.shape)):
        columns = prod(view.shape[axis:])
        count = depth // columns
        if split is None and not new and count * columns == depth:
            split = view.reshape((*a.shape[:-1], count, columns))
    rest = None if split is None else b.reshape((*b.shape[:-2], *split.shape[-2:], b.shape[-1]))
    if split is None or rest is None:
        return None
    product = fresh(node.dtype.name, node.shape)
    if len(_batch(_run(split, -2, 0), _run(rest, -3, 0), product)[0]) > 2:
        return None
    count, columns = split.shape[-2:]
    if columns < _SHORTEST or (count - 1) * b.shape[-1] > depth:
        return None
    there = materialise(values, a.srcs[0])
    split = View(there.buffer, split.shape, split.strides, there.offset)
    return [(_run(split, -2, i), _run(rest, -3, i)) for i in range(count)]


def _run(x: View, axis: int, i: int) -> View:
    """x at place i of an axis, counted from the last, without that axis."""
    at = len(x.shape) + axis
    shape, strides = ((*y[:at], *y[at + 1 :]) for y in (x.shape, x.strides))
    return View(x.buffer, shape, strides, x.offset + i * x.strides[at])


# Operands ----------------------------------------------------------------------------------------


def _rounded_input(values: Values, node: Node) -> View | None:
    """The view of an input whose rounding to 16 bits is the right operand, perhaps turned: so no
    copy is made of weights, which are rounded while they are packed. None for other operands."""
    *movements, below = values.below(node)
    if below not in values.deferred or below.op is not CAST or not below.dtype.is_half:
        return None
    *before, source = values.below(below.srcs[0])
    view = values.places.get(source)
    if view is None or source.op is not INPUT or source.dtype != float32:
        return None
    for step in reversed((*movements, *before)):
        view = view if view is None else moved(step, view)
    return view


def _is_tall(b: View) -> bool:
    """True if all rows share one right operand: one tall product."""
    return prod(b.shape[:-2]) == 1


def _batch(a: View, b: View, c: View) -> tuple[Shape, list[Shape]]:
    """The batch axes of c, collapsed, and the strides of a, b and c along them."""
    batch = c.shape[:-2]
    stretched = (x.broadcast((*batch, *x.shape[-2:])) for x in (a, b, c))
    return collapse(batch, [x.strides[:-2] for x in stretched])


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
    half = node.dtype.is_half
    dtype = "float32" if half else node.dtype.name
    rounded = node.dtype.name if half and b.dtype != node.dtype.name else ""
    width = values.target.pack_width(dtype)
    b0, b1 = (e if s else 1 for e, s in zip(batch, strides, strict=True))  # repeats are not packed
    size = k * ceil(n / width) * width
    where = (size * b1 if b0 > 1 else 0, size if b1 > 1 else 0)
    key = (b.buffer, b.offset, b0, b1, strides, k, n, b.strides[-2:], rounded)
    if key not in values.packed:
        packed = fresh(dtype, (b0 * b1 * size,))
        matrix = Matrix(b.place, *strides, *b.strides[-2:])
        args = PackArgs(b0, b1, k, n, panels, matrix, Packed(packed.place, *where))
        kernel = Pack(dtype, width, b.dtype, rounded)
        add(values, Call(kernel, args, (b,), (packed,), (node,)))
        values.packed[key] = packed
    return values.packed[key], where
