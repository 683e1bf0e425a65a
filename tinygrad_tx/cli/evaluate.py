"""`tinygrad-tx evaluate`: BLEU and chrF of a model's translations, or its loss on a text."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..errors import UserError
from .bulk import add_bulk, model_of, pairs_of, plan_of
from .command import Command, add_model, add_precision, count, in_precision, number, path

_TOGETHER = 512  # sentences are sorted by length before they are cut into batches


def _arguments(parser: ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--src", type=path, metavar="FILE", help="sentences to translate")
    parser.add_argument("--ref", type=path, metavar="FILE", help="their translations by hand")
    parser.add_argument(
        "--text", type=path, metavar="FILE",
        help="of a model of language: a text, to measure loss, perplexity and bits per byte on",
    )  # fmt: skip
    parser.add_argument(
        "--columns", metavar="NAME", help="the text's, in a .jsonl, .csv or .parquet"
    )
    parser.add_argument("--beam", type=count, metavar="N", help="hypotheses pursued; 1 is greedy")
    parser.add_argument(
        "--length-penalty", type=number, metavar="A", help="0 is none, 0.6 is usual with a beam"
    )
    parser.add_argument("--lowercase", action="store_true", help="upper and lower case are equal")
    add_precision(parser, "fp32")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_bulk(parser, _TOGETHER, out="the translations")


@in_precision
def _run(args: Namespace) -> None:
    if args.text and (args.src or args.ref):
        raise UserError("--text and --src, --ref exclude each other: give one kind")
    if args.text:
        if args.beam or args.lowercase or args.length_penalty is not None:
            raise UserError("--beam, --length-penalty and --lowercase go with --src and --ref")
        if args.out or args.chunk:
            raise UserError("--out and --chunk go with --src and --ref")
        _text(args)
    elif args.src and args.ref:
        _pairs(args)
    else:
        raise UserError("give --src FILE and --ref FILE, or --text FILE")


def _text(args: Namespace) -> None:
    from .. import models
    from ..bulk.losses import Measuring, Windowed
    from ..bulk.run import by, run

    model, tokenizer = models.load(args.model)
    text = Windowed(model, tokenizer, args.text, args.columns, _window(args.model))
    work = Measuring(model_of(args, args.precision or "fp32"))
    plan = plan_of(args, work, 1, (args.text,), write=_nowhere)
    plan = replace(plan, total=None, unit="batches")
    if plan.cluster is None:  # the model has been read
        plan = replace(plan, cluster=by(work.using(model)))
    found = text.losses(run(work, iter(text), plan))
    facts: dict[str, Any] = {
        "tokens": found.n_tokens,
        "loss": found.loss,
        "perplexity": found.perplexity,
        "bits_per_byte": found.bits_per_byte,
    }
    if args.json:
        print(json.dumps(facts))
        return
    print(f"tokens         {found.n_tokens:,}")
    print(f"loss           {found.loss:.4f} nats a token")
    print(f"perplexity     {found.perplexity:.4f}")
    print(f"bits per byte  {found.bits_per_byte:.4f}")


def _nowhere(text: str) -> None:
    """The translations are not asked for."""


def _window(model: str) -> int | None:
    """The length of the windows that a run was trained on; None for a pretrained model."""
    from ..models.loading import CONFIG
    from ..training.run import RunDirectory

    root = Path(model) if Path(model).is_dir() else Path(model).parent
    run = RunDirectory(root)
    return run.config().data.max_len if (root / CONFIG).is_file() else None


def _pairs(args: Namespace) -> None:
    from ..bulk.run import run
    from ..bulk.translating import Evaluating, Translating
    from ..data.tables import is_table

    if table := next((file for file in (args.src, args.ref) if is_table(file)), None):
        raise UserError(f"{table} has columns, and --src and --ref are lines of text")
    if args.columns is not None:
        raise UserError("--columns goes with --text")
    model = model_of(args, args.precision or "fp32")
    work = Evaluating(Translating(model, args.beam, args.length_penalty), args.lowercase)
    plan = plan_of(args, work, _TOGETHER, (args.src, args.ref), write=_nowhere)
    sums = run(work, pairs_of(args), plan)
    scores = work.score(sums)
    if args.json:
        facts = {"sentences": int(sums[0]), "beam": work.beam_size}
        print(json.dumps(facts | asdict(scores)))
    else:
        print(scores)


COMMAND = Command(
    "evaluate",
    "score translations by BLEU and chrF, or a model of language by its loss",
    (
        ("evaluate --model runs/de-en --src test.de --ref test.en --beam 4", "text"),
        ("evaluate --model runs/de-en --src test.de --ref test.en --json", "for a program"),
        (
            "evaluate --model runs/de-en --src test.de --ref test.en --workers 8 --out found.en",
            "large files by 8 processes, and the translations; goes on when it was stopped",
        ),
        ("evaluate --model runs/lm --text test.txt", "loss, perplexity, bits per byte"),
    ),
    _arguments,
    _run,
)
