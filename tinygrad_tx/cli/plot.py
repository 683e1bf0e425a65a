"""`tinygrad-tx plot`: the curves of runs as a picture."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from .command import Command, path


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "directories", type=path, nargs="+", metavar="RUN", help="run directories, to compare"
    )
    parser.add_argument(
        "--out", type=path, default="curves.svg", metavar="FILE",
        help=".svg, .png or .pdf; default: curves.svg",
    )  # fmt: skip


def _run(args: Namespace) -> None:
    from .. import viz
    from ..training.history import History, names
    from ..training.run import RunDirectory

    unique = dict.fromkeys(Path(directory).resolve() for directory in args.directories)
    histories = [History.of(RunDirectory(root)) for root in unique]
    runs = dict(zip(names(histories), histories, strict=True))
    for name, history in runs.items():
        for note in history.notes:
            print(f"{name}: {note}")
    drawn = viz.draw_curves({name: h.panels() for name, h in runs.items()}, Path(args.out))
    print(f"drawn in {drawn}")


COMMAND = Command(
    "plot",
    "draw the curves of a run, or of several beside each other",
    (
        ("plot runs/de-en", "loss, BLEU, learning rate, tokens/s and more, in curves.svg"),
        ("plot runs/small runs/large --out both.png", "compare two runs"),
    ),
    _arguments,
    _run,
)
