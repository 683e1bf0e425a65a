"""ownership: which state a run may write over where it lies.

In: at each run the state's Tensors, nodes and arrays. Out: what is somebody else's too. Called by
run/execution.py. What numpy(), detach(), an eager graph or a second Tensor hold keeps its values,
so they are looked for where they cannot hide: in the numbers of references.
"""

from __future__ import annotations

from sys import getrefcount
from typing import Any

import numpy as np

from ...node import Node
from ...tensor import Tensor


def held_elsewhere(items: list[Any], which: list[int]) -> list[int]:
    """Which of a list's items (by number, of those named) have another holder than this list and
    the one owner that each is known to have."""
    counts = _references(items, which)
    if counts.count(_ALONE) == len(counts):
        return []
    return [i for i, count in zip(which, counts, strict=True) if count != _ALONE]


def may_stay(tensor: Tensor, node: Node, array: Any, requires_grad: bool) -> bool:
    """Whether a state's node can stay what it is, with other values in its array: a leaf of that
    Tensor, over memory that the array itself has allocated. requires_grad: as it is after the
    run."""
    if not node.is_leaf or node.requires_grad != requires_grad:
        return False
    if node.requires_grad and (node.owner is None or node.owner() is not tensor):
        return False
    if not isinstance(array, np.ndarray):  # a constant may be a NumPy scalar
        return False
    return array.flags.owndata and array.flags.carray


def _references(items: list[Any], which: list[int]) -> list[int]:
    """How many references there are to some of a list's items: the list's own among them, and as
    many more as counting takes."""
    chosen = [items[i] for i in which]
    return list(map(getrefcount, chosen))


def _alone() -> int:
    """What _references says of an item that has one owner beside the list: found by the very code
    that is used later, for interpreters count differently."""
    owner = [object()]
    return _references([*owner], [0])[0]


_ALONE = _alone()
