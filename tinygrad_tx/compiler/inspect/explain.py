"""explain: a plan in words: its launches with their ops, times and lines of Python, the slowest
first, and the fusions that were refused.

In: a Plan, and the Timeline of a run where one was measured. Out: an Explanation, as wide as the
terminal. Called by `compiled.explain()` and TX_DEBUG.
"""

from __future__ import annotations

import html
import re
import shutil
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ...backends.kernels import kinds
from ...backends.kernels.describe import describe
from ...backends.kernels.kinds import Kernel, Opaque
from ...backends.target import Target
from ...dtypes import ALL
from ...errors import UserError
from ..schedule.records import Call, Launch, Plan, Refusal
from .costs import seconds_of
from .origin import named, origin
from .timeline import Timeline
from .work import calls_run, flops, moved

Source = bool | Literal["asm"]
WIDTH = 140  # columns, where there is no terminal
_NARROW = 80  # and no terminal is taken for less
_WIDE = 100  # columns from which on work is shown, which what was reached tells as well
_SLOWEST = 10
_OPS, _RESULT, _WHERE = (26, 14), (18, 12), 28  # columns: as many as there is room for, at least
_LAYER = re.compile(r"\.\d+(?=\.)")
_LEGEND = (
    "wave: what runs at the same time; +: on the rows of the kernel before it; x 6: so many alike",
    "flop: of products and attention; bytes: each operand once; in a loop (3.1): of all its rounds",
    "us, share: by what threads did, where it is known, else by work; reached: work in this time",
    'no.: the kernel in explain(source=True), and with its machine code in explain(source="asm")',
)


