"""Arguments of the wrong kind: one line that names the function and the argument.

In: a function that has failed, and what it was given. Out: a TypeError where an argument is none of
what its annotation says. Nothing is looked at before a function fails, so calls that are right cost
nothing, and whatever works goes on working. Called around the public functions and by modules.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import wraps
from numbers import Real
from operator import index
from types import FunctionType
from typing import Any, TypeVar, cast

import numpy as np

from .errors import brief

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type)


def explained(function: F, name: str = "") -> F:
    """The function; where it fails for an argument of the wrong kind, the TypeError says which."""

    @wraps(function)
    def run(*args: Any, **named: Any) -> Any:
        try:
            return function(*args, **named)
        except Exception as error:
            blame(error, name or function.__name__, function, args, named)
            raise

    return cast(F, run)


def explain_functions(namespace: dict[str, Any]) -> None:
    """Every public function that a file defines, explained: called at its end with globals()."""
    for name, value in list(namespace.items()):
        own = isinstance(value, FunctionType) and value.__module__ == namespace["__name__"]
        if own and not name.startswith("_"):
            namespace[name] = explained(value)


def explain_init(cls: C) -> C:
    """A class whose constructor is explained, by the name of the class."""
    cls.__init__ = explained(cls.__init__, cls.__name__)  # type: ignore[misc]
    return cls


def blame(
    error: Exception,
    name: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    named: Mapping[str, Any],
) -> None:
    """Raise a TypeError in the place of an error of function(*args, **named) that an argument of
    the wrong kind explains. An error of our own that is one line says it already."""
    ours = type(error).__module__ == f"{__package__}.errors" or str(error).startswith(f"{name}:")
    if isinstance(error, RuntimeError) or (ours and "\n" not in str(error)):
        return
    try:
        given = inspect.signature(function).bind(*args, **named).arguments
    except TypeError:  # too many, or too few: Python names the function
        return
    annotations = getattr(function, "__annotations__", {})
    for parameter, value in given.items():
        annotation = annotations.get(parameter, "Any")
        if isinstance(annotation, str) and not _fits(value, annotation):
            wanted = _wanted(annotation)
            wrap = "Tensor" in _atoms(annotation) and isinstance(value, (list, np.ndarray, Real))
            hint = ": wrap it in tx.tensor(...)" if wrap else ""
            raise TypeError(
                f"{name}: {parameter} must be {wanted}, not {shown(value)}{hint}"
            ) from None
    if ours:  # it shows an argument of several lines
        raise type(error)(" ".join(str(error).split())) from None


def check_fields(record: Any) -> None:
    """TypeError where a field of a dataclass is none of what its annotation says."""
    for field in fields(record):
        value, annotation = getattr(record, field.name), field.type
        if isinstance(annotation, str) and not _fits(value, annotation):
            name = f"{type(record).__name__}: {field.name}"
            raise TypeError(f"{name} must be {_wanted(annotation)}, not {shown(value)}")


def _wanted(annotation: str) -> str:
    return " or ".join(_KINDS[a][0] for a in _atoms(annotation))


def _atoms(annotation: str) -> list[str]:
    return [part.strip() for part in annotation.split("|")]


def _fits(value: Any, annotation: str) -> bool:
    """True if value is of one of the kinds, or if one of them is not known here."""
    atoms = _atoms(annotation)
    return any(atom not in _KINDS or _KINDS[atom][1](value) for atom in atoms)


def shown(value: Any) -> str:
    """A wrong argument as messages name it, which are one line: its kind, or what it is if that is
    short."""
    if value is None or isinstance(value, (bool, int, float, str)):
        said = brief(value)
        return said if len(said) < 50 else f"{said[:47]}..."
    if isinstance(value, tuple) and all(isinstance(x, (bool, int, float)) for x in value[:9]):
        return repr(value) if len(value) < 9 else f"a tuple of {len(value)}"
    shape = getattr(value, "shape", None)
    return f"a {type(value).__name__}{f' {shape}' if isinstance(shape, tuple) else ''}"


def _named(name: str) -> Callable[[Any], bool]:
    return lambda value: any(c.__name__ == name for c in type(value).__mro__)


def _whole(value: Any) -> bool:
    try:
        index(value)
    except TypeError:
        return False
    return not isinstance(value, (bool, np.bool_))


def _real(value: Any) -> bool:
    return isinstance(value, (Real, np.number)) and not isinstance(value, (bool, np.bool_))


def _ints(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_whole, value))


def _tensors(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_named("Tensor"), value))


_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "Tensor": ("a Tensor", _named("Tensor")),
    "TransformerConfig": ("a TransformerConfig", _named("TransformerConfig")),
    "ConvS2SConfig": ("a ConvS2SConfig", _named("ConvS2SConfig")),
    "Seq2SeqConfig": ("a Seq2SeqConfig", _named("Seq2SeqConfig")),
    "GPTConfig": ("a GPTConfig", _named("GPTConfig")),
    "AutoencoderConfig": ("an AutoencoderConfig", _named("AutoencoderConfig")),
    "ConvAutoencoderConfig": ("a ConvAutoencoderConfig", _named("ConvAutoencoderConfig")),
    "VariationalAutoencoderConfig": (
        "a VariationalAutoencoderConfig",
        _named("VariationalAutoencoderConfig"),
    ),
    "int": ("an int", _whole),
    "float": ("a number", _real),
    "bool": ("a bool", lambda value: isinstance(value, (bool, np.bool_))),
    "str": ("a str", lambda value: isinstance(value, str)),
    "None": ("None", lambda value: value is None),
    "Sequence[Tensor]": ("a list of Tensors", _tensors),
    "Sequence[int]": ("a sequence of ints", _ints),
    "tuple[int, ...]": ("a tuple of ints", _ints),
}
