"""Where random numbers come from: a key and a stream counter for each device.

Each random call takes the next stream number. Both are 0-d int64 Tensors, so a compiled step
reads and advances them as it does any other state, and draws what the eager step would draw.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from . import backends
from .dtypes import int64
from .errors import UserError
from .node import leaf, tracing
from .tensor import Tensor

_GENERATORS: dict[str, Generator] = {}
_SEED = int.from_bytes(os.urandom(8), "big") >> 2


class Generator:
    """The random state of one device: `key` is the seed, `stream` the next stream number."""

    def __init__(self, device: str, seed: int) -> None:
        with tracing(None):
            self.key = _scalar(seed, device)
            self.stream = _scalar(0, device)

    def next(self) -> tuple[Tensor, Tensor]:
        """The key and a stream number that no other call gets."""
        stream = self.stream.detach()
        self.stream.assign(stream + 1)
        return self.key, stream


def generator(device: str) -> Generator:
    """The device's generator, made on first use."""
    found = _GENERATORS.get(device)
    if found is None:
        found = _GENERATORS[device] = Generator(device, _SEED)
    return found


def manual_seed(seed: int) -> None:
    """Start every device's random numbers anew from `seed`, an integer of up to 63 bits."""
    global _SEED
    if not 0 <= seed < 2**63:
        raise UserError(f"seed {seed} must be between 0 and 2^63 - 1")
    _SEED = seed
    for found in _GENERATORS.values():
        found.key.assign(np.int64(seed))
        found.stream.assign(np.int64(0))


def get_state() -> dict[str, tuple[int, int]]:
    """(seed, next stream number) of each device, for a checkpoint."""
    return {d: (g.key.item(), g.stream.item()) for d, g in _GENERATORS.items()}


def set_state(state: dict[str, Any]) -> None:
    """Go on from what get_state() gave."""
    for device, (key, stream) in state.items():
        found = generator(device)
        found.key.assign(np.int64(key))
        found.stream.assign(np.int64(stream))


def _scalar(value: int, device: str) -> Tensor:
    array = backends.get(device).from_host(np.array(value, np.int64))
    return Tensor(leaf(array, int64, device))
