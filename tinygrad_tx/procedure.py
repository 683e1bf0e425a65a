"""Procedure: a graph that runs op by op, through the same forwards as eager code.

In: the nodes that a graph ends as, and the nodes that are its inputs. Out: a Procedure, which gives
the ends' arrays for the inputs'. Called by compiler/run/replay.py, and for a loop's body by
loops/record.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from time import perf_counter
from typing import Any, NamedTuple

from . import backends, finite
from .half import computing
from .mistakes import naming
from .node import CONST, Graph, Node, execute, outline
from .rules import Spec, as_promised


class Step(NamedTuple):
    """One op call: the values that it reads, the place of its result, the values whose last reader
    it is."""

    node: Node
    device: str  # of its inputs
    reads: tuple[int, ...]
    result: int
    frees: tuple[int, ...]


class Procedure:
    """graph: its nodes, down to the inputs; slot: the place of each node's value in a run."""

    def __init__(self, ends: Sequence[Node], inputs: Sequence[Node]) -> None:
        given, kept = set(inputs), {*ends, *inputs}
        self.graph = Graph(ends, follow=lambda node: node not in given)
        nodes = dict.fromkeys((*self.graph, *inputs))
        self.slot = {node: i for i, node in enumerate(nodes)}
        self._given = [self.slot[node] for node in inputs]
        self._ends = [self.slot[node] for node in ends]
        self._known: list[tuple[int, Any]] = []  # values that are the same at every run
        self.steps: list[Step] = []
        last = {src: node for node in self.graph if node not in given for src in node.srcs}
        ends_at: dict[Node, list[int]] = {}
        for value, node in last.items():
            if value not in kept:
                ends_at.setdefault(node, []).append(self.slot[value])
        for node in self.graph:
            if node in given:
                continue
            if node.array is not None:
                self._known.append((self.slot[node], node.array))
            elif node.op is CONST:
                scalar = backends.get(node.device).scalar(node.attrs["value"], node.dtype)
                self._known.append((self.slot[node], scalar))
            else:
                device = node.srcs[0].device if node.srcs else node.device
                reads = tuple(self.slot[s] for s in node.srcs)
                frees = tuple(ends_at.get(node, ()))
                self.steps.append(Step(node, device, reads, self.slot[node], frees))
        self.backends = {backends.get(s.device) for s in self.steps}
        self._calls = [(backends.get(s.device), _forward(s.node), s.node.attrs) for s in self.steps]
        self._proven = False

    def run(
        self,
        arrays: Sequence[Any],
        seconds: list[float] | None = None,
        names: Mapping[Node, str] | None = None,
    ) -> list[Any]:
        """The arrays of the ends. arrays: of the inputs, in their order. seconds: gets those that
        each step took. names: of inputs, in words, for TX_CHECK=nan."""
        values: list[Any] = [None] * len(self.slot)
        for slot, value in self._known:
            values[slot] = value
        for slot, value in zip(self._given, arrays, strict=True):
            values[slot] = value
        if finite.wanted():
            self._prove(values, seconds, names or {})
        elif self._proven:
            self._run(values, seconds)
        else:
            self._prove(values, seconds)
        return [values[slot] for slot in self._ends]

    def _prove(
        self,
        values: list[Any],
        seconds: list[float] | None,
        names: Mapping[Node, str] | None = None,
    ) -> None:
        """The first run: every forward is held to its op's rule. names: to being finite, too."""
        before = perf_counter()
        for node, device, reads, result, frees in self.steps:
            arrays = [values[i] for i in reads]
            values[result] = made = execute(node.op, device, arrays, node.attrs, node.spec)
            if names is not None:
                where = (node.scope, node.at, node.gradient_of)
                finite.check(node.op, node.srcs, arrays, node.attrs, made, *where, names)
            for i in frees:
                values[i] = None
            if seconds is not None:
                before = _note(seconds, before)
        self._proven = True

    def _run(self, values: list[Any], seconds: list[float] | None) -> None:
        """Every other run: nothing but the forwards."""
        with ExitStack() as stack:
            for xp in self.backends:
                stack.enter_context(xp.no_warnings())
            current = stack.enter_context(naming())
            before = perf_counter()
            for (xp, forward, attrs), (node, _, reads, result, frees) in zip(
                self._calls, self.steps, strict=True
            ):
                current.node = node
                values[result] = forward(xp, *[values[i] for i in reads], **attrs)
                for i in frees:
                    values[i] = None
                if seconds is not None:
                    before = _note(seconds, before)


def _note(seconds: list[float], before: float) -> float:
    """Note the time since `before`; the time now."""
    now = perf_counter()
    seconds.append(now - before)
    return now


def _forward(node: Node) -> Callable[..., Any]:
    lands = backends.get(node.device)
    if not lands.computes and node.op.kind != "loop":
        return lambda xp, *arrays, **attrs: outline(lands, node.spec)
    inputs = [s for s in node.srcs if isinstance(s.spec, Spec)]
    forward = computing(node.op, inputs, node.spec)
    if node.op.ours:
        return forward
    op, spec = node.op, node.spec
    return lambda xp, *arrays, **attrs: as_promised(op, xp, forward(xp, *arrays, **attrs), spec)
