"""Packed weights that are kept: a decoding step reads the same ones every time.

In: a plan's packings of inputs that the plan does not change. Out: addresses of the packed copies,
made where there is none yet. Called by run/execution.py before each run.

A copy belongs to a node, goes with it, and serves every plan that reads it in the same layout. It
holds the node's array: so nobody is the array's sole owner, and no plan writes over it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ...backends.kernels.arguments import Place, words
from ...node import Node
from ..schedule.records import Buffer, Call, Launch

Words = np.ndarray[Any, np.dtype[np.int64]]
_COPIES: WeakKeyDictionary[Node, dict[Any, np.ndarray[Any, Any]]] = WeakKeyDictionary()


class Packs:
    """The kept packings of one plan. prepare: makes of waves what runs them on given addresses."""

    def __init__(
        self,
        calls: Sequence[Call],
        numbers: Mapping[Buffer, int],
        prepare: Callable[[list[list[Launch]]], Callable[[Words], Any]],
    ) -> None:
        self._numbers = numbers
        self._packs = [
            (
                _layout(call),
                call.reads[0].buffer,
                call.writes[0].buffer,
                prepare([[Launch((call,))]]),
            )
            for call in calls
        ]

    def bind(self, bases: Words, node: Callable[[Buffer], Node]) -> None:
        """Put the copies' addresses into the table. node: of the Tensor that an input is now."""
        for layout, source, target, run in self._packs:
            packed = node(source)
            copies = _COPIES.setdefault(packed, {"of": packed.array})
            array = copies.get(layout)
            if array is None:
                array = copies[layout] = np.empty(target.size, target.dtype)
                bases[self._numbers[target]] = array.ctypes.data
                run(bases)
            bases[self._numbers[target]] = array.ctypes.data


def _layout(call: Call) -> Any:
    """The key that distinguishes two packed copies of one array."""
    numbers = (x.offset if isinstance(x, Place) else x for x in words(call.args))
    return call.kernel, tuple(numbers)
