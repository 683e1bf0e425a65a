"""The progress of bulk work, for a user: a bar on a terminal, plain lines elsewhere. In: chunks
that are done. Out: text on standard error. Called by run.py.
"""

from __future__ import annotations

import sys
import time
from typing import Any, Protocol, TextIO, cast

from ..training.progress import Forgiving, clock

_OFTEN = 30.0  # seconds between two lines


class Progress(Protocol):
    """The calls by which a run tells of its chunks."""

    def begin(self, lines: int, size: int) -> None:
        """So many lines, and bytes of the input, were done before."""

    def add(self, lines: int, size: int) -> None:
        """So many more are done."""

    def say(self, text: str) -> None:
        """Anything else, one line."""

    def end(self) -> None:
        """All is done."""

    def close(self) -> None:
        """Nothing more comes."""


class Silent:
    """Nothing is shown but what has to be said."""

    def begin(self, lines: int, size: int) -> None:
        pass

    def add(self, lines: int, size: int) -> None:
        pass

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def end(self) -> None:
        pass

    def close(self) -> None:
        pass


def for_stream(total: int | None, unit: str = "lines", stream: TextIO | None = None) -> Progress:
    """The kind that suits the stream (standard error if not given). total: the bytes of the input,
    where they are known. unit: what is counted."""
    safe = cast(TextIO, Forgiving(stream or sys.stderr))
    if safe.isatty():
        from rich.console import Console

        if Console(file=safe).is_interactive:  # not where TERM is dumb
            return Bar(safe, total, unit)
    return Lines(safe, total, unit)


class Lines:
    """A line now and then, and one in the end."""

    def __init__(self, stream: TextIO, total: int | None, unit: str) -> None:
        self._stream, self._total = stream, total
        self._pace = _Pace(unit)
        self._size = 0
        self._said = time.monotonic()

    def begin(self, lines: int, size: int) -> None:
        self._pace, self._size = _Pace(self._pace.unit, lines), size

    def add(self, lines: int, size: int) -> None:
        self._pace.add(lines)
        self._size += size
        if (now := time.monotonic()) - self._said >= _OFTEN:
            self._said = now
            share = f" ({self._size / self._total:.0%})" if self._total else ""
            self.say(f"{self._pace.count()}{share}, {self._pace.rate()}")

    def say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def end(self) -> None:
        self.say(self._pace.whole())

    def close(self) -> None:
        pass


class Bar:
    """A bar of the bytes that are done, which moves with every chunk."""

    def __init__(self, stream: TextIO, total: int | None, unit: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._console = Console(file=stream, highlight=False, soft_wrap=True)
        columns: list[Any] = [BarColumn(bar_width=24), TextColumn("{task.description}")]
        if total:
            columns[1:1] = [TaskProgressColumn()]
            columns.append(TimeRemainingColumn())
        self._bar = RichProgress(*columns, console=self._console, transient=True)
        self._task = self._bar.add_task("", total=total or None)
        self._pace = _Pace(unit)
        self._bar.start()

    def begin(self, lines: int, size: int) -> None:
        self._pace = _Pace(self._pace.unit, lines)
        self._bar.update(self._task, completed=size)

    def add(self, lines: int, size: int) -> None:
        self._pace.add(lines)
        text = f"{self._pace.count()}  {self._pace.rate()}"
        self._bar.update(self._task, advance=size, description=text)

    def say(self, text: str) -> None:
        self._console.print(text, markup=False)

    def end(self) -> None:
        self._bar.stop()
        self.say(self._pace.whole())

    def close(self) -> None:
        self._bar.stop()


class _Pace:
    """How much is done, and how fast."""

    def __init__(self, unit: str, lines: int = 0) -> None:
        self.unit, self.lines, self._new = unit, lines, 0
        self._since = time.monotonic()

    def add(self, lines: int) -> None:
        self.lines, self._new = self.lines + lines, self._new + lines

    def count(self) -> str:
        return f"{self.lines:,} {self.unit}"

    def rate(self) -> str:
        found = self._new / max(time.monotonic() - self._since, 1e-3)
        return f"{found:,.{0 if found >= 10 else 1}f} {self.unit}/s"

    def whole(self) -> str:
        """All of it in words."""
        return f"{self.count()}, {clock(time.monotonic() - self._since)}, {self.rate()}"
