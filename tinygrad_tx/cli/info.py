"""`tinygrad-tx info`: the description of a run, its progress, and its scores."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from .command import Command, path

if TYPE_CHECKING:
    from ..training.run import RunDirectory


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "directory", type=path, metavar="DIR", help="a run directory, or a pretrained model"
    )


def _run(args: Namespace) -> None:
    from ..models.loading import is_pretrained
    from ..training.history import facts
    from ..training.run import RunDirectory

    root = Path(args.directory)
    if is_pretrained(root):
        lines = [*_pretrained(root)]
    else:
        run = RunDirectory(root)
        lines = [*facts(run.config()), *_weights(run), *_history(run)]
    for name, what in lines:
        print(f"{name:<21}{what}")


def _pretrained(root: Path) -> Iterator[tuple[str, str]]:
    from .. import models
    from ..models import registry

    model, tokenizer = models.load(root)
    yield "model", f"{registry.described(model.config)['kind']}, {model.config.describe()}"
    yield "parameters", f"{sum(p.numel() for p in model.parameters()):,}"
    yield "tokenizer", "none" if tokenizer is None else f"{tokenizer.vocab_size:,} pieces"


def _weights(run: RunDirectory) -> Iterator[tuple[str, str]]:
    from ..models.loading import weights
    from ..training.run import step_of

    for file in (run.model, run.averaged):
        if file.exists():
            try:
                n = sum(tensor.numel() for tensor in weights(file).values())
            except UserError as error:
                yield file.name, str(error)
            else:
                yield file.name, f"{n:,} parameters"
    steps = [str(step_of(file)) for file in run.checkpoints()]
    yield "checkpoints", f"steps {', '.join(steps)}" if steps else "none yet"


def _history(run: RunDirectory) -> Iterator[tuple[str, str]]:
    from ..training.log import examine
    from ..training.progress import describe

    rows, damaged = examine(run.metrics)
    if damaged:
        shown = ", ".join(map(str, damaged[:5])) + (", ..." if len(damaged) > 5 else "")
        yield "damaged", f"{run.metrics.name}, lines {shown}: left out here"
    trained = [row for row in rows if "loss" in row]
    validated = [row for row in rows if "valid_loss" in row]
    if trained:
        yield "trained", describe(trained[-1])
    if validated:
        yield "best loss", describe(min(validated, key=lambda row: _or(row["valid_loss"], 1e9)))
    if bleu := [row for row in validated if row.get("bleu") is not None]:
        yield "best BLEU", describe(max(bleu, key=lambda row: row["bleu"]))
    if final := [row for row in rows if str(row.get("of", "")).startswith("held-out")]:
        yield "final", describe(final[-1])


def _or(number: float | None, otherwise: float) -> float:
    return otherwise if number is None else number


COMMAND = Command(
    "info",
    "show what a run is and how far it got",
    (("info runs/de-en", "configuration, parameters, checkpoints, best scores"),),
    _arguments,
    _run,
)
