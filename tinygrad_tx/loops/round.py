"""Round: a function of Tensors as a graph of its own, which a loop runs again and again.

In: a function that is called while another one is traced. Out: the Round of its nodes, on INPUT
nodes of its own, and the nodes outside that it is to be given. Called by record.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import ref

from ..context import Trace, set_grad_enabled, tracing
from ..errors import ShapeError, TraceError
from ..hooks import hand_on, in_trace
from ..node import CONST, INPUT, REBOUND, Graph, Node, apply, constant, leaf, rebound
from ..ops import BROADCAST, COPY, FLIP, PERMUTE, RESHAPE, SLICE
from ..procedure import Procedure
from ..rules import Spec
from ..tensor import Tensor

VIEWS = (RESHAPE, BROADCAST, PERMUTE, SLICE, FLIP, REBOUND)  # looked at again rather than kept


@dataclass(eq=False)
class Capture:
    """A Tensor from outside that a function reads: its node there, the one that stands for it
    inside, and its value so far."""

    tensor: Tensor
    outer: Node
    placeholder: Node
    first: Node
    node: Node
    grad: Any = None

    @property
    def changed(self) -> bool:
        return self.node is not self.first


class Recorder(Trace):
    """The trace of a function inside another trace (`parent`; None where code runs eagerly).

    Tensors from outside become inputs of the function, by identity, and what it does to them is
    kept beside them: the parent learns of it when the loop that runs the function is recorded.
    asks: of the captured Tensors that the function changes, those that a gradient flows through.
    """

    def __init__(self, parent: Trace | None, asks: Mapping[int, bool]) -> None:
        self.parent, self._asks = parent, asks
        self.captured: dict[int, Capture] = {}
        self.results: dict[Node, Node] = {}  # nodes that stand for inputs which are no leaves

    def input(self, spec: Spec, device: str, requires_grad: bool) -> Node:
        return Node(INPUT, (), {}, spec, device, requires_grad=requires_grad, trace=self, at="")

    def result(self, placeholder: Node) -> Node:
        """A node for an input that is a result outside: other than a leaf that requires a gradient,
        it may be assigned to."""
        if not placeholder.requires_grad:
            return placeholder
        with tracing(self):
            node = apply(COPY, (placeholder,), {})
        self.results[node] = placeholder
        return node

    # The methods of context.Trace
    def read(self, handle: Tensor) -> Node:
        found = self.captured.get(id(handle))
        if found is None:
            if handle._node.trace is self:
                return handle._node
            found = self._capture(handle)
        return found.node

    def write(self, handle: Tensor, node: Node) -> None:
        if id(handle) not in self.captured and handle._node.trace is self:
            handle._node = node
            return
        found = self.captured.get(id(handle)) or self._capture(handle)
        if node.spec != found.placeholder.spec:
            raise ShapeError(
                f"a loop's function turns a captured Tensor of {found.outer.dtype.name} "
                f"{found.outer.shape} into one of {node.dtype.name} {node.shape}: a loop keeps both"
            )
        found.node = node

    def read_grad(self, handle: Tensor) -> Tensor | None:
        found = self._outside(handle)
        grad: Tensor | None = handle._grad if found is None else found.grad
        return grad

    def write_grad(self, handle: Tensor, grad: Tensor | None) -> None:
        found = self._outside(handle)
        if found is None:
            handle._grad = grad
        else:
            found.grad = grad

    def guard(self, owner: Any, attribute: str, value: Any) -> None:
        if self.parent is not None:
            self.parent.guard(owner, attribute, value)

    def differentiate(self, roots: tuple[Node, ...]) -> tuple[Node, ...]:
        if self.parent is None or in_trace(self):  # rewritten nodes would have no hooks
            return roots
        return self.parent.differentiate(roots)

    # Captured Tensors
    def _outside(self, handle: Tensor) -> Capture | None:
        """The Capture of a Tensor; None where it was made inside."""
        found = self.captured.get(id(handle))
        if found is None and handle._node.trace is not self:
            found = self._capture(handle)
        return found

    def _capture(self, handle: Tensor) -> Capture:
        with tracing(self.parent):
            outer, grad = handle.node, handle.grad
        asks = self._asks.get(id(handle), outer.requires_grad)
        placeholder = self.input(Spec(outer.shape, outer.dtype), outer.device, asks)
        placeholder.owner = ref(handle)
        leaf = outer.is_leaf and outer.requires_grad
        node = placeholder if leaf else self.result(placeholder)
        found = Capture(handle, outer, placeholder, node, node, grad)
        self.captured[id(handle)] = found
        return found

    def check_gradients(self) -> None:
        """TraceError where the function has left a gradient on a Tensor from outside."""
        for found in self.captured.values():
            with tracing(self.parent):
                before = found.tensor.grad
            if found.grad is not before:
                raise TraceError(
                    "a loop's function has changed the .grad of a Tensor from outside "
                    f"({found.outer.shape}): use tx.grad inside, and give the gradient back"
                )


@dataclass(frozen=True, eq=False)
class Round:
    """A function as a graph. consts: its inputs that stay the same in all rounds; carry: those that
    become the first of `outs` in the next one; xs: those that are another entry in each round.
    recorder: the trace of its nodes, for further ones that its gradient makes."""

    name: str
    recorder: Recorder
    consts: tuple[Node, ...]
    carry: tuple[Node, ...]
    xs: tuple[Node, ...]
    outs: tuple[Node, ...]

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (*self.consts, *self.carry, *self.xs)

    @cached_property
    def varying(self) -> frozenset[Node]:
        """The nodes whose values differ from round to round."""
        return varying(self.outs, (*self.carry, *self.xs))

    @cached_property
    def _procedures(self) -> dict[tuple[Node, ...], Procedure]:
        return {}

    def procedure(self, keep: tuple[Node, ...]) -> Procedure:
        """It as calls of forwards: its outs, and the values of further nodes."""
        found = self._procedures.get(keep)
        if found is None:
            found = self._procedures[keep] = Procedure((*self.outs, *keep), self.inputs)
        return found

    def __repr__(self) -> str:
        return self.name


def varying(roots: Iterable[Node], among: Iterable[Node]) -> frozenset[Node]:
    """The nodes that depend on some of these."""
    found = set(among)
    for node in Graph(roots):
        if any(src in found for src in node.srcs):
            found.add(node)
    return frozenset(found)


def substituted(roots: Sequence[Node], places: Mapping[Node, Node]) -> tuple[Node, ...]:
    """The roots on other nodes in the places of some."""
    done: dict[Node, Node] = {}
    for node in Graph(roots, follow=lambda node: node not in places):
        srcs = tuple([done.get(src, src) for src in node.srcs])
        if node in places:
            done[node] = places[node]
        else:
            done[node] = node if srcs == node.srcs else node.with_srcs(srcs)
            hand_on(node, done[node])
    return tuple(done[root] for root in roots)


def apart(outs: Sequence[Node], carried: int, rec: Recorder) -> tuple[Node, ...]:
    """A round's outs, the first so many of which are carried: no two of those are the same node,
    for each carry has memory of its own."""
    found: dict[Node, None] = {}
    for node in outs[:carried]:
        with tracing(rec):
            while node in found:
                node = apply(COPY, (node,), {})
        found[node] = None
    return (*found, *outs[carried:])


def hoisted(
    roots: tuple[Node, ...], outer: Mapping[Node, Node], changing: frozenset[Node], rec: Recorder
) -> tuple[tuple[Node, ...], dict[Node, Node]]:
    """Roots whose loop-invariant values are computed outside, and the INPUT nodes that take their
    place, each with the node outside. outer: the nodes outside of the inputs that do not change."""
    places: dict[Node, Node] = {}
    given: dict[Node, Node] = {}

    def visit(node: Node) -> None:
        while node.op in VIEWS:
            node = node.srcs[0]
        if node in places or not node.srcs or not isinstance(node.spec, Spec):
            return
        if node.op.kind == "random" or node in changing:
            return
        with tracing(rec.parent):
            made = _outside(node, outer)
        places[node] = rec.input(node.spec, node.device, made.requires_grad)
        given[places[node]] = made

    for node in Graph(roots):
        if node in changing:
            for src in node.srcs:
                if src not in changing:
                    visit(src)
    for root in roots:
        if root not in changing:
            visit(root)
    return substituted(roots, places), given


def _outside(node: Node, outer: Mapping[Node, Node]) -> Node:
    """A value that is computed from what does not change, computed outside of the loop."""
    done = dict(outer)
    for step in Graph([node]):
        if step in done:
            continue
        if step.op is CONST:
            done[step] = constant(step.attrs["value"], step.dtype, step.device)
        elif step.array is not None:
            done[step] = leaf(step.array, step.dtype, step.device)
        elif step.op is REBOUND:
            done[step] = rebound(done[step.srcs[0]], requires_grad=step.requires_grad)
        else:
            with set_grad_enabled(step.requires_grad):
                done[step] = apply(step.op, tuple(done[src] for src in step.srcs), step.attrs)
    return done[node]
