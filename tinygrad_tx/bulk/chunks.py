"""Chunks of an input, what is done to them, and what comes of it.

In: rows, one after another. Out: Chunks. What is done is a Work: a small value that can be sent to
another process, which opens it once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

_LONGEST = 1 << 21  # characters after which a chunk ends, for memory to be bounded by it


class Chunk(NamedTuple):
    """Rows that are worked on together, by one process."""

    number: int  # from 0 on
    first: int  # the line of its first row, from 1 on
    rows: list[Any]  # lines, or tuples of lines that stand side by side
    full: int  # how many lines before it were not blank

    @property
    def last(self) -> int:
        """The line of its last row."""
        return self.first + len(self.rows) - 1


class Result(NamedTuple):
    """What was made of a chunk: text, whole lines of it, and numbers that are added up."""

    text: str
    sums: tuple[float, ...] = ()


Do = Callable[[Chunk], Result]


class Work(Protocol):
    """What is done to chunks. Picklable, and equal to another one that does the same."""

    def open(self) -> Do:
        """The function that does it; whatever takes long, as reading a model, is done here."""


def chunked(rows: Iterable[Any], size: int, first: Chunk | None = None) -> Iterator[Chunk]:
    """Rows in chunks of that size; the last one may be smaller, and one of long lines. first: a
    chunk without rows that stands for what was done before these."""
    number, line, full = (first.number, first.first, first.full) if first else (0, 1, 0)
    taken: list[Any] = []
    length = 0
    for row in rows:
        taken.append(row)
        length += len(first_line(row))
        if len(taken) == size or length >= _LONGEST:
            yield Chunk(number, line, taken, full)
            number, line, full = number + 1, line + len(taken), full + count_full(taken)
            taken, length = [], 0
    if taken:
        yield Chunk(number, line, taken, full)


def first_line(row: Any) -> str:
    """A row that is a line, or the first one of those that stand side by side; empty for what is no
    text."""
    line = row[0] if isinstance(row, tuple) else row
    return line if isinstance(line, str) else ""


def count_full(rows: Iterable[Any]) -> int:
    """How many rows are lines that are not blank."""
    return sum(isinstance(row, str) and bool(row.strip()) for row in rows)
