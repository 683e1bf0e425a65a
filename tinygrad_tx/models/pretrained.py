"""From a Hugging Face directory to a model and its tokenizer, and back.

In: a directory with config.json and model.safetensors, perhaps in several files, and perhaps a
tokenizer. Out: a model of ours; or such a directory, which transformers reads. Called by users and
by the commands. What an architecture's settings and weights are called there is in formats/.

Nothing is unpickled: a directory that has its weights in a .bin alone is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import atomic, serialize
from ..dtypes import as_dtype
from ..errors import UserError
from ..nn.adapters import LoRALinear
from ..tensor import Tensor
from ..tokenizer import Tokenizer
from .formats import FORMATS, Format, Settings
from .pretrained_tokenizer import PretrainedTokenizer

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
TOKENIZER_CONFIG, GENERATION = "tokenizer_config.json", "generation_config.json"
# What a setting of the wrong kind ends in, whichever it is: a text for a number, a number for a
# mapping.
_WRONG = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError)
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
    if (root / GENERATION).exists():  # transformers ends texts by what this says
        ends = _object(root / GENERATION).get("eos_token_id")
        given |= {} if ends is None else {"eos_token_id": ends}
    kind = given.get("model_type")
    if not isinstance(kind, str) or kind not in FORMATS:
        known = ", ".join(FORMATS)
        raise UserError(f"{root / CONFIG}: model_type is {kind!r}; those that there are: {known}")
    if given.get("quantization_config"):
        raise UserError(
            f"{root / CONFIG}: quantization_config is set, and no weights here are quantized"
        )
    found = FORMATS[kind]
    tensors = dict(_tensors(root, found))
    try:
        config = found.read(Settings(given, tensors))
    except UserError as error:
        raise UserError(f"{root}: {error}") from None
    except _WRONG as error:
        said = " ".join(str(error).split())
        raise UserError(f"{root / CONFIG} has a setting of the wrong kind: {said}") from None
    config = _untied(root, found, config, tensors)
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
    if root.exists() and not root.is_dir():
        raise UserError(f"save_pretrained: {root} is a file; a model is written as a directory")
    settings = found.write(model.config)
    state = {}
    for name, value in _plain_state(model).items():
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
    if tokenizer is None:
        return
    mask = getattr(model.config, "mask_id", None)
    if isinstance(tokenizer, Tokenizer) and mask is not None:  # its model has one token more
        tokenizer = tokenizer.masked(mask)
    tokenizer.save(root / "tokenizer.json")
    if (root / "tokenizer.json").exists():
        _write_json(root / TOKENIZER_CONFIG, _tokenizer_settings(model.config, tokenizer))


def _plain_state(model: Any) -> dict[str, Tensor]:
    """What a model has learnt, adapters in its weights. UserError where they are beside them."""
    adapted = {n: m for n, m in model.named_modules() if isinstance(m, LoRALinear)}
    if any(not module.merged for module in adapted.values()):
        raise UserError("save_pretrained: the model has adapters beside its weights; merge() them")
    spare = {f"{name}.{part}" for name in adapted for part in ("lora_a", "lora_b")}
    return {name: value for name, value in model.state_dict().items() if name not in spare}


def _tokenizer_settings(config: Any, tokenizer: Any) -> dict[str, Any]:
    """What transformers must know of a tokenizer.json: which of its tokens have which part."""
    names = {"pad_token": "pad_id", "bos_token": "bos_id", "eos_token": "eos_id"}
    ids = {token: getattr(config, name, None) for token, name in names.items()}
    ids["mask_token"] = tokenizer.mask_id
    found = {
        token: tokenizer.tokens([i])[0]
        for token, i in ids.items()
        if i is not None and i < config.vocab_size
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
        yield from ((_renamed(name), value) for name, value in tensors.items())
        missing = [name for name in names if name not in tensors and not _any(found.spare, name)]
        if missing:
            raise UserError(f"{file} lacks {_some(missing)}, which {root / INDEX} says it has")


def _renamed(name: str) -> str:
    """The name that a tensor has had since layer norms have a weight and a bias."""
    for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _untied(root: Path, found: Format, config: Any, tensors: dict[str, Tensor]) -> Any:
    """A configuration whose output has a matrix of its own where the file has one that is no copy;
    copies are taken from the tensors. UserError where a model cannot have it."""
    for copy, original in found.copies.items():
        name = next((x for x in (copy, found.prefix + copy) if x in tensors), None)
        of = next((x for x in (original, found.prefix + original) if x in tensors), None)
        head = copy == "lm_head.weight"
        if name is None or of is None or (head and not getattr(config, "tie_embeddings", True)):
            continue
        if np.array_equal(tensors[name].numpy(), tensors[of].numpy()):
            del tensors[name]
        elif found.unties and head:
            config = replace(config, tie_embeddings=False)
        else:
            kind = found.model.__name__
            raise UserError(f"{root}: {name} is not {of}, and a {kind} has one matrix for both")
    return config


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
            named = _object(root / CONFIG).get("architectures") or ["AutoModel"]
            kind = str(named[0])  # with its head, which AutoModel leaves out
            raise UserError(
                f"{root} has its weights in {name}, a pickle, which may run any code and is not "
                f'read. Where you trust it, convert it: python -c "from transformers import {kind}'
                f"; {kind}.from_pretrained('{root}').save_pretrained('{root}')\""
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
    surplus = [name for name in tensors if name not in used]
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
