"""Kernels that are no row programs: products, attention, gathers, writes into a part of a value.

In: the fuser and a node. Out: True when calls were emitted for it, False where no kernel fits (the
fuser then calls the op as it is). Called by fuse/fuser.py through the table CALLS at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, prod
from typing import TYPE_CHECKING

from ... import ops
from ...backends.kernels.kinds import (
    Attention,
    AttentionGrad,
    Index,
    Keep,
    Matmul,
    Pack,
    ScatterAdd,
)
from ...dtypes import bool_
from ...node import INPUT, Node
from ..schedule.layout import collapse
from ..schedule.records import Buffer, Call, View, whole
from .group import Group, Member, copying, filling, fresh
from .order import VIEWS

if TYPE_CHECKING:
    from .fuser import Fuser

Args = list["int | tuple[Buffer, int]"]


def _at(view: View, *strides: int) -> Args:
    return [(view.buffer, view.offset), *strides]


# Products --------------------------------------------------------------------------------------


def _matmul(fuser: Fuser, node: Node) -> bool:
    a_node, b_node = node.srcs
    if not node.dtype.is_floating_point:
        return False
    a, b = fuser.materialise(a_node), fuser.materialise(b_node)
    *batch, m, n = node.shape
    k = a.shape[-1]
    if prod(b.shape[:-2]) == 1:  # one right operand for all rows: one tall product
        tall = a.reshape((prod(a.shape[:-1]), k))
        if tall is None:
            tall = fuser.dense(a_node).reshape((prod(a.shape[:-1]), k))
            assert tall is not None
        a, b = tall, View(b.buffer, b.shape[-2:], b.strides[-2:], b.offset)
        batch, m = [], tall.shape[0]
    out = fresh(node.dtype.name, node.shape, node)
    c = whole(out.buffer, (*batch, m, n))
    a, b = a.broadcast((*batch, m, k)), b.broadcast((*batch, k, n))
    extents, strides = collapse(batch, [x.strides[:-2] for x in (a, b, c)])
    if len(extents) > 2:
        return False
    lead = 2 - len(extents)
    b0, b1 = (*(1,) * lead, *extents)
    sa, sb, sc = ((*(0,) * lead, *s) for s in strides)
    rows, columns, panels = fuser.tiles(m, n, k, b0 * b1, node)
    packed, sp = _packed(fuser, node, b, (b0, b1), sb, panels)
    args: Args = [b0, b1, m, n, k, rows, columns]
    args += _at(a, *sa, *a.strides[-2:])
    args += _at(packed, *sp)
    args += _at(c, *sc, n)
    fuser.emit(Call(Matmul(node.dtype.name), args, [a, packed], [c], [node]))
    fuser.made(node, out)
    return True


def _packed(
    fuser: Fuser,
    node: Node,
    b: View,
    batch: tuple[int, int],
    strides: tuple[int, ...],
    panels: int,
) -> tuple[View, tuple[int, int]]:
    """b as the product reads it; packed once for all products that share it."""
    k, n = b.shape[-2:]
    width = fuser.target.pack_width(node.dtype.name)
    b0, b1 = (e if s else 1 for e, s in zip(batch, strides, strict=True))  # repeats are not packed
    size = k * ceil(n / width) * width
    where = (size * b1 if b0 > 1 else 0, size if b1 > 1 else 0)
    key = (b.buffer, b.offset, b0, b1, strides, k, n, b.strides[-2:])
    if key not in fuser.packed:
        packed = fresh(node.dtype.name, (b0 * b1 * size,))
        args: Args = [
            b0,
            b1,
            k,
            n,
            panels,
            *_at(b, *strides, *b.strides[-2:]),
            *_at(packed, *where),
        ]
        fuser.emit(Call(Pack(node.dtype.name, width), args, [b], [packed], [node]))
        fuser.packed[key] = packed
    return fuser.packed[key], where


# Attention -------------------------------------------------------------------------------------


def _heads(view: View, batch: tuple[int, ...]) -> View:
    """A view (..., length, width) as (b, h, length, width)."""
    view = view.broadcast((*batch, *view.shape[-2:]))
    lead = 4 - len(view.shape)
    return View(view.buffer, (1,) * lead + view.shape, (0,) * lead + view.strides, view.offset)


def _operands(fuser: Fuser, nodes: tuple[Node, ...], batch: tuple[int, ...]) -> list[View]:
    """Views whose last axis lies together, as the attention kernels read them."""
    out = []
    for node in nodes:
        view = fuser.materialise(node)
        if view.strides[-1] != 1 and view.shape[-1] != 1:
            view = fuser.dense(node)
        out.append(_heads(view, batch))
    return out


def _side_by_side(node: Node, shape: tuple[int, ...], dtype: str) -> tuple[View, View]:
    """New memory for (..., h, length, width) in which heads lie side by side, so that putting them
    together is a reshape: as the node's shape, and as (b, h, length, width)."""
    b, h, t, d = (1,) * (4 - len(shape)) + shape
    buffer = Buffer("arena", dtype, prod(shape), node)
    four = View(buffer, (b, h, t, d), (t * h * d, d, h * d, 1))
    return View(buffer, shape, four.strides[4 - len(shape) :]), four


