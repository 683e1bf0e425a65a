"""lower: every op that is known whole becomes the simple ops that kernels are made of.

In: rewritten roots. Out: roots whose graph has maps, reductions along the last or the first axes,
movement, products, attention, gathers, and what stays opaque. Called by schedule/plan.py after the
passes of rewrite/engine.py. Most ops are lowered by their own `decompose`; the few written here say
the same in a form that makes better kernels (no gather of the targets: a comparison with the column
number).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import prod
from typing import Any

import numpy as np

from ... import ops
from ...dtypes import bool_, float32, float64, int64
from ...node import (
    ITEM,
    LINE,
    Graph,
    Handle,
    Node,
    Op,
    Spec,
    reduced,
    scope,
    set_grad_enabled,
    tracing,
)
from ..rewrite.engine import again

_WHOLE = (ops.ATTENTION, ops.ATTENTION_GRAD)
X = Any


def lower(roots: Sequence[Node]) -> tuple[Node, ...]:
    """The same values by simpler ops."""
    lowering = _Lowering()
    users = Graph(roots).users()
    ends = set(roots)
    lowering.lone = {n for n, by in users.items() if len(by) == 1 and n not in ends}
    return lowering.run(roots, set())


class _Lowering:
    """What is known while one graph is lowered."""

    def __init__(self) -> None:
        self.parts: dict[Node, tuple[Node, ...]] = {}  # an op's several outputs, once decomposed
        self.chosen: set[Node] = set()  # indices that are inside, for they were found by a search
        self.lone: set[Node] = set()  # nodes of the graph that have one user

    def run(
        self, roots: Sequence[Node], known: set[Node], place: Node | None = None
    ) -> tuple[Node, ...]:
        """Lower what lies above the known nodes. place: the node that all of it stands for."""
        done = {node: node for node in known}
        for node in Graph(roots, follow=lambda n: n not in known):
            if node not in known:
                if place is not None:
                    node.scope, node.line, node.place = place.scope, place.line, place.place
                made = _rebuilt(node, done)
                turned = node.op is ops.PERMUTE and node.srcs[0] in self.lone
                done[node] = self.turned(made) if turned else self.lowered(made)
                if node.op in (ops.ARGTOPK, ops.ARGSORT):
                    self.chosen.add(done[node])
        return tuple(done[root] for root in roots)

    def turned(self, node: Node) -> Node:
        """(a b).T as b.T a.T, which comes out lying as it is wanted; the sums are the same."""
        product, order = node.srcs[0], node.attrs["order"]
        swap = (*range(node.ndim - 2), node.ndim - 1, node.ndim - 2)
        if product.op is not ops.MATMUL or order != swap or not _plain(node):
            return self.lowered(node)
        return self.grown(node, lambda x, order: ops.MATMUL(*(t.mT for t in _factors(product))))[0]

    def lowered(self, node: Node) -> Node:
        if node.op is ITEM:
            src = node.srcs[0]
            if src not in self.parts and _decomposes(src):
                self.parts[src] = self.decomposed(src)
            return self.parts[src][node.attrs["i"]] if src in self.parts else node
        if not isinstance(node.spec, Spec) or not _plain(node):
            return node
        if _decomposes(node):
            return self.decomposed(node)[0]
        how = self._how(node)
        return node if how is None else self.grown(node, how)[0]

    def _how(self, node: Node) -> Callable[..., X] | None:
        """What a simple op that kernels do not know in this form is made of."""
        if node.op in _AXIS:
            return None if _axes_fit(node) else partial(_axes, node.op)
        if _few(node):
            inside = node.op is not ops.TAKE_ALONG or node.srcs[1] in self.chosen
            return _FEW[node.op] if inside else _take_along_checked
        if node.op in _CHECKED and not any(src.op is ops.WRAP_INDEX for src in node.srcs):
            return _CHECKED[node.op] if node.op is ops.UPDATE or node.attrs["axis"] == 0 else None
        return None

    def decomposed(self, node: Node) -> tuple[Node, ...]:
        how = partial(_widened, node) if _widens(node) else _BETTER.get(node.op, node.op.decompose)
        assert how is not None
        return self.grown(node, how)

    def grown(self, node: Node, how: Callable[..., X]) -> tuple[Node, ...]:
        """The nodes that `how` makes of a node's sources, themselves lowered."""
        known = set(node.srcs)
        with standing_for(node):
            out = how(*(Handle.wrap(src) for src in node.srcs), **node.attrs)
        outs = tuple(x.node for x in (out if isinstance(out, tuple) else (out,)))
        return self.run(outs, known, node)


