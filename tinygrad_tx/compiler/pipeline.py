"""The pipeline: the stages between the trace of a call and the plan that runs it, in order.

In: the nodes that a recorded call ends as, and a Target. Out: a Plan. Called by run/execution.py.
Each stage takes a frozen value and gives one, the very same where it has nothing to do:
Ends -> Fusion -> Schedule -> Plan (schedule/records.py). `TX_DEBUG=3` prints what each has made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..backends.target import Target
from ..loops.record import SCAN
from ..node import Graph, Node
from .fuse.fuse import fuse
from .fuse.rounds import outline
from .lower.lower import lower
from .lower.sums import sums
from .rewrite.cse import cse
from .rewrite.lift.idioms import lift
from .rewrite.scans import merge_scans
from .rewrite.simplify import simplify
from .rewrite.slices import push_slices
from .schedule.chunked_loss import chunk_losses
from .schedule.epilogues import fuse_epilogues
from .schedule.in_place import copy_small_state, write_in_place
from .schedule.memory import allocate
from .schedule.outputs import give_outputs_memory
from .schedule.postpone import postpone
from .schedule.prepack import prepack
from .schedule.records import Ends, Plan
from .schedule.waves import form_waves

Stage = Callable[[Any, Target], Any]
Roots = tuple[Node, ...]


def of_graph(rewrite: Callable[[Roots], Roots]) -> Stage:
    """A rewriting pass as a stage."""

    def stage(graph: Ends, target: Target) -> Ends:
        roots = rewrite(graph.roots)
        return graph if roots == graph.roots else replace(graph, roots=roots)

    return stage


def lowered(graph: Ends, target: Target) -> Ends:
    """Ops as kernels know them; users are shown the graph before."""
    return replace(graph, shown=graph.roots, roots=lower(graph.roots))


def plan_rounds(graph: Ends, target: Target) -> Ends:
    """The plan of a round of each SCAN."""
    nodes = Graph(graph.roots)
    scans = [node for node in nodes if node.op is SCAN]
    if not scans:
        return graph
    users = nodes.users()
    return replace(graph, rounds={node: _round(node, users[node], target) for node in scans})


def _round(scan: Node, users: Sequence[Node], target: Target) -> Plan | str:
    """The plan of a SCAN's round; a reason where there is none."""
    wanted = outline(scan, users)
    if not scan.attrs["length"]:
        return "it has no rounds"
    moving = frozenset((*scan.attrs["round"].xs, *(wanted.carry[i][0] for i in wanted.history)))
    made = plan(wanted.results, wanted.states, target, moving=moving)
    opaque = next((x for x in made.launches() if x.opaque), None)
    if opaque is None:
        return made
    reasons = dict(made.refusals)
    node = opaque.calls[0].nodes[0]
    return f"in its rounds {node.op.name} is {reasons.get(node, 'called as it is')}"


STAGES: tuple[tuple[str, Stage], ...] = (
    # Ends -> Ends: a graph
    ("lift", of_graph(lift)),  # hand-written spellings become ops that are known whole
    ("simplify", of_graph(simplify)),
    ("cse", of_graph(cse)),
    ("merge scans", of_graph(merge_scans)),  # a loop and what its gradient wants of it
    ("lower", lowered),  # ops that are known whole become simple ones
    ("sums", of_graph(sums)),  # a long chain of scalar additions becomes one sum
    ("cse", of_graph(cse)),
    ("slices", of_graph(push_slices)),
    ("rounds", plan_rounds),  # of loops: each is planned by itself
    # Ends -> Fusion -> Fusion: units
    ("fuse", fuse),
    ("outputs", give_outputs_memory),
    # Fusion -> Schedule -> Schedule: launches
    ("epilogues", fuse_epilogues),
    ("chunk the loss", chunk_losses),
    ("prepack", prepack),
    ("in place", write_in_place),
    ("waves", form_waves),
    ("postpone", postpone),  # where likes in a wave are one launch
    (
        "copy small state",
        copy_small_state,
    ),  # behind the waves: it asks which of them may still fail
    # Schedule -> Plan
    ("memory", allocate),
)

# On graphs: rewrite_s of stats().
REWRITING = ("lift", "simplify", "cse", "merge scans", "lower", "sums", "slices")


def plan(
    results: Sequence[Node],
    states: Mapping[Node, Node],
    target: Target,
    watch: Callable[[str, Any, Any], None] | None = None,
    moving: frozenset[Node] | None = None,
) -> Plan:
    """results: nodes whose values are handed out. states: for each INPUT that changes, the node it
    ends as. watch: is told the name of each stage, its input and its result. moving: of a loop's
    round, the INPUTs that are others in the next one."""
    value: Any = Ends.of(results, states, moving)
    seconds: dict[str, float] = {}
    for name, stage in STAGES:
        started = time.perf_counter()
        made = stage(value, target)
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - started
        if watch is not None:
            watch(name, value, made)
        value = made
    finished: Plan = replace(value, seconds=seconds)
    return finished
