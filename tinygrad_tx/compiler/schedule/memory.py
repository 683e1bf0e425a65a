"""memory: every buffer gets its role and number, and those of the arena their place there.

In: a Schedule. Out: the Plan. A stage of pipeline.py.

A buffer lives from the wave that writes it first to the one that reads it last. It gets the lowest
gap among the living that it fits into, or the very place of an operand that dies where the buffer
is written over it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

from ...backends.kernels.instructions import REDUCTIONS
from ...backends.kernels.kinds import RowProgram
from ...backends.target import Target
from ...node import Graph
from .records import Buffer, Launch, Plan, Schedule, View, itemsize, waves_of

ALIGN = 64  # bytes
_END = 1 << 62  # of the last gap


@dataclass(eq=False)
class _Life:
    buffer: Buffer
    first: int
    last: int
    size: int  # bytes, whole lines
    offset: int = -1


def allocate(schedule: Schedule, target: Target) -> Plan:
    """Every buffer with its role and number, and those of the arena with their place in it."""
    fusion, roles = schedule.fusion, _roles(schedule)
    offsets, arena_bytes = _offsets(waves_of(schedule.steps), roles)
    return Plan(
        schedule.steps,
        roles,
        {buffer: number for number, buffer in enumerate(roles)},
        offsets,
        arena_bytes,
        fusion.constants,
        fusion.inputs,
        schedule.places,
        fusion.refusals,
        Graph(fusion.graph.shown),
        schedule.aliases,
        schedule.prepacked,
    )


def _offsets(
    waves: list[list[Launch]], roles: Mapping[Buffer, str]
) -> tuple[dict[Buffer, int], int]:
    """The offset of every arena buffer in bytes, and the size of the arena."""
    lives, heirs = _lives(waves, roles)
    dying: list[list[_Life]] = [[] for _ in waves]
    for life in lives.values():
        dying[life.last].append(life)
    gaps, inherited = _Gaps(), set[Buffer]()
    now = total = 0
    for life in sorted(lives.values(), key=lambda x: (x.first, -x.size)):
        for number in range(now, life.first):
            for dead in dying[number]:
                if dead.buffer not in inherited:
                    gaps.free(dead.offset, dead.offset + dead.size)
        now = max(now, life.first)
        olds = heirs.get(life.buffer, ())
        old = next((b for b in olds if b not in inherited and lives[b].offset >= 0), None)
        if old is not None:
            inherited.add(old)
            life.offset = lives[old].offset
        else:
            life.offset = gaps.take(life.size)
        total = max(total, life.offset + life.size)
    return {b: life.offset for b, life in lives.items()}, total


def _roles(schedule: Schedule) -> dict[Buffer, str]:
    """All buffers, with their roles."""
    found = dict.fromkeys(schedule.fusion.inputs.values())
    for launch in (*schedule.launches, *(Launch((call,)) for call in schedule.prepacked)):
        found.update(dict.fromkeys(v.buffer for v in (*launch.reads, *launch.writes)))
    found.update(dict.fromkeys(v.buffer for v in schedule.places.values()))
    special = dict.fromkeys(schedule.results, "result")
    special |= dict.fromkeys((call.writes[0].buffer for call in schedule.prepacked), "prepacked")
    special |= dict.fromkeys(schedule.fusion.in_place, "state")
    special |= {b: "state" for pair in schedule.aliases.items() for b in pair}
    return {b: special.get(b, "arena" if b.kind == "value" else b.kind) for b in found}


class _Gaps:
    """The free gaps: from starts[i] to ends[i], in order, no two of which touch."""

    def __init__(self) -> None:
        self.starts, self.ends = [0], [_END]

    def take(self, size: int) -> int:
        """The lowest offset at which so many bytes are free; they are not any more."""
        starts, ends = self.starts, self.ends
        for i, start in enumerate(starts):
            if start + size < ends[i]:
                starts[i] = start + size
                return start
            if start + size == ends[i]:
                del starts[i], ends[i]
                return start
        raise AssertionError("the last gap has no end")

    def free(self, start: int, end: int) -> None:
        """Give bytes back."""
        starts, ends = self.starts, self.ends
        i = bisect_left(starts, start)
        before, behind = i > 0 and ends[i - 1] == start, i < len(starts) and starts[i] == end
        if before and behind:
            ends[i - 1] = ends[i]
            del starts[i], ends[i]
        elif before:
            ends[i - 1] = end
        elif behind:
            starts[i] = start
        elif start < end:
            starts.insert(i, start)
            ends.insert(i, end)


def _lives(
    waves: list[list[Launch]], roles: Mapping[Buffer, str]
) -> tuple[dict[Buffer, _Life], dict[Buffer, list[Buffer]]]:
    """The waves in which each arena buffer lives; and for some of them, others that die in the wave
    that writes them first, over which they may be written."""
    lives: dict[Buffer, _Life] = {}
    pairs: list[tuple[Buffer, Buffer, int]] = []
    for now, wave in enumerate(waves):
        readers: dict[Buffer, int] = {}
        for launch in wave:
            reads = launch.reads
            for view in (*reads, *launch.writes):
                buffer = view.buffer
                if roles[buffer] == "arena":
                    life = lives.get(buffer)
                    if life is None:
                        size = -(-buffer.bytes // ALIGN) * ALIGN
                        lives[buffer] = _Life(buffer, now, now, size)
                    else:
                        life.last = now
            for buffer in {v.buffer for v in reads}:
                readers[buffer] = readers.get(buffer, 0) + 1
        for launch in wave:
            pairs += [(a, b, now) for a, b in _inherits(launch, roles) if readers[a] == 1]
    heirs: dict[Buffer, list[Buffer]] = {}
    for old, new, when in pairs:
        a, b = lives.get(old), lives.get(new)
        if a and b and a.last == when == b.first and a.size == b.size:
            heirs.setdefault(new, []).append(old)
    return lives, heirs


def _inherits(launch: Launch, roles: Mapping[Buffer, str]) -> list[tuple[Buffer, Buffer]]:
    """Pairs (old, new) where the launch may write `new` over `old`, if that dies with it."""
    pairs: list[tuple[Buffer, Buffer]] = []
    for call in launch.calls:
        if not isinstance(call.kernel, RowProgram):
            continue
        for out in call.writes:
            for view in call.reads:
                a, b = view.buffer, out.buffer
                fits = roles[a] == roles[b] == "arena" and a is not b and a.bytes == b.bytes
                if fits and same_place(launch, a, b) and not any(a is o for o, _ in pairs):
                    pairs.append((a, b))
    return pairs


def same_place(launch: Launch, old: Buffer, new: Buffer) -> bool:
    """True if every read of `old` in a launch is where it writes `new`, byte for byte."""
    if itemsize(old.dtype) != itemsize(new.dtype):  # strides count elements
        return False
    for call in launch.calls:
        if not any(v.buffer is new for v in call.writes):
            if any(v.buffer is old for v in call.reads):
                return False
            continue
        if not isinstance(call.kernel, RowProgram):
            return False
        out = next(v for v in call.writes if v.buffer is new)
        # A row's value where nothing is reduced: threads that share the row do not wait for those
        # that have not read it yet.
        shared = call.kernel.outputs[call.writes.index(out)].column == "same"
        if shared and not any(i.op in REDUCTIONS for i in call.kernel.instrs):
            return False
        for view in call.reads:
            if view.buffer is old and not (
                view.shape == out.shape
                and view.offset == out.offset
                and View(new, view.shape, view.strides).same(View(new, out.shape, out.strides))
            ):
                return False
        if any(i.op == "gather" for i in call.kernel.instrs):
            return False
    return True
