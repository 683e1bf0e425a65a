"""lower: every op that is known whole becomes the simple ops that kernels are made of.

In: rewritten roots. Out: roots whose graph has maps, reductions along the last or the first axes,
movement, products, attention, gathers, and what stays opaque. Called by plan.py after the passes of
rewrite.py. Most ops are lowered by their own `decompose`; the few written here say the same in a
form that makes better kernels (no gather of the targets: a comparison with the column number).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from .. import ops
from ..dtypes import bool_
from ..node import CONST, ITEM, Graph, Handle, Node, Spec, set_grad_enabled, tracing

NATIVE = ("float32", "float64", "int32", "int64", "bool")  # what kernels compute with
_WHOLE = (ops.ATTENTION, ops.ATTENTION_GRAD)
X = Any


def lower(roots: Sequence[Node]) -> tuple[Node, ...]:
    """The same values by simpler ops."""
    done: dict[Node, Node] = {}
    parts: dict[Node, tuple[Node, ...]] = {}  # an op's several outputs, once decomposed
    positive: dict[Node, Node] = {}  # relu of each node that has one
    for node in Graph(roots):
        made = _lowered(_rebuilt(node, done), parts)
        if made.op is ops.RELU:
            positive[made.srcs[0]] = made
        elif made.op is ops.GT and made.srcs[0] in positive and _is_zero(made.srcs[1]):
            # Where relu(x) > 0 there is x > 0, so that x need not be kept for the gradient.
            x, zero = made.srcs
            made = _rebuilt(made, {x: positive[x], zero: zero})
        done[node] = made
    return tuple(done[root] for root in roots)


def _is_zero(node: Node) -> bool:
    return node.op is CONST and node.attrs["value"] == 0


def _rebuilt(node: Node, done: dict[Node, Node]) -> Node:
    srcs = tuple(done[src] for src in node.srcs)
    if all(a is b for a, b in zip(srcs, node.srcs, strict=True)):
        return node
    made = Node(
        node.op,
        srcs,
        node.attrs,
        node.spec,
        node.device,
        requires_grad=node.requires_grad,
        trace=node.trace,
        line=node.line,
    )
    made.scope = node.scope
    return made


def _lowered(node: Node, parts: dict[Node, tuple[Node, ...]]) -> Node:
    if node.op is ITEM:
        src = node.srcs[0]
        if src not in parts and _decomposes(src):
            parts[src] = _decomposed(src)
        return parts[src][node.attrs["i"]] if src in parts else node
    if not isinstance(node.spec, Spec) or not _plain(node):
        return node
    if _decomposes(node):
        return _decomposed(node)[0]
    if node.op in _AXIS:
        return _axes(node)
    checked = any(src.op is ops.WRAP_INDEX for src in node.srcs)
    if node.op in _CHECKED and not checked and (node.attrs["axis"] == 0 or node.op is ops.UPDATE):
        return _grown(node, _CHECKED[node.op])[0]
    return node


def _plain(node: Node) -> bool:
    """Whether kernels can compute it: dtypes that they know, and at least one element."""
    return all(
        isinstance(n.spec, Spec) and n.dtype.name in NATIVE and prod(n.shape) > 0
        for n in (node, *node.srcs)
    )


def _decomposes(node: Node) -> bool:
    specs = (node.spec,) if isinstance(node.spec, Spec) else node.spec
    if any(s.dtype.name not in NATIVE for s in specs) or not all(map(_plain, node.srcs)):
        return False
    if node.op in _WHOLE:
        return not attention_fits(node)
    return node.op in _BETTER or node.op.decompose is not None


def attention_fits(node: Node) -> bool:
    """Whether the attention kernels take these operands; others are decomposed."""
    srcs = node.srcs[1:] if node.op is ops.ATTENTION_GRAD else node.srcs
    if srcs[0].ndim > 4 or any(prod(src.shape) == 0 for src in node.srcs):
        return False
    # The gradient of an additive mask is an output that the kernel does not have.
    return not (node.op is ops.ATTENTION_GRAD and len(srcs) > 3 and srcs[3].dtype != bool_)


def _decomposed(node: Node) -> tuple[Node, ...]:
    how = _BETTER.get(node.op) or node.op.decompose
    assert how is not None
    return _grown(node, how)


def _grown(node: Node, how: Callable[..., X]) -> tuple[Node, ...]:
    """The nodes that `how` makes of a node's sources, themselves lowered."""
    known = set(node.srcs)
    with tracing(node.trace), set_grad_enabled(False):
        out = how(*(Handle.wrap(src) for src in node.srcs), **node.attrs)
    outs = tuple(x.node for x in (out if isinstance(out, tuple) else (out,)))
    done: dict[Node, Node] = {src: src for src in known}
    parts: dict[Node, tuple[Node, ...]] = {}
    for made in Graph(outs, follow=lambda n: n not in known):
        if made not in known:
            made.scope, made.line = node.scope, node.line
            done[made] = _lowered(_rebuilt(made, done), parts)
    return tuple(done[o] for o in outs)


# Reductions: one axis at a time, the last one or all of the first ones ---------------------------

_AXIS = (ops.SUM, ops.MAX, ops.MIN, ops.ANY, ops.ALL)


def _axes(node: Node) -> Node:
    x, axis = node.srcs[0], node.attrs["axis"]
    wide = [i for i, n in enumerate(x.shape) if n != 1]
    over = [i for i in wide if i in axis]
    if not over:
        return _grown(node, lambda x, axis: ops.COPY(x.to(node.dtype)))[0]
    if len(over) < 2 and (over[-1] == wide[-1] or over[0] == wide[0]):
        return node
    if over[-1] == wide[-1]:  # along rows first: that joins the kernel which makes them
        return _grown(node, lambda x, axis: _twice(node.op, x, over))[0]
    if over == wide[: len(over)]:
        return node
    kept = [i for i in range(x.ndim) if i not in over]
    return _grown(
        node,
        lambda x, axis: node.op(
            x.permute(*over, *kept), axis=tuple(range(len(over))), keepdims=True
        ).reshape(node.shape),
    )[0]


def _twice(op: Any, x: X, over: list[int]) -> X:
    return op(op(x, axis=over[-1], keepdims=True), axis=tuple(over[:-1]), keepdims=True)


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


def _index_add(x: X, index: X, value: X, axis: int) -> X:
    safe = ops.WRAP_INDEX(index, size=x.shape[axis], of="index_add")
    return ops.INDEX_ADD(x, safe, value, axis=axis)


def _update(x: X, value: X, position: X, axis: int) -> X:
    room = x.shape[axis]
    start = ops.WHERE(position < 0, position + room, position)
    safe = ops.WRAP_INDEX(start, size=room - value.shape[axis] + 1, wrap=False, of="update")
    return ops.UPDATE(x, value, safe, axis=axis)


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
