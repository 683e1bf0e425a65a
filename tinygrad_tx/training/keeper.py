"""The keeper of a run: all that is measured and written. In: the state that the trainer has come
to. Out: the files of the run's directory, and what validations find. Called by the trainer, where
there are several ranks on the first of them alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import serialize
from ..atomic import write_bytes
from ..autocast import autocast
from ..models.loading import belongings, weights
from . import checkpoint
from .log import Row
from .recorder import Recorder
from .recovery import restore_newest, whole
from .samples import Seen
from .tasks.base import Measuring, Report

if TYPE_CHECKING:
    from .trainer import Trainer


class Keeper:
    """Of a trainer's run, whose state it reads."""

    def __init__(self, of: Trainer, measuring: Measuring) -> None:
        self._of, self._run, self._config = of, of.run, of.config
        self._model, self._measuring = of.measured, measuring
        self._record: Recorder | None = None

    # The beginning -------------------------------------------------------------------------------
    def begin(self, resume: bool, learnt: bool) -> checkpoint.State:
        """Go on from the last checkpoint, or begin; everything could be read: this is a run now.
        learnt: whether the tokenizer has just been made."""
        of, run, state = self._of, self._run, checkpoint.State()
        if resume:
            if learnt:
                of.tokenizer.save(run.tokenizer)
            state = restore_newest(run, self._config, of.parts, of.batches, of.show.say)
        run.record(self._config)
        if not resume:
            of.tokenizer.save(run.tokenizer)
        self._belongings = belongings(run.root, asdict(self._config.model))
        return state

    def open(self, command: str | None) -> float:
        """Begin to keep records; the seconds of training that they tell of."""
        self._record = Recorder(
            self._run,
            self._of.state,
            self._of.show,
            command=command,
            parameters=sum(p.numel() for p in self._model.parameters()),
            tensorboard=self._config.train.tensorboard,
        )
        return self._record.seconds

    # On the way ----------------------------------------------------------------------------------
    @property
    def record(self) -> Recorder:
        assert self._record is not None, "open() comes first"
        return self._record

    def row(self, row: Row, seen: Seen | None = None) -> int:
        """A row of metrics.jsonl, and what its validation has seen; the rows there are now."""
        self.record.row({**row, "seconds": self._of.spent})
        if seen is not None:
            self.record.seen(self._of.state.step, seen)
            self.record.page()
        return self.record.rows

    def measured(self) -> Seen:
        """What a validation finds; a model that is better than all before is kept."""
        with self._precision():
            seen = self._measuring.seen()
        if score(seen.row) > self._of.state.best:
            self._save_model()
        return seen

    def save(self, path: Path, parts: Mapping[str, checkpoint.Held]) -> None:
        """Write a checkpoint, and remove those that are not to be kept. parts: their states, which
        all ranks have put together."""
        of, train = self._of, self._config.train
        self.record.sync()
        checkpoint.save(path, of.state, parts, of.batches, asdict(self._config), self._belongings)
        self._run.prune(train.keep_last, train.checkpoint_every)

    def close(self) -> None:
        """Nothing more comes."""
        if self._record is not None:
            self._record.close()

    def _save_model(self) -> None:
        metadata = {"step": str(self._of.state.step), **self._belongings}
        serialize.save(self._model.state_dict(), self._run.model, metadata)

    def _precision(self) -> AbstractContextManager[Any]:
        """What is measured is measured as it is trained."""
        return autocast(self._config.train.precision)

    # The end -------------------------------------------------------------------------------------
    def finish(self) -> Report:
        """Choose the final weights, show what they do on held-out data, and report."""
        self._average()
        state = self._of.state
        self._model.load_state_dict(weights(self._run.model))
        with self._precision():
            row, report = self._measuring.final(state.step, state.best_step)
        self.row({"step": state.step, **row})
        write_bytes(self._run.root / report.file, f"{report.text()}\n".encode())
        return report

    def _average(self) -> None:
        """Keep the average of the last checkpoints' weights, if it is better than the best."""
        n, state = self._config.train.average_last, self._of.state
        last = whole(self._run.checkpoints()[-n:], self._of.show.say) if n else []
        if len(last) < 2:
            return
        self._model.load_state_dict(checkpoint.average(last))
        with self._precision():
            row = self._measuring.seen().row
        self.row({"step": state.step, "of": f"average of {len(last)} checkpoints", **row})
        if score(row) > state.best:
            state.best, state.best_step = score(row), state.step
            self._save_model()


def score(row: Row) -> list[float]:
    """The key by which validations are compared, greater is better: BLEU, if measured, then the
    loss."""
    bleu = [row["bleu"]] if "bleu" in row else []
    return [*bleu, -row["valid_loss"]]
