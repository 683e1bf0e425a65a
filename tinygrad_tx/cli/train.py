"""`tinygrad-tx train`: flags to a Config, the run, and its report."""

from __future__ import annotations

import shlex
import time
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from .command import Command, count, path, positive
from .streams import OutputError

if TYPE_CHECKING:
    from ..training.report import Report
    from ..training.schema import Config

_FILES = ("src", "tgt", "tsv", "valid_src", "valid_tgt", "valid_tsv")


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "config",
        type=path,
        nargs="?",
        metavar="CONFIG.toml",
        help="what config.toml of a run looks like",
    )
    parser.add_argument(
        "--preset",
        type=path,
        metavar="NAME",
        help="tiny (default), tiny-rnn, tiny-attention, tiny-conv, multi30k, base or big",
    )
    files = parser.add_argument_group(
        "sentence pairs", "text files, one sentence a line, plain or .gz; by default a built-in "
        "English-Spanish corpus"
    )  # fmt: skip
    files.add_argument("--src", type=path, metavar="FILE", help="sentences to translate from")
    files.add_argument("--tgt", type=path, metavar="FILE", help="their translations, line by line")
    files.add_argument("--tsv", type=path, metavar="FILE", help="both, with a tab between")
    files.add_argument(
        "--valid-src", type=path, metavar="FILE", help="the same, to validate with; by default"
    )
    files.add_argument(
        "--valid-tgt", type=path, metavar="FILE", help="some training pairs are held out"
    )
    files.add_argument("--valid-tsv", type=path, metavar="FILE")
    run = parser.add_argument_group("the run")
    run.add_argument(
        "--out", type=path, metavar="DIR", help="where to write; default: runs/PRESET-DATE"
    )
    run.add_argument("--max-steps", type=count, metavar="N", help="steps of the optimizer")
    run.add_argument("--epochs", type=count, metavar="N", help="passes over the data")
    run.add_argument(
        "--max-minutes", type=positive, metavar="M", help="time to train; instead of steps"
    )
    run.add_argument("--resume", action="store_true", help="go on with the run in --out")
    run.add_argument(
        "--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE",
        help="any value of config.toml, such as model.d_model=256",
    )  # fmt: skip


def _run(args: Namespace) -> None:
    from ..training import config as configs
    from ..training.run import RunDirectory
    from ..training.trainer import train

    if args.config and args.preset:
        raise UserError(f"--preset {args.preset} and {args.config} exclude each other")
    if args.resume:
        if not args.out:
            raise UserError("--resume needs --out DIR, the run to go on with")
        base = configs.load(args.config) if args.config else RunDirectory(Path(args.out)).config()
        if args.preset and args.preset != base.preset:
            raise UserError(f"{args.out} was begun with preset {base.preset}, not {args.preset}")
    else:
        base = configs.load(args.config) if args.config else configs.preset(args.preset or "tiny")
    config = _with_flags(base, args)
    date = time.strftime("%Y%m%d-%H%M%S")
    out = Path(args.out or f"runs/{config.preset}-{date}")
    report = train(config, out, resume=args.resume)
    try:
        _print(report, out)
    except OutputError as error:
        raise OutputError(f"{error}; training is done, and its report is in {out}") from None


def _with_flags(config: Config, args: Namespace) -> Config:
    """The configuration with the changes that the flags make to it."""
    from ..training.config import apply_overrides

    # Absolute, for the run to go on from wherever it is resumed; and "none" is a file's name here.
    given = {name: _absolute(getattr(args, name)) for name in _FILES}
    for prefix in ("", "valid_"):
        flag = "--" + prefix.replace("_", "-")
        src, tgt, tsv = (given[prefix + name] for name in ("src", "tgt", "tsv"))
        if (src or tgt) and tsv:
            raise UserError(f"{flag}tsv and {flag}src, {flag}tgt exclude each other: give one kind")
        if bool(src) != bool(tgt):
            raise UserError(f"{flag}src and {flag}tgt go together: give both")
    changes = [f"data.{name}={file}" for name, file in given.items() if file]
    if given["src"] or given["tsv"]:
        changes.append("data.corpus=files")
    for prefix in ("", "valid_"):  # what a configuration file says in the other form is replaced
        if given[f"{prefix}tsv"]:
            changes += [f"data.{prefix}{name}=none" for name in ("src", "tgt")]
        elif given[f"{prefix}src"]:
            changes.append(f"data.{prefix}tsv=none")
    if args.epochs is not None:
        changes += [f"train.max_epochs={args.epochs}", "train.max_steps=none"]
    if args.max_minutes is not None:
        changes += [f"train.max_minutes={args.max_minutes}", "train.max_steps=none"]
    if args.max_steps is not None:
        changes.append(f"train.max_steps={args.max_steps}")
    if args.seed is not None:
        changes.append(f"train.seed={args.seed}")
    config = apply_overrides(config, changes + args.set)
    in_config: dict[str, Any] = {n: _absolute(getattr(config.data, n)) for n in _FILES}
    return replace(config, data=replace(config.data, **in_config))


def _absolute(file: str | None) -> str | None:
    try:
        # The name of a pipe, resolved, is none that can be opened.
        special = file is not None and not Path(file).is_file()
        return file and str(Path(file).absolute() if special else Path(file).resolve())
    except (OSError, RuntimeError):  # links in a circle, which reading will say
        return file and str(Path(file).absolute())


def _print(report: Report, out: Path) -> None:
    print(f"\n{report.text()}\n")
    print(f"The run is in {out}. Translate with\n")
    print(f"  tinygrad-tx translate --model {shlex.quote(str(out))}", flush=True)


COMMAND = Command(
    "train",
    "train a model to translate",
    (
        ("train", "the preset tiny on the built-in English-Spanish corpus"),
        ("train --preset multi30k --src train.de --tgt train.en --out runs/de-en", "your files"),
        ("train --resume --out runs/de-en --max-steps 9000", "go on with a run, for longer"),
        ("train --set model.d_model=64 train.seed=7", "change anything in config.toml"),
    ),
    _arguments,
    _run,
)
