"""Dropout masks, checked indices, gathers and scattered sums.

In: Values and a node. Out: calls, or a group that gathers, added to the Values. Called by fuse.py
through KERNELS.
"""

from __future__ import annotations

from math import ceil, prod

from .... import ops
from ....backends.kernels.arguments import CheckIndexArgs, DropoutMaskArgs, Place, ScatterAddArgs
from ....backends.kernels.kinds import CheckIndex, DropoutMask, ScatterAdd
from ....node import Node
from ...schedule.layout import dense
from ...schedule.records import Buffer, Call, View
from ..build import add, copy_dense, join, materialise, note_made, store_flat
from ..group import Fetch, Gather, Group, fresh
from ..values import Values
from .writes import own_or_copy


def emit_mask(values: Values, node: Node) -> None:
    key, stream = (materialise(values, src) for src in node.srcs)
    first = node.attrs.get("first", 0)
    lead = first % 4  # elements that the first counter makes before: they are made, and lie before
    made = Buffer("value", "bool", prod(node.shape) + lead, node)
    out = View(made, node.shape, dense(node.shape), lead)
    places = key.place, stream.place, Place(made, 0)
    args = DropoutMaskArgs(made.size, 1 << 15, *places, first // 4 if first else None)
    kernel = DropoutMask(ceil(node.attrs["p"] * 2**24), part=bool(first))
    add(values, Call(kernel, args, (key, stream), (out,), (node,)))
    note_made(values, node, out)


def check_index(values: Values, node: Node) -> None:
    given = store_flat(values, node.srcs[0], (prod(node.shape),))
    out = fresh("int64", node.shape, node)
    report = View(Buffer("report", "int64", 2, node), (2,), (1,))
    skip = node.attrs.get("skip")
    size, (step,), places = node.attrs["size"], given.strides, (out.place, report.place)
    args = CheckIndexArgs(prod(node.shape), 4096, size, skip or 0, given.place, step, *places)
    kernel = CheckIndex(given.dtype, node.attrs.get("wrap", True), skip is not None)
    add(values, Call(kernel, args, (given,), (out, report), (node,)))
    note_made(values, node, out)


def gathers_rows(values: Values, node: Node) -> bool:
    """True if a take is of whole entries, by indices that have been checked."""
    return node.attrs["axis"] == 0 and node.srcs[1].op is ops.WRAP_INDEX


def begin_gather(values: Values, node: Node) -> None:
    """A group that others may join: its first step reads the entries."""
    x, index = node.srcs
    columns = prod(x.shape[1:])
    places = materialise(values, index)
    entries = store_flat(values, x, (x.shape[0], columns))
    group = Group("rows", tuple(n for n in index.shape if n != 1) or (1,), columns)
    rows = group.spread(places, "row")
    assert rows is not None, "checked indices lie in row-major order"
    join(values, add(values, group), node, "element", (Gather(entries, Fetch(rows)),))


def adds_rows(values: Values, node: Node) -> bool:
    """True if an index_add is of whole entries, of floats."""
    return node.attrs["axis"] == 0 and node.dtype.is_floating_point


def scatter_add(values: Values, node: Node) -> None:
    x, index, value = node.srcs
    columns, count = prod(x.shape[1:]), index.shape[0]
    places, out = materialise(values, index), own_or_copy(values, node, x)
    added = materialise(values, value).reshape((count, columns))
    if added is None or (added.strides[-1] != 1 and columns > 1):
        added = copy_dense(values, value).reshape((count, columns))
        assert added is not None
    source, row = added.place, added.strides[0]
    args = ScatterAddArgs(count, columns, 64, places.place, source, row, out.place, columns)
    add(values, Call(ScatterAdd(node.dtype.name), args, (places, added, out), (out,), (node,)))
    note_made(values, node, out)
