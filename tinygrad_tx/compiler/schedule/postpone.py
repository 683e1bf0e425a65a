"""postpone: small sums wait for others of their kind, where a machine makes one launch of them.

In and out: a Schedule in waves. A stage of pipeline.py. The parts of a norm of all gradients become
known one after the other, and nobody reads them before the last: in one wave they are one launch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...backends.kernels.kinds import ColumnReduce, RowProgram
from ...backends.target import Target
from .records import Buffer, Launch, Schedule

_LIGHT = 1 << 18  # elements: what is larger does not live longer for a launch that waits
_KINDS = (RowProgram, ColumnReduce)


def postpone(schedule: Schedule, target: Target) -> Schedule:
    """Light launches in the last wave before what needs them."""
    if not target.merges:
        return schedule
    steps = tuple(
        step if isinstance(step, Launch) else _Waves(step, schedule).postponed()
        for step in schedule.steps
    )
    return replace(schedule, steps=steps)


class _Waves:
    """Waves that are gone through from the last launch to the first. first_read, first_write: the
    earliest wave so far in which a buffer is, of whole buffers; last_use: the latest one."""

    def __init__(self, waves: Sequence[list[Launch]], schedule: Schedule) -> None:
        self.waves, self.aliases = waves, schedule.aliases
        self.kept = {schedule.aliases.get(v.buffer, v.buffer) for v in schedule.places.values()}
        self.first_read: dict[Buffer, int] = {}
        self.first_write: dict[Buffer, int] = {}
        self.last_use: dict[Buffer, int] = {}

    def postponed(self) -> list[list[Launch]]:
        made: list[list[Launch]] = [[] for _ in self.waves]
        for i in reversed(range(len(self.waves))):
            for launch in reversed(self.waves[i]):
                at = self._goal(launch, i) if _is_light(launch) else i
                made[at].append(launch)
                self._note(launch, at)
        return [wave[::-1] for wave in made if wave]

    def _buffers(self, launch: Launch) -> tuple[set[Buffer], set[Buffer]]:
        """What it reads, and what it writes."""
        reads, writes = ({self.aliases.get(v.buffer, v.buffer) for v in views}
                         for views in (launch.reads, launch.writes))  # fmt: skip
        return reads, writes

    def _goal(self, launch: Launch, i: int) -> int:
        """The wave that a launch of wave i is put into."""
        reads, writes = self._buffers(launch)
        end = len(self.waves)
        users = [self.first_read.get(b, end) for b in writes]
        users += [self.first_write.get(b, end) for b in (*reads, *writes)]
        at = min(users) - 1
        for b in reads:
            if b.kind == "value" and b.size > _LIGHT and b not in self.kept:
                at = min(at, self.last_use.get(b, i))
        while at > i and any(other.loop for other in self.waves[at]):
            at -= 1
        return max(at, i)

    def _note(self, launch: Launch, at: int) -> None:
        reads, writes = self._buffers(launch)
        for b in reads:
            self.first_read[b] = min(at, self.first_read.get(b, at))
        # Parts of a buffer are written in any order; what takes another's place waits for it.
        for b in (*(b for b in writes if not b.parts), *launch.waits):
            self.first_write[b] = min(at, self.first_write.get(b, at))
        for b in reads | writes:
            self.last_use[b] = max(at, self.last_use.get(b, at))


def _is_light(launch: Launch) -> bool:
    (call, *more) = launch.calls
    small = sum(view.buffer.size for view in launch.writes) <= _LIGHT
    return not more and isinstance(call.kernel, _KINDS) and small and not launch.waits
