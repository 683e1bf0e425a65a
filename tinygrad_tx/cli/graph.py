"""`tinygrad-tx graph`: a picture of a model's loss, or of a whole step of training it; a page in
which the compiled step can be explored."""

from __future__ import annotations

import inspect
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ..errors import UserError
from .command import Command, count_or_none, path


def _arguments(parser: ArgumentParser) -> None:
    of = parser.add_mutually_exclusive_group()
    of.add_argument(
        "--preset", type=path, metavar="NAME", help="of a preset's model; default: tiny"
    )
    of.add_argument("--model", type=path, metavar="DIR", help="of the model in a run directory")
    parser.add_argument(
        "--step",
        action="store_true",
        help="the whole step of training: the loss, its gradients, the optimizer",
    )
    parser.add_argument(
        "--out", type=path, metavar="FILE",
        help=".svg, .dot, .png or .pdf (the last two by matplotlib); default: graph.svg, unless "
        "there is --html",
    )  # fmt: skip
    parser.add_argument(
        "--html", type=path, metavar="FILE",
        help="a page to explore a compiled step of training in: modules, graph, kernels, memory",
    )  # fmt: skip
    parser.add_argument(
        "--depth", type=count_or_none, metavar="N",
        help="levels of modules to open; by default as many as stay readable",
    )  # fmt: skip


def _run(args: Namespace) -> None:
    if args.html:
        _explore(args)
    if args.out or not args.html:
        _draw(args, Path(args.out or "graph.svg"))


def _explore(args: Namespace) -> None:
    from ..training.sample_step import sample_step

    step, (rows, length) = sample_step(*_model(args))
    page = step.explore(args.html)
    print(f"a step of training on {rows} x {length} positions can be explored in {page}")


def _draw(args: Namespace, out: Path) -> None:
    from .. import viz
    from ..training.outlook import on_meta

    with nullcontext() if args.model else on_meta():  # a preset's model has no values
        model, config = _model(args)
        model.train()
        batch = _batch(model)
        drawing = viz.graph(_call(model, config if args.step else None), *batch, depth=args.depth)
    print(f"drawn in {drawing.save(out)}")
    if drawing.note:
        print(drawing.note.replace("depth=", "--depth "))


def _model(args: Namespace) -> tuple[Any, Any]:
    """The model, and the Config of a run that trains it."""
    from dataclasses import asdict

    from .. import models
    from ..models import registry
    from ..models.loading import CONFIG
    from ..training import preset
    from ..training.run import RunDirectory

    if not args.model:
        config = preset(args.preset or "tiny")
        return registry.build(asdict(config.model), registry.Tokens()), config  # whatever the words
    model, _ = models.load(args.model)
    if getattr(model, "mlm", True) is None:
        raise UserError(f"{args.model} has no head for masked words, so there is no loss to draw")
    of_run = (Path(args.model) / CONFIG).exists()
    return model, RunDirectory(Path(args.model)).config() if of_run else preset("tiny")


def _batch(model: Any) -> list[Any]:
    """A batch of one row of two tokens: shapes are larger in a run, the graph is the same."""
    from ..creation import tensor
    from ..models.encoder_decoder import EncoderDecoder

    config = model.config
    word = config.vocab_size - 1
    batch = [[[word, word]], [[word, word]]]
    if isinstance(model, EncoderDecoder):
        begin, end = config.bos_id, config.eos_id
        batch = [[[word, word, end]], [[begin, word]], [[word, end]]]
    device = next(model.parameters()).device
    return [tensor(rows, device=device) for rows in batch]


def _call(model: Any, config: Any) -> Callable[..., Any]:
    """A function of a batch: the loss or, with the Config of a run, a step of it. Its arguments are
    called as those of the model's loss."""
    from ..training.step import Trainable

    if config is None:
        return model.loss  # type: ignore[no-any-return]
    trainable = Trainable(model, config)

    def train_step(*batch: Any) -> Any:
        return trainable._step(*batch)

    train_step.__signature__ = inspect.signature(model.loss)  # type: ignore[attr-defined]
    return train_step


COMMAND = Command(
    "graph",
    "draw the computation from a batch to the training loss, or a step of training",
    (
        ("graph --preset tiny --out graph.svg", "a preset's model, each module as a frame"),
        ("graph --preset base --step --out step.svg", "a step: forward, backward, optimizer"),
        ("graph --model runs/de-en --depth 2 --out graph.dot", "a trained one, less of it"),
        ("graph --model runs/de-en --html step.html", "a compiled step of training, in a browser"),
    ),
    _arguments,
    _run,
)
