"""`tinygrad-tx average`: the mean of the last checkpoints' weights."""

from __future__ import annotations

import shlex
from argparse import ArgumentParser, Namespace
from pathlib import Path

from ..errors import UserError
from .command import Command, count, path

_USES = {
    "translate": ("Translate with", "translate"),
    "lm": ("Go on with a text by", "generate --prompt TEXT"),
    "mlm": ("Measure it by", "evaluate --text FILE"),
}


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("directory", type=path, metavar="DIR", help="a run directory")
    parser.add_argument("--last", type=count, required=True, metavar="N", help="checkpoints")


def _run(args: Namespace) -> None:
    from dataclasses import asdict

    from .. import serialize
    from ..models.loading import belongings, require_belongings
    from ..training.checkpoint import average
    from ..training.run import RunDirectory

    run = RunDirectory(Path(args.directory))
    config = run.config()
    with run.at_work():
        found = run.checkpoints()
        if args.last > len(found):
            raise UserError(
                f"{run.root} holds {len(found)} checkpoints, not {args.last}: lower --last "
                "(train.keep_last says how many a run keeps)"
            )
        last = found[-args.last :]
        section = asdict(config.model)
        _, metadata = serialize.load_with_metadata(last[-1])
        require_belongings(last[-1], metadata, run.root, section)
        of = {"of": " ".join(file.name for file in last), **belongings(run.root, section)}
        serialize.save(average(last), run.averaged, of)
    said, command = _USES[config.model.task]
    print(f"the average of {args.last} checkpoints is in {run.averaged}. {said}\n")
    print(f"  tinygrad-tx {command} --model {shlex.quote(str(run.averaged))}")


COMMAND = Command(
    "average",
    "average the weights of a run's last checkpoints",
    (("average runs/de-en --last 5", "writes runs/de-en/averaged.safetensors"),),
    _arguments,
    _run,
)
