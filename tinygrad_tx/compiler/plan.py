"""plan: fused units become launches in waves, and every buffer gets its place in memory.

In: a recorded call. Out: a Plan: steps (waves of launches, and opaque calls between them), a table
of buffers, offsets in the arena. Nothing here is machine code or address: execute.py adds those.
Called by compiled.py.

Units that do not depend on each other share a wave, whose tasks run in any order. A buffer lives
from the wave that writes it first to the one that reads it last; buffers whose lives do not meet
share memory. A row program writes over an operand that dies with it, and new state over old state.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..backends.kernel import Index, Matmul, Pack
from ..backends.native.target import Target
from ..node import Graph, Node
from .fuse import Fuser
from .groups import Group, copying
from .lower import lower
from .memory import allocate, same_place
from .panels import panelled
from .passes import PASSES
from .rewrite import share
from .sums import sums
from .views import Buffer, Call, Launch, View, whole

WINDOW = 32  # how many launches back one may go to find company
SMALL = 1024  # elements of state that is rather copied than made anew


@dataclass(eq=False)
class Plan:
    """steps: lists of waves (native segments) and opaque launches, in order."""

    steps: list[list[list[Launch]] | Launch]
    buffers: list[Buffer]
    offsets: dict[Buffer, int]  # of arena buffers, in bytes
    arena_bytes: int
    constants: dict[Buffer, np.ndarray[Any, Any]]
    inputs: dict[Node, Buffer]
    places: dict[Node, View]  # of what is returned and of new state: whole dense buffers
    refusals: list[str]
    graph: Graph
    seconds: float = 0.0
    aliases: dict[Buffer, Buffer] = field(default_factory=dict)
    kept: list[Call] = field(default_factory=list)  # packings of inputs that do not change

    def launches(self) -> list[Launch]:
        found: list[Launch] = []
        for step in self.steps:
            found += [step] if isinstance(step, Launch) else [x for wave in step for x in wave]
        return found


def rewritten(roots: Sequence[Node]) -> tuple[Node, ...]:
    """The graph after all passes: what users are shown."""
    found = tuple(roots)
    for rewrite in PASSES:
        found = rewrite(found)
    return found


def make(results: Sequence[Node], states: dict[Node, Node], target: Target) -> Plan:
    """results: nodes whose values are handed out. states: for each INPUT that changes, the node it
    ends as."""
    started = time.perf_counter()
    ends = tuple(dict.fromkeys((*results, *states.values())))
    graph = Graph(rewritten(ends))
    roots = share(sums(lower(graph.roots)))
    found = dict(zip(ends, roots, strict=True))
    final = {source: found[end] for source, end in states.items()}
    seconds = time.perf_counter() - started
    fuser = Fuser(roots, final, target)
    fused = fuser.run()
    for source in states:  # one that nobody reads can be written over as well
        if source not in fused.inputs:
            buffer = Buffer("input", source.dtype.name, int(np.prod(source.shape)), source)
            fused.inputs[source] = buffer
    places = {end: fuser.view(found[end]) for end in ends}
    units = fused.units
    handed: dict[tuple[Buffer, int], Buffer] = {}
    sources: dict[Node, list[Node]] = {}
    for source, end in states.items():
        sources.setdefault(end, []).append(source)
    for end in ends:
        view = places[end]
        own = any(view.buffer is fused.inputs.get(s) for s in sources.get(end, ()))
        if own and view.buffer.state:
            continue
        places[end] = _handed_out(view, units, handed)
    launches = panelled(_chained([u for u in units if isinstance(u, Call) or u.stores]))
    launches, kept = _kept(launches, {fused.inputs[s] for s in states if s in fused.inputs})
    aliases = _in_place(launches, states, places, fused.inputs)
    steps = _waves(launches, aliases)
    if copies := _copied_at_the_end(steps, states, places, fused.inputs, aliases):
        launches += copies
        if steps and isinstance(steps[-1], list):
            steps[-1].append(copies)
        else:
            steps.append([copies])
    offsets, arena_bytes = allocate(steps)
    return Plan(
        steps,
        _buffers([*launches, *map(Launch, ([call] for call in kept))], fused.inputs, places),
        offsets,
        arena_bytes,
        fused.constants,
        fused.inputs,
        places,
        fused.refusals,
        graph,
        seconds,
        aliases,
        kept,
    )


def _handed_out(
    view: View, units: list[Group | Call], handed: dict[tuple[Buffer, int], Buffer]
) -> View:
    """The view of a value that outlives the run: a whole dense buffer of its own."""
    buffer = view.buffer
    dense = view.contiguous and view.offset == 0 and buffer.size == int(np.prod(view.shape))
    if dense and buffer.kind in ("arena", "result"):
        buffer.kind = "result"
        return whole(buffer, view.shape)
    made = Buffer("result", view.dtype, int(np.prod(view.shape)), buffer.node)
    target = whole(made, view.shape)
    units.append(copying(view, target))
    return target


# Epilogues -------------------------------------------------------------------------------------


def _chained(units: list[Group | Call]) -> list[Launch]:
    """Each unit as a launch; a product moves to a row program that reads it next."""
    units = _riders_first(units)
    readers = _readers(units)
    riders: dict[int, list[int]] = {}
    for i, unit in enumerate(units):
        if isinstance(unit, Call) and isinstance(unit.kernel, Matmul):
            first = min(readers.get(unit.writes[0].buffer, [-1]))
            if first > i and _rides(unit, units[first]):
                riders.setdefault(first, []).append(i)
    moved = {i for group in riders.values() for i in group}
    launches = []
    for i, unit in enumerate(units):
        if i in moved:
            continue
        products = [units[j] for j in riders.get(i, [])]
        rows = {p.args[5] for p in products if isinstance(p, Call)}
        if len(rows) > 1:  # they cut their rows differently: only the last one is ridden on
            for product in products[:-1]:
                assert isinstance(product, Call)
                launches.append(Launch([product]))
            products = products[-1:]
        calls = [p for p in products if isinstance(p, Call)]
        if isinstance(unit, Group):
            per_task = calls[0].args[5] if calls else 0
            assert isinstance(per_task, int)
            calls.append(unit.call(per_task))
        else:
            calls.append(unit)
        launches.append(Launch(calls))
    return launches


def _riders_first(units: list[Group | Call]) -> list[Group | Call]:
    """The units, a row program that can ride on a product brought before others that read that, if
    all else that it reads is made earlier."""
    readers = _readers(units)
    writers: dict[Buffer, list[int]] = {}
    for i, unit in enumerate(units):
        for view in unit.writes if isinstance(unit, Call) else [s.view for s in unit.stores]:
            writers.setdefault(view.buffer, []).append(i)
    place = {i: (i, 1) for i in range(len(units))}
    for i, unit in enumerate(units):
        if not (isinstance(unit, Call) and isinstance(unit.kernel, Matmul)):
            continue
        found = readers.get(unit.writes[0].buffer, [])
        rider = next((r for r in found if r > i and _rides(unit, units[r])), -1)
        if rider < 0 or found[0] in (rider, i) or place[rider] != (rider, 1):
            continue
        made = [w for v in _reads(units[rider]) for w in writers.get(v.buffer, []) if w < rider]
        if max(made, default=-1) < found[0]:
            place[rider] = (found[0], 0)
    return [units[i] for i in sorted(place, key=lambda i: place[i])]


def _readers(units: list[Group | Call]) -> dict[Buffer, list[int]]:
    """The numbers of the units that read each buffer, in their order."""
    readers: dict[Buffer, list[int]] = {}
    for i, unit in enumerate(units):
        for buffer in {v.buffer for v in _reads(unit)}:
            readers.setdefault(buffer, []).append(i)
    return readers


def _reads(unit: Group | Call) -> list[View]:
    return unit.reads if isinstance(unit, Call) else [load.view for load in unit.loads]


def _rides(product: Call, group: Group | Call) -> bool:
    """Whether a row program can take the product's rows task by task."""
    if not isinstance(group, Group) or group.kind != "rows":
        return False
    b0, b1, m, n, *_ = product.args
    columns = product.args[6]
    assert isinstance(n, int) and isinstance(columns, int)
    if (b0, b1) != (1, 1) or columns < n or (group.rows, group.columns) != (m, n):
        return False
    out = product.writes[0]
    for load in group.loads:
        if load.view.buffer is out.buffer:
            flat = load.view.reshape((group.rows * group.columns,))
            if load.gathers or flat is None or flat.strides != (1,) or flat.offset != out.offset:
                return False
    return True


