"""`tinygrad-tx`: reads the command line, runs a command, and turns errors into one line. In: the
arguments. Out: an exit code: 0; 1 if the input or the environment is at fault; 2 for wrong usage;
130 if interrupted.
"""

from __future__ import annotations

import io
import os
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence

from tinygrad_tx.cli import attention, average, doctor, evaluate, graph, info, train, translate
from tinygrad_tx.cli.command import Command, count_or_none
from tinygrad_tx.creation import set_default_device
from tinygrad_tx.errors import DeviceError, UserError
from tinygrad_tx.random import manual_seed
from tinygrad_tx.version import __version__

COMMANDS: tuple[Command, ...] = (
    train.COMMAND,
    translate.COMMAND,
    evaluate.COMMAND,
    attention.COMMAND,
    graph.COMMAND,
    average.COMMAND,
    info.COMMAND,
    doctor.COMMAND,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; SystemExit for --help, --version and wrong usage, as argparse does it."""
    args = _parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        _prepare(args.device, args.seed)
        args.run(args)
        sys.stdout.flush()
    except (UserError, DeviceError) as error:
        print(f"tinygrad-tx: {error}", file=sys.stderr)
        return 1
    except MemoryError as error:
        print(f"tinygrad-tx: out of memory ({error}); use smaller batches", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        print(f"tinygrad-tx: interrupted{_told(interrupt)}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (`| head`) has enough. Python would complain when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _told(interrupt: KeyboardInterrupt) -> str:
    return f": {interrupt}" if str(interrupt) else ""


def _prepare(device: str, seed: int | None) -> None:
    if any(os.environ.get(name) for name in ("TX_HOST_FEATURES", "TX_NUM_THREADS", "TX_TARGET")):
        from tinygrad_tx.backends.native import team

        team.check_environment()
    set_default_device(device)
    if seed is not None:
        manual_seed(seed)


def _parser() -> ArgumentParser:
    common = ArgumentParser(add_help=False)
    group = common.add_argument_group("everywhere")
    group.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    group.add_argument("--seed", type=count_or_none, metavar="N", help="of all random numbers")
    parser = ArgumentParser(
        prog="tinygrad-tx",
        description="Train Transformers, translate with them, and look inside.",
        epilog=_examples((("train", "a translator, in minutes, without any data"),))
        + "\n\ntinygrad-tx COMMAND --help tells more.",
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"tinygrad-tx {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
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
    return parser


def _examples(examples: Sequence[tuple[str, str]]) -> str:
    lines = (f"  tinygrad-tx {line}\n      {what}" for line, what in examples)
    return "\n".join(["examples:", *lines])
