"""callables: checks of what tx.compile takes and of what a compiled function returns.

In: whatever was handed to tx.compile, and what a traced function has returned. Out: nothing, or an
error of one line. Called by compiled.py and capture/trace.py.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import suppress
from typing import Any

from ...errors import TraceError
from ...tensor import Tensor

_LATER = (  # what runs after the call that made it has returned, and so after the trace
    (inspect.isasyncgenfunction, "an async generator function", "yields its values"),
    (inspect.iscoroutinefunction, "an async function", "is awaited"),
    (inspect.isgeneratorfunction, "a generator function", "yields its values"),
)
_DESCRIPTORS = (staticmethod, classmethod, property)


def check_callable(f: Any) -> None:
    """TypeError where f is nothing that a trace can record."""
    if isinstance(f, _DESCRIPTORS):
        name = type(f).__name__
        raise TypeError(f"tx.compile: a {name} is no function yet: write @{name} above @tx.compile")
    if isinstance(f, type):
        raise TypeError(
            f"tx.compile: {f.__name__} is a class, and calling it makes an object: compile the "
            f"object, as tx.compile({f.__name__}(...)), or one of its methods"
        )
    if isinstance(f, Tensor):
        raise TypeError(
            "tx.compile takes a function, not a Tensor: compile first and call then, as "
            "tx.compile(f)(x)"
        )
    if not callable(f):
        raise TypeError(
            f"tx.compile takes a function of Tensors or a Module, not {type(f).__name__}"
        )
    inner = f
    while isinstance(inner, functools.partial):
        inner = inner.func
    if not inspect.isroutine(inner):  # an object: what runs is in its class
        inner = getattr(type(inner), "forward", None) or type(inner).__call__
    for is_so, what, why in _LATER:
        if is_so(inner):
            raise TypeError(
                f"tx.compile: {name_of(f)} is {what}: it {why} after the call, when the trace is "
                "over: compile a function that returns what it computes, and call that in it"
            )


def check_returned(name: str, value: Any) -> None:
    """TraceError for a returned leaf that would compute something later, or but once."""
    if isinstance(value, (Iterator, AsyncIterator, Awaitable)):
        kind = type(value).__name__
        if inspect.iscoroutine(value):
            value.close()  # else Python warns that nobody has awaited it
        raise TraceError(
            f"{name}: a compiled function returned a {kind}, which computes its values when the "
            "trace is over, and only once: return a list or tuple of Tensors"
        )


def name_of(f: Any) -> str:
    """The name of a function in messages."""
    while isinstance(f, functools.partial):
        f = f.func
    return str(getattr(f, "__qualname__", None) or type(f).__qualname__)


def argument_names(f: Any, args: Any, kwargs: Any) -> tuple[str, ...]:
    """What each leaf of a call's arguments is called by f's signature: "src", "batch[0]"."""
    try:
        parameters = [*inspect.signature(getattr(f, "forward", f)).parameters.values()]
    except (TypeError, ValueError):  # functions in C may have none
        parameters = []
    names: list[str] = []
    for i, arg in enumerate(args):
        rest = next((k for k, p in enumerate(parameters) if p.kind is p.VAR_POSITIONAL), None)
        if rest is not None and i >= rest:
            name = f"{parameters[rest].name}[{i - rest}]"
        else:
            name = parameters[i].name if i < len(parameters) else f"argument {i}"
        names += _paths(name, arg)
    for name, arg in kwargs.items():
        names += _paths(name, arg)
    return tuple(names)


def variables(f: Any) -> dict[int, str]:
    """The variables by which a function reaches Tensors, by the ids of the Tensors."""
    while isinstance(f, functools.partial):
        f = f.func
    f = getattr(f, "__func__", f)
    code = getattr(f, "__code__", None)
    if code is None:
        return {}
    found = {name: f.__globals__.get(name) for name in code.co_names}
    for name, cell in zip(code.co_freevars, f.__closure__ or (), strict=True):
        with suppress(ValueError):  # a variable that is not set yet
            found[name] = cell.cell_contents
    return {id(value): name for name, value in found.items() if isinstance(value, Tensor)}


def _paths(name: str, nest: Any) -> Iterator[str]:
    """The leaves of a nest as one would write them, in the order of tree.leaves."""
    if isinstance(nest, dict):
        for key, value in nest.items():
            yield from _paths(f"{name}[{key!r}]", value)
    elif isinstance(nest, (list, tuple)):
        fields = getattr(nest, "_fields", None)
        for i, value in enumerate(nest):
            yield from _paths(f"{name}.{fields[i]}" if fields else f"{name}[{i}]", value)
    else:
        yield name
