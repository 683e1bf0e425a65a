"""A run of bulk work: rows in, text and sums out.

In: a Work, rows, and how it is to be run. Out: text on standard output or in a file, and the sums
of what the chunks gave. Called by the commands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from . import progress
from .chunks import Chunk, Do, Work, chunked, first_line
from .journal import Journal
from .order import AHEAD, Executor, Here, in_order

Opened = Callable[[Work, Callable[[str], None]], AbstractContextManager[Executor]]


@dataclass(frozen=True)
class Plan:
    """How bulk work is run.

    chunk: rows that are worked on together. cluster: makes the executor; None: this process. out: a
    file that can be gone on with; None: `write` is given the text. facts: what the output depends
    on but for the input (see Journal), asked for where there is a file. total: bytes of the input,
    where they are known; unit: what rows are. ahead: see in_order. shown: whether progress is.
    """

    chunk: int
    write: Callable[[str], None]
    cluster: Opened | None = None
    out: Path | None = None
    facts: Callable[[], Mapping[str, Any]] = field(default=dict)
    total: int | None = None
    unit: str = "lines"
    ahead: int = AHEAD
    shown: bool = False


def run(work: Work, rows: Iterator[Any], plan: Plan) -> tuple[float, ...]:
    """Do all rows; the sums of what their chunks gave.

    Raises what reading or doing them raises, when all before is written. KeyboardInterrupt: what is
    written ends with a whole line.
    """
    show = progress.for_stream(plan.total, plan.unit) if plan.shown else progress.Silent()
    with closing(show), ExitStack() as stack:
        journal, begun = None, Chunk(0, 1, [], 0)
        if plan.out is not None:
            journal = stack.enter_context(Journal(plan.out, plan.facts()))
            counted = _Counted(rows)
            begun = journal.past(counted)
            if journal.done.lines:
                show.say(f"going on after line {journal.done.lines:,}, with {plan.out}.part")
            show.begin(journal.done.lines, counted.size)
        sums = tuple(journal.done.sums) if journal else ()
        executor: Executor
        if plan.cluster is None:
            executor = Here(work.open())
        else:
            executor = stack.enter_context(plan.cluster(work, show.say))
        chunks = chunked(rows, plan.chunk, begun)
        for chunk, result in in_order(chunks, executor, plan.ahead, show.say):
            sums = tuple(a + b for a, b in zip_longest(sums, result.sums, fillvalue=0))
            if journal is None:
                plan.write(result.text)
            else:
                journal.add(chunk, result, sums)
            show.add(len(chunk.rows), sum(map(_size, chunk.rows)))
        if journal is not None:
            journal.finish()
        show.end()
    return sums


def by(do: Do) -> Opened:
    """The executor of a Plan that is this process, with a work that has been opened."""
    return lambda work, say: nullcontext(Here(do))


class _Counted:
    """Rows, and the bytes that they had."""

    def __init__(self, rows: Iterator[Any]) -> None:
        self._rows, self.size = rows, 0

    def __iter__(self) -> _Counted:
        return self

    def __next__(self) -> Any:
        row = next(self._rows)
        self.size += _size(row)
        return row


def _size(row: Any) -> int:
    """The bytes of a row in the (first) file."""
    return len(first_line(row).encode()) + 1
