"""Prepacking: an operand that no run changes is packed once and kept from run to run.

In and out: a Schedule. A stage of pipeline.py; run/prepacked.py keeps the packed copies.
"""

from __future__ import annotations

from dataclasses import replace

from ...backends.kernels.kinds import Pack
from ...backends.target import Target
from .records import Call, Launch, Schedule


def prepack(schedule: Schedule, target: Target) -> Schedule:
    inputs = schedule.fusion.inputs
    graph = schedule.fusion.graph
    changing = {inputs[s] for s in (*graph.states, *(graph.moving or ())) if s in inputs}
    rest: list[Launch] = []
    packings: list[Call] = []
    for launch in schedule.launches:
        call = launch.calls[0]
        source = call.reads[0].buffer if isinstance(call.kernel, Pack) else None
        if source is None or source.kind != "input" or source in changing:
            rest.append(launch)
        else:
            packings.append(call)
    if not packings:
        return schedule
    return replace(schedule, launches=tuple(rest), prepacked=tuple(packings))
