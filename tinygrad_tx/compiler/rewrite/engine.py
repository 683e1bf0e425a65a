"""rewrite: rules applied to a recorded graph.

In: the roots of a traced graph and rules, each `Node -> Node | None`. Out: new roots. Called by
rewrite/lift/idioms.py and rewrite/simplify.py, whose passes pipeline.py lists. Dead code needs no
pass: a node that nothing reads is not reached from the roots.

`differentiable` says that gradients will still be taken of the result. Then a node where autograd
may stop or accumulate (a leaf, a copy) stays the very same object; a result computed under no_grad
from something that requires a gradient reads detached inputs instead, so that rules see the
gradient boundary; and nodes that require a gradient are never merged with nodes that do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...node import REBOUND, Graph, Node, rebound
from ...op import Attrs, Op
from ...ops import COPY
from ...rules import Spec

Rule = Callable[[Node], Node | None]
Roots = tuple[Node, ...]
_ABOUT: dict[Rule, tuple[Op, ...]] = {}


def about(*ops: Op) -> Callable[[Rule], Rule]:
    """Declares, for speed, the only ops whose nodes a rule may replace."""

    def declare(rule: Rule) -> Rule:
        _ABOUT[rule] = ops
        return rule

    return declare


def rewrite(roots: Roots, rules: Sequence[Rule], *, differentiable: bool = False) -> Roots:
    """The roots after every rule has been applied, sources first, until none applies."""
    done: dict[Node, Node] = {}
    detached: dict[Node, Node] = {}
    for_op: dict[Op, list[Rule]] = {}

    def source(node: Node) -> Node:
        found = done.get(node)
        if found is None:  # made by a rule just now: no deeper than what the rule has built
            found = done[node] = settle(node)
        return found

    def sources(node: Node) -> tuple[Node, ...]:
        srcs = tuple([source(src) for src in node.srcs])
        if differentiable and _cuts(node):
            for src in srcs:
                if src.requires_grad and src not in detached:
                    detached[src] = rebound(src, requires_grad=False)
            srcs = tuple(detached.get(src, src) for src in srcs)
        return srcs

    def settle(node: Node) -> Node:
        while True:
            if differentiable and is_boundary(node):
                return node
            if node.srcs:
                srcs = sources(node)
                if srcs != node.srcs:
                    node = node.with_srcs(srcs)
            candidates = for_op.get(node.op)
            if candidates is None:
                candidates = [r for r in rules if node.op in _ABOUT.get(r, (node.op,))]
                for_op[node.op] = candidates
            for rule in candidates:
                made = rule(node)
                if made is not None:
                    assert made.spec == node.spec, f"{rule} made {made} of {node}"
                    break
            else:
                done[node] = node
                return node
            if made in done:
                return done[made]
            node = made

    for node in graph(roots, differentiable):
        done[node] = settle(node)
    return tuple(done[root] for root in roots)


def use(op: Op, srcs: tuple[Node, ...], attrs: Attrs, *, like: Node) -> Node:
    """A new node, in the place (module, source line) of the node that it helps to replace."""
    spec = op.rule(op, *srcs, **attrs)
    floats = not isinstance(spec, Spec) or spec.dtype.kind == "f"
    node = Node(
        op,
        srcs,
        attrs,
        spec,
        attrs.get("target", like.device),
        requires_grad=floats and any(src.requires_grad for src in srcs),
        trace=like.trace,
        at=like.at,
    )
    return node.put_at(like)


def graph(roots: Roots, differentiable: bool) -> Graph:
    return Graph(roots, (lambda node: not is_boundary(node)) if differentiable else None)


def is_boundary(node: Node) -> bool:
    """True if autograd may be asked for the gradient of this very node: leaves have owners, and
    tx.grad differentiates by copies of its arguments."""
    return node.requires_grad and (node.op is COPY or node.op is REBOUND)


def _cuts(node: Node) -> bool:
    """True for a float result recorded under no_grad. Its inputs are detached explicitly, so that
    rules can see the gradient boundary."""
    if node.requires_grad or node.op is REBOUND:
        return False
    return not isinstance(node.spec, Spec) or node.spec.dtype.kind == "f"
