"""The progress of training, for a user: a bar on a terminal and in a notebook, plain lines
elsewhere. In: the trainer's calls at each step. Out: text on standard error; in a notebook, below
its cell.
"""

from __future__ import annotations

import io
import math
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from html import escape
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from .log import Row

if TYPE_CHECKING:
    from rich.progress import TaskID

_LONG = 5.0  # seconds after which a line says how far it is

# Told what is being done before a step; then, maybe often, how much of it is done, and of what.
Counted = Callable[[str, int, str], None]


class Progress(Protocol):
    """The calls by which the trainer tells of its steps."""

    def start(self, step: int, last: int | None) -> None:
        """Training begins after `step`; it ends at `last`, None if that is not known."""

    def step(self, step: int, loss: float, lr: float, tokens_per_s: float) -> None:
        """A step is done. tokens_per_s: NaN if it was compiled first."""

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
    draw one, and in a notebook. Training does not end because progress cannot be written."""
    safe: Any = Forgiving(stream or sys.stderr)
    if stream is None and in_notebook():
        return Cell(safe)
    if safe.isatty():
        from rich.console import Console

        if Console(file=safe).is_interactive:  # not where TERM is dumb
            return Bar(safe)
    return Lines(safe)


def counting(show: Progress) -> Counted:
    """The listener for what is done before a step: our own kinds show it, a user's Progress is not
    asked to."""
    return show.count if isinstance(show, Lines | Bar | Cell) else lambda what, n, unit: None


def in_notebook() -> bool:
    """True in a cell of Jupyter, or of what is like it."""
    IPython: Any = sys.modules.get("IPython")  # noqa: N806 - whose shell has loaded it
    shell = None if IPython is None else IPython.get_ipython()
    return any(kind.__name__ == "ZMQInteractiveShell" for kind in type(shell).__mro__)


class Quiet:
    """Shows nothing: what a rank has to say, the first one says."""

    def start(self, step: int, last: int | None) -> None:
        return

    def step(self, step: int, loss: float, lr: float, tokens_per_s: float) -> None:
        return

    def row(self, row: Row) -> None:
        return

    def say(self, text: str) -> None:
        return

    def close(self) -> None:
        return


class Pace:
    """The time that steps take, those left out that were compiled."""

    def __init__(self, step: int, last: int | None) -> None:
        self._last, self._mark = last, time.monotonic()
        self._steps, self._seconds = 0, 0.0

    def step(self, compiled: bool) -> None:
        """A step is done."""
        now = time.monotonic()
        if not compiled:
            self._steps, self._seconds = self._steps + 1, self._seconds + now - self._mark
        self._mark = now

    def left(self, step: int) -> str:
        """What is left after that step, as a time; empty if it is not known."""
        if self._last is None or not self._steps:
            return ""
        return clock(self._seconds / self._steps * max(0, self._last - step))


class Lines:
    """A line for every row of metrics.jsonl."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._pace = Pace(0, None)
        self._stage, self._since = "", 0.0

    def start(self, step: int, last: int | None) -> None:
        self._pace = Pace(step, last)

    def step(self, step: int, loss: float, lr: float, tokens_per_s: float) -> None:
        self._pace.step(math.isnan(tokens_per_s))

    def row(self, row: Row) -> None:
        left = self._pace.left(row["step"]) if "loss" in row else ""
        self.say(describe(row) + (f"  left {left}" if left else ""))

    def count(self, what: str, n: int, unit: str) -> None:
        """A line for each stage before a step, and another one if it takes long."""
        now = time.monotonic()
        if what != self._stage:
            self._stage, self._since = what, now
            self.say(what)
        elif now - self._since > _LONG:
            self.say(f"{what}: {n:,} {unit} so far")
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
        self._task: TaskID | None = None
        self._stage = ""

    def count(self, what: str, n: int, unit: str) -> None:
        """A line for each stage before a step; until training starts, a bar of how much is read."""
        if what != self._stage:
            self._stage = what
            self.say(what)
        if self._task is not None:
            return
        if self._reading is None:
            self._reading = self._bar.add_task("", total=None)
            self._bar.start()
        self._bar.update(self._reading, completed=n, description=unit)

    def start(self, step: int, last: int | None) -> None:
        if self._reading is not None:
            self._bar.remove_task(self._reading)
        self._task = self._bar.add_task("", total=last, completed=step)
        self._bar.start()

    def step(self, step: int, loss: float, lr: float, tokens_per_s: float) -> None:
        assert self._task is not None
        text = describe_step(loss, lr, tokens_per_s)
        self._bar.update(self._task, completed=step, description=text)

    def row(self, row: Row) -> None:
        if "loss" not in row:
            self.say(describe(row))

    def say(self, text: str) -> None:
        self._console.print(text, markup=False)

    def close(self) -> None:
        self._bar.stop()


