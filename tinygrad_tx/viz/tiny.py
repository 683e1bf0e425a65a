"""A tiny copy of a model: the same classes and settings, small sizes, weights of its own.

In: a model that was made from a configuration. Out: such a copy, with dropout 0; the model itself
where there can be none, or where it would have other parts. Called by leaks.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from .. import nn

# The most of each setting. What must be a multiple of another one still is.
_SIZES = {
    **dict.fromkeys(("d_model", "n_embd"), 8),
    **dict.fromkeys(("n_heads", "n_head"), 2),
    **dict.fromkeys(("d_ff", "vocab_size", "max_len", "block_size"), 16),
    **dict.fromkeys(("n_layers", "n_layer", "n_encoder_layers", "n_decoder_layers"), 2),
    **dict.fromkeys(("d_kv", "head_dim", "n_buckets"), 4),
    "max_distance": 8,
    "type_vocab_size": 2,
}
_SPECIALS = ("pad_id", "bos_id", "eos_id", "mask_id")
_FLAGS = (bool, str, type(None))
_MODES = ("training", "_training", "_path")  # of a module, not of its making


def tiny(model: nn.Module) -> nn.Module:
    """The copy, or the model."""
    config = getattr(model, "config", None)
    if not is_dataclass(config) or isinstance(config, type):
        return model
    try:
        copy = type(model)(replace(config, **shrunk(config)))  # type: ignore[call-arg]
    except Exception:  # a class of a user's that is made in another way
        return model
    return copy if _alike(model, copy) else model


def shrunk(config: Any) -> dict[str, Any]:
    """The settings of a configuration that a tiny one has otherwise."""
    given = {field.name: getattr(config, field.name) for field in fields(config) if field.init}
    found: dict[str, Any] = {
        name: min(_SIZES[name], value)
        for name, value in given.items()
        if name in _SIZES and isinstance(value, int)
    }
    heads = next((found[name] for name in ("n_heads", "n_head") if name in found), 1)
    for name in ("d_model", "n_embd"):
        if name in found:
            found[name] = 4 * heads
    if isinstance(given.get("n_kv_heads"), int):
        found["n_kv_heads"] = heads if given["n_kv_heads"] == given["n_heads"] else 1
    if isinstance(given.get("src_vocab_size"), int):
        same = given["src_vocab_size"] == given["vocab_size"]
        found["src_vocab_size"] = found["vocab_size"] if same else found["vocab_size"] + 1
    ids: dict[int, int] = {}  # tokens that are the same stay so
    for name in _SPECIALS:
        if isinstance(given.get(name), int):
            found[name] = ids.setdefault(given[name], len(ids))
    if "more_eos_ids" in given:
        found["more_eos_ids"] = ()
    found |= {name: 0.0 for name, value in given.items() if "dropout" in name and value}
    return found


def _alike(model: nn.Module, copy: nn.Module) -> bool:
    """True if each part of a model is, in all that is no number, like its counterpart; layers
    beyond those of the copy are compared with its last one."""
    parts = dict(copy.named_modules())
    for name, module in model.named_modules():
        other = parts.get(name) or parts.get(_counterpart(name, parts))
        if type(other) is not type(module) or _flags(module) != _flags(other):
            return False
    return True


def _counterpart(name: str, parts: Mapping[str, nn.Module]) -> str:
    """A name whose numbers are those of the last layers where there are fewer."""
    found = ""
    for part in name.split("."):
        while part.isdecimal() and int(part) and f"{found}{part}" not in parts:
            part = str(int(part) - 1)
        found += f"{part}."
    return found[:-1]


def _flags(module: nn.Module) -> dict[str, Any]:
    """What a module has of settings that are no sizes, and what it has in the place of methods."""

    def entries() -> Iterator[tuple[str, Any]]:
        for name, value in vars(module).items():
            if name in _MODES or isinstance(value, nn.Module):
                continue
            if isinstance(value, _FLAGS) or callable(value):
                yield name, value
            elif name.startswith("_forward"):  # hooks
                yield name, bool(value)

    return dict(entries())
