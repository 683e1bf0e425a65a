"""deferred: runs on a machine that the host does not wait for.

In: a run that has been given to the machine, and the Tensors that it is about to change. Out: a
record of it (gpu/reports.py), by which an index that was outside is raised, and what the host was
told is taken back. Called by execution.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ...backends.reports import Reports, Run
from ...tensor import Tensor
from .segment import Segment, Words

Blame = Callable[[Segment, Words, int], None]


class Undo:
    """What Tensors stood on before a run has told them otherwise. done: called after it has."""

    def __init__(self, changed: Sequence[Tensor], grads: Sequence[Tensor]) -> None:
        self._nodes: list[tuple[Tensor, Any, Any]] = [(t, t._node, None) for t in changed]
        self._grads: list[tuple[Tensor, Any, Any]] = [(t, t._grad, None) for t in grads]

    def done(self) -> None:
        self._nodes = [(t, old, t._node) for t, old, _ in self._nodes]
        self._grads = [(t, old, t._grad) for t, old, _ in self._grads]

    def __call__(self) -> None:
        """Take it back, but for Tensors that have been changed since."""
        for tensor, old, new in self._nodes:
            if tensor._node is new:
                tensor._node = old
        for tensor, old, new in self._grads:
            if tensor._grad is new:
                tensor._grad = old


def record(
    reports: Reports,
    number: int,
    undo: Undo,
    segments: Sequence[Segment],
    held: Any,
    blame: Blame,
) -> None:
    """Note a run. segments: those that check indices. held: what must stay as long as the host has
    not heard. blame: raises the error of one of a segment's waves."""
    args = [(segment, segment.args.copy()) for segment in segments]

    def raises(low: int) -> NoReturn:
        assert held is not None
        for segment, words in args:
            blame(segment, words, low)
        raise IndexError("an index is outside the entries it chooses from")

    undo.done()
    reports.add(Run(number, undo, raises), bool(segments))
