"""simplify: rules that drop, merge and fold nodes, applied after gradients have been taken.

In: roots. Out: roots with the same values, but for rounding where a rule says so. Each rule is
named by what it does, and its docstring shows before -> after. Called through pipeline.py;
rewrite/lift/idioms.py uses BEFORE_GRADIENTS, the rules that gradients may be taken after.
"""

from __future__ import annotations

from math import copysign, prod
from typing import Any

from ... import ops
from ...backends import get
from ...dtypes import DType, bool_, float64
from ...node import CAST, CONST, REBOUND, Node, execute
from ...rules import Spec, broadcast_shape
from .engine import Roots, Rule, about, rewrite, use
from .registered import registered

_MOVES = (ops.RESHAPE, ops.BROADCAST, ops.PERMUTE, ops.SLICE, ops.FLIP, ops.WINDOWS)
_COMPARE = (ops.EQ, ops.NE, ops.LT, ops.LE, ops.GT, ops.GE)
_EXACT = 2**24  # float32 holds all integers up to here


def simplify(roots: Roots) -> Roots:
    """The pass. Gradients can not be taken of its result: it removes detached copies."""
    return rewrite(roots, (*BEFORE_GRADIENTS, *RULES, *registered(before_gradients=False)))


def number(node: Node) -> Any:
    """The Python number that every element of node is, rounded to its dtype; None if not known."""
    if node.op is not CONST and node.op is not ops.FULL:
        return None
    return _python(node.dtype.scalar(node.attrs["value"]), node.dtype)


def _python(value: Any, dtype: DType) -> Any:
    return float(value) if dtype.kind == "f" else int(value) if dtype.kind == "i" else bool(value)


def filled(value: Any, like: Node) -> Node:
    """A number as a node of like's shape and dtype."""
    attrs = {"value": value, "dtype": like.dtype, "device": like.device}
    if not like.shape:
        return use(CONST, (), attrs, like=like)
    return use(ops.FULL, (), {"shape": like.shape, **attrs}, like=like)


# Movement --------------------------------------------------------------------------------------


@about(ops.RESHAPE)
def merge_reshapes(node: Node) -> Node | None:
    """reshape(reshape(x)) -> the outer reshape of x; a reshape to x's own shape -> x."""
    match node:
        case Node(op=ops.RESHAPE, srcs=(x,)):
            if x.shape == node.shape:
                return x
            if x.op is ops.RESHAPE:
                return use(ops.RESHAPE, x.srcs, node.attrs, like=node)
    return None


@about(ops.PERMUTE)
def merge_permutes(node: Node) -> Node | None:
    """permute(permute(x)) -> one permute by the composed order; a permute by the identity -> x."""
    match node:
        case Node(op=ops.PERMUTE, srcs=(x,), attrs={"order": order}):
            if order == tuple(range(node.ndim)):
                return x
            if x.op is ops.PERMUTE:
                inner = x.attrs["order"]
                both = {"order": tuple(inner[i] for i in order)}
                return use(ops.PERMUTE, x.srcs, both, like=node)
    return None


@about(ops.BROADCAST)
def merge_broadcasts(node: Node) -> Node | None:
    """broadcast(broadcast(x)) -> the outer broadcast of x; a broadcast to x's own shape -> x."""
    match node:
        case Node(op=ops.BROADCAST, srcs=(x,)):
            if x.shape == node.shape:
                return x
            if x.op is ops.BROADCAST:
                return use(ops.BROADCAST, x.srcs, node.attrs, like=node)
    return None


def drop_broadcast(node: Node) -> Node | None:
    """add(broadcast(x), y) -> add(x, y) where elementwise broadcasting gives the same shape."""
    if node.op.kind != "map" or not any(src.op is ops.BROADCAST for src in node.srcs):
        return None
    srcs = list(node.srcs)
    for i, src in enumerate(srcs):
        if src.op is ops.BROADCAST:
            srcs[i] = src.srcs[0]
            if broadcast_shape("", *(s.shape for s in srcs)) != node.shape:
                srcs[i] = src
    if all(new is old for new, old in zip(srcs, node.srcs, strict=True)):
        return None
    return use(node.op, tuple(srcs), node.attrs, like=node)


