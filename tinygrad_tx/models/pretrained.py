"""From a Hugging Face directory to a model and its tokenizer, and back.

In: a directory with config.json and model.safetensors, perhaps in several files, and perhaps a
tokenizer. Out: a model of ours; or such a directory, which transformers reads. Called by users and
by the commands. What an architecture's settings and weights are called there is in formats/.

Nothing is unpickled: a directory that has its weights in a .bin alone is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import atomic, serialize
from ..dtypes import as_dtype
from ..errors import UserError
from ..tensor import Tensor
from .formats import FORMATS, Format, Settings
from .pretrained_tokenizer import PretrainedTokenizer

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_SHOWN = 5  # names that an error lists
_METADATA = {"format": "pt"}  # transformers asks for it: (out, in) matrices, as PyTorch has them


def from_pretrained(
    path: Path | str, *, dtype: Any = None
) -> tuple[Any, PretrainedTokenizer | None]:
    """The model in a directory that transformers, or save_pretrained, has written, in evaluation
    mode and on the default device; and its tokenizer, None where there is none.

    dtype: of the weights; None: float32, whatever they are stored as. UserError that names the file
    that is missing, a setting or a tensor that the model of this library has not, a tensor that it
    lacks, and one of another shape.
    """
    root = Path(path)
    if not root.is_dir():
        raise UserError(f"there is no directory {root}")
    given = _object(root / CONFIG)
    kind = given.get("model_type")
    if not isinstance(kind, str) or kind not in FORMATS:
        known = ", ".join(FORMATS)
        raise UserError(f"{root / CONFIG}: model_type is {kind!r}; those that there are: {known}")
    found = FORMATS[kind]
    tensors = dict(_tensors(root, found))
    try:
        config = found.read(Settings(given, tensors))
    except UserError as error:
        raise UserError(f"{root}: {error}") from None
    model = found.model(config)
    model.load_state_dict(_ours(root, found, model, tensors))
    if dtype is not None:
        model.to(as_dtype(dtype))
    return model.eval(), PretrainedTokenizer.of(root, config)


def save_pretrained(model: Any, path: Path | str, tokenizer: Any = None) -> None:
    """Write a directory that transformers reads: config.json, model.safetensors and, with a
    tokenizer, tokenizer.json. UserError for a model that has no such format."""
    kind = next((k for k, f in FORMATS.items() if type(model) is f.model and _fits(k, model)), None)
    if kind is None:
        known = ", ".join(dict.fromkeys(f.model.__name__ for f in FORMATS.values()))
        raise UserError(
            f"save_pretrained: a {type(model).__name__} has no format of others; {known} have"
        )
    found, root = FORMATS[kind], Path(path)
    settings = found.write(model.config)
    state = {}
    for name, value in model.state_dict().items():
        begin = 0
        for theirs, rows in found.theirs(name, value.shape[0], model.config):
            part = value[begin : begin + rows]
            begin += rows
            if theirs.endswith(found.turned):
                part = part.T
            if theirs.endswith(found.rows):
                part = part.unsqueeze(0)
            state[theirs] = part
    root.mkdir(parents=True, exist_ok=True)
    serialize.save(state, root / WEIGHTS, _METADATA)
    _write_json(root / CONFIG, settings)
    if tokenizer is not None:
        tokenizer.save(root / "tokenizer.json")
        if (root / "tokenizer.json").exists():
            _write_json(root / TOKENIZER_CONFIG, _tokenizer_settings(model.config, tokenizer))


def _tokenizer_settings(config: Any, tokenizer: Any) -> dict[str, Any]:
    """What transformers must know of a tokenizer.json: which of its tokens have which part."""
    names = {"pad_token": "pad_id", "bos_token": "bos_id", "eos_token": "eos_id"}
    ids = {token: getattr(config, name, None) for token, name in names.items()}
    ids["mask_token"] = tokenizer.mask_id
    found = {
        token: tokenizer.tokens([i])[0]
        for token, i in ids.items()
        if i is not None and i < tokenizer.vocab_size
    }
    most = {} if config.n_positions is None else {"model_max_length": config.n_positions}
    return {"tokenizer_class": "PreTrainedTokenizerFast", **most, **found}


def _write_json(file: Path, settings: Mapping[str, Any]) -> None:
    atomic.write_bytes(file, (json.dumps(settings, indent=2) + "\n").encode())


def _fits(kind: str, model: Any) -> bool:
    """True if a model of a format's class is of that one of its formats."""
    return (kind == "roberta") == getattr(model.config, "skip_padding", False)


