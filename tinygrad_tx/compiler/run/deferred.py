"""deferred: runs on a machine that the host does not wait for.

In: a run that is given to the machine, and the Tensors that it is about to change. Out: what a
record of it (backends/reports.py) holds, by which an index that was outside is raised, and what the
host was told is taken back. Called by execution.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

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


def blaming(segments: Sequence[Segment], held: Any, blame: Blame) -> Callable[[int], NoReturn]:
    """What raises the error of a run, given the low bits of its report. segments: those that check
    indices, bound to the run's memory. held: what must stay as long as the host has not heard.
    blame: raises the error of one of a segment's waves."""
    args = [(segment, segment.args.copy()) for segment in segments]

    def raises(low: int) -> NoReturn:
        assert held is not None
        for segment, words in args:
            blame(segment, words, low)
        raise IndexError("an index is outside the entries it chooses from")

    return raises
