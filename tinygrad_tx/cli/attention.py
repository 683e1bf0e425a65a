"""`tinygrad-tx attention`: a picture of what every head looks at while a sentence is translated, or
read by a model of one text."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ..errors import UserError
from .command import Command, add_model, count_or_none, path


def _arguments(parser: ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("sentence", help="to translate, or to read")
    parser.add_argument(
        "--out", "--png", dest="out", type=path, metavar="FILE",
        help="picture: .svg, .html, .png or .pdf (the last two by matplotlib)",
    )  # fmt: skip
    parser.add_argument(
        "--html", type=path, metavar="FILE", help="the same as a page that tells weights on hover"
    )
    parser.add_argument("--arcs", action="store_true", help="lines between tokens instead of maps")
    parser.add_argument(
        "--layer", type=path, metavar="NAME",
        help="of layers so called: a part of their names, such as 1, cross_attn, decoder.layers.0",
    )  # fmt: skip
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--head", type=count_or_none, metavar="N", help="this head alone, from 1 on")
    which.add_argument("--mean", action="store_true", help="the mean of the heads of each layer")
    which.add_argument(
        "--rollout",
        action="store_true",
        help="how much of each token of the input has come through all layers to each position",
    )


def _run(args: Namespace) -> None:
    from .. import models, viz
    from ..data.files import check_length
    from ..models.encoder_decoder import EncoderDecoder

    files = [file for file in (args.out, args.html) if file]
    if not files:
        raise UserError("give --out FILE for a picture, or --html FILE for a page")
    for file in files:
        viz.Attention.form_of(file)
    if args.html and viz.Attention.form_of(args.html) != "html":
        raise UserError(f"--html {args.html}: a page's name ends in .html; --out writes pictures")
    model, tokenizer = models.load(args.model)
    if tokenizer is None:
        raise UserError(f"{args.model} has no tokenizer, so no ids can be made of a text")
    check_length("the sentence", 1, args.sentence)
    if not args.sentence.strip():
        raise UserError("the sentence is blank; there is nothing to attend to")
    translates = isinstance(model, EncoderDecoder)
    inputs = [tokenizer.encode(args.sentence, special=True)] if translates else [args.sentence]
    if translates:
        inputs.append(viz.translated(model, inputs[0]))
    found = viz.attention(
        model,
        *inputs,
        tokenizer=tokenizer,
        layer=args.layer,
        head=args.head,
        mean=args.mean,
        rollout=args.rollout,
        arcs=args.arcs,
    )
    if translates:
        print(tokenizer.decode(inputs[1][1:]))
    for file in files:
        count = len(found.layers)
        print(f"{count} layer{'' if count == 1 else 's'} of heads, drawn in {found.save(file)}")


COMMAND = Command(
    "attention",
    "draw what every head of a model looks at",
    (
        (
            'attention --model runs/tiny "the red house is old" --out heads.svg',
            "all heads of all layers: rows look, columns are looked at",
        ),
        (
            'attention --model runs/tiny "the red house is old" --layer cross_attn --mean --arcs '
            "--out arcs.svg",
            "what each word is written from, as lines",
        ),
        (
            'attention --model runs/tiny "the red house is old" --rollout --html rollout.html',
            "through all layers, as a page with hover",
        ),
    ),
    _arguments,
    _run,
)
