"""replay: run a recorded call op by op, through the same forwards as eager code.

What comes in: a Traced call. What goes out: a Replay, which computes everything first and changes
state last: an error on the way (a token id out of range, say) leaves all as it was. It is the plan
where nothing is fused, and the oracle of every other one.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple
from weakref import ref

import numpy as np

from ... import backends, tree
from ...context import grad_enabled
from ...half import computing
from ...mistakes import naming
from ...node import CONST, INPUT, LEAF, LOST, REBOUND, Graph, Node, execute, leaf
from ...rules import Spec, as_promised
from ...tensor import Tensor
from ..capture.guards import Inputs, Match
from ..capture.trace import Traced
from ..inspect.explain import named


class Step(NamedTuple):
    """One op call: which values it reads, where its result goes, which values end with it."""

    node: Node
    device: str  # of its inputs
    reads: tuple[int, ...]
    result: int
    frees: tuple[int, ...]


class Rounds:
    """How often to run: `left` times at most, until a 0-d Tensor is true."""

    def __init__(self, times: int, until: Tensor) -> None:
        self.left, self._until = times, until

    def again(self) -> bool:
        """After a run: whether there is to be another one."""
        array = self._until._node.array  # None inside a trace, where item() says what to do
        return self.left > 0 and not (self._until if array is None else array).item()


class Recording:
    """What every way of running a recorded call shares: how its inputs are found again, which
    nodes outlive the run, and how their arrays reach the user's Tensors."""

    rewrite_seconds = 0.0
    stages: Mapping[str, float] = {}  # the seconds of each stage of pipeline.py

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
        for i in match.strangers:
            if match.nodes[i].op is LOST:
                self._from_lost.add(i)
            elif self._from_lost:
                self._from_lost.discard(i)

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
    if lost:
        held.op = LOST
    return held


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

    def run(self, match: Match, rounds: Rounds | None = None) -> Any:
        """The function's result for a call. rounds: of which this is one."""
        if rounds is not None:
            rounds.left -= 1
        values: list[Any] = [None] * len(self.slot)
        for slot, value in self.known:
            values[slot] = value
        for i, slot in self.reads:
            values[slot] = match.nodes[i].array
        self.meet(match)
        for i in match.strangers:
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
                stack.enter_context(xp.quiet())
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
