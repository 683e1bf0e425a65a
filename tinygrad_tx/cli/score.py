"""`tinygrad-tx score`: how probable a model finds each of some translations."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from .bulk import add_bulk, model_of, pairs_of, plan_of
from .command import Command, add_model, add_precision, in_precision, path

_TOGETHER = 512  # pairs are sorted by length before they are cut into batches


def _arguments(parser: ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--src", type=path, required=True, metavar="FILE", help="sentences")
    parser.add_argument(
        "--ref", type=path, required=True, metavar="FILE", help="their translations"
    )
    add_precision(parser, "fp32")
    add_bulk(parser, _TOGETHER)


@in_precision
def _run(args: Namespace) -> None:
    from ..bulk.run import run
    from ..bulk.scoring import Scoring

    work = Scoring(model_of(args, args.precision or "fp32"))
    plan = plan_of(args, work, _TOGETHER, (args.src, args.ref))
    run(work, pairs_of(args), plan)


COMMAND = Command(
    "score",
    "print how probable each of some translations is",
    (
        (
            "score --model runs/de-en --src pairs.de --ref pairs.en > scores.txt",
            "the log-probability of each line, a tab, and its number of tokens",
        ),
        (
            "score --model runs/de-en --src pairs.de --ref pairs.en --workers 8 --out scores.txt",
            "large files by 8 processes; the same command goes on when it was stopped",
        ),
    ),
    _arguments,
    _run,
)
