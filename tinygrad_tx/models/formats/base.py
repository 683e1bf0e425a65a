"""Format: what config.json and the names of weights are for one architecture; and what the files of
this folder need for reading and writing them.

In: the settings of a config.json. Out: these settings one by one, or an error that names one which
a model depends on and this library does not know. Used by the other files.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from ...errors import UserError

# Names of activations there, and here.
ACTIVATIONS = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
}


class Settings:
    """The settings of a config.json, which are asked for one by one."""

    def __init__(self, given: Mapping[str, Any], names: Container[str]) -> None:
        """names: of the tensors, for what a configuration does not say."""
        self.given, self.names = given, names

    def get(self, name: str, default: Any = None) -> Any:
        """A setting; its default where it is missing or null."""
        value = self.given.get(name)
        return default if value is None else value

    def need(self, name: str) -> Any:
        """A setting that must be there."""
        if self.given.get(name) is None:
            raise UserError(f"config.json has no {name}")
        return self.given[name]

    def only(self, name: str, *known: Any) -> None:
        """UserError where a setting is there and is none of the values that we know."""
        value = self.given.get(name)
        if value is not None and value not in known:
            of = " or ".join(map(repr, known))
            raise UserError(f"config.json: {name} is {value!r}, and this library knows {of} alone")

    def activation(self, name: str, default: str) -> str:
        """The name here of an activation."""
        return self.known(name, self.get(name, default))

    def known(self, name: str, value: str) -> str:
        """The name here of an activation that a setting speaks of."""
        if value not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise UserError(f"config.json: {name} is {value!r}; those that there are: {known}")
        return ACTIVATIONS[value]

    def tokens(self, name: str) -> list[int]:
        """The ids of a special token, of which there may be several; those that are no tokens of
        the vocabulary, as defaults for another one may be, are none."""
        value = self.given.get(name)
        found = value if isinstance(value, list) else [value]
        size = self.need("vocab_size")
        return [
            i for i in found if isinstance(i, int) and not isinstance(i, bool) and 0 <= i < size
        ]

    def token(self, name: str) -> int | None:
        """The id of a special token. UserError where there are several."""
        found = self.tokens(name)
        if len(found) > 1:
            raise UserError(f"config.json: {name} is {found}, and this model has one")
        return found[0] if found else None


class Joined(NamedTuple):
    """Several weights of theirs that are one of ours: their rows lie one after another."""

    names: tuple[str, ...]
    sizes: Callable[[Any], tuple[int, ...]]  # of a configuration: how many rows each has


class Format(NamedTuple):
    """An architecture. names: those of weights, ours to theirs; # stands for the number of a layer
    and * for what follows. turned: ends of the names there of matrices that are (in, out), rows: of
    vectors that are (1, n). prefix: of theirs, which a model without a head lacks. spare: parts of
    the names of tensors that are computed, or of heads that are no part of a model here. copies:
    names of tensors that are others once more, those without a prefix; unties: a head that is no
    copy is a matrix of its own."""

    model: type[Any]
    config: type[Any]
    read: Callable[[Settings], Any]
    write: Callable[[Any], dict[str, Any]]
    names: Mapping[str, str | Joined]
    prefix: str
    heads: tuple[str, ...] = ()  # beginnings of names that never have the prefix
    turned: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    spare: tuple[str, ...] = ()
    copies: Mapping[str, str] = MappingProxyType({})
    unties: bool = False

    def theirs(self, ours: str, rows: int, config: Any) -> list[tuple[str, int]]:
        """The names there, with their prefix, of a weight of ours that has so many rows; and how
        many of them each has."""
        for pattern, name in self.names.items():
            joined = name if isinstance(name, Joined) else Joined((name,), lambda _: (rows,))
            found = [x for each in joined.names if (x := _fill(pattern, each, ours)) is not None]
            if found:
                names = [x if x.startswith(self.heads) else self.prefix + x for x in found]
                return list(zip(names, joined.sizes(config), strict=True))
        raise AssertionError(f"{ours} has no name there")


def _fill(pattern: str, name: str, ours: str) -> str | None:
    """The name there for one of ours that a pattern fits."""
    parts, given = pattern.split("."), ours.split(".")
    number = ""
    for i, part in enumerate(parts):
        if part == "*":
            return name.replace("#", number).replace("*", ".".join(given[i:]))
        if i >= len(given) or part not in ("#", given[i]):
            return None
        if part == "#":
            number = given[i]
    return name.replace("#", number) if len(given) == len(parts) else None


def plain(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """What is to be written, without what is None."""
    return {name: value for name, value in pairs if value is not None}


def activation(name: str, preferred: str = "") -> str:
    """The name there of an activation."""
    found = [there for there, here in ACTIVATIONS.items() if here == name]
    if not found:
        raise UserError(f"activation {name!r} has no name in config.json; it has {ACTIVATIONS}")
    return preferred if preferred in found else found[0]
