"""What a command of `tinygrad-tx` is. Each of the other files here but program.py makes one."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from dataclasses import dataclass


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


def count(text: str) -> int:
    """An argument that is a whole number, 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return int(text)


def count_or_none(text: str) -> int:
    """An argument that is a whole number, 0 or more."""
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text!r} is no whole number of 0 or more")
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


def add_model(parser: ArgumentParser) -> None:
    """--model, which most commands need."""
    parser.add_argument(
        "--model", required=True, metavar="DIR", help="a run directory, or a weights file in one"
    )
