"""`tinygrad-tx launch`: several ranks of one command, started anew when one of them dies."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from .command import Command, count, count_or_none

if TYPE_CHECKING:
    from ..distributed.job import Ended

_LONGEST = 60  # seconds between two attempts


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="-- train ...",
        help="what each rank does: train with its options, or PROGRAM.py with its own",
    )  # fmt: skip
    parser.add_argument(
        "-n", "--ranks", type=count, required=True, metavar="N", help="how many processes"
    )
    parser.add_argument(
        "--hosts", metavar="NAME[,NAME]",
        help="machines, each of which has an equal share of them; default: this one",
    )  # fmt: skip
    parser.add_argument(
        "--retries", type=count_or_none, default=0, metavar="K",
        help="how often to go on from the last checkpoint when a rank has died; default: 0",
    )  # fmt: skip
    parser.add_argument(
        "--min", type=count, metavar="N",
        help="go on with as few ranks as that, on those of --hosts that still answer; default: all",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=count, metavar="T", help="of each rank; default: its share of the cores"
    )


def _run(args: Namespace) -> None:
    from ..distributed import job

    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    hosts = [name for name in (args.hosts or "").split(",") if name]
    if command[:1] == ["train"]:  # what it says itself comes later, and counts
        seed = ["--seed", str(args.seed)] if args.seed is not None else []
        command = ["train", "--device", args.device, *seed, *command[1:]]
    work = _Work(command, args.retries > 0)
    least = args.min or args.ranks
    if least > args.ranks:
        raise UserError(f"--min {least} is more than -n {args.ranks}")
    if args.min and not hosts:
        raise UserError("--min is for --hosts: it goes on with those that still answer")
    environment = {"TX_NUM_THREADS": str(args.threads)} if args.threads else {}
    ranks, each = args.ranks, -(-args.ranks // max(len(hosts), 1))
    for attempt in range(1, args.retries + 2):
        ended = job.run(ranks, hosts, work.command(attempt > 1), _say, environment)
        if not ended.died or ended.asked:
            break
        if attempt > args.retries:
            if not ended.said:
                _say(ended.died)
            break
        pause = min(2 ** (attempt - 1), _LONGEST)
        if not ended.said:
            _say(ended.died)
        time.sleep(pause)
        if args.min:
            hosts = [host for host in hosts if job.answers(host)]
            ranks = min(ranks, each * len(hosts))
            if ranks < least:
                there = f"{', '.join(hosts)} alone" if hosts else "none"
                raise UserError(
                    f"of {args.hosts}, {there} answers, which makes {ranks} ranks; --min is {least}"
                )
        _say(f"attempt {attempt + 1} of {args.retries + 1}, with {ranks} ranks: {work.how()}")
    _leave(ended)


class _Work:
    """What the ranks do, at first and again."""

    def __init__(self, command: Sequence[str], again: bool) -> None:
        first = command[0] if command else ""
        if first != "train" and not first.endswith(".py"):
            raise UserError(
                "launch needs what the ranks do, behind --: train and its options, or PROGRAM.py"
            )
        self._first, self._again = list(command), list(command)
        self._out: Path | None = None
        if first != "train":
            return
        from .program import parser

        args = parser().parse_args(command)  # what is wrong with it is said before a rank begins
        if args.out is None and again:
            raise UserError("--retries needs train --out DIR, the run to go on with")
        if args.out is not None and not args.resume:
            self._out = Path(args.out)
            self._again = ["train", "--resume", "--out", args.out, "--device", args.device]

    def command(self, again: bool) -> list[str]:
        """The command line of a rank."""
        given = self._again if again and self._begun() else self._first
        return [sys.executable, *(["-m", "tinygrad_tx"] if given[0] == "train" else []), *given]

    def how(self) -> str:
        """What another attempt does, in words."""
        return f"tinygrad-tx {shlex.join(self._again)}" if self._begun() else "from the beginning"

    def _begun(self) -> bool:
        from ..training.run import RunDirectory

        return self._out is None or RunDirectory(self._out).config_file.exists()


def _say(line: str) -> None:
    print(f"tinygrad-tx: {line}", file=sys.stderr, flush=True)


def _leave(ended: Ended) -> None:
    if ended.code:
        sys.stdout.flush()
        raise SystemExit(ended.code)


COMMAND = Command(
    "launch",
    "train by several processes, and go on when one of them dies",
    (
        ("launch -n 2 -- train --out runs/tiny", "two ranks on this machine"),
        (
            "launch -n 16 --hosts one,two --retries 3 -- train --preset multi30k --src train.de "
            "--tgt train.en --out runs/de-en",
            "eight on each of two machines; three times on from the last checkpoint",
        ),
        (
            "launch -n 16 --hosts one,two --retries 9 --min 8 -- train --resume --out runs/de-en",
            "with half of them, if one machine is lost",
        ),
        ("launch -n 4 -- program.py", "a program of your own that calls init_process_group()"),
    ),
    _arguments,
    _run,
)
