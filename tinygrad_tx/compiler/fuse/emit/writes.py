"""Writes into a part of a value, padding and concatenation.

In: Values and a node. Out: calls added to the Values. Called by fuse.py through KERNELS.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from .... import ops
from ....node import INPUT, Node
from ...schedule.records import Buffer, Call, View, whole
from ..body import Body, copying, filling
from ..build import add, materialise, note_made, store_in
from ..group import Group, fresh
from ..values import Values


def own_or_copy(values: Values, node: Node, x: Node) -> View:
    """x's values where the node may change them: in new memory, or where they lie if nobody else
    looks at them any more."""
    if x.op is ops.FULL:
        out = fresh(x.dtype.name, x.shape, node)
        add(values, filling(out, x.attrs["value"]))
        return out
    view = materialise(values, x)
    alone = len(values.users[x]) == 1 and x not in values.final and view.contiguous
    buffer = view.buffer
    # Parts of a concatenation lie in its buffer, and others may read them yet.
    own = buffer.kind == "value" and not buffer.parts
    if alone and own and values.holds.get(buffer, buffer.node) is x:
        values.holds[buffer] = node
        return view
    if alone and x.op is INPUT and values.states.get(x) is node:
        values.in_place.add(buffer)
        return view
    out = fresh(x.dtype.name, x.shape, node)
    add(values, copying(view, out))
    return out


def _write_part(values: Values, node: Node, call: Call, out: View) -> None:
    """A call that writes a part of `out`, where the rest of the value lies already."""
    add(values, replace(call, reads=(*call.reads, out), nodes=(*call.nodes, node)))
    note_made(values, node, out)


def updates_at_an_index(values: Values, node: Node) -> bool:
    """True if the place of an update has been checked."""
    return node.srcs[2].op is ops.WRAP_INDEX


def update(values: Values, node: Node) -> None:
    x, value, position = node.srcs
    at, source = materialise(values, position), materialise(values, value)
    out = own_or_copy(values, node, x)
    part = out.slice([(0, n, 1) for n in value.shape])
    shape = value.shape
    body = Body(Group("rows", shape[:-1], shape[-1]))
    number = body.load(source, "element")
    place = body.program.instrs[body.load(at.broadcast(shape[:-1]), "row")].value
    body.store(number, part, "element", place, out.strides[node.attrs["axis"]])
    _write_part(values, node, body.call(), out)


def slice_write(values: Values, node: Node) -> None:
    x, value = node.srcs
    source = materialise(values, value)
    out = own_or_copy(values, node, x)
    part = out.slice(node.attrs["ranges"])
    call = copying(source.broadcast(part.shape), part)
    _write_part(values, node, call, out)


def pad(values: Values, node: Node) -> None:
    source = materialise(values, node.srcs[0])
    out = fresh(node.dtype.name, node.shape, node)
    add(values, filling(out, node.attrs["value"]))
    ranges = [(a, a + n, 1) for (a, _), n in zip(node.attrs["widths"], source.shape, strict=True)]
    call = copying(source, out.slice(ranges))
    _write_part(values, node, call, out)


def concat(values: Values, node: Node) -> None:
    out = _lies(values, node)
    if out is not None:
        last = max(map(values.ready, node.srcs))
    else:
        size, last = prod(node.shape), -1
        out = whole(Buffer("value", node.dtype.name, size, node, parts=True), node.shape)
        for src, part in zip(node.srcs, _parts(node, out), strict=True):
            unit = store_in(values, src, part)
            if unit < 0:
                unit = add(values, copying(materialise(values, src), part, node))
            last = max(last, unit)
    values.unit_of[node], values.places[node] = last, out


def _parts(node: Node, out: View) -> list[View]:
    """The views of a concatenation's parts in its result."""
    axis, start, found = node.attrs["axis"], 0, []
    for src in node.srcs:
        ranges = [(0, n, 1) for n in node.shape]
        ranges[axis] = (start, start + src.shape[axis], 1)
        start += src.shape[axis]
        found.append(out.slice(ranges))
    return found


def _lies(values: Values, node: Node) -> View | None:
    """The view of a concatenation whose parts already lie side by side in one buffer (nothing to
    copy); None otherwise."""
    views = []
    for src in node.srcs:
        view, new = values.layout(src)
        if new or values.below(src)[-1] not in values.places:
            return None
        views.append(view)
    out = whole(views[0].buffer, node.shape)
    if out.buffer.kind != "value" or out.buffer.size != prod(node.shape):
        return None
    fits = all(v.same(part) for v, part in zip(views, _parts(node, out), strict=True))
    return out if fits else None
