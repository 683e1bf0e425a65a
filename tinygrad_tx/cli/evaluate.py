"""`tinygrad-tx evaluate`: BLEU and chrF of a model's translations."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from dataclasses import asdict

from .command import Command, add_model, count, number, path
from .translate import translator_of


def _arguments(parser: ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "--src", type=path, required=True, metavar="FILE", help="sentences to translate"
    )
    parser.add_argument(
        "--ref", type=path, required=True, metavar="FILE", help="their translations by hand"
    )
    parser.add_argument("--beam", type=count, metavar="N", help="hypotheses pursued; 1 is greedy")
    parser.add_argument(
        "--length-penalty", type=number, metavar="A", help="0 is none, 0.6 is usual with a beam"
    )
    parser.add_argument("--lowercase", action="store_true", help="upper and lower case are equal")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _run(args: Namespace) -> None:
    from ..data import read_pairs
    from ..training.metrics import score

    sources, references = [], []
    for source, reference in read_pairs(args.src, args.ref):
        sources.append(source)
        references.append(reference)
    translator = translator_of(args.model, args.beam, args.length_penalty)
    found = [best[0].text for best in translator.n_best(sources)]
    scores = score(found, references, args.lowercase)
    if args.json:
        facts = {"sentences": len(sources), "beam": translator.beam_size}
        print(json.dumps(facts | asdict(scores)))
    else:
        print(scores)


COMMAND = Command(
    "evaluate",
    "score a model's translations by BLEU and chrF",
    (
        ("evaluate --model runs/de-en --src test.de --ref test.en --beam 4", "text"),
        ("evaluate --model runs/de-en --src test.de --ref test.en --json", "for a program"),
    ),
    _arguments,
    _run,
)
