"""Waves: launches that do not depend on each other run together, their tasks in any order.

In and out: a Schedule. A stage of pipeline.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...backends.kernels.kinds import CheckIndex
from ...backends.target import Target
from .records import Buffer, Call, Launch, Schedule

WINDOW = 32  # a launch joins a wave at most so many launches earlier (bounds lives of buffers)


def form_waves(schedule: Schedule, target: Target) -> Schedule:
    """Each launch in the first wave after all that it depends on, at most WINDOW launches back."""
    aliases = schedule.aliases
    steps: list[list[list[Launch]] | Launch] = []
    waves: list[list[Launch]] = []
    front: list[int] = []  # the last wave there was at each launch so far
    written: dict[Buffer, int] = {}
    read: dict[Buffer, int] = {}
    alone = 0  # no launch joins a wave before this one

    def close() -> None:
        nonlocal waves, alone
        alone = 0
        if waves:
            steps.append(waves)
        waves = []
        front.clear()
        written.clear()
        read.clear()

    for launch in schedule.launches:
        if launch.opaque:
            close()
            steps.append(launch)
            continue
        reads = {aliases.get(v.buffer, v.buffer) for v in launch.reads}
        writes = {aliases.get(v.buffer, v.buffer) for v in launch.writes}
        after = max(
            [written.get(b, -1) for b in reads | {b for b in writes if not b.parts}]
            + [read.get(b, -1) for b in (*writes, *launch.waits)],
            default=-1,
        )
        at = max(after + 1, front[-WINDOW] if len(front) >= WINDOW else 0, alone)
        if launch.loop:  # in a wave of its own
            at = alone = len(waves)
        if at >= len(waves):
            waves.append([])
            at = len(waves) - 1
        waves[at].append(launch)
        alone += bool(launch.loop)
        front.append(len(waves) - 1)
        for b in writes:
            written[b] = max(at, written.get(b, -1))
        for b in reads:
            read[b] = max(at, read.get(b, -1))
    close()
    return replace(schedule, steps=tuple(steps))


def indices(wave: Sequence[Launch]) -> list[Call]:
    """The calls of a wave that check indices, in loops too."""
    calls = [call for launch in wave for call in launch.calls]
    inside = [inner for call in calls if call.loop for inner in call.loop.plan.calls()]
    return [call for call in (*calls, *inside) if isinstance(call.kernel, CheckIndex)]
