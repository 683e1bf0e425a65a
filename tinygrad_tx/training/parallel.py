"""The ranks of a run, as the trainer sees them (tx.distributed). In: batches, and what is measured
of a step. Out: this rank's rows, and what all ranks have measured together.

Every rank reads the same batches, takes its share of the rows of each, and adds its part to the
gradient: so the steps of a run do not depend on how many ranks there are. Where they share the
model instead (models/tensor_parallel.py), each takes all rows, and finds what all find. Files are
the first rank's, and what it finds out, the others are told.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from zlib import crc32

import numpy as np

from .. import random
from ..creation import tensor
from ..data.epochs import Epochs
from ..distributed import world
from ..errors import UserError
from ..random import Rows

if TYPE_CHECKING:
    from .checkpoint import Stateful
    from .step import Outcome

T = TypeVar("T")


class Part(NamedTuple):
    """A rank's share of a batch. rows: which those are; None: all."""

    batch: Any
    rows: Rows | None = None


class Ranks:
    """The ranks there are when it is made: one, unless a launcher has started more. one_model: they
    share a model, and not the rows of batches."""

    def __init__(self, one_model: bool = False) -> None:
        self._all = world.current()
        self.one_model = one_model and self._all.size > 1
        self.number, self.size = self._all.rank, self._all.size
        self.first, self.alone = self.number == 0, self.size == 1
        self.stop = False  # whether a rank was asked to, by the last step that was agreed on

    # A step --------------------------------------------------------------------------------------
    def part(self, batches: Epochs[Any, Any], batch: Any) -> Part:
        """This rank's rows of a batch. Where it has fewer rows than there are ranks, some get a row
        in which nothing is asked for: they take part, and add nothing."""
        if self.alone or self.one_model:
            return Part(batch)
        whole = batches.rows_of(batch)
        first = whole * self.number // self.size
        count = whole * (self.number + 1) // self.size - first
        return Part(batches.part(batch, first, count), Rows(first, max(count, 1), whole))

    def agree(self, outcome: Outcome, asked: bool, seconds: float) -> tuple[Outcome, float]:
        """A step's outcome over all ranks, of which each gives its part of the losses; and the
        first rank's seconds. asked: whether this rank was asked to stop."""
        if self.alone:
            self.stop = asked
            return outcome, seconds
        mine = np.array([outcome.loss, outcome.plain, asked, seconds], np.float64)
        every = self._all.all_gather(mine)
        loss, plain = (every[0] if self.one_model else every.sum(0))[:2].tolist()
        self.stop = bool(every[:, 2].any())
        return outcome._replace(loss=loss, plain=plain), float(every[0, 3])

    # What the first rank does --------------------------------------------------------------------
    def first_does(self, work: Callable[[], T]) -> T:
        """What the first rank finds, on all of them, or its error: the others wait for it."""
        if self.alone:
            return work()
        if self.first:
            try:
                found = work()
            except BaseException as error:
                self._all.share((False, _portable(error)))
                raise
            return self._all.share((True, found))[1]
        nothing: Any = None
        told: tuple[bool, Any] = self._all.share((False, nothing))
        fine, got = told
        if not fine:
            raise got
        return got  # type: ignore[no-any-return]

    def first_goes_ahead(self, work: Callable[[], T]) -> T:
        """What each rank finds, the first one before the others, for which it leaves something in
        the cache. An error of the first is all the others'."""
        mine: list[T] = []
        self.first_does(lambda: mine.append(work()))
        return mine[0] if mine else work()

    def note(self, saved: str) -> None:
        """What is said beside when a rank dies."""
        world.note(saved)

    # Being alike ---------------------------------------------------------------------------------
    def require_same(self, what: str, *found: object) -> None:
        """UserError on all ranks where one has read something else than the first."""
        mine = np.array([crc32(repr(found).encode())], np.int64)
        every = self._all.all_gather(mine)[:, 0]
        other = np.flatnonzero(every != every[0])
        if len(other):
            raise UserError(
                f"rank {other[0]} has read other {what} than rank 0: all ranks need the same "
                "files, by the same paths"
            )

    def begin_alike(self, parts: Mapping[str, Stateful], batches: Epochs[Any, Any]) -> None:
        """Every rank of a new run gets the first one's weights and all else, random numbers
        included, to the bit."""
        if self.alone:
            return
        position, numbers = self._all.share((batches.state(), random.get_state()))
        batches.restore(position)
        random.set_state(numbers)
        for part in parts.values():
            own = {name: t.numpy() for name, t in part.state_dict().items()}
            wanted = self._all.share([(n, a.shape, a.dtype.str) for n, a in own.items()])
            given = {}
            for name, shape, dtype in wanted:
                array = own[name] if self.first else np.empty(shape, dtype)
                given[name] = tensor(self._all.broadcast(array))
            if not self.first:
                part.load_state_dict(given)


def _portable(error: BaseException) -> BaseException:
    """The error as other ranks can have it."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return UserError(f"{type(error).__name__}: {error}")
    return error
