"""`tinygrad-tx check`: whether a model's outputs depend on what they must not see."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ..errors import UserError
from .command import Command, path


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "model", type=path, metavar="DIR",
        help="a run directory, a weights file in one, or a pretrained model",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=path, metavar="FILE", help="also a picture of it: .svg, .png or .pdf"
    )


def _run(args: Namespace) -> None:
    from .. import models, viz

    if args.out:
        viz.Dependencies.form_of(args.out)
    model, _ = models.load(args.model)
    found = viz.dependencies(model)
    print(found)
    if args.out:
        print(f"drawn in {found.save(args.out)}")
    if not found.ok:
        count = len(found.leaks)
        raise UserError(f"{args.model}: {count} leak{'s' if count > 1 else ''}, as told above")


COMMAND = Command(
    "check",
    "prove by gradients that no output depends on future or padded inputs, or other rows",
    (
        ("check runs/de-en", "exit code 1 if there is a leak"),
        ("check runs/de-en --out check.svg", "also as a picture"),
    ),
    _arguments,
    _run,
)
