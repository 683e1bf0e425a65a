"""From a run directory to a model and its tokenizer. In: what `train` wrote (config.toml,
tokenizer.json and safetensors files). Out: both, ready for use. Called by users, by the commands
and, for a new model, by the trainer.

A file of weights says in its metadata which tokenizer.json and which section [model] it was trained
with (`belongings`), for the wrong ones, or damaged ones, not to be used with it.
"""

from __future__ import annotations

import json
import tomllib
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from .. import serialize
from ..errors import UserError
from ..tensor import Tensor
from ..tokenizer import Tokenizer
from .pretrained_tokenizer import FILES, PretrainedTokenizer
from .registry import build as build

CONFIG, TOKENIZER, WEIGHTS = "config.toml", "tokenizer.json", "model.safetensors"
CHECKPOINTS = "checkpoints"
_BELONGINGS = "trained_with"  # in the metadata of weights
_LARGEST = 2**16  # bytes of a configuration; Python takes minutes for some of a megabyte
PART = "model"  # of a checkpoint, which holds more than weights: their names begin with it


def load(path: Path | str) -> tuple[Any, Any]:
    """The model and the tokenizer of a run directory, in evaluation mode, on the default device; or
    those of a pretrained one, as from_pretrained() reads it.

    path: the directory, for its best weights, or one of the .safetensors files in it. UserError
    that says which file is missing, damaged, or does not fit the others.
    """
    path = Path(path)
    if is_pretrained(path):
        from .pretrained import from_pretrained  # it knows all models

        return from_pretrained(path)
    root = directory_of(path)
    file = path if path.is_file() else root / WEIGHTS
    if not file.exists():
        raise UserError(f"{root} has no {WEIGHTS} yet: it is written after the first validation")
    tables = read_toml(root / CONFIG)
    section = _section(root / CONFIG, tables)
    state, metadata = _weights(file)
    require_belongings(file, metadata, root, section)
    tokenizer = tokenizer_of(root, tables.get("tokenizer"))
    model = build(section, tokenizer)
    try:
        model.load_state_dict(state)
    except UserError as error:
        raise UserError(f"{file} is not of the model in {root / CONFIG}: {error}") from error
    return model.eval(), tokenizer


def is_pretrained(path: Path) -> bool:
    """True for a directory that transformers, or save_pretrained, has written, and no run."""
    return (path / "config.json").is_file() and not (path / CONFIG).is_file()


def directory_of(path: Path) -> Path:
    """The run directory that a path is, or that it lies in; UserError if there is none."""
    if not path.exists():
        raise UserError(f"there is no {path}")
    found = path if path.is_dir() else path.parent
    if found.absolute().name == CHECKPOINTS and not (found / CONFIG).is_file():
        found = found.absolute().parent
    if not (found / CONFIG).is_file():
        raise UserError(
            f"{path} holds no model: there is no {found / CONFIG}, and no config.json of a "
            "pretrained one"
        )
    return found


def tokenizer_of(root: Path, section: object) -> Any:
    """The tokenizer of a run directory. section: the [tokenizer] of its configuration."""
    if not isinstance(section, dict) or section.get("kind") != "pretrained":
        return Tokenizer.load(root / TOKENIZER)
    ids = {key: None if value == "none" else value for key, value in section.items()}
    found = PretrainedTokenizer.of(root, SimpleNamespace(**ids))
    if found is None:
        raise UserError(f"cannot read the tokenizer {root / TOKENIZER}: there is none")
    return found


def weights(file: Path) -> dict[str, Tensor]:
    """The weights in a safetensors file, be it a model or a checkpoint."""
    return _weights(file)[0]


def belongings(root: Path, section: Mapping[str, Any]) -> dict[str, str]:
    """The metadata of a run's weights on the other files that these need."""
    files = [root / name for name in FILES if (root / name).exists()] or [root / TOKENIZER]
    tokenizer = 0
    for file in files:
        try:
            tokenizer = zlib.crc32(file.read_bytes(), tokenizer)
        except OSError as error:
            raise UserError(f"cannot read the tokenizer {file}: {error.strerror}") from error
    # How ranks shared a model says nothing of its weights.
    model = {key: value for key, value in section.items() if key != "tensor_parallel"}
    return {_BELONGINGS: json.dumps({"tokenizer": f"{tokenizer:08x}", "model": model})}


def require_belongings(
    file: Path, metadata: Mapping[str, str], root: Path, section: Mapping[str, Any]
) -> None:
    """UserError unless tokenizer.json and [model] are those that the metadata of `file` speak of;
    files of the first format do not speak of them."""
    try:
        then = json.loads(metadata[_BELONGINGS])
    except (KeyError, ValueError):
        return
    known = isinstance(then, dict) and isinstance(then.get("model"), dict) and "tokenizer" in then
    if not known:  # they are of another program
        return
    now = json.loads(belongings(root, section)[_BELONGINGS])
    if then["tokenizer"] != now["tokenizer"]:
        raise UserError(
            f"{root / TOKENIZER} is not the one that {file} was trained with: it is damaged or was "
            "replaced"
        )
    for key, value in then["model"].items():
        if key not in section:
            raise UserError(
                f"{file} is not of the model in {root / CONFIG}: model.{key} was {value}, and is "
                "not set there"
            )
        if now["model"][key] != value:
            raise UserError(
                f"{file} is not of the model in {root / CONFIG}: model.{key} was {value}, and is "
                f"{section[key]} there"
            )


def _weights(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors, metadata = serialize.load_with_metadata(file)
    prefix = f"{PART}."
    found = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    return found or tensors, metadata


def read_toml(file: Path) -> dict[str, Any]:
    """The tables of a configuration file. UserError for what cannot be read, is no TOML, or is of a
    newer format than this version knows."""
    try:
        with file.open("rb") as opened:
            content = opened.read(_LARGEST + 1)
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    if len(content) > _LARGEST:
        raise UserError(f"cannot read {file}: {_LARGEST} bytes and more are no configuration")
    try:
        # A byte-order mark, which Windows editors write, is none of TOML's characters.
        tables = tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text: byte {error.start} is no character") from error
    except RecursionError:
        raise UserError(f"cannot read {file}: it is nested too deep") from None
    except ValueError as error:  # of TOML, or of Python: a number of thousands of digits
        reason = str(error).splitlines()[0]
        raise UserError(f"cannot read {file}: it is not TOML: {reason}") from error
    serialize.require_format(tables.pop("format", 1), file)
    return tables


def _section(file: Path, tables: Mapping[str, Any]) -> dict[str, Any]:
    section = tables.get("model")
    if not isinstance(section, dict):
        raise UserError(f"{file} has no section [model]")
    known = {key: None if value == "none" else value for key, value in section.items()}
    return {"kind": "transformer", **known}  # the only kind that there was at first