@about(*_MOVES)
def fold_movement(node: Node) -> Node | None:
    """A movement op of a known number, such as reshape(full(2)) -> full(2) of the new shape."""
    value = number(node.srcs[0])
    return None if value is None else filled(value, node)


def map_before_channels(node: Node) -> Node | None:
    """relu(permute(x)), permute(x) * permute(y), permute(x) * 2 -> the permute of the map, where
    that brings the last axis, the channels, before the places: what lies between two convolutions
    is computed where their channels are last. Other permutes stay, for a reduction may follow that
    the map is one kernel with."""
    if node.op.kind != "map" or not isinstance(node.spec, Spec):
        return None
    if not any(_brings_channels(src) for src in node.srcs):
        return None
    order = (0, node.ndim - 1, *range(1, node.ndim - 1))
    srcs = []
    for src in node.srcs:
        if _brings_channels(src) and src.shape == node.shape:
            srcs.append(src.srcs[0])
        elif prod(src.shape) == 1:
            single = src if not src.shape else use(ops.RESHAPE, (src,), {"shape": ()}, like=node)
            srcs.append(single)
        elif number(src) is not None:
            attrs = {"value": number(src), "dtype": src.dtype, "device": src.device}
            srcs.append(use(CONST, (), attrs, like=node))
        else:
            return None
    made = use(node.op, tuple(srcs), node.attrs, like=node)
    return use(ops.PERMUTE, (made,), {"order": order}, like=node)


@about(ops.PAD, ops.SLICE)
def edges_before_channels(node: Node) -> Node | None:
    """pad(permute(x)), slice(permute(x)) -> the permute of the pad or slice, as for maps."""
    (x,) = node.srcs
    if not _brings_channels(x):
        return None
    order = x.attrs["order"]
    name = "widths" if node.op is ops.PAD else "ranges"
    each = tuple(node.attrs[name][order.index(i)] for i in range(x.ndim))
    made = use(node.op, x.srcs, {**node.attrs, name: each}, like=node)
    return use(ops.PERMUTE, (made,), {"order": order}, like=node)


def _brings_channels(node: Node) -> bool:
    """True of a permute that brings the last axis, the channels, before the places."""
    order = (0, node.ndim - 1, *range(1, node.ndim - 1)) if node.op is ops.PERMUTE else None
    return order is not None and node.ndim > 2 and node.attrs["order"] == order


@about(ops.SUM)
def sum_of_permute(node: Node) -> Node | None:
    """sum(permute(x)) over all axes -> the sum of x over all axes, in the order of its memory."""
    (x,) = node.srcs
    if x.op is not ops.PERMUTE or prod(node.shape) != 1 or len(node.attrs["axis"]) != x.ndim:
        return None
    return use(ops.SUM, x.srcs, node.attrs, like=node)


# Identities ------------------------------------------------------------------------------------


@about(ops.COPY, REBOUND)
def drop_copy(node: Node) -> Node | None:
    """copy(x) or rebound(x), which end autograd's history -> x."""
    return node.srcs[0]


@about(ops.SLICE, ops.PAD, ops.CONCAT)
def drop_full_slice(node: Node) -> Node | None:
    """A slice of all of x, a pad of x by nothing, a concat of x alone -> x."""
    match node:
        case Node(op=ops.SLICE, srcs=(x,), attrs={"ranges": ranges}):
            return x if ranges == tuple((0, n, 1) for n in x.shape) else None
        case Node(op=ops.PAD, srcs=(x,)):
            return x if x.shape == node.shape else None
        case Node(op=ops.CONCAT, srcs=(x,)):
            return x
    return None


@about(ops.MUL, ops.ADD, ops.DIV, ops.SUB)
def drop_neutral(node: Node) -> Node | None:
    """x * 1, x / 1, x - 0, x + -0.0 -> x; x + 0.0 -> x for integers only, as -0.0 + 0.0 is 0.0."""
    match node:
        case Node(op=ops.MUL | ops.ADD, srcs=(a, b)):
            idle = 1 if node.op is ops.MUL else 0
            pairs: tuple[tuple[Node, Node], ...] = ((a, b), (b, a))
        case Node(op=ops.DIV | ops.SUB, srcs=(a, b)):
            idle = 1 if node.op is ops.DIV else 0
            pairs = ((a, b),)
        case _:
            return None
    for x, other in pairs:
        value = number(other)
        if value is None or value != idle or x.shape != node.shape:
            continue
        negative = copysign(1, value) < 0
        if idle or x.dtype.kind == "i" or negative == (node.op is ops.ADD):
            return x
    return None


