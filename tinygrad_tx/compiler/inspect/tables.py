"""tables: graphs as plain data: what each stage of the pipeline has made, as rows of nodes.

In: Nodes, units and launches. Out: lists of numbers and texts. Called by describe.py.

A node that several stages have in common is one row. Texts that occur often stand in lists of their
own, and rows name them by number.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import Any, TypeVar

from ...dtypes import ALL
from ...loops.record import SCAN
from ...node import CONST, INPUT, Graph, Node
from ...places import shortened, text
from ..fuse.body import Body
from ..schedule.records import Buffer, Call, Ends, Fusion, Launch, Plan, Schedule, View, waves_of
from .costs import PHASES, Phases

COLUMNS = (
    *("op", "srcs", "detail", "result", "module", "place", "gradient_of", "phase", "order"),
    "inside",
)
_SRCS, _ORDER, _INSIDE = map(COLUMNS.index, ("srcs", "order", "inside"))
_LONGEST = 120  # characters of an attribute's value
T = TypeVar("T", bound=Hashable)


class Names:
    """Texts by number, each once."""

    def __init__(self) -> None:
        self.numbers: dict[Any, int] = {}

    def __call__(self, text: Any) -> int:
        return self.numbers.setdefault(text, len(self.numbers))

    def listed(self) -> list[Any]:
        return [*self.numbers]


class Table:
    """The rows of nodes and launches, and the lists of texts. inputs: what INPUTs are called."""

    def __init__(self, phase: Phases, inputs: Mapping[Node, str]) -> None:
        self.ops, self.details, self.results = Names(), Names(), Names()
        self.modules, self.lines = Names(), Names()
        self.modules(""), self.lines("")
        self.rows: list[list[Any]] = []
        self.phase, self.inputs = phase, inputs
        self._of: dict[tuple[Node, int], int] = {}  # by node and the loop that it is inside
        self._units: dict[tuple[Any, ...], int] = {}
        self._first = -1  # the place in the program that counts as 0

    def number(self, node: Node) -> int:
        """A node's row, or -1."""
        return self._of.get((node, -1), -1)

    def places_of(self, node: Node | None) -> tuple[int, int]:
        """A node's line, and that of what it is a gradient of; 0 where there is none."""
        return (self.lines(node.line), self.lines(self.phase.line(node))) if node else (0, 0)

    # Nodes ----------------------------------------------------------------------------------------
    def graph(self, roots: Sequence[Node], inside: int = -1) -> list[int]:
        """The rows of a graph, each behind those it reads, otherwise in the order in which the
        program has come to them; behind a loop those of its round."""
        found: list[int] = []
        nodes = Graph(roots).nodes
        for node in by_due(nodes, {n: n.srcs for n in nodes}, lambda n: n.place):
            number = self._of.setdefault((node, inside), len(self.rows))
            if number == len(self.rows):
                self.rows.append(self._row(node, inside))
            found.append(number)
            if node.op is SCAN:
                made = node.attrs["round"]
                found += self.graph((*made.outs, *node.attrs.get("keep", ())), number)
        return found

    def _row(self, node: Node, inside: int) -> list[Any]:
        if self._first < 0:
            self._first = node.place
        return [
            self.ops(node.op.name),
            [self._of[src, inside] for src in node.srcs],
            self.details(self._detail(node)),
            self.results(" ".join(f"{s.dtype.short}{list(s.shape)}" for s in node.specs)),
            self.modules(node.scope),
            *self.places_of(node),
            PHASES.index(self.phase(node)),
            node.place - self._first,
            inside,
        ]

    def _detail(self, node: Node) -> str:
        if node.op is INPUT:
            return self.inputs.get(node, "")
        if node.op is CONST:
            return f"{node.attrs['value']!r}"
        if node.op is SCAN:
            return f"{node.attrs['length']} rounds"
        texts = (f"{key}={_shown(value)}" for key, value in node.attrs.items())
        return ", ".join(texts)

    # Units and launches ---------------------------------------------------------------------------
    def units(self, value: Fusion | Schedule | Plan) -> list[int]:
        """The rows of what a later stage has made: its units or launches."""
        makers: dict[Buffer, list[int]] = {}
        match value:
            case Fusion():
                entries: Iterable[Any] = [(0, (unit,), None) for unit in value.units]
            case Schedule(steps=(), launches=launches):
                entries = [(0, launch.calls, launch) for launch in launches]
            case _:
                waves = waves_of(value.steps)
                entries = [(i, x.calls, x) for i, wave in enumerate(waves, 1) for x in wave]
        return [
            row
            for wave, calls, launch in entries
            for row in self._unit(wave, calls, launch, makers, -1)
        ]

    def _unit(
        self,
        wave: int,
        calls: Sequence[Body | Call],
        launch: Launch | None,
        makers: dict[Buffer, list[int]],
        inside: int,
    ) -> list[int]:
        """The row of a unit, and behind a loop those of its round."""
        reads, writes = _touched(calls)
        srcs = list(dict.fromkeys(row for b in reads for row in makers.get(b, ())))
        key = (*calls, wave, *srcs, inside)
        number = self._units.setdefault(key, len(self.rows))
        if number == len(self.rows):
            self.rows.append(self._unit_row(wave, calls, srcs, inside))
        for buffer in writes:
            others = [row for row in makers.get(buffer, ()) if row in srcs or buffer.parts]
            makers[buffer] = [*(others if buffer.parts else ()), number]
        found = [number]
        if launch is not None and launch.loop is not None:
            round_makers: dict[Buffer, list[int]] = {}
            for i, inner in enumerate(launch.loop.plan.waves(), 1):
                for x in inner:
                    found += self._unit(i, x.calls, x, round_makers, number)
        return found

    def _unit_row(
        self, wave: int, calls: Sequence[Body | Call], srcs: list[int], inside: int
    ) -> list[Any]:
        kinds = [call.kernel.word if isinstance(call, Call) else call.kind for call in calls]
        last, phase = self.phase.of(node for call in calls for node in call.nodes)
        ops = "; ".join(
            " ".join(dict.fromkeys(node.op.name for node in call.nodes)) or "copy" for call in calls
        )
        return [
            self.ops(" + ".join(kinds)),
            srcs,
            self.details(f"wave {wave}: {ops}" if wave else ops),
            self.results(results(calls[-1])),
            self.modules(last.scope if last else ""),
            *self.places_of(last),
            PHASES.index(phase) if phase else 0,
            max(0, last.place - self._first) if last else 0,
            inside,
        ]

    def in_order(self, numbers: Sequence[int]) -> list[int]:
        """Rows behind those that they read, otherwise in the program's order; what is inside of a
        loop, behind it."""
        inside: dict[int, list[int]] = {}
        for i in numbers:
            inside.setdefault(self.rows[i][_INSIDE], []).append(i)

        def ordered(rows: list[int]) -> Iterator[int]:
            srcs = {
                i: [j for j in self.rows[i][_SRCS] if j in known]
                for known in [{*rows}]
                for i in rows
            }
            for i in by_due(rows, srcs, lambda i: int(self.rows[i][_ORDER])):
                yield i
                yield from ordered(inside.get(i, []))

        return [*ordered(inside.get(-1, []))]

    # Data -----------------------------------------------------------------------------------------
    def places(self) -> list[dict[str, str]]:
        """The lines of Python that rows name."""
        made = ((shortened(line), text(line)) for line in self.lines.listed())
        return [{"where": where, "text": text} for where, text in made]

    def as_data(self) -> dict[str, Any]:
        return {
            "ops": self.ops.listed(),
            "details": self.details.listed(),
            "results": self.results.listed(),
            "phases": PHASES,
            "columns": COLUMNS,
            "rows": self.rows,
        }