def _gradients(fuser: Fuser, node: Node) -> list[tuple[View, View]]:
    """Memory for each output, as _side_by_side; but where all of them go to one concatenation along
    the last axis (as the gradients of queries, keys and values that one map makes), side by side in
    memory that they share. So it finds them where it would have copied them to."""
    made = [_side_by_side(node, s.shape, s.dtype.name) for s in node.spec]  # type: ignore[union-attr]
    items = sorted(fuser.users[node], key=lambda item: int(item.attrs["i"]))
    goals = [_goal(fuser, item) for item in items]
    goal = goals[0]
    if goal is None or len(goals) < len(made) or any(x is not goal for x in goals):
        return made
    rows, total = prod(goal.shape[:-1]), goal.shape[-1]
    widths = [four.shape[1] * four.shape[3] for _, four in made]
    if sum(widths) != total or any(f.shape[0] * f.shape[2] != rows for _, f in made):
        return made
    buffer, found, start = Buffer("arena", goal.dtype.name, rows * total, node), [], 0
    for (out, four), width in zip(made, widths, strict=True):
        t, d = four.shape[2:]
        strides = (t * total, d, total, 1)
        four = View(buffer, four.shape, strides, start)
        found.append((View(buffer, out.shape, strides[4 - len(out.shape) :], start), four))
        start += width
    return found


def _goal(fuser: Fuser, node: Node) -> Node | None:
    """The concatenation along the last axis that alone reads a value, through views."""
    while len(fuser.users[node]) == 1:
        (user,) = fuser.users[node]
        if user.op is ops.CONCAT and user.attrs["axis"] == user.ndim - 1:
            return user
        if user.op not in VIEWS:
            break
        node = user
    return None


def _mask(
    fuser: Fuser, masks: tuple[Node, ...], batch: tuple[int, ...], t: int, s: int
) -> tuple[str, list[View]]:
    if not masks:
        return "none", []
    kind = "bool" if masks[0].dtype == bool_ else "float"
    return kind, [_heads(fuser.materialise(masks[0]).broadcast((*batch, t, s)), batch)]


def _attention(fuser: Fuser, node: Node) -> bool:
    q, k, v, *masks = node.srcs
    batch = node.shape[:-2]
    views = _operands(fuser, (q, k, v), batch)
    kind, mask = _mask(fuser, tuple(masks), batch, q.shape[-2], k.shape[-2])
    out, four = _side_by_side(node, node.shape, node.dtype.name)
    b, h, t, d = views[0].shape
    args: Args = [b, h, t, k.shape[-2], d, v.shape[-1]]
    for view in (*views, four, *mask):
        args += _at(view, *view.strides)
    kernel = Attention(node.dtype.name, node.attrs["scale"], kind, node.attrs["causal"])
    fuser.emit(Call(kernel, args, [*views, *mask], [out], [node]))
    fuser.made(node, out)
    return True


