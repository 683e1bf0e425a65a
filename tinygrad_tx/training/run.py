"""The run directory: which files there are, and what may be done with it. Used by the trainer and
the commands.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from tinygrad_tx.errors import UserError
from tinygrad_tx.training.config import dump, load
from tinygrad_tx.training.sections import Config

# What may differ when a run goes on; anything else would make it another run.
_FREE = {
    *("max_steps", "max_epochs", "log_every", "valid_every", "checkpoint_every", "keep_last"),
    *("patience", "average_last", "compile"),
}


@dataclass(frozen=True)
class RunDirectory:
    """One run's files: config.toml, tokenizer.json, model.safetensors (the best weights),
    metrics.jsonl, checkpoints/, translations.txt, and averaged.safetensors once asked for."""

    root: Path

    @property
    def config_file(self) -> Path:
        return self.root / "config.toml"

    @property
    def tokenizer(self) -> Path:
        return self.root / "tokenizer.json"

    @property
    def model(self) -> Path:
        return self.root / "model.safetensors"

    @property
    def averaged(self) -> Path:
        return self.root / "averaged.safetensors"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def translations(self) -> Path:
        return self.root / "translations.txt"

    def checkpoint(self, step: int) -> Path:
        """The checkpoint's file of a step."""
        return self.root / "checkpoints" / f"step-{step:08}.safetensors"

    def checkpoints(self) -> list[Path]:
        """All of them, oldest first."""
        return sorted((self.root / "checkpoints").glob("step-*.safetensors"))

    def prune(self, keep: int, every: int) -> None:
        """Remove all but the last `keep` checkpoints, and those that an interruption has made
        between two regular ones, unless it is the last."""
        *older, last = self.checkpoints()
        kept = [*(path for path in older if step_of(path) % every == 0), last][-keep:]
        for path in older:
            if path not in kept:
                path.unlink()

    def config(self) -> Config:
        """The run's configuration; UserError if this is no run directory."""
        if not self.config_file.exists():
            raise UserError(f"{self.root} holds no run: there is no {self.config_file.name} in it")
        return load(self.config_file)

    def begin(self, config: Config) -> None:
        """Make the directory a new run's; UserError if it holds one or cannot be made."""
        if self.config_file.exists():
            raise UserError(
                f"{self.root} holds a run already: go on with it by --resume, or choose another "
                "--out"
            )
        self._make()
        dump(config, self.config_file)

    def go_on(self, config: Config) -> None:
        """Take the configuration that an existing run shall go on with; UserError if it would make
        it another run."""
        old, new = asdict(self.config()), asdict(config)
        for section in old.keys() - {"preset", "decode"}:
            for key, value in old[section].items():
                if new[section][key] != value and not (section == "train" and key in _FREE):
                    raise UserError(
                        f"{section}.{key} was {value} when the run in {self.root} began, and is "
                        f"{new[section][key]} now; a run goes on as it began: start another one"
                    )
        self._make()
        if old != new:
            dump(config, self.config_file)
        # What a killed process has left half written.
        for directory in (self.root, self.root / "checkpoints"):
            for path in directory.glob(".*.tmp"):
                path.unlink()

    def _make(self) -> None:
        try:
            (self.root / "checkpoints").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the directory {self.root}: {error.strerror}") from error


def step_of(checkpoint: Path) -> int:
    """The step in a checkpoint's name."""
    return int(checkpoint.stem.removeprefix("step-"))
