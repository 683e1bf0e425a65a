"""Nested containers (list, tuple, named tuple, dict) of anything: taken apart and put together.

Used by autograd for arguments, and by the compiler for arguments and results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any


def map_leaves(f: Callable[[Any], Any], tree: Any) -> Any:
    """The same structure with f applied to everything in it that is no container."""
    if isinstance(tree, dict):
        return type(tree)((k, map_leaves(f, v)) for k, v in tree.items())
    if isinstance(tree, tuple) and type(tree) is not tuple:  # a named tuple
        return type(tree)(*(map_leaves(f, v) for v in tree))
    if isinstance(tree, (list, tuple)):
        return type(tree)(map_leaves(f, v) for v in tree)
    return f(tree)


def replace_leaves(tree: Any, values: Iterable[Any]) -> Any:
    """The same structure holding other leaves, in order."""
    rest = iter(values)
    return map_leaves(lambda _: next(rest), tree)


def leaves(tree: Any) -> Iterator[Any]:
    """Everything in the tree that is no container, in order."""
    if isinstance(tree, dict):
        for value in tree.values():
            yield from leaves(value)
    elif isinstance(tree, (list, tuple)):
        for value in tree:
            yield from leaves(value)
    else:
        yield tree
