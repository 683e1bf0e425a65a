"""`tinygrad-tx info`: the description of a run, its progress and its scores, and what its modules
do and take."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from .command import Command, count_or_none, path

if TYPE_CHECKING:
    from rich.table import Table

    from ..training.profile import ModuleProfile
    from ..training.run import RunDirectory

_WIDTH = 140  # columns, where there is no terminal


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "directory", type=path, metavar="DIR", help="a run directory, or a pretrained model"
    )
    parser.add_argument(
        "--depth", type=count_or_none, default=2, metavar="N",
        help="levels of modules in the table; default: 2",
    )  # fmt: skip


def _run(args: Namespace) -> None:
    from rich.console import Console

    from ..models.loading import is_pretrained
    from ..training.history import facts
    from ..training.profile import facts as measured
    from ..training.profile import load
    from ..training.run import RunDirectory

    root = Path(args.directory)
    if is_pretrained(root):
        lines, table = [*_pretrained(root)], _on_shapes(root, args.depth)
    else:
        run = RunDirectory(root)
        lines = [*facts(run.config()), *_weights(run), *_history(run)]
        profile = load(run.profile)
        if profile is not None:
            lines += measured(profile)
        known = profile is not None and profile.modules
        table = _profiled(profile.modules, args.depth) if profile and known else None
        if table is None and run.model.exists():
            table = _on_shapes(root, args.depth)
    for name, what in lines:
        print(f"{name:<21}{what}")
    if table is not None:
        console = Console()
        if not console.is_terminal:
            console.width = _WIDTH
        console.print(table, highlight=False, markup=False)


# Modules -----------------------------------------------------------------------------------------


def _profiled(modules: Sequence[ModuleProfile], depth: int) -> Table:
    """What a step of the run took, by module."""
    heads = ("parameters", "FLOPs forward", "backward", "activations", "ms", "share")
    total = sum(row.seconds for row in modules if row.depth == 0)
    rows = []
    for row in _nested(modules):
        if row.depth > depth:
            continue
        name = row.path.rpartition(".")[2] if row.depth else ""
        title = row.title or ("" if row.path else "in no module: the optimizer")
        label = "  " * row.depth + ": ".join(x for x in (name, title) if x)
        took = (f"{row.seconds * 1e3:.2f}", f"{row.seconds / total:.1%}") if total else ("", "")
        work = (_short(row.forward), _short(row.backward), _bytes(row.activations))
        rows.append(
            (label or row.path, f"{row.parameters:,}" if row.parameters else "", *work, *took)
        )
    return _table(heads, rows)


def _nested(modules: Sequence[ModuleProfile]) -> Iterator[ModuleProfile]:
    """Each behind the one that it is in, what is in none last."""

    def inside(path: str, depth: int) -> Iterator[ModuleProfile]:
        for row in modules:
            if row.depth == depth and row.path and row.path.startswith(path):
                yield row
                yield from inside(f"{row.path}.", depth + 1)

    yield from inside("", 0)
    yield from (row for row in modules if not row.path)


def _on_shapes(root: Path, depth: int) -> Table | None:
    """What a call of the model does, by module, where nobody has timed it; None where the model
    cannot be read."""
    from .. import models, random
    from ..training.sample_step import sample_batch

    drawn = random.get_state()
    try:
        model, _ = models.load(root)
        batch, _ = sample_batch(model, 64, 64)
        found = model.summary(*batch[: 2 if len(batch) > 2 else 1], depth=depth)
    except UserError:
        return None
    finally:
        if drawn:
            random.set_state(drawn)
    heads = ("gives", "parameters", "FLOPs", "activations")
    rows = []
    for row in found:
        title = f"{row.kind}({row.options})" if row.options else row.kind
        label = "  " * row.depth + ": ".join(x for x in (row.name, title) if x)
        gives = ", ".join(map(str, row.outputs or ()))
        counted = f"{row.parameters:,}" if row.parameters else ""
        rows.append((label, gives, counted, _short(row.flops or 0), _bytes(row.activations or 0)))
    return _table(heads, rows)


def _table(heads: Sequence[str], rows: Sequence[tuple[str, ...]]) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("module", no_wrap=True, overflow="ellipsis")
    for name in heads:
        table.add_column(name, justify="left" if name == "gives" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _bytes(count: float) -> str:
    return f"{_short(count)}B" if count else ""


def _short(count: float) -> str:
    from ..compiler.inspect.explain import short

    return short(count)


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
    (
        ("info runs/de-en", "configuration, checkpoints, best scores; modules and what they take"),
        ("info gpt2/ --depth 4", "of a pretrained model, more of its modules"),
    ),
    _arguments,
    _run,
)
