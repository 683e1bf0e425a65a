"""keys: hashable keys of Python values.

In: an argument that is no Tensor, an op's attributes, a guarded attribute. Out: a hashable key,
equal for values with which every function does the same. Python's own == is neither fine enough (1,
1.0 and True; 0.0 and -0.0) nor coarse enough (NaN). Called by compiled.py, capture/guards.py and
rewrite/cse.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from ..node import Handle

_PLAIN = frozenset([int, str, bool, bytes, type(None)])  # told apart by == and their type


class Text(str):
    """The key of a value whose text distinguishes it from all others of its type."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class Itself:
    """The key of a Tensor within an argument, by identity: no other Tensor is equivalent, and == of
    Tensors compares their elements."""

    __slots__ = ("value",)

    def __init__(self, value: Handle) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Itself) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)

    def __repr__(self) -> str:
        return f"a Tensor {self.value.node.shape}"


def key(value: Any, unhashable: Callable[[Any], Any] | None = None) -> Any:
    """unhashable: gives the key of what has no hash; TypeError where it is None."""
    kind = type(value)
    if kind in _PLAIN:
        return kind, value
    if isinstance(value, (float, complex, np.generic, Decimal)):
        return kind, Text(repr(value))
    if isinstance(value, (tuple, list)):
        if all(type(item) is int for item in value):  # shapes and orders: nearly all there are
            return (kind, *value)
        return (kind, *[key(item, unhashable) for item in value])
    if isinstance(value, dict):
        return (kind, *[(key(k, unhashable), key(v, unhashable)) for k, v in value.items()])
    if isinstance(value, frozenset):
        return kind, frozenset(key(item, unhashable) for item in value)
    if isinstance(value, (slice, range)):
        return kind, *(key(x, unhashable) for x in (value.start, value.stop, value.step))
    if isinstance(value, Handle):
        return kind, Itself(value)
    try:
        hash(value)
    except TypeError:
        if unhashable is None:
            raise
        return unhashable(value)
    if is_dataclass(kind) and kind.__eq__ is not object.__eq__:
        return (kind, *[key(getattr(value, f.name), unhashable) for f in fields(value)])
    return kind, value


def same(a: Any, b: Any) -> bool:
    """True if a function does the same with both."""
    return a is b or bool(key(a, itself) == key(b, itself))


def itself(value: Any) -> Any:
    """The key of a value that equals nothing else, as long as it lives."""
    return id, id(value)