def _attention_grad(fuser: Fuser, node: Node) -> bool:
    g, q, k, v, *masks = node.srcs
    batch = g.shape[:-2]
    views = _operands(fuser, (q, k, v, g), batch)
    kind, mask = _mask(fuser, tuple(masks), batch, q.shape[-2], k.shape[-2])
    made = _gradients(fuser, node)
    b, h, t, d = views[0].shape
    args: Args = [b, h, t, k.shape[-2], d, v.shape[-1]]
    for view in (*views, *(four for _, four in made), *mask):
        args += _at(view, *view.strides)
    kernel = AttentionGrad(g.dtype.name, node.attrs["scale"], kind, node.attrs["causal"])
    outs = [out for out, _ in made]
    fuser.emit(Call(kernel, args, [*views, *mask], outs, [node]))
    fuser.made(node, *outs)
    return True


# Randomness, gathers ---------------------------------------------------------------------------


def _keep(fuser: Fuser, node: Node) -> bool:
    key, stream = (fuser.materialise(src) for src in node.srcs)
    out = fresh("bool", node.shape, node)
    count = prod(node.shape)
    args: Args = [count, 1 << 15, *_at(key), *_at(stream), *_at(out)]
    kernel = Keep(ceil(node.attrs["p"] * 2**24))
    fuser.emit(Call(kernel, args, [key, stream], [out], [node]))
    fuser.made(node, out)
    return True


def _wrap_index(fuser: Fuser, node: Node) -> bool:
    index = fuser.materialise(node.srcs[0])
    flat = index.reshape((prod(node.shape),))
    if flat is None:
        flat = fuser.dense(node.srcs[0]).reshape((prod(node.shape),))
        assert flat is not None
    out = fresh("int64", node.shape, node)
    report = View(Buffer("report", "int64", 2, node), (2,), (1,))
    skip = node.attrs.get("skip")
    args: Args = [prod(node.shape), 4096, node.attrs["size"], skip or 0]
    args += [*_at(flat, *flat.strides), *_at(out), *_at(report)]
    kernel = Index(index.dtype, node.attrs.get("wrap", True), skip is not None)
    fuser.emit(Call(kernel, args, [flat], [out, report], [node]))
    fuser.made(node, out)
    return True


def _take(fuser: Fuser, node: Node) -> bool:
    x, index = node.srcs
    if node.attrs["axis"] != 0 or index.op is not ops.WRAP_INDEX:
        return False
    columns = prod(x.shape[1:])
    places = fuser.materialise(index)
    entries = fuser.materialise(x).reshape((x.shape[0], columns))
    if entries is None:
        entries = fuser.dense(x).reshape((x.shape[0], columns))
        assert entries is not None
    group = Group("rows", tuple(n for n in index.shape if n != 1) or (1,), columns)
    fuser.emit(group)
    number = group.load(places, "row")
    assert number is not None
    fuser.join(group, node, Member(group.gather(entries, number), "element"))
    return True


def _index_add(fuser: Fuser, node: Node) -> bool:
    x, index, value = node.srcs
    if node.attrs["axis"] != 0 or not node.dtype.is_floating_point:
        return False
    columns, count = prod(x.shape[1:]), index.shape[0]
    places, out = fuser.materialise(index), _written(fuser, node, x)
    added = fuser.materialise(value).reshape((count, columns))
    if added is None or (added.strides[-1] != 1 and columns > 1):
        added = fuser.dense(value).reshape((count, columns))
        assert added is not None
    args: Args = [count, columns, 64, *_at(places), *_at(added, added.strides[0])]
    args += _at(out, columns)
    fuser.emit(Call(ScatterAdd(node.dtype.name), args, [places, added, out], [out], [node]))
    fuser.made(node, out)
    return True


# Writes into a part of a value -----------------------------------------------------------------


def _written(fuser: Fuser, node: Node, x: Node) -> View:
    """x's values where the node may change them: in new memory, or where they lie if nobody else
    looks at them any more."""
    if x.op is ops.FULL:
        out = fresh(node.dtype.name, node.shape, node)
        fuser.emit(filling(out, x.attrs["value"]))
        return out
    view = fuser.materialise(x)
    alone = len(fuser.users[x]) == 1 and x not in fuser.roots and view.contiguous
    if alone and view.buffer.kind == "arena" and view.buffer.node is x:
        view.buffer.node = node
        return view
    if alone and x.op is INPUT and fuser.states.get(x) is node:
        view.buffer.state = True
        return view
    out = fresh(node.dtype.name, node.shape, node)
    fuser.emit(copying(view, out))
    return out


