"""Partition: how the ranks of a job share a Tensor, each a run of neighbours along one of its axes.

In: a whole Tensor. Out: this rank's part; and the whole again, of what all ranks have. Called by
modules, optimizers and moving averages, whose states are of the whole whoever asks for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from math import prod

from .creation import cat
from .distributed import world
from .distributed.functional import stacked
from .errors import UserError
from .tensor import Tensor, no_grad

_first_alone: ContextVar[bool] = ContextVar("whole Tensors on the first rank", default=False)


@dataclass(frozen=True)
class Partition:
    """shape: of the whole. axis: the one that is shared. blocks: equal ones that it consists of,
    each of which is shared by itself. Where ranks do not divide it, some have one more."""

    shape: tuple[int, ...]
    axis: int = 0
    blocks: int = 1

    @property
    def length(self) -> int:
        """Of a block."""
        return self.shape[self.axis] // self.blocks

    @property
    def first(self) -> int:
        """Where this rank's part of a block begins."""
        return self._begin(world.current().rank)

    @property
    def count(self) -> int:
        """How much of a block this rank has."""
        return self._begin(world.current().rank + 1) - self.first

    def check(self, what: str) -> Partition:
        """Itself; UserError where there are more ranks than there is to share."""
        size = world.current().size
        if size > self.length:
            raise UserError(
                f"tensor_parallel: {size} ranks cannot share {what} of {self.length}; start fewer"
            )
        return self

    @no_grad()
    def part(self, whole: Tensor) -> Tensor:
        """This rank's part of a Tensor (shape), a copy."""
        mine = self._blocks(whole, self.length)
        return self._joined(self._cut(mine, self.first, self.count).clone(), self.count)

    @no_grad()
    def whole(self, part: Tensor) -> Tensor:
        """The Tensor (shape) of which each rank gives its part. All ranks ask for it together."""
        size = world.current().size
        most = -(-self.length // size)
        mine = self._blocks(part.detach(), self.count)
        if missing := most - self.count:  # the last is taken twice, for all to have as much
            last = self._cut(mine, self.count - 1, 1)
            mine = cat([mine, *[last] * missing], self.axis + 1)
        every = stacked(mine)
        if _first_alone.get() and world.current().rank:
            return part.detach()
        counts = [self._begin(rank + 1) - self._begin(rank) for rank in range(size)]
        found = [self._cut(every[rank], 0, count) for rank, count in enumerate(counts)]
        return self._joined(cat(found, self.axis + 1), self.length)

    def _begin(self, rank: int) -> int:
        return self.length * rank // world.current().size

    def _blocks(self, x: Tensor, count: int) -> Tensor:
        """The axis as two: blocks, and so many of each."""
        return x.reshape(*self.shape[: self.axis], self.blocks, count, *self.shape[self.axis + 1 :])

    def _cut(self, x: Tensor, first: int, count: int) -> Tensor:
        return x[(slice(None),) * (self.axis + 1) + (slice(first, first + count),)]

    def _joined(self, x: Tensor, count: int) -> Tensor:
        shape = list(self.shape)
        shape[self.axis] = self.blocks * count
        return x.reshape(*shape)


class Partitioned(Tensor):
    """The base of Tensors that are a rank's part of a whole."""

    __slots__ = ("partition",)
    partition: Partition


def partition_of(tensor: Tensor) -> Partition | None:
    """How ranks share it; None: each has it whole."""
    return tensor.partition if isinstance(tensor, Partitioned) else None


def partitions_of(owners: Mapping[str, Tensor]) -> dict[str, Partition]:
    """How ranks share what belongs to some Tensors, or is them, by name, where they do."""
    return {name: found for name, t in owners.items() if (found := partition_of(t)) is not None}


def whole_size(tensor: Tensor) -> int:
    """The numbers in it, or in that which it is a part of."""
    found = partition_of(tensor)
    return tensor.numel() if found is None else prod(found.shape)


def whole_state(
    tensors: Mapping[str, Tensor], partitions: Mapping[str, Partition]
) -> dict[str, Tensor]:
    """The values of Tensors now, whole. partitions: of those that are a part."""
    return {
        name: partitions[name].whole(t) if name in partitions else t.detach()
        for name, t in tensors.items()
    }


@contextmanager
def whole_on_first() -> Iterator[None]:
    """Inside, whole Tensors are put together on the first rank alone; the others get their own
    parts, and need no room for more."""
    token = _first_alone.set(True)
    try:
        yield
    finally:
        _first_alone.reset(token)
