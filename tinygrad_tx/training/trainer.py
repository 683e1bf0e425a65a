"""The training loop. In: a Config and a directory. Out: a run directory, and a Report. Called by
`tinygrad-tx train` and by users (tx.training.train).

A run is a function of its configuration and its data: killed at any moment and resumed from the
last checkpoint, it ends with the same weights and the same metrics as one that ran through, apart
from the times in them. So all that a later step depends on is in State or in a part that a
checkpoint keeps, and whatever falls due at a step is done before the next one begins, by a rule
that reads the state alone. The exception is train.max_minutes: the clock says which step is the
last; how much time was spent is in the metrics, for checkpoints have the same bytes on any machine.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from .. import random
from ..autocast import require_precision
from ..creation import get_default_device
from ..errors import UserError
from ..models.loading import build, tokenizer_of
from ..partition import whole_on_first
from . import checkpoint, tensorboard
from .beginning import begin
from .callbacks import CallbackError, Callbacks, require
from .forecast import expecting
from .interrupt import Interrupts, Stopped
from .keeper import Keeper, score
from .log import Row
from .parallel import Ranks
from .profile import Stopwatch, weighed
from .progress import Progress, Quiet, counting, for_stream
from .run import RunDirectory
from .samples import Seen
from .schema import Config, shares_a_model
from .step import Trainable
from .tasks import TASKS
from .tasks.base import Report


def train(
    config: Config,
    out: Path | str,
    resume: bool = False,
    progress: Progress | None = None,
    command: str | None = None,
    callbacks: Sequence[Any] = (),
) -> Report:
    """Train as `config` says, in the directory `out`; with resume, go on with the run that is
    there. command: the command line that the run's report shows; None: that of this process.
    callbacks: objects with some of the methods of training.Callback.

    UserError for what is wrong with the data or the directory, when training diverges, or when a
    callback raises an error (which it names, with everything saved). Stopped (a KeyboardInterrupt)
    after Ctrl-C or SIGTERM, with everything saved.

    Where this process is one of several ranks (tx.distributed), all of them call this, and train
    together: the first one writes, shows progress, measures and calls the callbacks.
    """
    config.require_data()
    require(callbacks)
    if config.train.tensorboard:
        tensorboard.require()
    run, ranks = RunDirectory(Path(out)), Ranks(shares_a_model(config.model))
    # Before a directory is made.
    ranks.first_does(lambda: run.config() and None if resume else run.check_new())
    show = (progress or for_stream()) if ranks.first else Quiet()
    with ExitStack() as stack:
        stack.callback(show.close)
        interrupts = stack.enter_context(Interrupts(ranks.size, quiet=not ranks.first))

        def begin() -> None:
            if not stack.enter_context(run.at_work(make=not resume)):
                show.say(f"{run.root} is on a file system without locks: see that one run uses it")
            if resume:
                run.check_same(config)
            else:
                run.check_new()

        ranks.first_does(begin)
        trainer = Trainer(config, run, resume, show, interrupts, command, ranks)
        return trainer.train(callbacks)


def _compiling(tell: Callable[[str, int, str], Any], shapes: int) -> Callable[[int], Any]:
    """What says which of so many shapes is compiled."""
    return lambda n: tell(f"compiling shape {n} of {max(n, shapes)}", 0, "")


def _resuming(run: RunDirectory) -> str:
    return f"tinygrad-tx train --resume --out {shlex.quote(str(run.root))}"


class Trainer:
    """One run while it lasts."""

    def __init__(
        self,
        config: Config,
        run: RunDirectory,
        resume: bool,
        show: Progress,
        asked: Interrupts,
        command: str | None,
        ranks: Ranks,
    ) -> None:
        self.config, self.run, self.show, self.asked = config, run, show, asked
        self.ranks = ranks
        tell = counting(show)
        require_precision(config.train.precision, get_default_device())
        random.manual_seed(config.train.seed)
        own = None
        if resume and run.has_tokenizer:
            own = tokenizer_of(run.root, asdict(config.tokenizer))
        anew = not resume or not run.checkpoints()
        first = begin(config.train.init) if config.train.init and anew else None
        if first is not None:
            own = first.tokenizer
        then = partial(checkpoint.data_of, run.checkpoints() if resume else [])
        made = partial(weighed, TASKS[config.model.task], config, own, then, tell)
        task, data = ranks.first_goes_ahead(made)
        self.tokenizer, self.batches = task.tokenizer, task.batches
        ranks.require_same("data", self.batches.fingerprint, config)
        show.say(task.summary())
        tell("making the model", 0, "")
        self.model = build(asdict(config.model), self.tokenizer)
        if first is not None:
            first.give(self.model)
        compiling = _compiling(tell, self.batches.n_shapes)
        share = partial(ranks.part, self.batches)
        self.trainable = Trainable(self.model, config, task.inputs, compiling, share)
        self.parts = self.trainable.parts()
        self.measured = self._copy() if ranks.one_model and ranks.first else self.model
        self.keeper = keeper = Keeper(self, task.measuring(self.measured, self._pause))
        self.state = ranks.first_does(lambda: keeper.begin(resume, own is None))
        if not self.state.step:
            ranks.begin_alike(self.parts, self.batches)
        elif not ranks.first:  # from the file that the first rank has found whole
            path = run.checkpoint(self.state.step)
            self.state = checkpoint.restore(path, self.parts, self.batches)
        self.saved = self._seen()
        if self.state.step:
            ranks.note(self._what_is_saved())
        # Seconds of training, up to the last step.
        self.spent = ranks.first_does(lambda: keeper.open(command))
        asked.can_save = True
        self.timed = Timed()  # steps since the last row
        self.watch = Stopwatch(self.trainable, data)

    def train(self, callbacks: Sequence[Any] = ()) -> Report:
        """Every step that is left, then the report."""
        self.callbacks = Callbacks(callbacks, self.measured, self.run.root)
        self.show.start(self.state.step, self._last_step())
        self.mark = time.perf_counter()  # up to which time is counted
        try:
            while True:
                self._whatever_is_due()
                self._check_gradients()
                if self._over():
                    return self.ranks.first_does(self.keeper.finish)
                if self.ranks.stop or self.ranks.alone:
                    self._pause(self.ranks.stop)
                self._step()
        except (_Asked, Stopped):
            raise Stopped(self._kept()) from None
        except CallbackError as error:
            raise CallbackError(f"{error}; {self._kept()}") from error.__cause__
        finally:
            if self.ranks.first:
                self._close()

    def _close(self) -> None:
        try:  # who interrupts a run does not wait for a prediction
            complete = partial(expecting, self.config) if self._over() else lambda found: found
            self.watch.save(self.run.profile, complete)
        finally:
            self.keeper.close()

    def _kept(self) -> str:
        """Where the run is left off, in words, when it is saved."""
        if self.saved != self._seen():
            self._write_checkpoint()
        return self._what_is_saved()

    def _what_is_saved(self) -> str:
        return f"step {self.saved[0]} is saved; go on by: {_resuming(self.run)}"

    def _pause(self, stop: bool = False) -> None:
        """Called where training may be left off."""
        if stop or self.asked.requested:
            raise _Asked

    # One step ------------------------------------------------------------------------------------
    def _step(self) -> None:
        start = time.perf_counter()
        batches = [next(self.batches) for _ in range(self.config.optim.accumulate)]
        n_tokens = sum(batch.n_tokens for batch in batches)
        traced = self.trainable.traced
        outcome = self.trainable(batches)
        compiled = self.trainable.traced != traced
        state, now = self.state, time.perf_counter()
        spent = self.spent + now - self.mark
        outcome, self.spent = self.ranks.agree(outcome, self.asked.requested, spent)
        self.mark = now
        state.add(outcome, n_tokens)
        if not outcome.finite:
            self.show.say(
                f"step {state.step}: the gradient is not finite (norm {outcome.norm}); skipped"
            )
        end = time.perf_counter()
        step = Timed() if compiled else Timed(n_tokens, end - start)
        self.timed = self.timed.then(step)
        if not compiled:
            self.watch.step(end - start, n_tokens)
        self.show.step(state.step, outcome.loss, outcome.lr, step.rate)
        said = {"loss": outcome.loss, "lr": outcome.lr, "grad_norm": outcome.norm}
        said |= {"tokens": n_tokens, "finite": outcome.finite}
        self._tell("on_step", said)

    def _tell(self, moment: str, values: Mapping[str, Any], path: Path | None = None) -> None:
        """Call the user's callbacks, if there are any, on the first rank."""
        if self.callbacks.any:
            tell = self.callbacks.tell
            self._gather()
            self.ranks.first_does(lambda: tell(moment, self.state.step, values, path))

    def _check_gradients(self) -> None:
        bad = self.state.bad_steps
        if bad >= self.config.optim.max_bad_steps:
            self._save()
            raise UserError(
                f"the last {bad} gradients were not finite, up to step {self.state.step}: lower "
                "the learning rate or raise the warmup; everything is saved"
            )

    # A model that ranks share ---------------------------------------------------------------------
    def _copy(self) -> Any:
        """The model as one rank would have it. What it is made with is drawn for nothing else."""
        drawn = random.get_state()
        section = {**asdict(self.config.model), "tensor_parallel": False}
        found = build(section, self.tokenizer).requires_grad_(False)
        random.set_state(drawn)
        return found

    def _gather(self) -> None:
        """The first rank's copy, which it measures alone, gets the weights of now."""
        if self.ranks.one_model:
            with whole_on_first():
                state = self.model.state_dict()
            if self.ranks.first:
                self.measured.load_state_dict(state)

    # Work that falls due -------------------------------------------------------------------------
    def _whatever_is_due(self) -> None:
        state, every = self.state, self.config.train
        if state.window.steps and (self._over() or state.step % every.log_every == 0):
            self._log()
        if state.validated < state.step and (self._over() or state.step % every.valid_every == 0):
            self._validate()
        if self.saved != self._seen() and (
            self._over() or state.step % every.checkpoint_every == 0
        ):
            self._save()

    def _seen(self) -> tuple[int, int]:
        """The key of a state: a step may be saved before it is validated, and again then."""
        return self.state.step, self.state.validated

    def _over(self) -> bool:
        """True if there is no step left."""
        t, state = self.config.train, self.state
        return (
            (t.max_steps is not None and state.step >= t.max_steps)
            or (t.max_epochs is not None and self.batches.state()["epoch"] >= t.max_epochs)
            or (t.max_minutes is not None and self.spent >= 60 * t.max_minutes)
            or (t.patience > 0 and state.worse >= t.patience)
        )

    def _last_step(self) -> int | None:
        """The last step, unless patience or time ends before; None if only those do."""
        t = self.config.train
        ends = [t.max_steps] if t.max_steps is not None else []
        if t.max_epochs is not None:
            per_epoch = self.batches.batches_per_epoch
            ends.append(-(-t.max_epochs * per_epoch // self.config.optim.accumulate))
        return min(ends, default=None)

    def _log(self) -> None:
        state, window = self.state, self.state.window
        self._write(
            {
                "step": state.step,
                "epoch": self.batches.state()["epoch"],
                "tokens": state.tokens,
                "loss": window.loss / window.tokens if window.tokens else _UNKNOWN,
                "cross_entropy": window.plain / window.tokens if window.tokens else _UNKNOWN,
                "lr": window.lr,
                "grad_norm": window.norm,
                "skipped": window.skipped,
                "tokens_per_s": self.timed.rate if self.timed.seconds else None,
            }
        )
        state.window, self.timed = checkpoint.Window(), Timed()

    def _validate(self) -> None:
        state = self.state
        ema = self.trainable.ema
        with nullcontext() if ema is None else ema.swapped():  # averages are what is measured
            self._gather()
            seen = self.ranks.first_does(self.keeper.measured)
        row = seen.row
        if score(row) > state.best:
            state.best, state.best_step, state.worse = score(row), state.step, 0
        else:
            state.worse += 1
        state.validated = state.step
        self._write({"step": state.step, **row}, seen)
        self._tell("on_validation", row)

    def _save(self) -> None:
        self._tell("on_checkpoint", {}, self._write_checkpoint())

    def _write_checkpoint(self) -> Path:
        path = self.run.checkpoint(self.state.step)
        with whole_on_first():
            parts = {name: checkpoint.Held(part.state_dict()) for name, part in self.parts.items()}
        self.ranks.first_does(lambda: self.keeper.save(path, parts))
        self.saved = self._seen()
        self.ranks.note(self._what_is_saved())
        return path

    def _write(self, row: Row, seen: Seen | None = None) -> None:
        self.state.rows = self.ranks.first_does(lambda: self.keeper.row(row, seen))


_UNKNOWN = float("nan")


class Timed(NamedTuple):
    """Tokens, and the seconds in which steps went through them, without steps that compiled."""

    tokens: int = 0
    seconds: float = 0.0

    def then(self, step: Timed) -> Timed:
        """Together with one more."""
        return Timed(self.tokens + step.tokens, self.seconds + step.seconds)

    @property
    def rate(self) -> float:
        """Tokens a second; NaN of nothing."""
        return self.tokens / self.seconds if self.seconds else _UNKNOWN


class _Asked(Exception):  # noqa: N818 - no error
    """The user has asked to stop."""