# Reading -----------------------------------------------------------------------------------------


def _object(file: Path) -> dict[str, Any]:
    """What a JSON file holds. UserError where it is missing, or no object."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not JSON"
        raise UserError(f"cannot read {file}: {reason}") from None
    if not isinstance(found, dict):
        raise UserError(f"cannot read {file}: it holds no settings")
    return found


def _tensors(root: Path, found: Format) -> Iterator[tuple[str, Tensor]]:
    """All tensors of a directory, by name, but for copies and computed ones."""
    for file, names in _files(root).items():
        tensors = serialize.load(file, wanted=lambda name: not _any(found.spare, name))
        yield from tensors.items()
        missing = [name for name in names if name not in tensors and not _any(found.spare, name)]
        if missing:
            raise UserError(f"{file} lacks {_some(missing)}, which {root / INDEX} says it has")


def _files(root: Path) -> dict[Path, list[str]]:
    """The files of weights, and the names of tensors that are said to be in each."""
    if (root / WEIGHTS).exists():
        return {root / WEIGHTS: []}
    if (root / INDEX).exists():
        files: dict[Path, list[str]] = {}
        places = _object(root / INDEX).get("weight_map")
        if not isinstance(places, dict):
            raise UserError(f"{root / INDEX} has no weight_map")
        for name, file in places.items():
            if not isinstance(file, str) or Path(file).name != file:
                raise UserError(f"{root / INDEX}: {name} is in {file!r}, which is no file there")
            files.setdefault(root / file, []).append(name)
        return files
    for name in _PICKLES:
        if (root / name).exists():
            raise UserError(
                f"{root} has its weights in {name}, a pickle, which may run any code and is not "
                'read. Where you trust it, convert it: python -c "from transformers import '
                f"AutoModel; AutoModel.from_pretrained('{root}').save_pretrained('{root}')\""
            )
    raise UserError(f"{root} has no {WEIGHTS}")


def _ours(
    root: Path, found: Format, model: Any, tensors: Mapping[str, Tensor]
) -> dict[str, np.ndarray[Any, Any]]:
    """The state of a model from tensors under the names of a format. UserError for what is missing,
    left over, or of another shape."""
    state, used, missing, shapes = {}, set(), [], []
    for name, own in model.state_dict().items():
        parts = []
        for theirs, rows in found.theirs(name, own.shape[0], model.config):
            short = theirs.removeprefix(found.prefix)
            there = next((x for x in (theirs, short) if x in tensors), None)
            if there is None:
                missing.append(theirs)
                continue
            used.add(there)
            value, wanted = tensors[there], (rows, *own.shape[1:])
            if theirs.endswith(found.turned) and value.ndim == 2:
                value = value.T
            if theirs.endswith(found.rows) and value.ndim == 2:
                value = value.reshape(-1)
            if value.shape != wanted:
                shapes.append(f"{there} {tensors[there].shape} for {name} {wanted}")
            parts.append(value.numpy())
        if not missing and not shapes:
            state[name] = parts[0] if len(parts) == 1 else np.concatenate(parts)
    copies = ("lm_head.weight",) if getattr(model.config, "tie_embeddings", False) else ()
    surplus = [name for name in tensors if name not in used and name not in copies]
    for what, names in (
        ("lacks", missing),
        ("has, and this model has not,", surplus),
        ("has of another shape", shapes),
    ):
        if names:
            raise UserError(f"{root}: the model {what} {_some(names)}")
    return state


def _any(parts: tuple[str, ...], name: str) -> bool:
    return any(part in name for part in parts)


def _some(names: list[str]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
