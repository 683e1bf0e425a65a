"""recording: the base of every way to run a recorded call.

In: a Traced call. Out: its inputs found again at each run, and the user's Tensors pointed at what a
run has computed. Called by execution.py and replay.py, which say how it is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any
from weakref import ref

from ... import backends, tree
from ...context import grad_enabled
from ...node import LEAF, LOST, REBOUND, Graph, Node, leaf
from ...places import in_words
from ...rules import Spec
from ...tensor import Tensor
from ..capture.guards import Inputs, Match
from ..capture.trace import Traced
from ..inspect.timeline import Timeline


class Budget:
    """The number of runs: `left` at most, until a 0-d Tensor is true."""

    def __init__(self, times: int, until: Tensor) -> None:
        self.left, self._until = times, until

    def again(self) -> bool:
        """After a run: True if there is to be another one."""
        array = self._until._node.array  # None inside a trace, where item() says what to do
        return self.left > 0 and not (self._until if array is None else array).item()


class Recording:
    """The base of every way to run a recorded call: it finds the inputs again, knows the nodes that
    outlive the run, and brings their arrays to the user's Tensors."""

    rewrite_seconds = 0.0
    stages: Mapping[str, float] = {}  # the seconds of each stage of pipeline.py
    runs = 0
    timeline: Timeline | None = None  # of the run that was timed last

    def __init__(self, traced: Traced) -> None:
        self.traced = traced
        self.inputs = Inputs(traced)
        self.made = traced.made
        self.results = [t._node for t in self.made.values()]
        numbers = {found: i for i, found in enumerate(traced.inputs)}
        # Changed inputs: their numbers, and whether they go on asking for a gradient.
        self.changed = [
            (numbers[i], i.node, i.node.requires_grad and i.node.is_leaf) for i in traced.changed
        ]
        self._grads = [(numbers[i], grad) for i, grad in traced.grads]
        ends = [*self.results, *(node for _, node, _ in self.changed)]
        self._recorded = {n for n in ends if n.requires_grad and not n.is_leaf}
        self._from_lost: set[int] = set()  # inputs that stand on a lost node
        self._lost: dict[frozenset[int], set[Node]] = {}  # by such inputs, the ends that are, too
        self._inputs = {handle: numbers[i] for handle, i in traced.by_handle.items()}

    def meet(self, match: Match) -> None:
        """Look at the inputs that were not there at the last run."""
        for i in match.unknown:
            if match.nodes[i].op is LOST:
                self._from_lost.add(i)
            elif self._from_lost:
                self._from_lost.discard(i)

    def names(self, match: Match) -> dict[Node, str]:
        """The inputs of a run in words, for TX_CHECK=nan: what each is of the call, and the user's
        line that made it."""
        found = {}
        for given, node in zip(self.traced.inputs, match.nodes, strict=True):
            made = f"made at {in_words(node.line)}" if node.line else ""
            found[given.placeholder] = ", ".join(filter(None, (str(given.source), made)))
        return found

    def _without_history(self) -> set[Node]:
        """The ends that eager code would have recorded: they depend on what requires a gradient,
        here or in another compiled function that has given an input."""
        if not self._from_lost or not grad_enabled():
            return self._recorded
        inputs = frozenset(self._from_lost)
        if inputs not in self._lost:
            self._lost[inputs] = self._recorded | self._depending_on(inputs)
        return self._lost[inputs]

    def _depending_on(self, inputs: Iterable[int]) -> set[Node]:
        """The ends that floats of these inputs lead to."""
        lost = {self.traced.inputs[i].placeholder for i in inputs}
        ends = [*self.results, *(node for _, node, _ in self.changed)]
        for node in Graph(ends):
            floats = not isinstance(node.spec, Spec) or node.dtype.is_floating_point
            if floats and node.op is not REBOUND and any(src in lost for src in node.srcs):
                lost.add(node)
        return lost.intersection(ends)

    def commit(
        self, tensors: list[Tensor], array: Callable[[Node], Any], done: Container[int] = ()
    ) -> Any:
        """Point changed Tensors at their new values, set gradients, and build the result.

        tensors: of all inputs. array: the value of a node. done: inputs whose new value already
        stands where the old one was.
        """
        lost = self._without_history()
        made = {
            handle: Tensor(_held(t._node, array, False, t._node in lost))
            for handle, t in self.made.items()
        }
        for i, node, requires_grad in self.changed:
            tensor = tensors[i]
            if i not in done:
                tensor._node = _held(node, array, requires_grad, node in lost)
                tensor._node.owner = ref(tensor)
            else:  # the same node, which nobody else holds
                tensor._node.op = LOST if node in lost else LEAF

        def outside(inside: Any) -> Any:
            """The Tensor that stands outside for one inside; anything else as it is."""
            if not isinstance(inside, Tensor):
                return inside
            i = self._inputs.get(id(inside))
            return made[id(inside)] if i is None else tensors[i]

        for i, grad in self._grads:
            tensors[i]._grad = outside(grad)
        return tree.map_leaves(outside, self.traced.results)


def _held(node: Node, array: Callable[[Node], Any], requires_grad: bool, lost: bool) -> Node:
    """A leaf for a value. A forward may give a NumPy scalar for a 0-d one."""
    value = backends.get(node.device).asarray(array(node))
    held = leaf(value, node.dtype, node.device, requires_grad=requires_grad)
    held.scope, held.at = node.scope, node.at
    if lost:
        held.op = LOST
    return held