def stage_rows(table: Table, value: Any) -> list[int]:
    """The rows of what a stage has made."""
    if isinstance(value, Ends):
        return table.graph(value.roots)
    return table.in_order(table.units(value))


def results(unit: Body | Call) -> str:
    """The shapes that a unit writes."""
    views: Sequence[View] = (
        unit.writes if isinstance(unit, Call) else [store.view for store in unit.stores]
    )
    return " ".join(f"{ALL[v.dtype].short}{list(v.shape)}" for v in views)


def _touched(calls: Sequence[Body | Call]) -> tuple[list[Buffer], list[Buffer]]:
    """The buffers that a unit reads, and those that it writes."""
    reads: dict[Buffer, None] = {}
    writes: dict[Buffer, None] = {}
    for unit in calls:
        if isinstance(unit, Call):
            ins, outs = [v.buffer for v in unit.reads], [v.buffer for v in unit.writes]
        else:
            ins, outs = [x.view.buffer for x in unit.loads], [x.view.buffer for x in unit.stores]
        reads.update(dict.fromkeys(b for b in ins if b not in writes))
        writes.update(dict.fromkeys(outs))
    return [*reads], [*writes]


def by_due(items: Sequence[T], srcs: Mapping[T, Sequence[T]], place: Callable[[T], int]) -> list[T]:
    """Items behind their sources, in the order in which the program has come to them; what it has
    come to later than one that reads it (cse takes the one for the other), right before that.
    items: in some order in which each is behind its sources."""
    users: dict[T, list[T]] = {item: [] for item in items}
    waiting = {}
    for item in items:
        read = dict.fromkeys(srcs[item])
        waiting[item] = len(read)
        for src in read:
            users[src].append(item)
    number = {item: i for i, item in enumerate(items)}
    due: dict[T, int] = {}
    for item in reversed(items):
        due[item] = min([place(item), *(due[user] for user in users[item])])
    ready = [(due[item], number[item]) for item in items if not waiting[item]]
    heapify(ready)
    found: list[T] = []
    while ready:
        item = items[heappop(ready)[1]]
        found.append(item)
        for user in users[item]:
            waiting[user] -= 1
            if not waiting[user]:
                heappush(ready, (due[user], number[user]))
    return found


def _shown(value: Any) -> str:
    """An attribute's value, cut where it is long."""
    text = getattr(value, "name", None) or repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
