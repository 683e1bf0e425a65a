"""`tinygrad-tx train`: flags to a Config, the run, and its report."""

from __future__ import annotations

import shlex
import time
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from .command import Command, add_precision, count, path, positive
from .streams import OutputError

if TYPE_CHECKING:
    from ..training.schema import Config
    from ..training.tasks.base import Report

_FILES = ("src", "tgt", "tsv", "valid_src", "valid_tgt", "valid_tsv", "text", "valid_text")
_TASKS = {
    "translate": "sentences into another language",
    "lm": "the next token of a text",
    "mlm": "masked words of a text",
}


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "config",
        type=path,
        nargs="?",
        metavar="CONFIG.toml",
        help="a file like config.toml of a run: settings, over those of a preset",
    )
    parser.add_argument(
        "--task",
        choices=_TASKS,
        help="what is learnt: "
        + "; ".join(f"{name}, {what}" for name, what in _TASKS.items())
        + "; by default what the preset's model does",
    )
    parser.add_argument(
        "--preset",
        type=path,
        metavar="NAME",
        help="to translate: tiny (default), tiny-rnn, tiny-attention, tiny-conv, multi30k, base or "
        "big; --task lm: char (default), gpt2-small or llama-tiny; --task mlm: bert-tiny",
    )
    parser.add_argument(
        "--init",
        type=path,
        metavar="DIR",
        help="begin with the weights and the tokenizer of a run, or of a pretrained model (a "
        "directory with config.json and model.safetensors)",
    )
    texts = parser.add_argument_group(
        "text", "for --task lm and mlm: plain or .gz, as it is; or a document in each record of a "
        ".jsonl, .csv or .parquet"
    )  # fmt: skip
    texts.add_argument("--text", type=path, metavar="FILE", help="what to learn from")
    texts.add_argument(
        "--valid-text", type=path, metavar="FILE", help="to validate with; default: its last tenth"
    )
    files = parser.add_argument_group(
        "sentence pairs", "to translate: text files, one sentence a line, plain or .gz; by default "
        "a built-in English-Spanish corpus"
    )  # fmt: skip
    files.add_argument("--src", type=path, metavar="FILE", help="sentences to translate from")
    files.add_argument("--tgt", type=path, metavar="FILE", help="their translations, line by line")
    files.add_argument(
        "--tsv", type=path, metavar="FILE",
        help="both, with a tab between; or in columns of a .jsonl, .csv or .parquet",
    )  # fmt: skip
    files.add_argument(
        "--valid-src", type=path, metavar="FILE",
        help="the same three, to validate with; default: some training pairs are held out",
    )  # fmt: skip
    files.add_argument("--valid-tgt", type=path, metavar="FILE", help="their translations")
    files.add_argument("--valid-tsv", type=path, metavar="FILE", help="both in one file")
    parser.add_argument(
        "--columns", metavar="NAME[,NAME]",
        help="of a .jsonl, .csv or .parquet: the text's, or the source's and the target's",
    )  # fmt: skip
    run = parser.add_argument_group("the run")
    run.add_argument(
        "--out", type=path, metavar="DIR", help="where to write; default: runs/PRESET-DATE"
    )
    run.add_argument("--max-steps", type=count, metavar="N", help="steps of the optimizer")
    run.add_argument("--epochs", type=count, metavar="N", help="passes over the data")
    run.add_argument(
        "--max-minutes", type=positive, metavar="M", help="time to train; instead of steps"
    )
    add_precision(run, "fp32; weights are float32 in any")
    run.add_argument("--resume", action="store_true", help="go on with the run in --out")
    run.add_argument(
        "--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE",
        help="any value of config.toml, such as model.d_model=256",
    )  # fmt: skip


