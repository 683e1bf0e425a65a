"""The source of random numbers: a key, and one counter of streams for all devices.

Each random call takes the next stream number, whichever device its numbers are for: a model draws
the same masks wherever it is, and after it was moved. Both are 0-d int64 Tensors on the host, so a
compiled step reads and advances them as it does any other state, and draws what the eager step
would draw; a device gets their values with the call that draws, without a wait.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import backends
from .context import guarded, tracing
from .dtypes import int64
from .errors import UserError
from .node import leaf
from .rules import whole
from .state import KEEPERS
from .tensor import Tensor

_HOST = backends.devices()[0]
_GENERATORS: dict[str, Generator] = {}  # one, but for old states: see _Sources
_SEED = int.from_bytes(os.urandom(8), "big") >> 2


class Generator:
    """A counter of random streams: `key` is the seed, `stream` the next stream number."""

    def __init__(self, seed: int, stream: int = 0) -> None:
        with tracing(None):
            self.key, self.stream = _scalar(seed), _scalar(stream)
        KEEPERS.add(self)

    def next(self) -> tuple[Tensor, Tensor]:
        """The key and a stream number that no other call gets."""
        stream = self.stream.detach()
        self.stream.assign(stream + 1)
        return self.key, stream

    def _state(self) -> dict[str, Tensor]:
        return {"key": self.key, "stream": self.stream}


class _Sources:
    """apart: the devices with a counter of their own, which are those of a state from the time
    when each device had one; traced functions are traced again when it changes."""

    apart: tuple[str, ...] = ()


def generator(device: str) -> Generator:
    """The counter that a device's random numbers come from, made on first use."""
    name = device if device in guarded(_Sources, "apart") else _HOST
    found = _GENERATORS.get(name)
    if found is None:
        found = _GENERATORS[name] = Generator(_SEED)
    return found


@dataclass(frozen=True)
class Rows:
    """The rows of a batch that are computed here: `count` of them from number `first` on, of
    `whole` in all."""

    first: int
    count: int
    whole: int


class _Here(threading.local):
    """rows: those that are drawn for, in this thread; None: whatever is drawn is drawn whole."""

    rows: Rows | None = None


_HERE = _Here()


@contextmanager
def drawing_for(rows: Rows | None) -> Iterator[None]:
    """Inside, what is drawn is the part of some rows of what would be drawn for a whole batch: a
    Tensor whose first axis is one of rows (it is a multiple of their number) gets the numbers that
    these rows have in the whole one. So ranks that share a batch drop what one rank would."""
    before = _HERE.rows
    _HERE.rows = None if rows is None or rows.count == rows.whole else rows
    try:
        yield
    finally:
        _HERE.rows = before


def rows_here() -> Rows | None:
    """The rows that are drawn for; None where all are. Traced functions are traced again when it
    changes."""
    found: Rows | None = guarded(_HERE, "rows")
    return found


def manual_seed(seed: int) -> None:
    """Start all random numbers anew from `seed`, an integer of up to 63 bits."""
    global _SEED
    seed = whole("manual_seed: seed", seed)
    if not 0 <= seed < 2**63:
        raise UserError(f"seed {seed} must be between 0 and 2^63 - 1")
    _SEED = seed
    _count_from({_HOST: (seed, 0)})


def get_state() -> dict[str, tuple[int, int]]:
    """(seed, next stream number) of the counter, for a checkpoint, under the host's name."""
    return {name: (g.key.item(), g.stream.item()) for name, g in _GENERATORS.items()}


def set_state(state: dict[str, Any]) -> None:
    """Go on from what get_state() gave. A state of several devices is from a version that counted
    for each of them: they go on counting apart until the next manual_seed()."""
    if len(state) == 1:
        state = {_HOST: next(iter(state.values()))}
    _count_from(state)


def _count_from(state: dict[str, Any]) -> None:
    """Have just these counters, each as it says."""
    _Sources.apart = tuple(sorted(state)) if len(state) > 1 else ()
    for name in _GENERATORS.keys() - state.keys() - {_HOST}:
        del _GENERATORS[name]
    for name, (key, stream) in state.items():
        found = _GENERATORS.get(name)
        if found is None:
            _GENERATORS[name] = Generator(key, stream)
        else:  # the same Tensors, which compiled functions know
            found.key.assign(np.int64(key))
            found.stream.assign(np.int64(stream))


def _scalar(value: int) -> Tensor:
    array = backends.get(_HOST).from_host(np.array(value, np.int64))
    return Tensor(leaf(array, int64, _HOST))
