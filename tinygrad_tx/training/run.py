"""The run directory: which files there are, and what may be done with it. Used by the trainer and
the commands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import atomic, locks
from ..errors import UserError
from ..models.loading import CHECKPOINTS, CONFIG, TOKENIZER, WEIGHTS, read_toml
from ..models.pretrained_tokenizer import FILES
from .config import dump, load
from .schema import Config

Sections = Mapping[str, Mapping[str, Any]]

# Settings that may differ when a run goes on; any other would make it another run.
_FREE = {
    "train": {
        *("max_steps", "max_epochs", "max_minutes", "log_every", "valid_every"),
        *("checkpoint_every", "keep_last", "patience", "average_last", "compile", "samples"),
        "tensorboard",
    },
    "model": {"tensor_parallel"},
}
_DATA = {
    *("corpus", "corpus_size", "src", "tgt", "tsv", "valid_src", "valid_tgt", "valid_tsv"),
    *("text", "valid_text", "columns"),
}


@dataclass(frozen=True)
class RunDirectory:
    """One run's files: config.toml, tokenizer.json, model.safetensors (the best weights),
    metrics.jsonl, samples.jsonl, sittings.jsonl, profile.json, report.html, checkpoints/,
    translations.txt or samples.txt; averaged.safetensors and tensorboard/ once asked for."""

    root: Path

    @property
    def config_file(self) -> Path:
        return self.root / CONFIG

    @property
    def tokenizer(self) -> Path:
        return self.root / TOKENIZER

    @property
    def has_tokenizer(self) -> bool:
        """True if there is one, of ours or of a pretrained model."""
        return any((self.root / name).exists() for name in FILES)

    @property
    def model(self) -> Path:
        return self.root / WEIGHTS

    @property
    def averaged(self) -> Path:
        return self.root / "averaged.safetensors"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def samples(self) -> Path:
        """What each validation has seen of single sentences."""
        return self.root / "samples.jsonl"

    @property
    def sittings(self) -> Path:
        """When and where the run was at work."""
        return self.root / "sittings.jsonl"

    @property
    def page(self) -> Path:
        """How it went, for a browser."""
        return self.root / "report.html"

    @property
    def events(self) -> Path:
        """The directory of event files for TensorBoard."""
        return self.root / "tensorboard"

    @property
    def profile(self) -> Path:
        """What a step took, and each module of it."""
        return self.root / "profile.json"

    @property
    def reports(self) -> tuple[Path, ...]:
        """What may be there of a finished run."""
        return self.root / "translations.txt", self.root / "samples.txt"

    def checkpoint(self, step: int) -> Path:
        """The checkpoint's file of a step."""
        return self.root / CHECKPOINTS / f"step-{step:08}.safetensors"

    def checkpoints(self) -> list[Path]:
        """All of them, oldest first. UserError if they cannot be listed: a run that seems to have
        none begins anew."""
        directory = self.root / CHECKPOINTS
        try:
            files = list(directory.iterdir()) if self.root.is_dir() else []
        except FileNotFoundError:
            files = []
        except OSError as error:
            raise UserError(f"cannot read {directory}: {error.strerror}") from error
        found = {step_of(path): path for path in files if path.match("step-*.safetensors")}
        return [found[step] for step in sorted(found) if step >= 0]

    def prune(self, keep: int, every: int) -> None:
        """Remove all but the last `keep` checkpoints, and those that an interruption has made
        between two regular ones, unless it is the last."""
        *older, last = self.checkpoints()
        kept = [*(path for path in older if step_of(path) % every == 0), last][-keep:]
        for path in older:
            if path not in kept:
                with suppress(OSError):  # it takes room, no more
                    path.unlink()

    def config(self) -> Config:
        """The run's configuration; UserError if this is no run directory."""
        if not self.config_file.exists():
            raise UserError(f"{self.root} holds no run: there is no {self.config_file.name} in it")
        complete = asdict(Config())
        if lost := sorted(complete.keys() - {"preset"} - read_toml(self.config_file).keys()):
            raise UserError(
                f"{self.config_file} is not whole: it has no section [{lost[0]}]; put back what "
                "was there, or start another run"
            )
        return load(self.config_file)

    @contextmanager
    def at_work(self, make: bool = False) -> Iterator[bool]:
        """Keep every other process out of the directory inside, and remove what killed ones have
        left half written. Yields False where the file system has no locks.

        UserError if another is at work there. make: make the directory if there is none; where
        nothing is put into it, it is removed again.
        """
        made = [p for p in (self.root, *self.root.parents) if make and not p.exists()]
        try:
            if make:
                self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the directory {self.root}: {error.strerror}") from error
        try:
            with locks.held(self.root / ".lock", f"cannot use {self.root}") as kept:
                if self.config_file.exists():  # else it is no run's, or not yet
                    for directory in (self.root, self.root / CHECKPOINTS):
                        atomic.remove_leftovers(directory)
                yield kept
        finally:
            for path in made:
                with suppress(OSError):  # it is not empty
                    path.rmdir()

    def check_new(self) -> None:
        """UserError if the directory holds a run, or what is left of one."""
        if self.config_file.exists():
            raise UserError(
                f"{self.root} holds a run already: go on with it by --resume, or choose another "
                "--out"
            )
        left = (
            *(self.model, self.averaged, self.metrics, self.profile, self.tokenizer),
            *(self.samples, self.sittings, self.page, self.events, *self.reports),
        )
        for path in (*self.checkpoints()[-1:], *left):
            if path.exists():
                raise UserError(
                    f"{self.root} holds {path.relative_to(self.root)} of a run, but no "
                    f"{self.config_file.name}: put that back and use --resume, or choose another "
                    "--out"
                )

    def check_same(self, config: Config) -> None:
        """UserError if an existing run would be another one with this configuration."""
        if found := difference(asdict(self.config()), asdict(config)):
            name, old, new = found
            raise UserError(
                f"{name} was {old} when the run in {self.root} began, and is {new} now; a run goes "
                "on as it began: start another one"
            )

    def record(self, config: Config) -> None:
        """Note the configuration that the run begins, or goes on, with: from now on the directory
        holds a run."""
        try:
            (self.root / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot make the directory {self.root / CHECKPOINTS}: {error.strerror}"
            ) from error
        if not self.config_file.exists() or self.config() != config:
            dump(config, self.config_file)


def difference(old: Sections, new: Sections, data: bool = True) -> tuple[str, Any, Any] | None:
    """The name of a setting that makes another run, with its values, if one differs. data: whether
    it counts where the data come from; a checkpoint knows the data themselves."""
    for section in (name for name in old if name not in ("preset", "decode")):
        for key, value in old[section].items():
            free = _FREE.get(section, set()) if data or section in _FREE else _DATA
            if key not in free and new[section].get(key, value) != value:
                return f"{section}.{key}", value, new[section][key]
    return None


def step_of(checkpoint: Path) -> int:
    """The step in a checkpoint's name; -1 if there is none."""
    number = checkpoint.stem.removeprefix("step-")
    return int(number) if number.isdecimal() and len(number) < 20 else -1
