"""What commands for large inputs have in common: their options, and the plan that these make."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..version import __version__
from .command import count, path

if TYPE_CHECKING:
    from ..bulk import Executor, Work
    from ..bulk.model import ModelAt
    from ..bulk.run import Plan

_MOST = 1024  # workers of one machine


def add_bulk(parser: ArgumentParser, chunk: int, out: str = "the output") -> None:
    """The options. chunk: lines that are worked on together, unless told otherwise. out: what --out
    is for."""
    group = parser.add_argument_group("large inputs", "by default one process, and standard output")
    which = group.add_mutually_exclusive_group()
    which.add_argument(
        "--workers", type=_workers, metavar="N",
        help="by N processes of this machine, which share its cores (Dask)",
    )  # fmt: skip
    which.add_argument(
        "--scheduler", type=_address, metavar="tcp://HOST:PORT",
        help="by the workers of that Dask scheduler, which read the model under the same path",
    )  # fmt: skip
    group.add_argument(
        "--chunk", type=count, metavar="N",
        help=f"lines that a worker is given at once; default: {chunk}",
    )  # fmt: skip
    group.add_argument(
        "--out", type=path, metavar="FILE",
        help=f"write {out} there; when it was stopped, the same command goes on where it was",
    )  # fmt: skip


def _workers(text: str) -> int:
    found = count(text)
    if found > _MOST:
        raise ArgumentTypeError(f"{text} is too large; the most is {_MOST}")
    return found


def _address(text: str) -> str:
    from ..bulk.cluster import check_address

    try:
        return check_address(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def is_bulk(args: Namespace) -> bool:
    """True if any option asks for more than one process and standard output."""
    return bool(args.workers or args.scheduler or args.out)


def model_of(args: Namespace, precision: str = "fp32") -> ModelAt:
    """--model, as those who work with it read it."""
    from ..bulk.model import ModelAt, of

    if not args.workers and not args.scheduler:
        return ModelAt(args.model, args.device, precision)
    # It is read when a worker begins, and may be another one by then: elsewhere, where it is found
    # by its whole path, or after a step of training.
    digest = of(args.model)
    return ModelAt(str(Path(args.model).absolute()), args.device, precision, digest)


def plan_of(
    args: Namespace,
    work: Work,
    chunk: int,
    inputs: tuple[str, ...],
    write: Callable[[str], None] | None = None,
) -> Plan:
    """How the options want `work` to be run. inputs: the files that are read, the first of which
    progress is measured by. write: what becomes of the text; None: it is printed."""
    from ..bulk.order import AHEAD
    from ..bulk.run import Plan

    _require_apart(args.out, inputs)
    # At a terminal each line is answered at once.
    waiting = inputs[0] == "-" and sys.stdin.isatty()
    return Plan(
        1 if waiting else args.chunk or chunk,
        write or _print,
        _cluster(args),
        Path(args.out) if args.out else None,
        partial(_facts, work),
        _size(inputs[0]),
        ahead=0 if waiting else AHEAD,
        shown=is_bulk(args) and not waiting,
    )


def pairs_of(args: Namespace) -> Iterator[tuple[str, str]]:
    """The lines of --src and --ref, side by side. Of files, all are read before the first is given
    out: what is wrong with them is said at once."""
    from ..data import read_pairs

    if Path(args.src).is_file() and Path(args.ref).is_file():
        for _ in read_pairs(args.src, args.ref):
            pass
    return read_pairs(args.src, args.ref)


def _print(text: str) -> None:
    print(text, end="", flush=True)


def _cluster(
    args: Namespace,
) -> Callable[[Work, Callable[[str], None]], AbstractContextManager[Executor]] | None:
    if not args.workers and not args.scheduler:
        return None
    from ..bulk import cluster

    cluster.package()  # that is missing is said before anything is done
    if args.workers:
        return lambda work, say: cluster.local(work, args.workers, say)
    return lambda work, say: cluster.remote(work, args.scheduler, say)


def _facts(work: Any) -> dict[str, Any]:
    """What an output depends on but for the input: all settings, and the model by its content."""
    from ..bulk import model

    facts: dict[str, Any] = {"version": __version__, "does": type(work).__name__}
    for key, value in _flat(asdict(work)).items():
        if key not in ("path", "digest"):
            facts[key] = value
        elif key == "path":
            facts["model"] = model.of(value)
    return facts


def _flat(tree: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= _flat(value) if isinstance(value, dict) else {key: value}
    return found


def _size(file: str) -> int | None:
    """The bytes of a file that is no pipe and is not packed."""
    found = Path(file)
    try:
        return found.stat().st_size if found.is_file() and found.suffix != ".gz" else None
    except OSError:
        return None


def _require_apart(out: str | None, inputs: tuple[str, ...]) -> None:
    for file in map(Path, inputs):
        if out and Path(out).exists() and file.exists() and file.samefile(out):
            raise UserError(f"--out {out} is the input; give the output a name of its own")
