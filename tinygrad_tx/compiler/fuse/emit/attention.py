"""Attention and its gradients, with heads where the ops around them want them.

In: Values and a node. Out: calls added to the Values. Called by fuse.py through KERNELS.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import prod
from typing import NamedTuple

from .... import ops
from ....backends.kernels.arguments import (
    AttentionArgs,
    AttentionGradArgs,
    AttentionKeyGradArgs,
    AttentionQueryGradArgs,
    Matrix,
    Place,
)
from ....backends.kernels.kinds import (
    Attention,
    AttentionGrad,
    AttentionKeyGrad,
    AttentionQueryGrad,
)
from ....dtypes import bool_, int64
from ....node import Node
from ....ops.attention import split
from ...schedule.records import Buffer, Call, View, whole
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


class Operands(NamedTuple):
    """What attention reads: q, k, v and perhaps a mask, as kernels have them, the key and the
    stream of dropout. sizes: the numbers that calls begin with. how: the fields that kernels begin
    with; stored: the dtype in memory."""

    views: tuple[View, View, View]
    mask: tuple[View, ...]
    drawn: tuple[View, ...]
    sizes: tuple[int, int, int, int, int, int, int]
    how: tuple[str, float, str, bool]
    stored: str
    dropout: float
    tf32: bool

    @property
    def masked(self) -> Matrix[Place[Buffer]] | None:
        return _matrix(self.mask[0]) if self.mask else None

    @property
    def key(self) -> Place[Buffer] | None:
        return self.drawn[0].place if self.drawn else None

    @property
    def stream(self) -> Place[Buffer] | None:
        return self.drawn[1].place if self.drawn else None


class Kept(NamedTuple):
    """What attention has made, for its gradients: the output as (b, h, t, d_v), and statistics."""

    out: View
    statistics: View


def _matrix(x: View) -> Matrix[Place[Buffer]]:
    return Matrix(x.place, *x.strides)


def _operands(values: Values, node: Node, srcs: tuple[Node, ...]) -> Operands:
    """Those of an attention, or of its gradient. srcs: of the attention."""
    q, k, v, *others = srcs
    given, drawn = split(others, **node.attrs)
    batch, group = node.specs[0].shape[:-2], node.attrs.get("group", 1)
    (queries,) = _store_operands(values, (q,), batch)
    keys, vectors = _store_operands(values, (k, v), _shared(batch, group))
    masks = () if given is None else (given,)
    kind, mask = _store_mask(values, masks, batch, q.shape[-2], k.shape[-2])
    b, h, t, d = queries.shape
    sizes = b, h, t, k.shape[-2], d, v.shape[-1], group
    dtype = "float32" if q.dtype.is_half else q.dtype.name
    how = dtype, node.attrs["scale"], kind, node.attrs["causal"]
    places = tuple([materialise(values, x) for x in drawn])
    views, dropout = (queries, keys, vectors), node.attrs.get("dropout", 0.0)
    tf32 = "tf32" in node.attrs
    return Operands(views, tuple(mask), places, sizes, how, q.dtype.name, dropout, tf32)


def fits(values: Values, node: Node) -> bool:
    """True unless it is with dropout, which kernels that keep no statistics do not have."""
    return "dropout" not in node.attrs or values.target.keeps_statistics


def emit(values: Values, node: Node) -> None:
    key = _key(node, node.srcs)
    keeps = values.target.keeps_statistics and any(
        user.op is ops.ATTENTION_GRAD and _key(user, user.srcs[1:]) == key
        for user in values.users[node.srcs[0]]
    )
    out = _forward(values, node, _operands(values, node, node.srcs), key if keeps else None)
    note_made(values, node, out)


def _key(node: Node, srcs: Sequence[Node]) -> Hashable:
    """The same for an attention and its gradients."""
    return tuple(srcs), tuple(sorted(node.attrs.items()))


def _forward(values: Values, node: Node, of: Operands, key: Hashable) -> View:
    """A call of attention, and its output. key: under which what gradients read is kept; None: no
    gradient does."""
    shape = (*node.specs[0].shape[:-1], of.views[2].shape[-1])
    out, four = _side_by_side(node, shape, of.stored)
    q, k, v = map(_matrix, of.views)
    args = AttentionArgs(*of.sizes, q, k, v, _matrix(four), of.masked)
    args, writes = args._replace(key=of.key, stream=of.stream), [out]
    if key is not None:
        statistics = _rows(node, of)
        args, writes = args._replace(statistics=statistics.place), [out, statistics]
        values.attentions[key] = Kept(four, statistics)
    kernel = Attention(*of.how, of.stored, key is not None, of.dropout, of.tf32)
    reads = *of.views, *of.mask, *of.drawn
    add(values, Call(kernel, args, reads, tuple(writes), (node,)))
    return out


def _rows(node: Node, of: Operands) -> View:
    """Memory for a number of each query of each head."""
    b, h, t, *_ = of.sizes
    return whole(Buffer("value", of.how[0], b * h * t, node), (b, h, t))


def emit_grad(values: Values, node: Node) -> None:
    of = _operands(values, node, node.srcs[1:])
    (g,) = _store_operands(values, node.srcs[:1], node.specs[0].shape[:-2])
    places = _gradients(values, node)
    wanted = any(int(item.attrs["i"]) == 3 for item in values.users[node])
    added = _scores(node) if wanted else None
    if values.target.keeps_statistics:
        _from_statistics(values, node, of, g, [four for _, four in places], added)
    else:
        q, k, v = map(_matrix, of.views)
        dq, dk, dv = (_matrix(four) for _, four in places)
        args = AttentionGradArgs(*of.sizes, q, k, v, _matrix(g), dq, dk, dv, of.masked)
        if added:
            args = args._replace(dmask=_matrix(added[1]))
        outs = [out for out, _ in (*places, *([added] if added else ()))]
        kernel = AttentionGrad(*of.how, wanted, of.stored)
        add(values, Call(kernel, args, (*of.views, g, *of.mask), tuple(outs), (node,)))
    note_made(values, node, *(out for out, _ in places), *([added[0]] if added else ()))


def _from_statistics(
    values: Values,
    node: Node,
    of: Operands,
    g: View,
    places: Sequence[View],
    added: tuple[View, View] | None,
) -> None:
    """The gradients in two calls, which read what attention has kept; where none has, it is called
    for that alone."""
    key = _key(node, node.srcs[1:])
    if key not in values.attentions:
        _forward(values, node, of, key)
    kept: Kept = values.attentions[key]
    q, k, v, dq, dk, dv = map(_matrix, (*of.views, *places))
    delta = _rows(node, of)
    rows = kept.statistics.place, delta.place
    args = AttentionQueryGradArgs(
        *of.sizes, q, k, v, _matrix(kept.out), _matrix(g), dq, *rows, of.masked
    )._replace(key=of.key, stream=of.stream)
    writes = [places[0], delta]
    if added:
        args = args._replace(dmask=_matrix(added[1]))
        writes.append(added[1])
    reads = (*of.views, kept.out, g, kept.statistics, *of.mask, *of.drawn)
    kernel = AttentionQueryGrad(*of.how, added is not None, of.stored, of.dropout, of.tf32)
    add(values, Call(kernel, args, reads, tuple(writes), (node,)))
    last = AttentionKeyGradArgs(*of.sizes, q, k, v, _matrix(g), dk, dv, *rows, of.masked)._replace(
        key=of.key, stream=of.stream
    )
    reads = (*of.views, g, kept.statistics, delta, *of.mask, *of.drawn)
    key_grad = AttentionKeyGrad(*of.how, of.stored, of.dropout, of.tf32)
    add(values, Call(key_grad, last, reads, tuple(places[1:]), (node,)))
