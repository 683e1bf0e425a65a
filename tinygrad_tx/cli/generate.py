"""`tinygrad-tx generate`: a model of language goes on with a text."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ..errors import UserError
from .command import (
    Command,
    add_model,
    add_precision,
    count,
    count_or_none,
    in_precision,
    path,
    positive,
)

_MOST = 200  # new tokens, unless told otherwise


def _arguments(parser: ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "--prompt", required=True, metavar="TEXT", help="what to go on with; - reads it from "
        "standard input",
    )  # fmt: skip
    parser.add_argument(
        "--max-new-tokens", type=count, default=_MOST, metavar="N",
        help=f"the most tokens of the continuation; default: {_MOST}",
    )  # fmt: skip
    parser.add_argument(
        "--stop", type=path, action="append", default=[], metavar="TEXT",
        help="end before this text; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--repetition-penalty", type=positive, default=1.0, metavar="R",
        help="above 1: tokens that were there already become less likely",
    )  # fmt: skip
    parser.add_argument("--stream", action="store_true", help="print it while it is made")
    add_precision(parser, "fp32")
    search = parser.add_argument_group("search", "by default the most probable token each time")
    search.add_argument("--sample", action="store_true", help="draw at random instead (--seed)")
    search.add_argument(
        "--top-k", type=count_or_none, metavar="K", help="from the K most probable tokens only"
    )
    search.add_argument(
        "--top-p", type=positive, metavar="P", help="from the most probable tokens that reach P"
    )
    search.add_argument(
        "--min-p", type=positive, metavar="P",
        help="from those that are P times as probable as the best one",
    )  # fmt: skip
    search.add_argument(
        "--temperature", type=positive, metavar="T", help="below 1 sharpens, above 1 flattens"
    )


@in_precision
def _run(args: Namespace) -> None:
    from .. import models
    from ..data.files import read_text
    from ..decoding import stream
    from ..models.language_model import LanguageModel

    if not args.sample and (args.top_k or args.top_p or args.min_p or args.temperature):
        raise UserError("--top-k, --top-p, --min-p and --temperature go with --sample")
    model, tokenizer = models.load(args.model)
    if not isinstance(model, LanguageModel):
        raise UserError(
            f"{args.model} holds a {type(model).__name__}, which does not go on with texts; "
            "`tinygrad-tx info` says what it is"
        )
    if tokenizer is None:
        raise UserError(f"{args.model} has no tokenizer, so no text can be made of its ids")
    prompt = "".join(read_text("-")) if args.prompt == "-" else args.prompt
    pieces = stream(
        model,
        tokenizer,
        prompt,
        max_new_tokens=args.max_new_tokens,
        stop=args.stop,
        do_sample=args.sample,
        temperature=args.temperature or 1.0,
        top_k=args.top_k or 0,
        top_p=args.top_p or 1.0,
        min_p=args.min_p or 0.0,
        repetition_penalty=args.repetition_penalty,
        seed=args.seed,
    )
    for piece in pieces if args.stream else ["".join(pieces)]:
        print(piece, end="", flush=args.stream)
    print()


COMMAND = Command(
    "generate",
    "go on with a text",
    (
        ('generate --model runs/lm --prompt "ROMEO:"', "the most probable continuation"),
        (
            'generate --model gpt2/ --prompt "Once upon" --sample --top-p 0.9 --seed 7 --stream',
            "a drawn one, shown as it is made",
        ),
    ),
    _arguments,
    _run,
)