class Cell:
    """A bar below a notebook's cell, and lines above it for validations and messages. It is HTML
    that IPython itself can change, so no widgets have to be installed."""

    def __init__(self, stream: TextIO) -> None:
        self._lines = Lines(stream)
        self._pace = Pace(0, None)
        self._last: int | None = None
        self._shown: Any = None
        self._drawn = 0.0  # when
        self._html = ""

    def count(self, what: str, n: int, unit: str) -> None:
        """A line for each stage before a step."""
        self._lines.count(what, n, unit)

    def start(self, step: int, last: int | None) -> None:
        from IPython.display import display

        self._pace, self._last = Pace(step, last), last
        self._shown = display(self, display_id=True)
        self._draw(step, "")

    def step(self, step: int, loss: float, lr: float, tokens_per_s: float) -> None:
        self._pace.step(math.isnan(tokens_per_s))
        text = describe_step(loss, lr, tokens_per_s)
        now = time.monotonic()
        if now - self._drawn >= _OFTEN or step == self._last:
            self._drawn = now
            self._draw(step, f"{text}  {self._pace.left(step)}")

    def row(self, row: Row) -> None:
        if "loss" not in row:
            self.say(describe(row))

    def say(self, text: str) -> None:
        self._lines.say(text)

    def close(self) -> None:
        pass

    def _draw(self, step: int, text: str) -> None:
        whole = "" if self._last is None else f' max="{self._last}" value="{step}"'
        of = "" if self._last is None else f"/{self._last}"
        self._html = (
            f'<progress{whole} style="width: 16em"></progress> '
            f'<code style="white-space: pre-wrap">{step}{of}  {escape(text)}</code>'
        )
        if self._shown is not None:
            self._shown.update(self)

    def _repr_html_(self) -> str:
        return self._html


_OFTEN = 0.2  # seconds between two drawings

_SHOWN: dict[str, tuple[str, str]] = {
    "loss": ("loss", ".4f"),
    "cross_entropy": ("cross entropy", ".4f"),
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


def describe_step(loss: float, lr: float, tokens_per_s: float) -> str:
    """A step in words; without a rate that is not known."""
    rate = "" if math.isnan(tokens_per_s) else f"  {tokens_per_s:,.0f} tokens/s"
    return f"loss {loss:.3f}  lr {lr:.1e}{rate}"


def describe(row: Row) -> str:
    """A row of metrics.jsonl in words."""
    parts = [f"step {row['step']:>6}"]
    for key, (name, form) in _SHOWN.items():
        value: Any = row.get(key)
        same = key == "cross_entropy" and value == row.get("loss")  # there is no smoothing
        if value is not None and not same and not (key == "skipped" and value == 0):
            parts.append(f"{name} {value:{form}}")
    if "of" in row:
        parts.append(f"({row['of']})")
    return "  ".join(parts)


def clock(seconds: float) -> str:
    """75.3 -> 1:15, 3675 -> 1:01:15."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