def _kept(launches: list[Launch], changing: set[Buffer]) -> tuple[list[Launch], list[Call]]:
    """The launches without the packings whose result serves the next run too, and these."""
    rest: list[Launch] = []
    kept: list[Call] = []
    for launch in launches:
        call = launch.calls[0]
        source = call.reads[0].buffer if isinstance(call.kernel, Pack) else None
        if source is None or source.kind != "input" or source in changing:
            rest.append(launch)
        else:
            call.writes[0].buffer.kind = "kept"
            kept.append(call)
    return rest, kept


# State that is written over --------------------------------------------------------------------


def _in_place(
    launches: list[Launch],
    states: dict[Node, Node],
    places: dict[Node, View],
    inputs: dict[Node, Buffer],
) -> dict[Buffer, Buffer]:
    """Results that are new state and may be written where the old state lies: result -> input."""
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
    for source, end in states.items():
        old, new = inputs.get(source), places[end].buffer
        if old is None or new is old or new.kind != "result" or new.dtype != old.dtype:
            continue
        at = writer.get(new, -1)
        if ends[new] > 1 or at <= last_opaque or last_read.get(old, -1) > at or old.state:
            continue
        if last_read.get(old, -1) < at or same_place(launches[at], old, new):
            aliases[new] = old
            old.state = True
    return aliases


