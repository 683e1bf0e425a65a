"""`tinygrad-tx report`: the page of a run, written anew from what its directory has."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from .command import Command, path


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("directory", type=path, metavar="RUN", help="a run directory")
    parser.add_argument(
        "--out", type=path, metavar="FILE", help="where to write; default: report.html in the run"
    )


def _run(args: Namespace) -> None:
    from ..training import page
    from ..training.history import History
    from ..training.run import RunDirectory

    run = RunDirectory(Path(args.directory))
    for note in History.of(run).notes:
        print(note)
    print(f"written to {page.write(run, Path(args.out) if args.out else None)}")


COMMAND = Command(
    "report",
    "write the page of a run: curves, samples, attention, configuration",
    (
        ("report runs/de-en", "report.html in the run, which each run also writes by itself"),
        ("report runs/de-en --out de-en.html", "elsewhere; the page needs no other file"),
    ),
    _arguments,
    _run,
)
