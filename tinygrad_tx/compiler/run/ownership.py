"""ownership: the state that a run may overwrite in place.

In: at each run the state's Tensors, nodes and arrays. Out: those that have another holder. Called
by run/execution.py. State may be overwritten in place only if nobody else holds its array. Every
other holder (numpy(), detach(), an eager graph, a second Tensor) owns a reference, so we compare
getrefcount() with that of an unshared object.
"""

from __future__ import annotations

from sys import getrefcount
from typing import Any

from ...node import Node
from ...tensor import Tensor


def held_elsewhere(items: list[Any], which: list[int]) -> list[int]:
    """The items of a list (by number, of those named) that have another holder than this list and
    the one owner that each is known to have."""
    counts = _references(items, which)
    if counts.count(_ALONE) == len(counts):
        return []
    return [i for i, count in zip(which, counts, strict=True) if count != _ALONE]


def may_stay(tensor: Tensor, node: Node, requires_grad: bool) -> bool:
    """True if a state's node can be kept, with new values in its array: a leaf of that Tensor.
    requires_grad: as it is after the run."""
    if not node.is_leaf or node.requires_grad != requires_grad:
        return False
    return not node.requires_grad or (node.owner is not None and node.owner() is tensor)


def _references(items: list[Any], which: list[int]) -> list[int]:
    """The reference counts of some of a list's items, with the list's own reference and those that
    counting takes."""
    chosen = [items[i] for i in which]
    return list(map(getrefcount, chosen))


def _alone() -> int:
    """The reference count of an item with one owner beside the list, measured by the very code that
    is used later, because interpreters count differently."""
    owner = [object()]
    return _references([*owner], [0])[0]


_ALONE = _alone()