@about(ops.NEG, ops.NOT, ops.FLIP)
def cancel_involution(node: Node) -> Node | None:
    """neg(neg(x)), not(not(x)) or flip(flip(x)) along the same axes -> x."""
    (x,) = node.srcs
    return x.srcs[0] if x.op is node.op and x.attrs == node.attrs else None


@about(ops.FLIP)
def flip_of_product(node: Node) -> Node | None:
    """flip(x * y) -> flip(x) * flip(y), which one kernel reads where they lie: so the gradient of
    rotary positions keeps no product."""
    match node:
        case Node(op=ops.FLIP, srcs=(Node(op=ops.MUL, srcs=factors) as product,)):
            flipped = []
            for x in factors:
                missing = product.ndim - x.ndim
                axis = tuple(a - missing for a in node.attrs["axis"] if a >= missing)
                axis = tuple(a for a in axis if x.shape[a] > 1)
                flipped.append(use(ops.FLIP, (x,), {"axis": axis}, like=node) if axis else x)
            return use(ops.MUL, tuple(flipped), product.attrs, like=product)
    return None


@about(CAST)
def merge_casts(node: Node) -> Node | None:
    """cast(cast(x)) -> the outer cast of x if the inner one is lossless; a no-op cast of x -> x."""
    (x,) = node.srcs
    if x.dtype == node.dtype:
        return x
    if x.op is CAST and _holds(x.dtype, x.srcs[0].dtype):
        return use(CAST, x.srcs, node.attrs, like=node)
    return None


def _holds(wide: DType, narrow: DType) -> bool:
    """True if the wide dtype represents every value of the narrow one."""
    if narrow == bool_ or (narrow.kind == "i" and wide == float64):
        return narrow.itemsize < wide.itemsize
    return wide.kind == narrow.kind and narrow.itemsize < wide.itemsize


@about(ops.ADD, ops.SUB)
def absorb_neg(node: Node) -> Node | None:
    """a + -b -> a - b; -a + b -> b - a; a - -b -> a + b."""
    match node:
        case Node(op=ops.ADD, srcs=(a, Node(op=ops.NEG, srcs=(b,)))):
            return use(ops.SUB, (a, b), {}, like=node)
        case Node(op=ops.ADD, srcs=(Node(op=ops.NEG, srcs=(a,)), b)):
            return use(ops.SUB, (b, a), {}, like=node)
        case Node(op=ops.SUB, srcs=(a, Node(op=ops.NEG, srcs=(b,)))):
            return use(ops.ADD, (a, b), {}, like=node)
    return None


# Numbers and conditions ------------------------------------------------------------------------


def fold_constants(node: Node) -> Node | None:
    """Constant folding: exp(2.0) -> its value, as NumPy computes it in the node's dtype."""
    if node.op.kind != "map":
        return None
    values = []
    for src in node.srcs:
        value = number(src)
        if value is None:
            return None
        values.append(value)
    return filled(_computed(node, values), node)


@about(ops.WHERE)
def fold_where(node: Node) -> Node | None:
    """where(True, a, b) -> a; where(False, a, b) -> b; where(c, a, a) -> a."""
    match node:
        case Node(op=ops.WHERE, srcs=(condition, x, other)):
            value = number(condition)
            if value is None and x is not other:
                return None
            return _stretched(other if value is False else x, node)
    return None


@about(ops.WHERE)
def where_of_not(node: Node) -> Node | None:
    """where(not c, a, b) -> where(c, b, a)."""
    match node:
        case Node(op=ops.WHERE, srcs=(Node(op=ops.NOT, srcs=(condition,)), x, other)):
            return use(ops.WHERE, (condition, other, x), {}, like=node)
    return None


