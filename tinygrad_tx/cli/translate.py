"""`tinygrad-tx translate`: a line of translation for each line of input."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from .bulk import add_bulk, is_bulk, model_of, plan_of
from .command import (
    Command,
    add_model,
    add_precision,
    count,
    count_or_none,
    in_precision,
    number,
    path,
    positive,
)

if TYPE_CHECKING:
    from ..bulk.translating import Translating
    from ..decoding import Translator

_TOGETHER = 512  # lines are read and sorted by length before they are cut into batches


def _arguments(parser: ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "file", type=path, nargs="?", default="-", metavar="FILE|-", help="default: standard input"
    )
    add_precision(parser, "fp32")
    parser.add_argument(
        "--attention", type=path, metavar="DIR",
        help="also draw what each layer looks at, the mean of its heads: DIR/000001.svg for line 1",
    )  # fmt: skip
    search = parser.add_argument_group("search", "by default as the run's config.toml says")
    search.add_argument("--beam", type=count, metavar="N", help="hypotheses pursued; 1 is greedy")
    search.add_argument(
        "--length-penalty", type=number, metavar="A", help="0 is none, 0.6 is usual with a beam"
    )
    search.add_argument(
        "--n-best", type=count, default=1, metavar="N",
        help="above 1: the N best translations of each line, best first, each on a line of its "
        "own: number of the input line, score and text, with tabs between",
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
    add_bulk(parser, _TOGETHER)


@in_precision
def _run(args: Namespace) -> None:
    from ..bulk.run import by, run
    from ..data import read_lines

    _check(args)
    work = _work(args)
    plan = plan_of(args, work, _TOGETHER, (args.file,))
    if not args.attention:
        run(work, read_lines(args.file), plan)
        return
    translator = work.translator()
    pictures = _Pictures(args.attention, translator)
    do = work.using(replace(translator, observe=pictures))
    run(work, read_lines(args.file), replace(plan, cluster=by(do)))
    pictures.close()


def _check(args: Namespace) -> None:
    if not args.sample and (args.top_k or args.top_p or args.temperature):
        raise UserError("--top-k, --top-p and --temperature go with --sample")
    if args.sample and args.beam:
        raise UserError("--sample and --beam exclude each other")
    if args.sample and args.chunk:
        raise UserError(
            "--sample and --chunk exclude each other: what is drawn hangs on the chunks"
        )
    if args.sample and args.out and args.seed is None:
        raise UserError("--sample with --out needs --seed N, for what is drawn to go on")
    if args.attention and is_bulk(args):
        raise UserError(
            "--attention draws by one process: leave --workers, --scheduler, --out away"
        )


def _work(args: Namespace) -> Translating:
    from .. import random
    from ..bulk.translating import Translating

    return Translating(
        model_of(args, args.precision or "fp32"),
        args.beam,
        args.length_penalty,
        args.n_best,
        args.sample,
        args.temperature or 1.0,
        args.top_k or 0,
        args.top_p or 1.0,
        random.generator("cpu").key.item() if args.sample else 0,
    )


class _Pictures:
    """A picture of attention for each line that is translated, and how many there are on standard
    error."""

    def __init__(self, directory: str, translator: Translator) -> None:
        self._root, self._count = Path(directory), 0
        self._model: Any = translator.model
        self._tokenizer = translator.tokenizer
        if self._root.exists() and not self._root.is_dir():
            raise UserError(f"--attention {directory}: this is a file; pictures need a directory")
        self._root.mkdir(parents=True, exist_ok=True)

    def __call__(self, line: int, source: list[int], tokens: list[int]) -> None:
        from .. import viz

        target = viz.decoder_input(self._model, tokens, len(source))
        drawn = viz.attention(self._model, source, target, tokenizer=self._tokenizer, mean=True)
        drawn.save(self._root / f"{line:06d}.svg")
        self._count += 1
        if sys.stderr.isatty():
            print(f"\rpictures: {self._count}", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        begin = "\r" if sys.stderr.isatty() else ""
        print(f"{begin}pictures: {self._count}, of attention, in {self._root}", file=sys.stderr)


COMMAND = Command(
    "translate",
    "translate text, line by line",
    (
        ("translate --model runs/de-en input.txt > output.txt", "a file"),
        ("translate --model runs/de-en --beam 4 --n-best 3 < input.txt", "the three best of each"),
        (
            "translate --model runs/de-en --attention looks input.txt > output.txt",
            "also a picture of attention for each sentence: looks/000001.svg, ...",
        ),
        ("translate --model runs/de-en --sample --top-p 0.9", "what you type, with some variety"),
        (
            "translate --model runs/de-en --workers 8 --out output.txt input.txt",
            "a large file by 8 processes; the same command goes on when it was stopped",
        ),
    ),
    _arguments,
    _run,
)