def _writes_part(fuser: Fuser, node: Node, call: Call, out: View) -> bool:
    """A call that writes a part of `out`, where the rest of the value lies already."""
    call.reads.append(out)
    call.nodes.append(node)
    fuser.emit(call)
    fuser.made(node, out)
    return True


def _update(fuser: Fuser, node: Node) -> bool:
    x, value, position = node.srcs
    axis = node.attrs["axis"]
    if position.op is not ops.WRAP_INDEX:
        return False
    at, source = fuser.materialise(position), fuser.materialise(value)
    out = _written(fuser, node, x)
    part = out.slice([(0, n, 1) for n in value.shape])
    shape = value.shape
    group = Group("rows", shape[:-1], shape[-1])
    number = group.load(source, "element")
    assert number is not None
    place = group.load(at.broadcast(shape[:-1]), "row")
    assert place is not None
    group.store(
        Member(number, "element"), part, group.program.instrs[place].value, out.strides[axis]
    )
    call = group.call()
    return _writes_part(fuser, node, call, out)


def _slice_write(fuser: Fuser, node: Node) -> bool:
    x, value = node.srcs
    source = fuser.materialise(value)
    out = _written(fuser, node, x)
    part = out.slice(node.attrs["ranges"])
    call = copying(source.broadcast(part.shape), part)
    return _writes_part(fuser, node, call, out)


def _pad(fuser: Fuser, node: Node) -> bool:
    source = fuser.materialise(node.srcs[0])
    out = fresh(node.dtype.name, node.shape, node)
    fuser.emit(filling(out, node.attrs["value"]))
    ranges = [(a, a + n, 1) for (a, _), n in zip(node.attrs["widths"], source.shape, strict=True)]
    call = copying(source, out.slice(ranges))
    return _writes_part(fuser, node, call, out)


def _concat(fuser: Fuser, node: Node) -> bool:
    out = _lies(fuser, node)
    if out is not None:
        last = max(map(fuser.ready, node.srcs))
    else:
        out, last = fresh(node.dtype.name, node.shape, node), -1
        out.buffer.parts = True
        for src, part in zip(node.srcs, _parts(node, out), strict=True):
            unit = fuser.stored(src, part)
            if unit < 0:
                call = copying(fuser.materialise(src), part)
                call.nodes.append(node)
                fuser.emit(call)
                unit = len(fuser.units) - 1
            last = max(last, unit)
    fuser.unit_of[node], fuser.places[node] = last, out
    return True


def _parts(node: Node, out: View) -> list[View]:
    """Where the parts of a concatenation lie in it."""
    axis, start, found = node.attrs["axis"], 0, []
    for src in node.srcs:
        ranges = [(0, n, 1) for n in node.shape]
        ranges[axis] = (start, start + src.shape[axis], 1)
        start += src.shape[axis]
        found.append(out.slice(ranges))
    return found


def _lies(fuser: Fuser, node: Node) -> View | None:
    """A concatenation whose parts lie as it wants them, and fill their memory."""
    views = []
    for src in node.srcs:
        base = src
        while base not in fuser.places and base.op in VIEWS:
            base = base.srcs[0]
        if base not in fuser.places:
            return None
        views.append(fuser.materialise(src))
    out = whole(views[0].buffer, node.shape)
    if out.buffer.kind != "arena" or out.buffer.size != prod(node.shape):
        return None
    fits = all(v.same(part) for v, part in zip(views, _parts(node, out), strict=True))
    return out if fits else None


CALLS: dict[object, Callable[[Fuser, Node], bool]] = {
    ops.MATMUL: _matmul,
    ops.ATTENTION: _attention,
    ops.ATTENTION_GRAD: _attention_grad,
    ops.KEEP: _keep,
    ops.WRAP_INDEX: _wrap_index,
    ops.TAKE: _take,
    ops.INDEX_ADD: _index_add,
    ops.UPDATE: _update,
    ops.SLICE_WRITE: _slice_write,
    ops.PAD: _pad,
    ops.CONCAT: _concat,
}
