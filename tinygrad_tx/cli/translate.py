"""`tinygrad-tx translate`: a line of translation for each line of input."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from itertools import islice

from tinygrad_tx.cli.command import Command, add_model, count, count_or_none, number, positive
from tinygrad_tx.errors import UserError

_TOGETHER = 16  # batches' worth of lines that are sorted by length before they are cut into batches


def _arguments(parser: ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "file", nargs="?", default="-", metavar="FILE|-", help="default: standard input"
    )
    search = parser.add_argument_group("search", "by default as the run's config.toml says")
    search.add_argument("--beam", type=count, metavar="N", help="hypotheses pursued; 1 is greedy")
    search.add_argument(
        "--length-penalty", type=number, metavar="A", help="0 is none, 0.6 is usual with a beam"
    )
    search.add_argument(
        "--n-best", type=count, default=1, metavar="N",
        help="N lines for each line of input, best first: its number, a score and a text, with "
        "tabs between",
    )  # fmt: skip
    search.add_argument("--sample", action="store_true", help="draw at random instead")
    search.add_argument(
        "--top-k", type=count_or_none, metavar="K", help="from the K most probable tokens only"
    )
    search.add_argument(
        "--top-p", type=positive, metavar="P", help="from the most probable tokens that reach P"
    )
    search.add_argument(
        "--temperature", type=positive, metavar="T", help="below 1 sharpens, above 1 flattens"
    )


def _run(args: Namespace) -> None:
    from tinygrad_tx import models
    from tinygrad_tx.data import read_lines
    from tinygrad_tx.decoding import translate
    from tinygrad_tx.models.loading import directory_of
    from tinygrad_tx.training import config
    from tinygrad_tx.training.corpus import checked
