"""lower: every composite op (softmax, layer norm, a loss) becomes simple ops that kernels have.

In: rewritten roots. Out: roots whose graph has maps, reductions along the last or the first axes,
movement, products, attention, gathers, and opaque ops. A stage of pipeline.py. A composite op
is lowered by its own record: its `kernel_form`, or else its `decompose`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import prod
from typing import Any

from ... import ops
from ...context import LINE, scope, set_grad_enabled, tracing
from ...dtypes import float32, int32
from ...node import ITEM, Graph, Handle, Node
from ...ops.attention import split
from ...rules import Spec
from .checked import CHECKED
from .reductions import AXES, axes_fit, by_axes
from .search import SEARCHES, finds_few, take_along_checked

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
    """The lowering of one graph: its nodes so far, and facts about them."""

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
                    node.put_at(place)
                made = _rebuilt(node, done)
                turned = node.op is ops.PERMUTE and node.srcs[0] in self.lone
                done[node] = self.turned(made) if turned else self.lowered(made)
                if node.op in (ops.ARGTOPK, ops.ARGSORT):
                    self.chosen.add(done[node])
        return tuple(done[root] for root in roots)

    def turned(self, node: Node) -> Node:
        """(a b).T as b.T a.T, whose result has the wanted layout; the sums are the same."""
        product, order = node.srcs[0], node.attrs["order"]
        swap = (*range(node.ndim - 2), node.ndim - 1, node.ndim - 2)
        if product.op is not ops.MATMUL or order != swap or not _plain(node):
            return self.lowered(node)

        def swapped(x: X, order: X) -> X:
            return ops.MATMUL(*(t.mT for t in _factors(product)), **product.attrs)

        return self.grown(node, swapped, product.srcs)[0]

    def lowered(self, node: Node) -> Node:
        if node.op is ITEM:
            src = node.srcs[0]
            if src not in self.parts and _decomposes(src):
                self.parts[src] = self.decomposed(src)
            return self.parts[src][node.attrs["i"]] if src in self.parts else node
        if not isinstance(node.spec, Spec):
            return node
        if _decomposes(node):
            return self.decomposed(node)[0] if _plain(node) else node
        how = self._how(node)
        return node if how is None or not _plain(node) else self.grown(node, how)[0]

    def _how(self, node: Node) -> Callable[..., X] | None:
        """The function that makes a simple op of others, where kernels do not have it in this
        form."""
        if node.op in AXES:
            return None if axes_fit(node) else partial(by_axes, node.op)
        if finds_few(node):
            inside = node.op is not ops.TAKE_ALONG or node.srcs[1] in self.chosen
            return SEARCHES[node.op] if inside else take_along_checked
        if node.op in CHECKED and not any(src.op is ops.WRAP_INDEX for src in node.srcs):
            return CHECKED[node.op] if node.op is ops.UPDATE or node.attrs["axis"] == 0 else None
        return None

    def decomposed(self, node: Node) -> tuple[Node, ...]:
        how = partial(_widened, node) if _widens(node) else node.op.kernel_form
        assert how is not None
        return self.grown(node, how)

    def grown(
        self, node: Node, how: Callable[..., X], reads: Sequence[Node] = ()
    ) -> tuple[Node, ...]:
        """The nodes that `how` makes of a node's sources, themselves lowered. reads: what else it
        reads, which is lowered and stays where it is."""
        known = {*node.srcs, *reads}
        with standing_for(node):
            out = how(*(Handle.wrap(src) for src in node.srcs), **node.attrs)
        outs = tuple(x.node for x in (out if isinstance(out, tuple) else (out,)))
        return self.run(outs, known, node)


@contextmanager
def standing_for(node: Node) -> Iterator[None]:
    """Nodes made inside have the module path and source line of this one, and no history."""
    line = LINE.set(node.at)
    try:
        with scope(node.scope), set_grad_enabled(False), tracing(node.trace):
            yield
    finally:
        LINE.reset(line)


def _rebuilt(node: Node, done: dict[Node, Node]) -> Node:
    srcs = tuple([done[src] for src in node.srcs])
    return node if srcs == node.srcs else node.with_srcs(srcs)


def _plain(node: Node) -> bool:
    """True if kernels can compute a node: one output, and at least one element in each operand and
    result."""
    nodes = (node,) if node.op is ITEM else (node, *node.srcs)
    return all(isinstance(n.spec, Spec) and prod(n.shape) > 0 for n in nodes)


def _decomposes(node: Node) -> bool:
    composite = node.op.kernel_form is not None
    if composite and node.op in _WHOLE:
        composite = not attention_fits(node)
    return (composite or _widens(node)) and all(map(_plain, node.srcs))


_ACCUMULATE = (ops.INDEX_ADD, ops.ARGMAX, ops.ARGMIN, ops.ARGTOPK)


def _widens(node: Node) -> bool:
    """True if a node is computed in float32 as a whole, because it does more with 16 bits than maps
    do, and than products, whose kernels take them."""
    if node.op.kind not in ("fused", "reduce") and node.op not in _ACCUMULATE:
        return False
    if node.op is ops.CONVOLUTION or (node.op in _WHOLE and attention_fits(node)):
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
    """True if the attention kernels take these operands; others are decomposed."""
    srcs = node.srcs[1:] if node.op is ops.ATTENTION_GRAD else node.srcs
    mask, _ = split(srcs[3:], **node.attrs)
    if srcs[0].ndim > 4 or any(prod(src.shape) == 0 for src in node.srcs):
        return False
    if mask is not None and mask.dtype == int32:
        return False  # bounds are int64 there
    # The kernel has the gradient of the scores only when it is scaled.
    added = mask is not None and mask.dtype.is_floating_point
    return not (node.op is ops.ATTENTION_GRAD and added and node.attrs["scale"] == 0)


def _factors(product: Node) -> tuple[X, X]:
    a, b = product.srcs
    return Handle.wrap(b), Handle.wrap(a)
