"""`tinygrad-tx translate`: a line of translation for each line of input."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
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


@in_precision
def _run(args: Namespace) -> None:
    from ..data import read_lines

    if not args.sample and (args.top_k or args.top_p or args.temperature):
        raise UserError("--top-k, --top-p and --temperature go with --sample")
    if args.sample and args.beam:
        raise UserError("--sample and --beam exclude each other")
    translator = replace(
        translator_of(args.model, args.beam, args.length_penalty),
        num_return_sequences=args.n_best,
        do_sample=args.sample,
        temperature=args.temperature or 1.0,
        top_k=args.top_k or 0,
        top_p=args.top_p or 1.0,
    )
    if not args.sample and args.n_best > translator.beam_size:
        translator = replace(translator, beam_size=args.n_best)
    pictures = _Pictures(args.attention, translator) if args.attention else None
    translator = replace(translator, observe=pictures)
    texts = read_lines(args.file)
    # At a terminal each line is answered at once.
    waiting = args.file == "-" and sys.stdin.isatty()
    found = translator.stream(texts, chunk_size=1 if waiting else _TOGETHER)
    for at, translations in enumerate(found, 1):
        for text, score in translations:
            print(text if args.n_best == 1 else f"{at}\t{score:.4f}\t{text}")
    if pictures is not None:
        pictures.close()


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


def translator_of(model: str, beam: int | None, length_penalty: float | None) -> Translator:
    """A run's model, to search as its configuration says unless told otherwise."""
    from .. import models
    from ..decoding import Translator
    from ..models.encoder_decoder import EncoderDecoder
    from ..models.loading import directory_of, is_pretrained
    from ..training.run import RunDirectory
    from ..training.schema import DecodeConfig

    decode = DecodeConfig(beam_size=4)
    if not is_pretrained(Path(model)):
        decode = RunDirectory(directory_of(Path(model))).config().decode
    found, tokenizer = models.load(model)
    if not isinstance(found, EncoderDecoder):
        raise UserError(
            f"{model} holds a {type(found).__name__}, which does not translate; `tinygrad-tx info` "
            "says what it is"
        )
    if tokenizer is None:
        raise UserError(f"{model} has no tokenizer, so no ids can be made of a text")
    return Translator(
        found,
        tokenizer,
        beam or decode.beam_size,
        decode.length_penalty if length_penalty is None else length_penalty,
        decode.max_extra_tokens,
        decode.batch_size,
    )


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
    ),
    _arguments,
    _run,
)
