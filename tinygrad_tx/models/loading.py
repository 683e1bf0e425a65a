"""From a run directory to a model and its tokenizer. In: what `train` wrote (config.toml,
tokenizer.json and safetensors files). Out: both, ready for use. Called by users, by the commands
and, for a new model, by the trainer.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from .. import serialize
from ..errors import UserError
from ..tensor import Tensor
from ..tokenizer import Tokenizer
from .transformer import Transformer, TransformerConfig

CONFIG, TOKENIZER, WEIGHTS = "config.toml", "tokenizer.json", "model.safetensors"
PART = "model"  # of a checkpoint, which holds more than weights: their names begin with it


def load(path: Path | str) -> tuple[Transformer, Tokenizer]:
    """The model and the tokenizer of a run directory, in evaluation mode, on the default device.

    path: the directory, for its best weights, or one of the .safetensors files in it. UserError
    that says which file is missing, damaged, or does not fit the others.
    """
    path = Path(path)
    root = directory_of(path)
    file = path if path.is_file() else root / WEIGHTS
    if not file.exists():
        raise UserError(f"{root} has no {WEIGHTS} yet: it is written after the first validation")
    tokenizer = Tokenizer.load(root / TOKENIZER)
    model = build(_section(root / CONFIG), tokenizer)
    try:
        model.load_state_dict(weights(file))
    except UserError as error:
        raise UserError(f"{file} is not of the model in {root / CONFIG}: {error}") from error
    return model.eval(), tokenizer


def directory_of(path: Path) -> Path:
    """The run directory that a path is, or that it lies in; UserError if there is none."""
    if not path.exists():
        raise UserError(f"there is no {path}")
    found = path if path.is_dir() else path.parent
    if found.name == "checkpoints":
        found = found.parent
    if not (found / CONFIG).is_file():
        raise UserError(f"{path} holds no model: there is no {found / CONFIG}")
    return found


def weights(file: Path) -> dict[str, Tensor]:
    """The weights in a safetensors file, be it a model or a checkpoint."""
    tensors = serialize.load(file)
    prefix = f"{PART}."
    found = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    return found or tensors


def build(section: Mapping[str, Any], tokenizer: Tokenizer) -> Transformer:
    """A new model of the sizes in a [model] section for the vocabulary of a tokenizer."""
    known = {field.name for field in fields(TransformerConfig)}
    if unknown := [key for key in section if key not in known]:
        raise UserError(f"model.{unknown[0]} is unknown to this version")
    config = TransformerConfig(
        vocab_size=tokenizer.vocab_size,
        pad_id=tokenizer.pad_id,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
        **section,
    )
    return Transformer(config)


def _section(file: Path) -> dict[str, Any]:
    try:
        section = tomllib.loads(file.read_text(encoding="utf-8")).get("model")
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"cannot read {file}: {error}") from error
    if not isinstance(section, dict):
        raise UserError(f"{file} has no section [model]")
    return section
