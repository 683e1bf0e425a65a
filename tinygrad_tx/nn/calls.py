"""Calls: what calling a Module does.

In: whatever `forward` takes. Out: what it gives; the nodes made inside carry the module's path
("Transformer.encoder.layers.0"). The base of Module.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from ..arguments import blame, explain_init
from ..context import scope

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M", bound="Calls")


def scoped(method: Callable[Concatenate[M, P], R]) -> Callable[Concatenate[M, P], R]:
    """A method whose nodes belong to its module, as those of forward do."""

    @wraps(method)
    def run(self: M, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with scope(self._path):
            return method(self, *args, **kwargs)

    return run


def _is_ours(cls: type) -> bool:
    """True if a class is this package's: errors of a user's class are not put into other words."""
    return cls.__module__.startswith(f"{__package__.partition('.')[0]}.")


class Calls:
    """The half of a Module that is called."""

    _path = "Module"  # the class's name, or the parent's path and the attribute's name

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._path = cls.__name__
        if "__init__" in vars(cls) and _is_ours(cls):
            explain_init(cls)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The computation of a call; for a derived class to write, with arguments of its own."""
        kind = type(self).__name__
        raise NotImplementedError(f"{kind} cannot be called: it has no method forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with scope(self._path):
            try:
                return self.forward(*args, **kwargs)
            except Exception as error:
                if _is_ours(type(self)):
                    blame(error, type(self).__name__, self.forward, args, kwargs)
                raise
