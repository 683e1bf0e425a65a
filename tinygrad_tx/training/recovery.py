"""Recovery from damaged checkpoints: a run goes on from the newest whole one. In: a run's
directory. Out: the state that the run goes on from. Called by the trainer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any

from ..data.epochs import Epochs
from ..errors import DamagedError, UserError
from ..models.loading import require_belongings, weights
from . import checkpoint
from .log import read
from .run import RunDirectory, difference
from .schema import Config

Say = Callable[[str], None]


def restore_newest(
    run: RunDirectory,
    config: Config,
    parts: Mapping[str, checkpoint.Stateful],
    batches: Epochs[Any, Any],
    say: Say,
) -> checkpoint.State:
    """Put back the newest checkpoint that is whole, or leave everything as at step 0 if the run has
    none yet. Damaged ones are renamed, for them not to be counted, and `say` is told.

    UserError if all are damaged or gone, or if the newest whole one does not belong to the other
    files.
    """
    damaged: dict[Path, str] = {}
    for path in reversed(run.checkpoints()):
        try:
            state = checkpoint.restore(path, parts, batches, partial(_check, run, config, path))
        except DamagedError as error:
            damaged[path] = str(error)
            continue
        for bad, reason in damaged.items():
            say(f"{reason}; it is called {_put_aside(bad)} now")
        say(f"going on from {path}")
        return state
    if damaged:
        raise UserError(
            f"none of the {len(damaged)} checkpoints in {run.root} can be gone on from: "
            f"{next(iter(damaged.values()))}; begin another run"
        )
    done = max((row["step"] for row in read(run.metrics)), default=0)
    if done >= config.train.checkpoint_every:
        raise UserError(
            f"{run.root} has no checkpoint to go on from, though it has come to step {done}: put "
            f"them back, or begin another run; without {run.metrics.name} this one begins anew"
        )
    say(f"{run.root} has no checkpoint to go on from: it begins anew")
    return checkpoint.State()


def whole(paths: Sequence[Path], say: Say) -> list[Path]:
    """Those checkpoints that are not damaged; `say` is told of the others."""
    found = []
    for path in paths:
        try:
            weights(path)
            found.append(path)
        except DamagedError as error:
            say(f"{error}; it is left out of the average")
    return found


def _check(
    run: RunDirectory,
    config: Config,
    path: Path,
    then: Mapping[str, Any],
    metadata: Mapping[str, str],
) -> None:
    """UserError unless a checkpoint belongs to the other files of its run."""
    require_belongings(path, metadata, run.root, asdict(config.model))
    if found := difference(then, asdict(config), data=False):
        name, old, new = found
        raise UserError(
            f"{name} was {old} when {path} was saved, and is {new} in {run.config_file}: put back "
            "what was there"
        )


def _put_aside(bad: Path) -> str:
    names = chain(("",), (f"-{n}" for n in count(2)))
    free = (bad.with_name(f"{bad.name}.damaged{n}") for n in names)
    aside = next(path for path in free if not os.path.lexists(path))
    try:
        bad.replace(aside)
    except OSError as error:
        raise UserError(f"cannot rename {bad}: {error.strerror}") from error
    return aside.name
