"""`tinygrad-tx`: reads the command line, runs a command, and turns errors into one line. In: the
arguments. Out: an exit code: 0; 1 if the input or the environment is at fault; 2 for wrong usage;
130 if interrupted and, in `train`, all is saved; 128 and the signal's number if a signal ended it.
"""

from __future__ import annotations

import shlex
import signal
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from errno import ENOMEM

from .. import settings
from ..creation import set_default_device
from ..distributed.launcher import ended
from ..errors import DeviceError, UserError
from ..random import manual_seed
from ..version import __version__
from . import (
    attention,
    average,
    check,
    doctor,
    embed,
    evaluate,
    generate,
    graph,
    info,
    launch,
    plan,
    plot,
    report,
    score,
    streams,
    tokenize,
    train,
    translate,
)
from .command import Command, seed

COMMANDS: tuple[Command, ...] = (
    train.COMMAND,
    launch.COMMAND,
    translate.COMMAND,
    evaluate.COMMAND,
    score.COMMAND,
    tokenize.COMMAND,
    generate.COMMAND,
    embed.COMMAND,
    attention.COMMAND,
    graph.COMMAND,
    check.COMMAND,
    average.COMMAND,
    info.COMMAND,
    plot.COMMAND,
    report.COMMAND,
    plan.COMMAND,
    doctor.COMMAND,
)


_LONGEST = 5000  # characters of a complaint: the longest path, and what is wrong with it


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; SystemExit for --help, --version and wrong usage, as argparse does it."""
    with streams.usable():
        try:
            _run(argv)
        except (UserError, DeviceError) as error:
            return _failed(error)
        except MemoryError as error:
            return _failed(_out_of_memory(error))
        except KeyboardInterrupt as interrupt:
            _failed(f"interrupted{_told(interrupt)}")
            return 128 + getattr(interrupt, "number", signal.SIGINT)
        except BrokenPipeError:
            pass  # the reader (`| head`) has enough
        except OSError as error:
            if error.errno == ENOMEM:  # of memory that is mapped
                return _failed(_out_of_memory(error))
            where = (
                "the system refuses" if error.filename is None else f"cannot use {error.filename}"
            )
            return _failed(f"{where}: {error.strerror or error}")
    return 0


def _run(argv: Sequence[str] | None) -> None:
    given = list(sys.argv[1:] if argv is None else argv)
    for number, text in enumerate(given, 1):
        try:
            text.encode()
        except UnicodeEncodeError:
            shown = text.encode(errors="backslashreplace").decode()
            raise UserError(f"argument {number} is not UTF-8 text: {shown}") from None
        if "\0" in text:
            raise UserError(f"argument {number} has a NUL in it")
    try:
        args = parser().parse_args(given)
    except SystemExit:  # --help is a result, too
        sys.stdout.flush()
        raise
    args.command_line = shlex.join(["tinygrad-tx", *given])
    _prepare(args.device, args.seed)
    args.run(args)
    sys.stdout.flush()


def _failed(reason: object) -> int:
    """One line, whatever the reason has in it, and the exit code."""
    line = " ".join(ended(str(reason)).splitlines())
    if not line:
        return 1
    end = " ..." if len(line) > _LONGEST else ""
    print(f"tinygrad-tx: {line[:_LONGEST]}{end}", file=sys.stderr)
    return 1


def _out_of_memory(error: Exception) -> str:
    return f"out of memory ({error}); use smaller batches, or a narrower beam"


def _told(interrupt: KeyboardInterrupt) -> str:
    return f": {interrupt}" if str(interrupt) else ""


def _prepare(device: str, number: int | None) -> None:
    if any(map(settings.get, ("TX_HOST_FEATURES", "TX_NUM_THREADS", "TX_TARGET"))):
        from ..backends.cpu.run import team

        team.check_environment()
    if any(map(settings.get, ("TX_COMPILE", "TX_DEBUG"))):
        from ..compiler import compiled

        compiled.check_environment()
    set_default_device(device)
    if number is not None:
        manual_seed(number)


def parser() -> ArgumentParser:
    """The whole command line."""
    common = ArgumentParser(add_help=False)
    group = common.add_argument_group("everywhere")
    group.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    group.add_argument("--seed", type=seed, metavar="N", help="of all random numbers")
    found = ArgumentParser(
        prog="tinygrad-tx",
        description="Train Transformers, translate and write with them, and look inside.",
        epilog=_examples((("train", "a translator, in minutes, without any data"),))
        + "\n\ntinygrad-tx COMMAND --help tells more.",
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    found.add_argument("--version", action="version", version=f"tinygrad-tx {__version__}")
    commands = found.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        sub = commands.add_parser(
            command.name,
            help=command.help,
            description=command.help[0].upper() + command.help[1:] + ".",
            epilog=_examples(command.examples),
            parents=[common],
            formatter_class=RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.arguments(sub)
        sub.set_defaults(run=command.run)
    return found


def _examples(examples: Sequence[tuple[str, str]]) -> str:
    lines = (f"  tinygrad-tx {line}\n      {what}" for line, what in examples)
    return "\n".join(["examples:", *lines])