@contextmanager
def standing_for(node: Node) -> Iterator[None]:
    """Nodes made inside have the module path and source line of this one, and no history."""
    line = LINE.set(node.line)
    try:
        with scope(node.scope), set_grad_enabled(False), tracing(node.trace):
            yield
    finally:
        LINE.reset(line)


def _rebuilt(node: Node, done: dict[Node, Node]) -> Node:
    srcs = tuple(done[src] for src in node.srcs)
    if all(a is b for a, b in zip(srcs, node.srcs, strict=True)):
        return node
    return again(node, srcs)


def _plain(node: Node) -> bool:
    """Whether kernels can compute it: one output, and at least one element of everything."""
    return all(isinstance(n.spec, Spec) and prod(n.shape) > 0 for n in (node, *node.srcs))


def _decomposes(node: Node) -> bool:
    if not all(map(_plain, node.srcs)):
        return False
    if _widens(node):
        return True
    if node.op in _WHOLE:
        return not attention_fits(node)
    return node.op in _BETTER or node.op.decompose is not None


_ACCUMULATE = (ops.MATMUL, ops.INDEX_ADD, ops.ARGMAX, ops.ARGMIN, ops.ARGTOPK)


def _widens(node: Node) -> bool:
    """Whether it is computed in float32 as a whole, for it does more with 16 bits than maps do."""
    if node.op.kind not in ("fused", "reduce") and node.op not in _ACCUMULATE:
        return False
    return any(src.dtype.is_half for src in node.srcs)


def _widened(node: Node, *xs: X, **attrs: Any) -> X:
    wide = [x.to(float32) if x.dtype.is_half else x for x in xs]
    keep = {"keepdims": True} if node.op.kind == "reduce" else {}
    out = node.op(*wide, **attrs, **keep)
    if isinstance(node.spec, Spec):
        return out.to(node.dtype)
    return tuple(o.to(spec.dtype) for o, spec in zip(out, node.spec, strict=True))


def attention_fits(node: Node) -> bool:
    """Whether the attention kernels take these operands; others are decomposed."""
    srcs = node.srcs[1:] if node.op is ops.ATTENTION_GRAD else node.srcs
    if srcs[0].ndim > 4 or any(prod(src.shape) == 0 for src in node.srcs):
        return False
    # The gradient of an additive mask is an output that the kernel does not have.
    return not (node.op is ops.ATTENTION_GRAD and len(srcs) > 3 and srcs[3].dtype != bool_)


def _factors(product: Node) -> tuple[X, X]:
    a, b = product.srcs
    return Handle.wrap(b), Handle.wrap(a)


# Reductions: one axis at a time, the last one or all of the first ones ---------------------------

_AXIS = (ops.SUM, ops.MAX, ops.MIN, ops.ANY, ops.ALL)


def _axes_fit(node: Node) -> bool:
    wide = [i for i, n in enumerate(node.srcs[0].shape) if n != 1]
    over = [i for i in wide if i in node.attrs["axis"]]
    if len(over) == 1:
        return over[0] in (wide[0], wide[-1])
    return len(over) > 1 and over[-1] != wide[-1] and over == wide[: len(over)]


def _axes(op: Op, x: X, axis: tuple[int, ...]) -> X:
    """A reduction as those that kernels do."""
    wide = [i for i, n in enumerate(x.shape) if n != 1]
    over = [i for i in wide if i in axis]
    shape = reduced(x.shape, axis)
    if not over:
        return ops.COPY(x if op is not ops.SUM or x.dtype.is_floating_point else x.long())
    if over[-1] == wide[-1]:  # along rows first: that joins the kernel which makes them
        return op(op(x, axis=over[-1], keepdims=True), axis=tuple(over[:-1]), keepdims=True)
    kept = [i for i in range(x.ndim) if i not in over]
    turned = x.permute(*over, *kept)
    return op(turned, axis=tuple(range(len(over))), keepdims=True).reshape(shape)


# Better forms than the ops' own ----------------------------------------------------------------


def _hits(x: X, t: X, ignore_index: int) -> tuple[X, X]:
    """Which targets count (rows, 1), and where the columns are the target (rows, classes)."""
    n = x.shape[-1]
    safe = ops.WRAP_INDEX(t, size=n, wrap=False, skip=ignore_index, of="cross_entropy")
    safe = safe.unsqueeze(-1)
    columns = ops.ARANGE(start=0, step=1, count=n, dtype=safe.dtype, device=x.device)
    return (t != ignore_index).unsqueeze(-1), safe == columns


def _shifted(x: X) -> tuple[X, X]:
    shifted = x - ops.MAX(x, axis=-1, keepdims=True)
    return shifted, ops.SUM(ops.EXP(shifted), axis=-1, keepdims=True)


