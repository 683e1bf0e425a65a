"""The recorder: all that a run writes down of how it goes. In: rows and samples, as the trainer
comes to them. Out: metrics.jsonl, samples.jsonl, sittings.jsonl, report.html, event files, and
lines for the user.
"""

from __future__ import annotations

from contextlib import suppress

from ..errors import UserError
from . import lines, page
from .checkpoint import State
from .log import Metrics, Row
from .progress import Progress
from .run import RunDirectory
from .samples import Seen
from .sittings import sitting
from .tensorboard import Events


class Recorder:
    """The records of a run that begins, or goes on, in a state: what they have of later steps is
    cut off. rows: of metrics.jsonl. seconds: of training, up to the last of them."""

    def __init__(
        self,
        run: RunDirectory,
        state: State,
        show: Progress,
        *,
        command: str | None,
        parameters: int,
        tensorboard: bool,
    ) -> None:
        self._run, self._show = run, show
        self._metrics = Metrics(run.metrics, keep=state.rows)
        if lost := self._metrics.lost:
            show.say(f"{run.metrics} is damaged: {lost} of its {state.rows} rows are lost")
        lines.keep(run.samples, lambda line: line["step"] <= state.validated)
        lines.keep(run.sittings, lambda line: True)  # a kill may have torn the last one
        lines.append(run.sittings, sitting(state.step, command, parameters))
        self._events = Events(run.events, state.step) if tensorboard else None
        self.seconds = self._metrics.seconds
        self.page()

    @property
    def rows(self) -> int:
        return self._metrics.rows

    def row(self, row: Row) -> None:
        """A row of metrics.jsonl, written and shown."""
        self._metrics.write(row)
        self._show.row(row)
        if self._events is not None:
            self._events.row(row)

    def seen(self, step: int, seen: Seen) -> None:
        """What a validation has seen of single sentences, if it has."""
        if seen.samples:
            lines.append(self._run.samples, seen.line(step))

    def page(self) -> None:
        """Writes report.html anew. Where that fails, training goes on: the page can be made of the
        other files at any time."""
        try:
            page.write(self._run)
        except UserError as error:
            self._show.say(str(error))

    def sync(self) -> None:
        """Return when the rows are on the disk."""
        self._metrics.sync()

    def close(self) -> None:
        """Nothing more comes; the page is of everything that did."""
        self._metrics.close()
        self.page()
        if self._events is not None:
            with suppress(OSError):
                self._events.close()
