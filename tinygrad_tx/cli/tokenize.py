"""`tinygrad-tx tokenize`: the token ids of each line of text."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from .bulk import add_bulk, model_of, plan_of
from .command import Command, add_model, path

_TOGETHER = 8192  # lines


def _arguments(parser: ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "file", type=path, nargs="?", default="-", metavar="FILE|-", help="default: standard input"
    )
    parser.add_argument("--pieces", action="store_true", help="what each id stands for, instead")
    parser.add_argument(
        "--special", action="store_true", help="with the tokens that the model reads around a text"
    )
    parser.add_argument(
        "--target", action="store_true",
        help="as of the language that is translated into, where that has a vocabulary of its own",
    )  # fmt: skip
    add_bulk(parser, _TOGETHER)


def _run(args: Namespace) -> None:
    from ..bulk.run import run
    from ..bulk.tokenising import Tokenising
    from ..data import read_lines

    work = Tokenising(model_of(args), args.pieces, args.special, args.target)
    run(work, read_lines(args.file), plan_of(args, work, _TOGETHER, (args.file,)))


COMMAND = Command(
    "tokenize",
    "print the token ids of each line of text",
    (
        ("tokenize --model runs/de-en input.txt > ids.txt", "numbers with spaces between"),
        ("tokenize --model runs/de-en --pieces < input.txt", "pieces of words"),
        (
            "tokenize --model runs/de-en --workers 8 --out ids.txt input.txt",
            "a large file by 8 processes; the same command goes on when it was stopped",
        ),
    ),
    _arguments,
    _run,
)