@about(*_COMPARE, CAST)
def fold_compare_of_where(node: Node) -> Node | None:
    """where(c, 1, 0) == 0 -> not c: a comparison of two numbers that c selects from, as in
    `tril(ones(n, n)) == 0`, becomes c, its negation, or a constant."""
    if node.dtype != bool_:  # another cast
        return None
    for i, src in enumerate(node.srcs):
        options: list[Any] = []
        if src.op is ops.WHERE:
            options = [number(src.srcs[1]), number(src.srcs[2])]
        elif src.op is CAST and src.srcs[0].dtype == bool_:
            options = [1, 0]
        values = [number(other) for other in node.srcs]
        values[i] = 0
        if not options or None in options or None in values:
            continue
        where_true, where_false = (
            _computed(node, [*values[:i], option, *values[i + 1 :]]) for option in options
        )
        if where_true == where_false:
            return filled(where_true, node)
        condition = src.srcs[0]
        if where_false:
            condition = use(ops.NOT, (condition,), {}, like=node)
        return _stretched(condition, node)
    return None


def _computed(node: Node, values: list[Any]) -> Any:
    """The value of node's op on these numbers as inputs, computed by NumPy."""
    xp = get("cpu")
    scalars = [xp.scalar(v, src.dtype) for v, src in zip(values, node.srcs, strict=True)]
    made = execute(node.op, "cpu", scalars, node.attrs, Spec((), node.dtype))
    return _python(made[()], node.dtype)


def _stretched(x: Node, like: Node) -> Node:
    return (
        x if x.shape == like.shape else use(ops.BROADCAST, (x,), {"shape": like.shape}, like=like)
    )


# Pieces and sums -------------------------------------------------------------------------------


@about(ops.SLICE)
def slice_of(node: Node) -> Node | None:
    """A slice of a slice, of the inside of a pad, of one part of a concat -> a slice of the source
    that the elements come from."""
    match node:
        case Node(op=ops.SLICE, srcs=(x,), attrs={"ranges": ranges}) if prod(node.shape):
            wanted = [range(*r) for r in ranges]
        case _:
            return None
    match x:
        case Node(op=ops.SLICE, srcs=(source,)):
            inner = [range(*r) for r in x.attrs["ranges"]]
            places = [
                _span(r[w[0]], r[w[-1]], r.step * w.step)
                for r, w in zip(inner, wanted, strict=True)
            ]
        case Node(op=ops.PAD, srcs=(source,)):
            starts = [before for before, _ in x.attrs["widths"]]
            places = [
                _span(w[0] - a, w[-1] - a, w.step) for w, a in zip(wanted, starts, strict=True)
            ]
            inside = zip(wanted, starts, source.shape, strict=True)
            if not all(a <= min(w[0], w[-1]) and max(w[0], w[-1]) < a + n for w, a, n in inside):
                return None
        case Node(op=ops.CONCAT, attrs={"axis": axis}):
            w, start = wanted[axis], 0
            for source in x.srcs:
                size = source.shape[axis]
                if start <= min(w[0], w[-1]) and max(w[0], w[-1]) < start + size:
                    break
                start += size
            else:
                return None
            places = list(ranges)
            places[axis] = _span(w[0] - start, w[-1] - start, w.step)
        case _:
            return None
    return use(ops.SLICE, (source,), {"ranges": tuple(places)}, like=node)


def _span(first: int, last: int, step: int) -> tuple[int, int, int]:
    """From first to last, as SLICE takes a range."""
    return (first, first + 1, 1) if first == last else (first, last + (1 if step > 0 else -1), step)


@about(ops.SLICE_WRITE)
def overwrite_all(node: Node) -> Node | None:
    """slice_write(x, value) over all of x -> value."""
    match node:
        case Node(op=ops.SLICE_WRITE, srcs=(x, value), attrs={"ranges": ranges}):
            if ranges == tuple((0, n, 1) for n in x.shape):
                return _stretched(value, node)
    return None


