"""`tinygrad-tx embed`: a vector for each line of text."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from itertools import islice

from .command import Command, add_model, add_precision, in_precision, path

_TOGETHER = 2048  # lines are read and sorted by length before they are cut into batches


def _arguments(parser: ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "file", type=path, nargs="?", default="-", metavar="FILE|-", help="default: standard input"
    )
    add_precision(parser, "fp32")


@in_precision
def _run(args: Namespace) -> None:
    from .. import models
    from ..data import read_lines
    from ..decoding import Embedder

    embedder = Embedder(*models.load(args.model))
    lines = read_lines(args.file)
    while chunk := list(islice(lines, _TOGETHER)):
        for vector in embedder(chunk):
            print(" ".join(map(str, vector)))


COMMAND = Command(
    "embed",
    "print a vector for each line of text",
    (
        ("embed --model all-MiniLM-L6-v2/ lines.txt > vectors.txt", "numbers with spaces between"),
        ("embed --model all-MiniLM-L6-v2/ < lines.txt", "of standard input"),
    ),
    _arguments,
    _run,
)