class Explanation(str):
    """Text that shows itself, in a Python session and in a notebook."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        style = "overflow-x:auto;white-space:pre;line-height:1.3"
        return f'<pre style="{style}">{html.escape(self)}</pre>'


def columns() -> int:
    """Of the terminal, or WIDTH where there is none."""
    return max(shutil.get_terminal_size((WIDTH, 0)).columns, _NARROW)


def require_source(source: Source) -> None:
    """UserError for what explain(source=...) does not know."""
    if not isinstance(source, bool) and source != "asm":
        raise UserError(f'explain: source must be False, True or "asm", not {source!r}')


def explained(
    plan: Plan, timed: Timeline | None, notes: Sequence[str], target: Target, source: Source = False
) -> str:
    """The whole plan. timed: the run that was measured. notes: on its runs, among them which one
    that was. source: with the listing of each kernel, "asm": and with its machine code."""
    launches, calls, width = plan.launches(), plan.calls(), columns()
    results = sum(b.bytes for b in plan.results())
    kept = sum(call.writes[0].buffer.bytes for call in plan.prepacked)
    seconds, number = seconds_of(plan, timed), numbers(plan)
    rows = [row for i, wave in enumerate(plan.waves(), 1) for row in _rows(f"{i}", wave, seconds)]
    for row in rows:
        row.number = number.get(row.kernel, 0)
    total = sum(seconds.values())
    lines = [
        f"{len(calls)} kernels in {len(launches)} launches and {len(plan.waves())} waves; bytes: "
        f"arena {short(plan.arena_bytes) or 0}, results {short(results) or 0}, "
        f"weights kept packed {short(kept) or 0}",
        *notes,
        "",
        *_slowest(rows, total, width),
        *_table(rows, total, width),
        "",
        *_totals(launches, seconds),
    ]
    if plan.refusals:
        lines += ["", "not fused:", *(f"  {line}" for line in refusals(plan.refusals))]
    lines += ["", *(line for text in _LEGEND for line in textwrap.wrap(text, width))]
    if source:
        lines += ["", *listings(plan, target if source == "asm" else None)]
    return "\n".join(line.rstrip() for line in lines)


def run_times(plan: Plan, timed: Timeline) -> str:
    """Only what was timed, the slowest wave first: what TX_DEBUG=2 prints of each run."""
    seconds = seconds_of(plan, timed)
    waves = sorted(enumerate(zip(plan.waves(), timed.seconds, strict=True), 1), key=_by_time)
    rows = [row for i, (wave, _) in waves for row in _rows(str(i), wave, seconds)]
    number = numbers(plan)
    for row in rows:
        row.number = number.get(row.kernel, 0)
    return "\n".join(line.rstrip() for line in _table(rows, timed.total, columns()))


def _by_time(entry: tuple[int, tuple[Sequence[Launch], float]]) -> float:
    return -entry[1][1]


def numbers(plan: Plan) -> dict[Kernel, int]:
    """The number of each distinct kernel, from 1, in the order of the plan."""
    return {kernel: i for i, kernel in enumerate(dict.fromkeys(c.kernel for c in plan.calls()), 1)}


def refusals(given: Sequence[Refusal]) -> list[str]:
    """Those of one kind as one line, with the place of the first, the most frequent ones first."""
    groups: dict[tuple[str, str], list[str]] = {}
    for node, reason in given:
        groups.setdefault((node.op.name, reason), []).append(named(node))
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    return [f"{len(at):4} x {op}: {why}  {at[0]}" for (op, why), at in ordered]


def listings(plan: Plan, target: Target | None = None) -> list[str]:
    """Each kernel in a few lines, under its number, and the number of its calls. target: whose
    machine code is shown as well."""
    counts = Counter(call.kernel for call in plan.calls())
    lines = []
    for kernel, i in numbers(plan).items():
        lines += [f"#{i} {describe(kernel)}", f"  called {counts[kernel]} times"]
        if target is not None:
            lines += _assembly(kernel, target)
        lines.append("")
    return lines


def _assembly(kernel: Kernel, target: Target) -> list[str]:
    if isinstance(kernel, Opaque):
        return ["  no machine code: it is called as it is"]
    if not target.native:
        return ["  no machine code: kernels run in NumPy"]
    return [f"  {line}" for line in target.assembly(kernel).expandtabs(8).splitlines()]


# Rows ------------------------------------------------------------------------------------------


@dataclass
class _Row:
    """Calls of a wave that look alike in all but the number of their layer. wave: as it is printed;
    number: of their kernel. flops, bytes, seconds: of all of them, in all rounds of a loop."""

    wave: str
    kind: str
    ops: str
    result: str
    where: str
    kernel: Kernel
    times: int = 1
    flops: int = 0
    bytes: int = 0
    seconds: float = 0.0
    number: int = 0

    @property
    def what(self) -> str:
        return f"{self.ops} x {self.times}" if self.times > 1 else self.ops

    @property
    def reached(self) -> str:
        """The operations or bytes per second."""
        if not self.seconds:
            return ""
        work, unit = (self.flops, "GF/s") if self.flops else (self.bytes, "GB/s")
        rate = work / self.seconds / 1e9
        return f"{rate:.0f} {unit}" if rate >= 100 else f"{rate:.1f} {unit}"


def _rows(
    number: str, wave: Sequence[Launch], seconds: Mapping[Call, float], rounds: int = 1
) -> Iterator[_Row]:
    """A row for each call of a wave, those that look alike as one; behind a loop those in it."""
    alike: dict[tuple[object, ...], list[Launch]] = {}
    for launch in wave:
        looks = tuple((call.kernel, *_looks(call)) for call in launch.calls)
        alike.setdefault(looks, []).append(launch)
    for launches in alike.values():
        for i, first in enumerate(launches[0].calls):
            kind, ops, result, where = _looks(first)
            row = _Row("+" if i else number, kind, ops, result, where, first.kernel)
            row.times = len(launches)
            if row.times == 1:
                row.where = origin(first)
            for call in (launch.calls[i] for launch in launches):
                row.flops += rounds * flops(call)
                row.bytes += rounds * moved(call)
                inner = [call] if call.loop is None else call.loop.plan.calls()
                row.seconds += sum(seconds.get(x, 0.0) for x in inner)
            yield row
    for loop in [launch.loop for launch in wave if launch.loop]:
        for i, inner_wave in enumerate(loop.plan.waves(), 1):
            yield from _rows(f"{number}.{i}", inner_wave, seconds, rounds * loop.rounds)


def _looks(call: Call) -> tuple[str, str, str, str]:
    """The looks of a call: kind, ops, results, origin."""
    outs = [f"{ALL[v.dtype].short}[{','.join(map(str, v.shape))}]" for v in call.writes]
    ops = call.ops
    if isinstance(call.kernel, kinds.Loop) and call.loop:
        ops = f"{call.loop.rounds} x {call.kernel.name}"
    return call.kernel.word, ops, " ".join(outs), _LAYER.sub(".*", origin(call))


# Lines -----------------------------------------------------------------------------------------


def _slowest(rows: Sequence[_Row], total: float, width: int) -> list[str]:
    """The ten that took the longest, loops by what runs in them."""
    timed = [row for row in rows if row.seconds and not isinstance(row.kernel, kinds.Loop)]
    if not timed:
        return []
    slowest = sorted(timed, key=lambda row: -row.seconds)[:_SLOWEST]
    whats = [f"{row.kind}: {row.what} -> {row.result}" for row in slowest]
    longest = max(len(row.where) for row in slowest)
    room = max(min(max(map(len, whats)), width - 25 - longest), width // 3)
    lines = [f"the {len(slowest)} slowest of {len(timed)}:", f"{'us':>8} {'share':>6}  {'no.':>4}"]
    for row, what in zip(slowest, whats, strict=True):
        part = row.seconds / total
        line = f"{row.seconds * 1e6:8.1f} {part:6.1%}  {_number(row):>4}  {_cut(what, room):{room}}"
        lines += _placed(line, row.where, width)
    return [*lines, ""]


def _table(rows: Sequence[_Row], total: float, width: int) -> list[str]:
    """A line for each row, in the order that they are in."""
    work, longest = width >= _WIDE, max((len(row.where) for row in rows), default=0)
    fixed = 68 if work else 54
    missing = max(fixed + _OPS[0] + _RESULT[0] + max(longest, _WHERE) - width, 0)
    ops = max(_OPS[0] - missing // 2, _OPS[1])
    result = max(_RESULT[0] - missing // 2, _RESULT[1])
    heads = f"{'flop':>6} {'bytes':>6} " if work else ""
    head = (
        f"{'wave':>5} {'kernel':13} {'ops':{ops}} {'result':{result}} {heads}{'us':>8} "
        f"{'share':>6} {'reached':>9} {'no.':>4}"
    )
    lines = _placed(head, "where", width)
    for row in rows:
        times = f" x {row.times}" if row.times > 1 else ""
        what = _cut(row.ops, ops - len(times)) + times
        did = f"{short(row.flops):>6} {short(row.bytes):>6} " if work else ""
        took = f"{row.seconds * 1e6:8.1f} {row.seconds / total:6.1%}" if row.seconds else " " * 15
        line = (
            f"{row.wave:>5} {row.kind:13} {what:{ops}} {_cut(row.result, result):{result}} "
            f"{did}{took} {row.reached:>9} {_number(row):>4}"
        )
        lines += _placed(line, row.where, width)
    return lines


def _placed(line: str, where: str, width: int) -> list[str]:
    """A line and its place in the program, which is never cut: on the next one if need be."""
    if len(line) + 2 + len(where) <= width:
        return [f"{line}  {where}"]
    return [line, f"{'':8}{where}"]


def _number(row: _Row) -> str:
    return f"#{row.number}" if row.number else ""


@dataclass
class _Total:
    kernels: int = 0
    flops: int = 0
    bytes: int = 0
    seconds: float = 0.0


def _totals(launches: Iterable[Launch], seconds: Mapping[Call, float]) -> list[str]:
    """A line for each kind of kernel."""
    tally: dict[str, _Total] = {}
    for call, times in [x for launch in launches for x in calls_run(launch)]:
        found = tally.setdefault(call.kernel.word, _Total())
        found.kernels += 1
        found.flops += times * flops(call)
        found.bytes += times * moved(call)
        found.seconds += seconds.get(call, 0.0)
    total = sum(seconds.values())
    lines = [f"{'total':13} {'kernels':>7} {'flop':>6} {'bytes':>6} {'us':>9} {'share':>6}"]
    for name, found in sorted(tally.items(), key=lambda item: -item[1].seconds):
        took = f"{found.seconds * 1e6:9.1f} {found.seconds / total:6.1%}" if total else ""
        work = f"{short(found.flops):>6} {short(found.bytes):>6}"
        lines.append(f"{name:13} {found.kernels:7} {work} {took}")
    if total:
        lines.append(f"{'all':13} {'':7} {'':6} {'':6} {total * 1e6:9.1f}")
    return lines


# Words -----------------------------------------------------------------------------------------


def short(value: float) -> str:
    """A count in three digits; nothing for nothing."""
    if not value:
        return ""
    power = next(p for p in (4, 3, 2, 1, 0) if value >= 1000**p or not p)
    value /= 1000**power
    digits = f"{value:.0f}" if value >= 100 or not power else f"{value:.1f}"
    return digits + " kMGT"[power].strip()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "~"
