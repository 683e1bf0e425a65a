"""fuse: the nodes of a lowered graph become calls of kernels, in an order in which they can run.

In: Ends. Out: a Fusion: units in order (bodies, whose cut into tasks is open, and finished calls),
the view in which each end's value lies, the decision on each node, and a reason for each fusion
that was refused. A stage of pipeline.py.

Nodes are taken in topological order, small values first (order.py). For each a decision is made
(decide.py), then applied to the Values (build.py, emit/); when all are decided, each group is
written as instructions (body.py).
"""

from __future__ import annotations

import warnings
from math import prod

from ...backends.kernels import kinds
from ...backends.target import Target
from ...node import Node
from ..schedule.records import Buffer, Call, Ends, Fusion, Refusal, whole
from .body import Body
from .build import add, begin, join, materialise, note_made
from .decide import decide
from .decisions import Begins, Decision, Deferred, Emits, Folded, Given, Joins, Opaque, Viewed
from .emit import KERNELS
from .expressions import expression
from .group import fresh
from .order import REDUCTIONS, ordered
from .values import Values


def fuse(graph: Ends, target: Target) -> Fusion:
    """The stage of pipeline.py."""
    final = dict(zip(graph.ends, graph.roots, strict=True))
    states = {s: final[end] for s, end in graph.states.items()}
    values = Values(graph.roots, states, target, graph.rounds)
    decisions: dict[Node, Decision] = {}
    for node in ordered(values.graph, values.users):
        decisions[node] = decide(values, node)
        _apply(values, node, decisions[node])
    for root in graph.roots:
        materialise(values, root)
    for source in graph.states:  # one that nobody reads can be written over as well
        if source not in values.inputs:
            values.inputs[source] = Buffer("input", source.dtype.name, prod(source.shape), source)
    return Fusion(
        graph,
        tuple(unit if isinstance(unit, Call) else Body(unit) for unit in values.units),
        {end: values.places[root] for end, root in final.items()},
        values.inputs,
        values.constants,
        tuple(values.refusals),
        decisions,
        values.unit_of,
        frozenset(values.in_place),
    )


def _apply(values: Values, node: Node, decision: Decision) -> None:
    """Apply the decision on a node to the Values."""
    match decision:
        case Given():
            buffer = Buffer("input", node.dtype.name, prod(node.shape), node)
            values.inputs[node], values.places[node] = buffer, whole(buffer, node.shape)
        case Folded(array):
            values.folded[node] = array
        case Viewed():
            pass
        case Deferred():
            values.deferred.add(node)
        case Joins(unit, level, operands):
            join(values, unit, node, level, operands)
        case Begins():
            begin(values, node, decision)
        case Emits():
            KERNELS[node.op].emit(values, node)
        case Opaque(_, untraceable):
            _call_opaquely(values, node, untraceable)
    if isinstance(decision, Opaque):
        values.refusals.append(decision.refused)
    elif node.op in REDUCTIONS and isinstance(decision, (Joins, Begins)):
        if decision.declined is None or decision.declined.operand is None:
            return
        why = "what it reduces is not at hand in the kernel before it"
        values.refusals.append(Refusal(node, why))


def _call_opaquely(values: Values, node: Node, untraceable: str) -> None:
    """A call of the op's forward on arrays. Who wrote a map's forward is told, once for each use,
    that it has no scalar expression."""
    if untraceable and not node.op.ours and not expression(values, node).told:
        expression(values, node).told = True
        warnings.warn(
            f"the map op {node.op.name} is called as it is and not compiled: {untraceable}; write "
            "its forward with arithmetic and xp functions of single elements, or make it "
            "an op of another kind",
            stacklevel=2,
        )
    reads = tuple([materialise(values, src) for src in node.srcs])
    writes = tuple([fresh(spec.dtype.name, spec.shape, node) for spec in node.specs])
    add(values, Call(kinds.Opaque(node.op.name), (), reads, writes, (node,)))
    note_made(values, node, *writes)
