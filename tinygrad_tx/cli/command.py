"""A command of `tinygrad-tx`. Each of the other files here makes one, but for program.py, bulk.py
and streams.py."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace, _ArgumentGroup
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps

from ..autocast import PRECISIONS, autocast, require_precision


@dataclass(frozen=True)
class Command:
    """`arguments` adds the flags to a parser, `run` does the work, after heavy imports of its own.

    help: one line. examples: command lines without the program's name, each with what it does.
    """

    name: str
    help: str
    examples: tuple[tuple[str, str], ...]
    arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], None]


LARGEST = 2**31 - 1  # of what is counted


def count(text: str) -> int:
    """An argument that is a whole number, 1 or more."""
    return _whole(text, 1, LARGEST)


def counts(text: str) -> list[int]:
    """An argument that is such numbers, with commas between them."""
    return [count(part) for part in text.split(",")]


def count_or_none(text: str) -> int:
    """An argument that is a whole number, 0 or more."""
    return _whole(text, 0, LARGEST)


def seed(text: str) -> int:
    """An argument that random numbers are made from."""
    return _whole(text, 0, 2**63 - 1)


def path(text: str) -> str:
    """An argument that names a file, a directory or a preset."""
    if not text:
        raise ArgumentTypeError("the name is empty")
    return text


def _whole(text: str, least: int, most: int) -> int:
    if not text.isdecimal() or (len(text) < 20 and int(text) < least):
        raise ArgumentTypeError(f"{text[:40]!r} is no whole number of {least} or more")
    if len(text) >= 20 or int(text) > most:
        raise ArgumentTypeError(f"{text[:40]} is too large; the most is {most}")
    return int(text)


def positive(text: str) -> float:
    """An argument that is a number above 0."""
    value = number(text)
    if value <= 0:
        raise ArgumentTypeError(f"{text!r} is not above 0")
    return value


def number(text: str) -> float:
    """An argument that is a number, 0 or above."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ArgumentTypeError(f"{text!r} is no number of 0 or more")
    return value


def add_precision(parser: ArgumentParser | _ArgumentGroup, default: str) -> None:
    """--precision. default: of it, in words."""
    parser.add_argument(
        "--precision", choices=PRECISIONS,
        help="of products: bf16 and fp16 are stored in half the memory, tf32 is for some GPUs; "
        f"default: {default}",
    )  # fmt: skip


def in_precision(run: Callable[[Namespace], None]) -> Callable[[Namespace], None]:
    """A command whose model computes as --precision says."""

    @wraps(run)
    def call(args: Namespace) -> None:
        precision = args.precision or "fp32"
        require_precision(precision, args.device)
        with autocast(precision):
            run(args)

    return call


def add_model(parser: ArgumentParser) -> None:
    """--model, which most commands need."""
    parser.add_argument(
        "--model", type=path, required=True, metavar="DIR",
        help="a run directory, a weights file in one, or a pretrained model",
    )  # fmt: skip
