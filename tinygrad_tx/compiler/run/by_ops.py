"""TX_CHECK=nan of a plan: its call runs op by op before its kernels do.

In: a recorded call, and the values of a run. Out: CheckError where an op makes a NaN or an infinity
(finite.py says which do), before anything has changed; or, after the kernels have run, where they
alone have made one. Called by execution.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ... import backends, finite
from ...node import Node
from ...procedure import Procedure
from ..capture.guards import Match
from ..capture.trace import Traced
from .recording import Recording


class ByOps:
    """on: True in a run that is checked."""

    def __init__(self, recording: Recording) -> None:
        self._recording, self._ends = recording, list(dict.fromkeys(recording.traced.ends))
        self._procedure: Procedure | None = None  # made when first asked for
        self._made: list[Any] = []
        self.on = False

    def begin(self, match: Match) -> None:
        """Before a run."""
        self.on = finite.wanted()
        if not self.on:
            return
        if self._procedure is None:
            inputs = [found.placeholder for found in self._recording.traced.inputs]
            self._procedure = Procedure(self._ends, inputs)
        names = self._recording.names(match)
        arrays = [node.array for node in match.nodes]
        self._made = self._procedure.run(arrays, names=names)
        for xp in self._procedure.backends:
            xp.settle()

    def end(self, where: Mapping[Node, int], arrays: Sequence[Any]) -> None:
        """After it. where: the number of each end's array."""
        if self.on:
            pairs = zip(self._ends, self._made, strict=True)
            known = [(node, made) for node, made in pairs if node in where]
            finite.agree(known, [arrays[where[node]] for node, _ in known])
            self._made = []


def evaluated(roots: Sequence[Node], traced: Traced, args: Sequence[Any]) -> list[Any]:
    """The values of a recorded graph's nodes for a call's arguments, op by op, as NumPy arrays."""
    inputs = [found.placeholder for found in traced.inputs]
    arrays = [found.source.find(list(args))._node.array for found in traced.inputs]  # type: ignore[union-attr]
    made = Procedure(roots, inputs).run(arrays)
    return [backends.get(n.device).to_host(x) for n, x in zip(roots, made, strict=True)]
