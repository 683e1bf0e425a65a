"""costs: what the calls of a run take, and what the modules of a model do.

In: a Plan and the Timeline of a run; or a recorded call alone. Out: the seconds of each call; the
work of each module, forward and backward. Called by describe.py, explain.py and nn/summary.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from ...context import Call as ModuleCall
from ...loops.record import SCAN
from ...node import ITEM, Graph, Node, Spec
from ..fuse.order import VIEWS
from ..schedule.records import Buffer, Call, Launch, Plan
from .timeline import Timeline
from .work import calls_run, flops, moved, node_flops, share

FORWARD, BACKWARD, UPDATE = "forward", "backward", "update"
PHASES = (FORWARD, BACKWARD, UPDATE)
_VIEWS = frozenset(VIEWS) - {ITEM}
OTHER = "copies"  # what is of no node
_PRODUCTS = ("matmul", "attention")  # what the names of ops begin with that multiply


@dataclass
class Cost:
    """flops: of products; bytes: read and written; seconds: of a timed run; kept: bytes of values
    that the forward pass leaves for the backward one, the activations."""

    flops: float = 0.0
    bytes: float = 0.0
    seconds: float = 0.0
    kept: int = 0


class Phases:
    """Which part of a training step a node is: the forward pass; the backward pass, which makes
    gradients; or the update, all that comes after the last of these."""

    def __init__(self, roots: Sequence[Node]) -> None:
        """roots: of the recorded call."""
        nodes = _with_rounds(roots)
        self._lines = {node.place: node.line for node in nodes}
        gradients = [node.place for node in nodes if node.gradient_of is not None]
        self._last = max(gradients, default=None)

    def __call__(self, node: Node) -> str:
        if node.gradient_of is not None:
            return BACKWARD
        return UPDATE if self._last is not None and node.place > self._last else FORWARD

    def of(self, nodes: Iterable[Node]) -> tuple[Node | None, str]:
        """The phase of a kernel, the first of its nodes', and the last node of that: what gradients
        need is often made along with the value."""
        last: dict[str, Node] = {self(node): node for node in nodes}
        found = next((phase for phase in PHASES if phase in last), "")
        return last.get(found), found

    def line(self, node: Node) -> str:
        """The line of what a node is a gradient of, or ""."""
        return "" if node.gradient_of is None else self._lines.get(node.gradient_of, "")


def _with_rounds(roots: Sequence[Node]) -> list[Node]:
    """The nodes of a graph and those of its loops' rounds."""
    found: list[Node] = []
    for node in Graph(roots):
        found.append(node)
        if node.op is SCAN:
            made = node.attrs["round"]
            found += _with_rounds((*made.outs, *node.attrs.get("keep", ())))
    return found


def seconds_of(plan: Plan, timeline: Timeline | None) -> dict[Call, float]:
    """The seconds of each call. The time of a wave is split among its launches by the time that
    threads have spent in each, where that is known; otherwise, and among the calls of a launch, by
    their work."""
    found: dict[Call, float] = {}
    if timeline is None:
        return found
    busy = timeline.busy()
    for wave, took in zip(plan.waves(), timeline.seconds, strict=False):
        launches = [inner for launch in wave for inner in _inside([launch])]
        known = sum(busy.get(launch, 0.0) for launch in launches)
        calls = [(call, n * share(call)) for launch in wave for call, n in calls_run(launch)]
        work = dict(calls)
        total = sum(work.values())
        for launch in launches:
            parts = sum(work[call] for call in launch.calls)
            part = busy.get(launch, 0.0) / known if known else parts / total
            for call in launch.calls:
                found[call] = found.get(call, 0.0) + took * part * work[call] / parts
    return found


def _inside(launches: Iterable[Launch]) -> Iterator[Launch]:
    """Launches, those of loops in their place."""
    for launch in launches:
        if launch.loop is None:
            yield launch
        else:
            yield from _inside(launch.loop.plan.launches())


