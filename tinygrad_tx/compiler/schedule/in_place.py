"""Donation: new state takes the memory of the old, which no Tensor needs after the run.

In and out: a Schedule. Two stages of pipeline.py: state that its writer may put in place is found
before launches are put into waves, small state that is copied in place at the end after that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from ...backends.target import Target
from ..fuse.body import copying
from .memory import same_place
from .records import Buffer, Launch, Schedule, whole
from .waves import indices

SMALL = 1024  # elements of state that is rather copied than made anew


def write_in_place(schedule: Schedule, target: Target) -> Schedule:
    """New state is written where the old lies, if all that reads the old one runs before."""
    launches, places, inputs = schedule.launches, schedule.places, schedule.fusion.inputs
    results, in_place = schedule.results, schedule.fusion.in_place
    last_read: dict[Buffer, int] = {}
    writer: dict[Buffer, int] = {}
    for i, launch in enumerate(launches):
        for view in launch.reads:
            last_read[view.buffer] = i
        for view in launch.writes:
            writer.setdefault(view.buffer, i)
    ends = Counter(view.buffer for view in places.values())
    aliases: dict[Buffer, Buffer] = {}
    last_opaque = max((i for i, x in enumerate(launches) if x.opaque), default=-1)
    for source, end in schedule.fusion.graph.states.items():
        old, new = inputs.get(source), places[end].buffer
        if old is None or new is old or new not in results or new.dtype != old.dtype:
            continue
        at = writer.get(new, -1)
        if ends[new] > 1 or at <= last_opaque or last_read.get(old, -1) > at or old in in_place:
            continue
        if last_read.get(old, -1) < at or same_place(launches[at], old, new):
            aliases[new] = old
    return replace(schedule, aliases=aliases) if aliases else schedule


def copy_small_state(schedule: Schedule, target: Target) -> Schedule:
    """Small new state that cannot be made where the old lies, as that is still read or a check may
    still fail, is copied there when all is done: so counters do not need new memory each time. Of a
    loop, any state is."""
    inputs, steps = schedule.fusion.inputs, list(schedule.steps)
    places, aliases = dict(schedule.places), dict(schedule.aliases)
    results, in_place, soon = schedule.results, schedule.fusion.in_place, early(steps)
    ends = Counter(view.buffer for view in places.values())
    repeats = schedule.fusion.graph.moving is not None
    copies: list[Launch] = []
    for source, end in schedule.fusion.graph.states.items():
        old, view = inputs.get(source), places[end]
        new = view.buffer
        placed = old in in_place or aliases.get(new) is old
        if old is None or (placed and (repeats or old in in_place or new not in soon)):
            continue
        fits = new in results and ends[new] == 1 and new.dtype == old.dtype
        if not (repeats or (fits and new.size <= SMALL)):
            continue
        aliases.pop(new, None)
        places[end] = whole(Buffer("value", new.dtype, new.size, new.node), view.shape)
        aliases[places[end].buffer] = old
        copies.append(Launch((copying(view, places[end]),)))
    if not copies:
        return schedule
    if steps and isinstance(steps[-1], list):
        steps[-1] = [*steps[-1], copies]
    else:
        steps.append([copies])
    launches = (*schedule.launches, *copies)
    return replace(schedule, launches=launches, places=places, aliases=aliases, steps=tuple(steps))


def early(steps: Sequence[list[list[Launch]] | Launch]) -> set[Buffer]:
    """The buffers that are written before the last index check and the last opaque call, while the
    run may still fail."""
    found: set[Buffer] = set()
    written: set[Buffer] = set()
    for step in steps:
        for wave in [[step]] if isinstance(step, Launch) else step:
            written |= {view.buffer for launch in wave for view in launch.writes}
            if isinstance(step, Launch) or indices(wave):
                found |= written
    return found
