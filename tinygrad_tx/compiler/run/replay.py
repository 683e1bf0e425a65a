"""replay: run a recorded call op by op, through the same forwards as eager code.

In: a Traced call. Out: a Replay, which computes everything first and changes state last: an error
on the way (a token id out of range, say) leaves all as it was. It is the plan where nothing is
fused, and the oracle of every other one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import finite
from ...node import Node
from ...procedure import Procedure
from ..capture.guards import Match
from ..capture.trace import Traced
from ..inspect.describe import of_replay
from ..inspect.explain import Source
from ..inspect.origin import named
from ..inspect.timeline import TIMED, Timeline
from .recording import Budget, Recording


class Replay(Recording):
    """A recorded call, run op by op. why: in words, for explain()."""

    def __init__(self, traced: Traced, why: str) -> None:
        super().__init__(traced)
        self.why = why
        self._ends = traced.ends
        placeholders = [found.placeholder for found in traced.inputs]
        self.procedure = Procedure(self._ends, placeholders)
        self.graph = self.procedure.graph

    def run(self, match: Match, budget: Budget | None = None) -> Any:
        """The function's result for a call. budget: of which this is one."""
        if budget is not None:
            budget.left -= 1
        self.meet(match)
        for i in match.unknown:
            self.inputs.remember(i, match.nodes[i])
        self.runs += 1
        seconds: list[float] | None = [] if self.runs in (1, TIMED) else None
        names = self.names(match) if finite.wanted() else None
        arrays = self.procedure.run([node.array for node in match.nodes], seconds, names)
        values = dict(zip(self._ends, arrays, strict=True))
        for xp in self.procedure.backends:  # an error changes nothing
            xp.settle()
        if seconds is not None:
            nodes = [step.node for step in self.procedure.steps]
            self.timeline = Timeline(self.runs, tuple(seconds), nodes=nodes)
        return self.commit(match.tensors, values.__getitem__)

    def kernels(self) -> int:
        return len(self.procedure.steps)

    def explain(self, source: Source = False) -> str:
        """Why no kernels run it, and a line for each op call: its result, module and source line.
        There is no source."""
        steps = self.procedure.steps
        lines = [f"{len(steps)} op calls, nothing fused: {self.why}"]
        for i, step in enumerate(steps):
            node = step.node
            what = ", ".join(f"{s.dtype.name}{list(s.shape)}" for s in node.specs)
            lines.append(f"{i:5}  {node.op.name:20} {what:40} {named(node)}".rstrip())
        return "\n".join(lines)

    def untimed(self) -> str:
        """Why no run was timed, as far as none was."""
        return "its only runs have failed"

    def describe(self) -> dict[str, Any]:
        """All that is known of it, as plain data."""
        return of_replay(self)

    def peak_bytes(self) -> int:
        """The most bytes of intermediate values that are alive at once."""
        alive = peak = 0
        sizes = {self.procedure.slot[n]: _bytes(n) for n in self.graph}
        for step in self.procedure.steps:
            alive += sizes[step.result]
            peak = max(peak, alive)
            alive -= sum(sizes[i] for i in step.frees)
        return peak


def _bytes(node: Node) -> int:
    return sum(int(np.prod(s.shape)) * s.dtype.itemsize for s in node.specs)