def _cross_entropy(x: X, t: X, ignore_index: int, label_smoothing: float) -> X:
    counts, hit = _hits(x, t, ignore_index)
    shifted, total = _shifted(x)
    picked = ops.SUM(ops.WHERE(hit, shifted, 0), axis=-1, keepdims=True)
    loss = ops.LOG(total) - picked * (1 - label_smoothing)
    if label_smoothing:
        every = ops.SUM(shifted, axis=-1, keepdims=True)
        loss = loss - every * (label_smoothing / x.shape[-1])
    return ops.WHERE(counts, loss, 0).squeeze(-1)


def _cross_entropy_grad(g: X, x: X, t: X, ignore_index: int, label_smoothing: float) -> X:
    counts, hit = _hits(x, t, ignore_index)
    shifted, total = _shifted(x)
    wanted = hit.to(x.dtype) * (1 - label_smoothing)
    if label_smoothing:
        wanted = wanted + label_smoothing / x.shape[-1]
    grad = ops.EXP(shifted) * (1 / total) - wanted
    return grad * ops.WHERE(counts, g.unsqueeze(-1), 0)


def _softmax(x: X, axis: int) -> X:
    e = ops.EXP(x - ops.MAX(x, axis=axis, keepdims=True))
    return e * (1 / ops.SUM(e, axis=axis, keepdims=True))


def _take(x: X, index: X, axis: int, wrap: bool = True) -> X:
    safe = ops.WRAP_INDEX(index, size=x.shape[axis], wrap=wrap, of="take")
    return ops.TAKE(x, safe, axis=axis, wrap=False)


MANY = 2**16  # rows that may all be added to one, in one chain of float32


def _index_add(x: X, index: X, value: X, axis: int) -> X:
    safe = ops.WRAP_INDEX(index, size=x.shape[axis], of="index_add")
    if index.shape[0] > MANY and x.dtype is float32:
        return ops.INDEX_ADD(x.to(float64), safe, value.to(float64), axis=axis).to(float32)
    return ops.INDEX_ADD(x, safe, value, axis=axis)


def _update(x: X, value: X, position: X, axis: int) -> X:
    room = x.shape[axis]
    start = ops.WHERE(position < 0, position + room, position)
    safe = ops.WRAP_INDEX(start, size=room - value.shape[axis] + 1, wrap=False, of="update")
    return ops.UPDATE(x, value, safe, axis=axis)


# Few entries of long rows: as reductions, which share a kernel with what makes the rows -----------

FEW = 8


def _few(node: Node) -> bool:
    if node.op not in _FEW or not node.srcs[0].dtype.is_floating_point:
        return False
    last, entries = node.srcs[0].ndim - 1, node.srcs[0].shape[-1:]
    return node.attrs["axis"] == last and 0 < node.shape[-1] <= FEW < entries[0]


def _columns(x: X) -> X:
    return ops.ARANGE(start=0, step=1, count=x.shape[-1], dtype=int64, device=x.device)


def _argtopk(x: X, k: int, axis: int) -> X:
    """The largest entry, k times, each time without those found before. What is taken out becomes
    less than all others: so these are finite at least."""
    lowest = float(np.finfo(x.dtype.np).min)
    left = ops.MAXIMUM(x, lowest)
    found = []
    for _ in range(k):
        found.append(ops.ARGMAX(left, axis=axis))
        left = ops.WHERE(_columns(x) == found[-1], -math.inf, left)
    return ops.CONCAT(*found, axis=axis)


def _take_along(x: X, index: X, axis: int) -> X:
    places = [(0, n, 1) for n in index.shape[:-1]]
    found = []
    for i in range(index.shape[-1]):
        hit = _columns(x) == ops.SLICE(index, ranges=(*places, (i, i + 1, 1)))
        found.append(ops.MAX(ops.WHERE(hit, x, -math.inf), axis=axis, keepdims=True))
    return ops.CONCAT(*found, axis=axis) if len(found) > 1 else found[0]


def _take_along_checked(x: X, index: X, axis: int) -> X:
    index = ops.WRAP_INDEX(index, size=x.shape[-1], of="take_along")
    return _take_along(x, index, axis)


_FEW: dict[Any, Callable[..., X]] = {ops.ARGTOPK: _argtopk, ops.TAKE_ALONG: _take_along}
_CHECKED: dict[Any, Callable[..., X]] = {
    ops.TAKE: _take,
    ops.INDEX_ADD: _index_add,
    ops.UPDATE: _update,
}
_BETTER: dict[Any, Callable[..., X]] = {
    ops.CROSS_ENTROPY: _cross_entropy,
    ops.CROSS_ENTROPY_GRAD: _cross_entropy_grad,
    ops.SOFTMAX: _softmax,
}
