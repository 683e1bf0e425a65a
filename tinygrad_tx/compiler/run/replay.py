"""replay: run a recorded call op by op, through the same forwards as eager code.

In: a Traced call. Out: a Replay, which computes everything first and changes state last: an error
on the way (a token id out of range, say) leaves all as it was. It is the plan where nothing is
fused, and the oracle of every other one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np

from ... import backends
from ...half import computing
from ...mistakes import naming
from ...node import CONST, INPUT, Graph, Node, execute
from ...rules import Spec, as_promised
from ..capture.guards import Match
from ..capture.trace import Traced
from ..inspect.origin import named
from .recording import Budget, Recording


class Step(NamedTuple):
    """One op call: the values that it reads, the place of its result, the values whose last reader
    it is."""

    node: Node
    device: str  # of its inputs
    reads: tuple[int, ...]
    result: int
    frees: tuple[int, ...]


class Replay(Recording):
    """A recorded call, run op by op."""

    def __init__(self, traced: Traced) -> None:
        super().__init__(traced)
        ends = traced.ends
        self.graph = Graph(ends)
        self.slot = {node: i for i, node in enumerate(self.graph)}
        self.known: list[tuple[int, Any]] = []  # values that are the same at every run
        self.steps: list[Step] = []
        kept = set(ends)
        last = {src: node for node in self.graph for src in node.srcs}
        ends_at: dict[Node, list[int]] = {}
        for value, node in last.items():
            if value not in kept and value.op is not INPUT:
                ends_at.setdefault(node, []).append(self.slot[value])
        for node in self.graph:
            if node.array is not None:
                self.known.append((self.slot[node], node.array))
            elif node.op is CONST:
                scalar = backends.get(node.device).scalar(node.attrs["value"], node.dtype)
                self.known.append((self.slot[node], scalar))
            elif node.op is not INPUT:
                device = node.srcs[0].device if node.srcs else node.device
                reads = tuple(self.slot[s] for s in node.srcs)
                frees = tuple(ends_at.get(node, ()))
                self.steps.append(Step(node, device, reads, self.slot[node], frees))
        self.backends = {backends.get(s.device) for s in self.steps}
        self.calls = [(backends.get(s.device), _forward(s.node), s.node.attrs) for s in self.steps]
        self.proven = False
        self.reads = [
            (i, self.slot[found.placeholder])
            for i, found in enumerate(traced.inputs)
            if found.placeholder in self.slot
        ]

    def run(self, match: Match, budget: Budget | None = None) -> Any:
        """The function's result for a call. budget: of which this is one."""
        if budget is not None:
            budget.left -= 1
        values: list[Any] = [None] * len(self.slot)
        for slot, value in self.known:
            values[slot] = value
        for i, slot in self.reads:
            values[slot] = match.nodes[i].array
        self.meet(match)
        for i in match.unknown:
            self.inputs.remember(i, match.nodes[i])
        if self.proven:
            self._run(values)
        else:
            self._prove(values)
        for xp in self.backends:  # an error changes nothing
            xp.settle()
        return self.commit(match.tensors, lambda node: values[self.slot[node]])

    def _prove(self, values: list[Any]) -> None:
        """The first run: every forward is held to its op's rule."""
        for node, device, reads, result, frees in self.steps:
            arrays = [values[i] for i in reads]
            values[result] = execute(node.op, device, arrays, node.attrs, node.spec)
            for i in frees:
                values[i] = None
        self.proven = True

    def _run(self, values: list[Any]) -> None:
        """Every other run: nothing but the forwards."""
        with ExitStack() as stack:
            for xp in self.backends:
                stack.enter_context(xp.no_warnings())
            current = stack.enter_context(naming())
            for (xp, forward, attrs), (node, _, reads, result, frees) in zip(
                self.calls, self.steps, strict=True
            ):
                current.op = node.op
                values[result] = forward(xp, *[values[i] for i in reads], **attrs)
                for i in frees:
                    values[i] = None

    def kernels(self) -> int:
        return len(self.steps)

    def explain(self, source: bool = False) -> str:
        """A line for each op call: its result, module and source line. There is no source."""
        lines = [f"{len(self.steps)} op calls, nothing fused"]
        for i, step in enumerate(self.steps):
            node = step.node
            what = ", ".join(f"{s.dtype.name}{list(s.shape)}" for s in node.specs)
            lines.append(f"{i:5}  {node.op.name:20} {what:40} {named(node)}".rstrip())
        return "\n".join(lines)

    def peak_bytes(self) -> int:
        """The most bytes of intermediate values that are alive at once."""
        alive = peak = 0
        sizes = {self.slot[n]: _bytes(n) for n in self.graph}
        for step in self.steps:
            alive += sizes[step.result]
            peak = max(peak, alive)
            alive -= sum(sizes[i] for i in step.frees)
        return peak


def _forward(node: Node) -> Callable[..., Any]:
    inputs = [s for s in node.srcs if isinstance(s.spec, Spec)]
    forward = computing(node.op, inputs, node.spec)
    if node.op.ours:
        return forward
    op, spec = node.op, node.spec
    return lambda xp, *arrays, **attrs: as_promised(op, xp, forward(xp, *arrays, **attrs), spec)


def _bytes(node: Node) -> int:
    return sum(int(np.prod(s.shape)) * s.dtype.itemsize for s in node.specs)