def of_calls(
    calls: Iterable[tuple[Call, int]], seconds: Mapping[Call, float], phase: Phases
) -> dict[tuple[str, str], Cost]:
    """The work of each module, by its path and the phase. calls: with the number of times that each
    runs. A call of nodes from several modules is split among them: products by the module that
    multiplies, all else by the sizes of what the nodes make. One of no node is nobody's."""
    found: dict[tuple[str, str], Cost] = {}
    for call, times in calls:
        nodes = call.nodes
        if not nodes:  # it copies
            cost = found.setdefault(("", OTHER), Cost())
            cost.bytes += times * moved(call)
            cost.seconds += seconds.get(call, 0.0)
            continue
        product = next((n for n in nodes if n.op.name.startswith(_PRODUCTS)), nodes[0])
        _at(found, product, phase).flops += times * flops(call)
        took, size = seconds.get(call, 0.0), times * moved(call)
        sizes = [_size(node) for node in nodes]
        for node, part in zip(nodes, sizes, strict=True):
            cost = _at(found, node, phase)
            cost.bytes += size * part / sum(sizes)
            cost.seconds += took * part / sum(sizes)
    return found


def add_kept(found: dict[tuple[str, str], Cost], plan: Plan, phase: Phases) -> None:
    """Count the activations of each module."""
    first: dict[Buffer, tuple[Node, str]] = {}
    for launch in plan.launches():
        nodes = [node for call in launch.calls for node in call.nodes]
        if not nodes:
            continue
        _, when = phase.of(nodes)
        for buffer in dict.fromkeys(view.buffer for view in launch.reads):
            if when == BACKWARD and buffer in first:
                node, made = first.pop(buffer)
                if made == FORWARD:
                    _at(found, node, phase).kept += buffer.bytes
        for view in launch.writes:
            if plan.roles[view.buffer] == "arena":
                first.setdefault(view.buffer, (view.buffer.node or nodes[-1], when))


def of_ops(
    roots: Sequence[Node], times: int = 1, inside: bool = False
) -> Iterator[tuple[ModuleCall | None, Cost]]:
    """The work of a recorded call op by op: for each node the call of a module that it was made in,
    None outside of all. `kept` is what goes from one such call to another, or out; what stays
    inside of one is as good as never there. In loops it is that of all rounds.

    times: how often it runs; inside: it is the round of a loop."""
    graph = Graph(roots)
    leaving = set() if inside else {_value(root) for root in roots}
    for node in graph:
        if node.op not in _VIEWS:
            made = [_value(src) for src in node.srcs]
            leaving |= {src for src in made if module_call(src) is not module_call(node)}
    for node in graph:
        if node.op is SCAN:
            made, rounds = node.attrs["round"].outs, node.attrs["length"]
            yield from of_ops((*made, *node.attrs["keep"]), times * rounds, inside=True)
            continue
        cost = Cost(flops=times * node_flops(node))
        if node.srcs and isinstance(node.spec, Spec) and node in leaving:
            cost.kept = times * prod(node.shape) * node.dtype.itemsize
        yield module_call(node), cost


def _value(node: Node) -> Node:
    """The node whose memory a view shows."""
    while node.op in _VIEWS and node.srcs:
        node = node.srcs[0]
    return node


def module_call(node: Node) -> ModuleCall | None:
    """The innermost call of a module that a node was made in."""
    call: str = node.scope
    while isinstance(call, ModuleCall) and call.kind is None:  # a part of a module
        call = call.outer
    return call if isinstance(call, ModuleCall) else None


def _at(found: dict[tuple[str, str], Cost], node: Node, phase: Phases) -> Cost:
    return found.setdefault((node.scope, phase(node)), Cost())


def _size(node: Node) -> int:
    """The elements that it goes over."""
    return 1 + max(prod(spec.shape) for x in (node, *node.srcs) for spec in x.specs)
