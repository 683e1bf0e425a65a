"""`tinygrad-tx attention`: a picture of what every head looks at while a sentence is translated."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ..errors import UserError
from .command import Command, add_model, path


def _arguments(parser: ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("sentence", help="to translate")
    parser.add_argument(
        "--png", type=path, required=True, metavar="FILE", help="picture; also .svg or .pdf"
    )


def _run(args: Namespace) -> None:
    from .. import models, viz
    from ..data.files import check_length
    from ..decoding import generate

    model, tokenizer = models.load(args.model)
    check_length("the sentence", 1, args.sentence)
    if not args.sentence.strip():
        raise UserError("the sentence is blank; there is nothing to attend to")
    source = tokenizer.encode(args.sentence, special=True)
    wanted, room = len(source) + 50, model.room(len(source))
    most = wanted if room is None else max(1, min(wanted, room))
    [[found]] = generate(model, [source], max_new_tokens=most)
    target = [tokenizer.bos_id, *found.tokens][:room]
    maps = viz.attention_maps(model, source, target)
    drawn = viz.draw_attention(maps, tokenizer.tokens(source), tokenizer.tokens(target), args.png)
    print(tokenizer.decode(found.tokens))
    print(f"{len(maps)} layers of heads are drawn in {drawn}")


COMMAND = Command(
    "attention",
    "draw what every head of a model looks at",
    (
        (
            'attention --model runs/tiny "the red house is old" --png heads.png',
            "rows ask, columns are looked at",
        ),
    ),
    _arguments,
    _run,
)