@about(ops.ADD)
def concat_of_pads(node: Node) -> Node | None:
    """pad(a) + pad(b), side by side and zero elsewhere -> concat(a, b): the gradient of a split. A
    -0.0 that met a padding 0.0 stays -0.0."""
    parts = _padded(node)
    if parts is None or len(parts) < 2:
        return None
    sides = [part.attrs["widths"] for part in parts]
    axis = next((a for a, pair in enumerate(sides[0]) if any(s[a] != pair for s in sides)), None)
    if axis is None:
        return None
    parts.sort(key=lambda part: part.attrs["widths"][axis][0])
    first, last = (list(part.attrs["widths"]) for part in (parts[0], parts[-1]))
    end = first[axis][0]
    for part in parts:
        (before, after), others = _without(part.attrs["widths"], axis)
        if before != end or others != _without(tuple(first), axis)[1]:
            return None
        end = node.shape[axis] - after
    srcs = [s for p in parts for s in (p.srcs[0].srcs if _joins(p.srcs[0], axis) else p.srcs)]
    joined = use(ops.CONCAT, tuple(srcs), {"axis": axis}, like=node)
    first[axis] = (first[axis][0], last[axis][1])
    return use(ops.PAD, (joined,), {"widths": tuple(first), "value": 0.0}, like=node)


def _padded(node: Node) -> list[Node] | None:
    """The pads by zero that node is the sum of; None if it has another summand, or one twice, which
    does not lie beside itself."""
    found, left, seen = list[Node](), [node], {node}
    while left:
        node = left.pop()
        if node.op is ops.PAD:
            if node.attrs["value"] != 0:
                return None
            found.append(node)
            continue
        for src in reversed(node.srcs):
            if src.op not in (ops.ADD, ops.PAD) or src.shape != node.shape or src in seen:
                return None
            seen.add(src)
            left.append(src)
    return found


def _joins(node: Node, axis: int) -> bool:
    return node.op is ops.CONCAT and node.attrs["axis"] == axis


def _without(widths: tuple[Any, ...], axis: int) -> tuple[Any, tuple[Any, ...]]:
    """The widths along an axis, and those along the others."""
    return widths[axis], (*widths[:axis], *widths[axis + 1 :])


@about(ops.ADD)
def index_add_onto(node: Node) -> Node | None:
    """index_add(zeros, rows) + y -> index_add(y, rows): the gradient of a tied embedding. The order
    of additions changes, and a -0.0 of y that met 0.0 stays -0.0."""
    for added, y in (node.srcs, node.srcs[::-1]):
        if added.op is ops.INDEX_ADD and number(added.srcs[0]) == 0 and y.shape == node.shape:
            return use(ops.INDEX_ADD, (y, *added.srcs[1:]), added.attrs, like=node)
    return None


@about(ops.SUM)
def sum_of_broadcast(node: Node) -> Node | None:
    """sum(broadcast(x)) over n copies -> n * x, which rounds less. Not for half precision, which
    may not represent n, nor for integers, whose sums change dtype."""
    match node:
        case Node(op=ops.SUM, srcs=(Node(op=ops.BROADCAST, srcs=(x,), shape=shape),)):
            sizes = (*(1,) * (len(shape) - x.ndim), *x.shape)
            axis = node.attrs["axis"]
            count = prod(shape[a] for a in axis)
            if x.dtype.kind != "f" or x.dtype.itemsize < 4 or not 0 < count <= _EXACT:
                return None
            if any(sizes[a] != 1 for a in axis):
                return None
            scalar = {"value": float(count), "dtype": x.dtype, "device": x.device}
            times = use(CONST, (), scalar, like=node)
            return _stretched(use(ops.MUL, (x, times), {}, like=node), node)
    return None


# Those that rewrite/lift/idioms.py sees its patterns through. Gradients may be taken after them.
BEFORE_GRADIENTS: tuple[Rule, ...] = (
    merge_reshapes, merge_permutes, merge_broadcasts, drop_broadcast, fold_movement, drop_neutral,
    cancel_involution, fold_constants, fold_where, where_of_not, fold_compare_of_where,
)  # fmt: skip
RULES: tuple[Rule, ...] = (
    drop_copy,
    drop_full_slice,
    map_before_channels,
    edges_before_channels,
    sum_of_permute,
    flip_of_product,
    merge_casts,
    absorb_neg,
    slice_of,
    overwrite_all,
    concat_of_pads,
    index_add_onto,
    sum_of_broadcast,
)
