"""`tinygrad-tx graph`: a picture of the computation from a batch to the training loss."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from ..errors import UserError
from .command import Command, count_or_none, path


def _arguments(parser: ArgumentParser) -> None:
    of = parser.add_mutually_exclusive_group()
    of.add_argument(
        "--preset", type=path, metavar="NAME", help="of a preset's model; default: tiny"
    )
    of.add_argument("--model", type=path, metavar="DIR", help="of the model in a run directory")
    parser.add_argument(
        "--out", type=path, default="graph.svg", metavar="FILE",
        help=".svg, .png, .pdf or .dot; default: graph.svg",
    )  # fmt: skip
    parser.add_argument(
        "--depth", type=count_or_none, metavar="N",
        help="levels of modules to open; by default as many as stay readable",
    )  # fmt: skip


def _run(args: Namespace) -> None:
    from dataclasses import asdict

    from .. import models, viz
    from ..creation import tensor
    from ..models import registry
    from ..models.encoder_decoder import EncoderDecoder
    from ..training import preset

    if args.model:
        model, _ = models.load(args.model)
    else:
        section = asdict(preset(args.preset or "tiny").model)
        model = registry.build(section, registry.Tokens())  # the picture is the same for any
    if getattr(model, "mlm", True) is None:
        raise UserError(f"{args.model} has no head for masked words, so there is no loss to draw")
    config = model.config
    word = config.vocab_size - 1
    batch = [[[word, word]], [[word, word]]]
    if isinstance(model, EncoderDecoder):
        begin, end = config.bos_id, config.eos_id
        batch = [[[word, word, end]], [[begin, word]], [[word, end]]]
    loss = model.train().loss(*map(tensor, batch))
    print(f"drawn in {viz.graph(loss, depth=args.depth).save(Path(args.out))}")


COMMAND = Command(
    "graph",
    "draw the computation from a batch to the training loss",
    (
        ("graph --preset tiny --out graph.svg", "a preset's model, each module as a frame"),
        ("graph --model runs/de-en --depth 2 --out graph.dot", "a trained one, less of it"),
    ),
    _arguments,
    _run,
)