def _run(args: Namespace) -> None:
    from ..distributed import launcher
    from ..training import config as configs
    from ..training.beginning import configured
    from ..training.run import RunDirectory
    from ..training.trainer import train

    ranks = launcher.enter()
    given = {f"--preset {args.preset}": args.preset, f"--init {args.init}": args.init}
    several = [name for name, value in (*given.items(), (args.config, args.config)) if value]
    if len(several) > 1:
        raise UserError(f"{several[0]} and {several[1]} exclude each other")
    if args.resume:
        if args.init:
            raise UserError("--init is for a new run; --resume goes on with the run's own weights")
        if not args.out:
            raise UserError("--resume needs --out DIR, the run to go on with")
        base = configs.load(args.config) if args.config else RunDirectory(Path(args.out)).config()
        if args.preset and args.preset != base.preset:
            raise UserError(f"{args.out} was begun with preset {base.preset}, not {args.preset}")
    elif args.init:
        base = configured(_absolute(args.init) or args.init)
    elif args.config:
        base = configs.load(args.config)
    else:
        base = configs.preset(args.preset or configs.PRESETS_OF[args.task or "translate"])
    config = _with_flags(base, args)
    if args.task and config.model.task != args.task:
        raise UserError(
            f"--task {args.task}, but the model is a {config.model.kind}, whose task is "
            f"{config.model.task}; choose another preset, or set model.kind"
        )
    date = time.strftime("%Y%m%d-%H%M%S")
    out = Path(args.out or f"runs/{config.preset}-{date}")
    report = train(config, out, resume=args.resume, command=args.command_line)
    if ranks.rank:
        return
    try:
        _print(report, out)
    except OutputError as error:
        raise OutputError(f"{error}; training is done, and its report is in {out}") from None


def _with_flags(base: Config, args: Namespace) -> Config:
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
    if given["src"] or given["tsv"] or given["text"]:
        changes.append("data.corpus=files")
    if given["text"] and (given["src"] or given["tsv"]):
        raise UserError("--text and sentence pairs exclude each other: give one kind")
    task = base.model.task
    wrong = "text" if task == "translate" else "src" if given["src"] else "tsv"
    if args.init and given[wrong]:
        raise UserError(
            f"--{wrong}, but {args.init} is a {base.model.kind}, whose task is {task}; give it "
            f"{'sentence pairs' if task == 'translate' else '--text FILE'}"
        )
    if args.init and any(given.values()):  # nothing of another run's data
        changes = [f"data.{name}=none" for name in (*_FILES, "columns")] + changes
    if args.columns is not None:
        changes.append(f"data.columns={args.columns}")
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
    if args.precision is not None:
        changes.append(f"train.precision={args.precision}")
    if args.seed is not None:
        changes.append(f"train.seed={args.seed}")
    config = apply_overrides(base, changes + args.set)
    if args.init and config.tokenizer != base.tokenizer:
        raise UserError(
            f"--init keeps the tokenizer of {args.init}: leave out tokenizer.* in --set"
        )
    own = "valid_text" if config.model.task == "translate" else "valid_src"
    if given[own] or (own == "valid_src" and given["valid_tsv"]):
        raise UserError(
            f"--{own.replace('_', '-')} is not for a {config.model.kind}, whose task is "
            f"{config.model.task}"
        )
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
    from ..training.profile import compared, load
    from ..training.run import RunDirectory

    print(f"\n{report.text()}\n")
    print(f"The run is in {out}. {report.next_step(shlex.quote(str(out)))}", flush=True)
    profile = load(RunDirectory(out).profile)
    for what, found in compared(profile) if profile is not None else ():
        print(f"{what:<19}{found}", flush=True)


COMMAND = Command(
    "train",
    "train a model to translate, or a model of language",
    (
        ("train", "the preset tiny on the built-in English-Spanish corpus"),
        ("train --task lm --text input.txt --out runs/lm", "a small GPT on characters of a text"),
        ("train --init gpt2/ --text input.txt", "go on from the weights of a pretrained model"),
        ("train --preset multi30k --src train.de --tgt train.en --out runs/de-en", "your files"),
        ("train --resume --out runs/de-en --max-steps 9000", "go on with a run, for longer"),
        ("train --precision bf16", "activations in half the memory"),
        ("train --set model.d_model=64 train.seed=7", "change anything in config.toml"),
    ),
    _arguments,
    _run,
)
