"""guards: find a recorded call's Tensors again, and check that all is as it was recorded.

In: a recorded call, later the arguments of other calls. Out: a Match, where the recording serves
such a call; otherwise the reason, in words. Kept by run/recording.py, asked by compiled.py.

A step has hundreds of captured Tensors, nearly all of which stand on the node that they stood on
after the last call. A node is immutable, so an input that still stands on its known node needs no
second look.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple
from weakref import ref

from ...node import Node
from ...tensor import Tensor
from ..keys import same
from .trace import Argument, Captured, GradOf, Signature, Traced, signature


class Match(NamedTuple):
    """A call's values for the recording's inputs, in their order. unknown: numbers of the inputs
    whose node is not the one known from the last call."""

    tensors: list[Tensor]
    nodes: list[Node]
    unknown: list[int]


class Inputs:
    """The inputs of a recorded call, and the guards on them."""

    def __init__(self, traced: Traced) -> None:
        self._traced = traced
        self._held: list[Any] = [None] * len(traced.inputs)
        self._arguments: list[tuple[int, int]] = []
        self._gradients: list[tuple[int, int]] = []  # an input, and the one whose .grad it is
        self._found = [i for i, x in enumerate(traced.inputs) if not isinstance(x.source, Captured)]
        self._wanted = [(i.placeholder.spec, *i.signature[2:4]) for i in traced.inputs]
        self._bare = [not i.signature.has_grad for i in traced.inputs]
        # A weak reference neither keeps a node alive nor counts where sole owners are looked for.
        self._known: list[Callable[[], Node | None]] = [_nobody] * len(traced.inputs)
        self._captured: set[int] = set()  # ids of Tensors that are held here
        number = {id(found.source): i for i, found in enumerate(traced.inputs)}
        for i, found in enumerate(traced.inputs):
            match found.source:
                case Captured(tensor):
                    self._held[i] = tensor
                    self._captured.add(id(tensor))
                case Argument(at):
                    self._arguments.append((i, at))
                case GradOf(source):
                    self._gradients.append((i, number[id(source)]))

    def match(self, flat: list[Any]) -> Match | None:
        """The inputs of a call whose arguments (as leaves) have passed for those of this recording;
        None where a guard does not hold."""
        for owner, attribute, value in self._traced.guards:
            if not same(getattr(owner, attribute), value):
                return None
        for at, captured in self._traced.identities.items():
            if flat[at] is not captured:
                return None
        for source, gradient in self._traced.grad_aliases:
            if source.find(flat) is not gradient:
                return None
        return self.find(flat)

    def find(self, flat: list[Any]) -> Match | None:
        """match(), without the guards on Python attributes: right after the trace they have just
        been read, and the function may have set them since."""
        tensors = self._held.copy()
        for i, at in self._arguments:
            tensors[i] = flat[at]
        for i, parent in self._gradients:
            tensors[i] = tensors[parent]._grad
            if tensors[i] is None:
                return None
        # One Tensor is one input: it was recorded when these were different ones.
        ids = [id(tensors[i]) for i in self._found]
        if not self._captured.isdisjoint(ids) or len(set(ids)) < len(ids):
            return None
        if [t._grad is None for t in tensors] != self._bare:
            return None
        nodes = [t._node for t in tensors]
        known = zip(nodes, self._known, strict=True)
        unknown = [i for i, (node, who) in enumerate(known) if who() is not node]
        for i in unknown:
            node = nodes[i]
            if (node.spec, node.device, node.requires_grad) != self._wanted[i]:
                return None
        return Match(tensors, nodes, unknown)

    def remember(self, i: int, node: Node) -> None:
        """Input i needs no second look as long as it stands on this node."""
        self._known[i] = ref(node)

    def forget(self, i: int) -> None:
        """Input i's node is unknown at the next call."""
        self._known[i] = _nobody

    def broken(self, flat: list[Any]) -> str:
        """The first guard that does not hold, in words: why match() gives None."""
        for owner, attribute, value in self._traced.guards:
            now = getattr(owner, attribute)
            if not same(now, value):
                return f"{type(owner).__name__}.{attribute.lstrip('_')} was {value}, is {now}"
        for at, captured in self._traced.identities.items():
            if flat[at] is not captured:
                return f"argument {at} is another Tensor than the captured one it was"
        for _, at in self._arguments:
            if id(flat[at]) in self._captured:
                return f"argument {at} is a captured Tensor now"
        for source, gradient in self._traced.grad_aliases:
            if source.find(flat) is not gradient:
                return f"{source} is another Tensor"
        for found in self._traced.inputs:
            tensor = found.source.find(flat)
            if tensor is None:
                return f"{found.source} is gone"
            fresh = signature(tensor)
            if fresh != found.signature:
                return f"{found.source} was {difference(found.signature, fresh)}"
        return "two of its Tensors have become one"


def difference(old: Signature, new: Signature) -> str:
    names = [n for n in old._fields if getattr(old, n) != getattr(new, n)]
    return ", ".join(f"{n} {getattr(old, n)}, is {getattr(new, n)}" for n in names)


def _nobody() -> None:
    return None
