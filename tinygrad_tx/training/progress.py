"""The progress of training, for a user: a bar on a terminal, plain lines elsewhere. In: the
trainer's calls at each step. Out: text on standard error.
"""

from __future__ import annotations

import io
import math
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from .log import Row

if TYPE_CHECKING:
    from rich.progress import TaskID

_LONG = 5.0  # seconds after which a line says what is being waited for


class Progress(Protocol):
    """The calls by which the trainer tells of its steps."""

    def start(self, step: int, last: int | None) -> None:
        """Training begins after `step`; it ends at `last`, None if that is not known."""

    def step(self, step: int, loss: float, lr: float, tokens_per_s: float) -> None:
        """A step is done."""

    def row(self, row: Row) -> None:
        """A row was written to metrics.jsonl."""

    def say(self, text: str) -> None:
        """Anything else, one line."""

    def close(self) -> None:
        """Nothing more comes."""


class Forgiving(io.TextIOBase):
    """A stream on which nothing fails: what cannot be written, to a full disk, a pipe whose reader
    has left or a terminal that is gone, is lost. stream: None for one that was never there."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            if self._stream is not None:
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            if self._stream is not None:
                self._stream.flush()

    def isatty(self) -> bool:
        with suppress(OSError, ValueError):
            return self._stream is not None and self._stream.isatty()
        return False

    def fileno(self) -> int:
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()


def for_stream(stream: TextIO | None = None) -> Progress:
    """The kind that suits the stream (standard error if not given): a bar on a terminal that can
    draw one. Training does not end because progress cannot be written."""
    safe: Any = Forgiving(stream or sys.stderr)
    if safe.isatty():
        from rich.console import Console

        if Console(file=safe).is_interactive:  # not where TERM is dumb
            return Bar(safe)
    return Lines(safe)


def counting(show: Progress) -> Callable[[str, int], None]:
    """The listener for how much is read before training starts: our own kinds show it, a user's
    Progress is not asked to."""
    return show.count if isinstance(show, Lines | Bar) else lambda what, n: None


class Lines:
    """A line for every row of metrics.jsonl."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last: int | None = None
        self._first, self._begun = 0, 0.0
        self._stage, self._since = "", 0.0

    def start(self, step: int, last: int | None) -> None:
        self._first, self._last, self._begun = step, last, time.monotonic()

    def step(self, step: int, loss: float, lr: float, tokens_per_s: float) -> None:
        pass

    def row(self, row: Row) -> None:
        done, left = row["step"] - self._first, ""
        if "loss" in row and self._last is not None and done > 0:
            seconds = (time.monotonic() - self._begun) / done * (self._last - row["step"])
            left = f"  left {clock(seconds)}"
        self.say(describe(row) + left)

    def count(self, what: str, n: int) -> None:
        """A line for each stage of reading that takes long."""
        now = time.monotonic()
        if what != self._stage:
            self._stage, self._since = what, now
        elif now - self._since > _LONG:
            self.say(f"{what}: {n:,} so far")
            self._since = math.inf

    def say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def close(self) -> None:
        pass


class Bar:
    """A bar that moves with every step; validations and messages scroll by above it."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._console = Console(file=stream, highlight=False, soft_wrap=True)
        self._bar = RichProgress(
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._reading: TaskID | None = None

    def count(self, what: str, n: int) -> None:
        """How much is read, until training starts."""
        if self._reading is None:
            self._reading = self._bar.add_task("", total=None)
            self._bar.start()
        self._bar.update(self._reading, completed=n, description=what)

    def start(self, step: int, last: int | None) -> None:
        if self._reading is not None:
            self._bar.remove_task(self._reading)
        self._task = self._bar.add_task("", total=last, completed=step)
        self._bar.start()

    def step(self, step: int, loss: float, lr: float, tokens_per_s: float) -> None:
        text = f"loss {loss:.3f}  lr {lr:.1e}  {tokens_per_s:,.0f} tokens/s"
        self._bar.update(self._task, completed=step, description=text)

    def row(self, row: Row) -> None:
        if "loss" not in row:
            self.say(describe(row))

    def say(self, text: str) -> None:
        self._console.print(text, markup=False)

    def close(self) -> None:
        self._bar.stop()


_SHOWN: dict[str, tuple[str, str]] = {
    "loss": ("loss", ".4f"),
    "lr": ("lr", ".2e"),
    "grad_norm": ("grad norm", ".2f"),
    "tokens_per_s": ("tokens/s", ",.0f"),
    "skipped": ("steps skipped", "d"),
    "valid_loss": ("valid loss", ".4f"),
    "perplexity": ("perplexity", ".2f"),
    "bits_per_byte": ("bits per byte", ".4f"),
    "bleu": ("BLEU", ".2f"),
    "chrf": ("chrF", ".2f"),
}


def describe(row: Row) -> str:
    """A row of metrics.jsonl in words."""
    parts = [f"step {row['step']:>6}"]
    for key, (name, form) in _SHOWN.items():
        value: Any = row.get(key)
        if value is not None and not (key == "skipped" and value == 0):
            parts.append(f"{name} {value:{form}}")
    if "of" in row:
        parts.append(f"({row['of']})")
    return "  ".join(parts)


def clock(seconds: float) -> str:
    """75.3 -> 1:15, 3675 -> 1:01:15."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