def _copied_at_the_end(
    steps: Sequence[list[list[Launch]] | Launch],
    states: dict[Node, Node],
    places: dict[Node, View],
    inputs: dict[Node, Buffer],
    aliases: dict[Buffer, Buffer],
) -> list[Launch]:
    """Small new state that cannot be made where the old lies, as that is still read or a check may
    still fail, is copied there when all is done: so counters do not need new memory each time."""
    soon = early(steps)
    ends = Counter(view.buffer for view in places.values())
    copies = []
    for source, end in states.items():
        old, view = inputs.get(source), places[end]
        new = view.buffer
        if old is None or new.size > SMALL or new.dtype != old.dtype or ends[new] > 1:
            continue
        placed = aliases.get(new) is old
        if new.kind != "result" or (placed and new not in soon) or (old.state and not placed):
            continue
        aliases.pop(new, None)
        new.kind, old.state = "arena", True
        places[end] = whole(Buffer("result", new.dtype, new.size, new.node), view.shape)
        aliases[places[end].buffer] = old
        copies.append(Launch([copying(view, places[end])]))
    return copies


def early(steps: Sequence[list[list[Launch]] | Launch]) -> set[Buffer]:
    """What is written before the last index is checked and the last op called: while the run may
    still fail."""
    found: set[Buffer] = set()
    written: set[Buffer] = set()
    for step in steps:
        for wave in [[step]] if isinstance(step, Launch) else step:
            written |= {view.buffer for launch in wave for view in launch.writes}
            if isinstance(step, Launch) or indices(wave):
                found |= written
    return found


# Order -----------------------------------------------------------------------------------------


def _waves(
    launches: list[Launch], aliases: dict[Buffer, Buffer]
) -> list[list[list[Launch]] | Launch]:
    steps: list[list[list[Launch]] | Launch] = []
    waves: list[list[Launch]] = []
    front: list[int] = []  # the last wave there was at each launch so far
    written: dict[Buffer, int] = {}
    read: dict[Buffer, int] = {}

    def close() -> None:
        nonlocal waves
        if waves:
            steps.append(waves)
        waves = []
        front.clear()
        written.clear()
        read.clear()

    for launch in launches:
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
        at = max(after + 1, front[-WINDOW] if len(front) >= WINDOW else 0)
        if at >= len(waves):
            waves.append([])
            at = len(waves) - 1
        waves[at].append(launch)
        front.append(len(waves) - 1)
        for b in writes:
            written[b] = max(at, written.get(b, -1))
        for b in reads:
            read[b] = max(at, read.get(b, -1))
    close()
    return steps


def indices(wave: Sequence[Launch]) -> list[Call]:
    """The calls of a wave that check indices."""
    return [call for x in wave for call in x.calls if isinstance(call.kernel, Index)]


def _buffers(
    launches: list[Launch], inputs: dict[Node, Buffer], places: dict[Node, View]
) -> list[Buffer]:
    """All buffers, numbered."""
    found = dict.fromkeys(inputs.values())
    for launch in launches:
        found.update(dict.fromkeys(v.buffer for v in (*launch.reads, *launch.writes)))
    found.update(dict.fromkeys(v.buffer for v in places.values()))
    for number, buffer in enumerate(found):
        buffer.number = number
    return list(found)
