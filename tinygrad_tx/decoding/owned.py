"""Owned: the base of what a model's compiled functions stand in. It is kept in an attribute of the
model: so it lives as long as that does, and plans serve all calls.

In: a model. Out: its own object of a class, made at first use. Used by loop.py and embed.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self
from weakref import ref


def alive(owner: Callable[[], Any]) -> Any:
    """The owner, in a call of its own. Functions hold the reference alone: no cycle."""
    model = owner()
    assert model is not None  # only calls of its own reach this
    return model


class Owned:
    """model(): the owner, which is not kept alive."""

    def __init__(self, model: Any) -> None:
        self.model = ref(model)

    @classmethod
    def of(cls, model: Any) -> Self:
        """The model's own, made at first use."""
        name, attributes = f"_own_{cls.__name__}", vars(model)
        found = attributes.get(name)
        if not isinstance(found, cls) or found.model() is not model:
            found = attributes[name] = cls(model)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()  # a copy of the model makes its own
