"""TX_DEBUG's output on stderr: 1 retraces, 2 also the times of each run, 3 also what each stage of
pipeline.py has made and the fusions that were refused, 4 also the generated source.

Called by compiled.py and run/execution.py, which ask for the level when they make a plan.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from ... import settings
from ...backends.kernels.describe import describe
from ...backends.kernels.kinds import Kernel, Opaque
from ...backends.target import Target
from ...errors import UserError
from ...node import CONST, Graph, Node
from ..fuse.body import Body
from ..fuse.decisions import Joins
from ..schedule.records import Call, Ends, Fusion, Launch, Plan, Schedule, View, waves_of
from .explain import refusals, run_times
from .origin import named
from .timeline import Timeline

RETRACES, TIMES, GRAPHS, SOURCE = 1, 2, 3, 4
_LEVELS = ("0", "1", "2", "3", "4")


def level() -> int:
    """TX_DEBUG as a number, 0 where it is not set."""
    text = settings.get("TX_DEBUG") or "0"
    if text not in _LEVELS:
        raise UserError(f"TX_DEBUG={text}: it must be a number from 0 to {SOURCE}")
    return int(text)


def say(text: str) -> None:
    print(text, file=sys.stderr)


def watch(
    name: str, traced: Sequence[Node], target: Target, level: int
) -> Callable[[str, Any, Any], None] | None:
    """Print what was traced, and, as pipeline.py tells of each stage, what it made, or that it
    changed nothing; at the end, of a higher level, the source of every kernel. None below that."""
    if level < GRAPHS:
        return None
    say(f"{name}: as it was traced:\n{listing(traced)}")

    def told(stage: str, before: Any, after: Any) -> None:
        say(f"{name}: after {stage}:{report(before, after)}")
        if isinstance(after, Plan):
            lines = refusals(after.refusals) or ["nothing"]
            say("\n".join([f"{name}: not fused:", *(f"  {line}" for line in lines)]))
            if level >= SOURCE and target.native:
                calls = (*after.prepacked, *after.calls())
                for kernel in dict.fromkeys(call.kernel for call in calls):
                    say(f"{name}: {source(kernel, target)}")

    return told


def report(before: Any, after: Any) -> str:
    """A stage's result in lines, or "(unchanged)", with the decisions of fusing."""
    if after is before:
        return " (unchanged)"
    if isinstance(after, Ends) and after.roots == before.roots:
        return _rounds(after) or " (unchanged)"
    lines = (
        _decisions(before, after) if isinstance(before, Ends) and isinstance(after, Fusion) else []
    )
    return "\n".join(["", *lines, described(after)])


def described(value: Ends | Fusion | Schedule | Plan) -> str:
    """A stage's result, in lines."""
    match value:
        case Ends():
            return listing(value.roots)
        case Fusion():
            lines = [f"  unit {i}: {_unit(unit)}" for i, unit in enumerate(value.units)]
        case Schedule():
            waves = enumerate(waves_of(value.steps))
            lines = [f"  prepacked: {_unit(call)}" for call in value.prepacked]
            lines += [f"  wave {i}: {_launch(x)}" for i, wave in waves for x in wave] or [
                f"  {i}: {_launch(x)}" for i, x in enumerate(value.launches)
            ]
            lines += [f"  in place: {new} over {old}" for new, old in value.aliases.items()]
        case Plan():
            lines = [f"  arena of {value.arena_bytes} bytes"]
            for buffer, role in value.roles.items():
                where = f" at {value.offsets[buffer]}" if role == "arena" else ""
                lines.append(f"  {value.numbers[buffer]}: {role} {buffer}{where}")
    return "\n".join(lines)


def _rounds(graph: Ends) -> str:
    """The loops that have been planned."""
    lines = []
    for node, plan in graph.rounds.items():
        what = plan if isinstance(plan, str) else f"a plan of a round\n{_waves(plan)}"
        lines.append(f"\n  {node.attrs['round']}: {what}")
    return "".join(lines)


def _waves(plan: Plan) -> str:
    waves = enumerate(plan.waves())
    return "\n".join(f"    wave {i}: {_launch(x)}" for i, wave in waves for x in wave)


def _decisions(graph: Ends, fusion: Fusion) -> list[str]:
    """A line for each node, with its number in the listing before: what becomes of it, the unit
    that makes it, its place."""
    numbers = {node: i for i, node in enumerate(Graph(graph.roots))}
    lines = []
    for node, decision in fusion.decisions.items():
        shapes = " ".join("x".join(map(str, spec.shape)) or "()" for spec in node.specs)
        unit = fusion.unit_of.get(node, -1)
        made = "" if unit < 0 or isinstance(decision, Joins) else f" -> unit {unit}"
        line = f"  %{numbers[node]} {node.op.name} {shapes}: {decision}{made}  {named(node)}"
        lines.append(line.rstrip())
    return lines


def _launch(launch: Launch) -> str:
    return " + ".join(map(_unit, launch.calls))


def _unit(unit: Body | Call) -> str:
    """A call, or a group that is still open: its reads, ops and writes."""
    reads: Sequence[View]
    writes: Sequence[View]
    if isinstance(unit, Call):
        kind, reads, writes = unit.kernel.word, unit.reads, unit.writes
    else:
        kind = f"{unit.kind} {unit.rows}x{unit.columns}"
        reads, writes = [x.view for x in unit.loads], [x.view for x in unit.stores]
    what = " ".join(dict.fromkeys(node.op.name for node in unit.nodes)) or "copy"
    ins, outs = (" ".join(dict.fromkeys(str(v.buffer) for v in views)) for views in (reads, writes))
    return f"{kind}: {what}: {ins or 'nothing'} -> {outs or 'nothing'}"


def show_times(name: str, plan: Plan, timed: Timeline) -> None:
    say(f"{name}: run {timed.run}, {timed.total * 1e6:.0f} us\n{run_times(plan, timed)}")


def source(kernel: Kernel, target: Target) -> str:
    """A kernel in a few lines, and the code that is compiled for it."""
    if isinstance(kernel, Opaque):
        return describe(kernel)
    return f"{describe(kernel)}\n{target.source(kernel)}"


def listing(roots: Sequence[Node]) -> str:
    """A graph, a line for each node: its number, op, sources and attributes, result and place."""
    graph = Graph(roots)
    numbers = {node: i for i, node in enumerate(graph)}
    lines = []
    for node, i in numbers.items():
        given = [f"%{numbers[src]}" for src in node.srcs]
        if node.op is CONST:
            given.append(repr(node.attrs["value"]))
        else:
            given += [f"{key}={value!r}" for key, value in node.attrs.items()]
        made = " ".join(f"{s.dtype.name}{list(s.shape)}" for s in node.specs)
        line = f"  %{i} = {node.op.name}({', '.join(given)}) {made}  {named(node)}"
        lines.append(line.rstrip())
    return "\n".join(lines)
