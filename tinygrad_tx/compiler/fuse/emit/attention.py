"""Attention and its gradients, with heads where the ops around them want them.

In: Values and a node. Out: calls added to the Values. Called by fuse.py through KERNELS.
"""

from __future__ import annotations

from math import prod

from .... import ops
from ....backends.kernels.arguments import AttentionArgs, AttentionGradArgs, Matrix
from ....backends.kernels.kinds import Attention, AttentionGrad
from ....dtypes import bool_, int64
from ....node import Node
from ...schedule.records import Buffer, Call, View
from ..build import add, copy_dense, materialise, note_made
from ..order import VIEWS
from ..values import Values


def _heads(view: View, batch: tuple[int, ...]) -> View:
    """A view (..., length, width) as (b, h, length, width)."""
    view = view.broadcast((*batch, *view.shape[-2:]))
    lead = 4 - len(view.shape)
    return View(view.buffer, (1,) * lead + view.shape, (0,) * lead + view.strides, view.offset)


def _store_operands(values: Values, nodes: tuple[Node, ...], batch: tuple[int, ...]) -> list[View]:
    """Views whose last axis lies together, as the attention kernels read them."""
    out = []
    for node in nodes:
        view = materialise(values, node)
        if view.strides[-1] != 1 and view.shape[-1] != 1:
            view = copy_dense(values, node)
        out.append(_heads(view, batch))
    return out


def _side_by_side(node: Node, shape: tuple[int, ...], dtype: str) -> tuple[View, View]:
    """New memory for (..., h, length, width) in which heads lie side by side, so that putting them
    together is a reshape: as the node's shape, and as (b, h, length, width)."""
    b, h, t, d = (1,) * (4 - len(shape)) + shape
    buffer = Buffer("value", dtype, prod(shape), node)
    four = View(buffer, (b, h, t, d), (t * h * d, d, h * d, 1))
    return View(buffer, shape, four.strides[4 - len(shape) :]), four


def _gradients(values: Values, node: Node) -> list[tuple[View, View]]:
    """Memory for the gradients of q, k and v, as _side_by_side; but where all of them go to one
    concatenation along the last axis (as where one map makes queries, keys and values), side by
    side in memory that they share. So it finds them where it would have copied them to."""
    made = [_side_by_side(node, s.shape, s.dtype.name) for s in node.specs[:3]]
    items = sorted(values.users[node], key=lambda item: int(item.attrs["i"]))
    items = [item for item in items if int(item.attrs["i"]) < 3]
    goals = [_goal(values, item) for item in items]
    goal = goals[0] if goals else None
    if goal is None or len(goals) < len(made) or any(x is not goal for x in goals):
        return made
    rows, total = prod(goal.shape[:-1]), goal.shape[-1]
    widths = [four.shape[1] * four.shape[3] for _, four in made]
    if sum(widths) != total or any(f.shape[0] * f.shape[2] != rows for _, f in made):
        return made
    buffer, found, start = Buffer("value", goal.dtype.name, rows * total, node), [], 0
    for (out, four), width in zip(made, widths, strict=True):
        t, d = four.shape[2:]
        strides = (t * total, d, total, 1)
        four = View(buffer, four.shape, strides, start)
        found.append((View(buffer, out.shape, strides[4 - len(out.shape) :], start), four))
        start += width
    return found


def _scores(node: Node) -> tuple[View, View]:
    """Memory for the gradient of the scores: as the node's shape, and as (b, h, t, s)."""
    spec = node.specs[3]
    shape = spec.shape
    b, h, t, s = (1,) * (4 - len(shape)) + shape
    buffer = Buffer("value", spec.dtype.name, prod(shape), node)
    four = View(buffer, (b, h, t, s), (h * t * s, t * s, s, 1))
    return View(buffer, shape, four.strides[4 - len(shape) :]), four


def _goal(values: Values, node: Node) -> Node | None:
    """The concatenation along the last axis that alone reads a value, through views."""
    while len(values.users[node]) == 1:
        (user,) = values.users[node]
        if user.op is ops.CONCAT and user.attrs["axis"] == user.ndim - 1:
            return user
        if user.op not in VIEWS:
            break
        node = user
    return None


def _shared(batch: tuple[int, ...], group: int) -> tuple[int, ...]:
    """The batch axes of keys and values."""
    return batch if group == 1 else (*batch[:-1], batch[-1] // group)


def _store_mask(
    values: Values, masks: tuple[Node, ...], batch: tuple[int, ...], t: int, s: int
) -> tuple[str, list[View]]:
    if not masks:
        return "none", []
    kind = {bool_: "bool", int64: "bounds"}.get(masks[0].dtype, "float")
    shape = (*batch, t, 2 if kind == "bounds" else s)
    return kind, [_heads(materialise(values, masks[0]).broadcast(shape), batch)]


def emit(values: Values, node: Node) -> None:
    q, k, v, *masks = node.srcs
    batch, group = node.shape[:-2], node.attrs.get("group", 1)
    views = _store_operands(values, (q,), batch)
    views += _store_operands(values, (k, v), _shared(batch, group))
    kind, mask = _store_mask(values, tuple(masks), batch, q.shape[-2], k.shape[-2])
    out, four = _side_by_side(node, node.shape, node.dtype.name)
    b, h, t, d = views[0].shape
    q4, k4, v4, out4, *mask4 = (Matrix(x.place, *x.strides) for x in (*views, four, *mask))
    sizes = b, h, t, k.shape[-2], d, v.shape[-1], group
    args = AttentionArgs(*sizes, q4, k4, v4, out4, *mask4)
    kernel = Attention(node.dtype.name, node.attrs["scale"], kind, node.attrs["causal"])
    add(values, Call(kernel, args, (*views, *mask), (out,), (node,)))
    note_made(values, node, out)


def emit_grad(values: Values, node: Node) -> None:
    g, q, k, v, *masks = node.srcs
    batch, group = g.shape[:-2], node.attrs.get("group", 1)
    shared = _shared(batch, group)
    views = [
        *_store_operands(values, (q,), batch),
        *_store_operands(values, (k, v), shared),
        *_store_operands(values, (g,), batch),
    ]
    kind, mask = _store_mask(values, tuple(masks), batch, q.shape[-2], k.shape[-2])
    places = _gradients(values, node)
    b, h, t, d = views[0].shape
    wanted = any(int(item.attrs["i"]) == 3 for item in values.users[node])
    added = [_scores(node)] if wanted else []
    operands = [
        Matrix(x.place, *x.strides)
        for x in (*views, *(x for _, x in places), *mask, *(x for _, x in added))
    ]
    args = AttentionGradArgs(b, h, t, k.shape[-2], d, v.shape[-1], group, *operands)
    kernel = AttentionGrad(g.dtype.name, node.attrs["scale"], kind, node.attrs["causal"], wanted)
    outs = [out for out, _ in (*places, *added)]
    add(values, Call(kernel, args, (*views, *mask), tuple(outs), (node,)))
    note_made(values, node, *outs)
