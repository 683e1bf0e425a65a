"""Communicator: what ranks compute together. In: an engine, and arrays that every rank gives. Out:
their sums, or all of them. Called by ops/collective.py, api.py and the trainer.

Sums go by rank: 0 + 1 + 2 + ..., in float32 where arrays have 16 bits. So every rank has the same
bits, and every run. Work is done by one thread in the order in which it was begun, which is the
same on all ranks; whoever begins it may wait at once or later.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from queue import SimpleQueue
from threading import Thread
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from .engine import Array, Engine

if TYPE_CHECKING:
    from concurrent.futures import Future

T = TypeVar("T")

SMALL = 16_384  # bytes that every rank rather has of all than adds a part of
_KEPT = 4096  # spans of work that are remembered, for a timeline
HOWS = ("sum", "avg", "product", "min", "max")


class Span(NamedTuple):
    """Work that was done: its name, the bytes of this rank, when it began and ended, as
    time.perf_counter() has it."""

    name: str
    bytes: int
    begin: float
    end: float


class Communicator:
    """The ranks of a job, as each of them sees the others."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.rank, self.size = engine, engine.rank, engine.size
        self.spans: deque[Span] = deque(maxlen=_KEPT)
        self._xp = engine.arrays
        self._begins: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._begun: dict[int, tuple[Future[Array], list[tuple[int, ...]]]] = {}
        self._tickets = count(1)

    # Whole calls ---------------------------------------------------------------------------------
    def all_reduce(self, x: Array, how: str = "sum") -> Array:
        """The sum over all ranks (or what else HOWS has), of x's shape and dtype."""
        return self._do("all_reduce", x, lambda: self._reduced(x, how))

    def all_gather(self, x: Array) -> Array:
        """(size, *shape): that of each rank."""
        return self._do("all_gather", x, lambda: self._gathered(x))

    def reduce_scatter(self, x: Array, how: str = "sum") -> Array:
        """(size, *shape) -> shape: the sum over all ranks of what they have at this rank's
        place."""

        def work() -> Array:
            flat = self._flat(x).reshape(self.size, -1)
            return self._combined(self.engine.exchange(flat), how).reshape(x.shape[1:])

        return self._do("reduce_scatter", x, work)

    def broadcast(self, x: Array, source: int = 0) -> Array:
        """That of rank `source`; all give an array of its shape and dtype."""

        def work() -> Array:
            return self.engine.broadcast(self._flat(x), source).reshape(x.shape)

        return self._do("broadcast", x, work)

    def reduce(self, x: Array, target: int = 0) -> Array:
        """The sum over all ranks, at rank `target`; zeros elsewhere."""

        def work() -> Array:
            found = self._reduced(x, "sum")
            return found if self.rank == target else self._xp.zeros_like(found)

        return self._do("reduce", x, work)

    def barrier(self) -> None:
        """Return when all ranks have come here."""
        self._do("barrier", None, self.engine.barrier)

    def share(self, found: T, source: int = 0) -> T:
        """Any object of rank `source` that can be pickled."""
        if self.size == 1:
            return found
        text = np.frombuffer(pickle.dumps(found) if self.rank == source else b"", np.uint8)
        length = int(self.broadcast(np.array([len(text)], np.int64), source)[0])
        room = text if self.rank == source else np.empty(length, np.uint8)
        got: T = pickle.loads(self.broadcast(room, source).tobytes())
        return got

    # In the background ---------------------------------------------------------------------------
    def start_all_reduce(self, arrays: Sequence[Array], how: str = "sum") -> int:
        """Begin to reduce arrays of one dtype, which may be changed at once; a ticket for
        finish_reduce()."""
        flat = self._xp.concatenate([x.reshape(-1) for x in arrays])
        future = self._submit("all_reduce", flat.nbytes, lambda: self._reduced(flat, how))
        return self._ticket(future, [x.shape for x in arrays])

    def start_reduce_scatter(self, arrays: Sequence[Array], how: str = "sum") -> int:
        """As start_all_reduce, of arrays (size, *shape): each rank gets the sums of its place."""
        rows = self._xp.concatenate([x.reshape(self.size, -1) for x in arrays], axis=1)
        future = self._submit(
            "reduce_scatter", rows.nbytes, lambda: self._combined(self.engine.exchange(rows), how)
        )
        return self._ticket(future, [x.shape[1:] for x in arrays])

    def _ticket(self, future: Future[Array], shapes: list[tuple[int, ...]]) -> int:
        ticket = next(self._tickets)
        self._begun[ticket] = future, shapes
        return ticket

    def finish_reduce(self, ticket: int) -> list[Array]:
        """The arrays of a ticket, reduced; waits until they are."""
        future, shapes = self._begun.pop(ticket)
        flat, found, at = future.result(), [], 0
        for shape in shapes:
            n = int(np.prod(shape, dtype=np.int64))
            found.append(flat[at : at + n].reshape(shape))
            at += n
        return found

    def close(self) -> None:
        """Nothing more comes."""
        if self._thread is not None:
            self._begins.put(None)
            self._thread.join()
            self._thread = None
        self.engine.close()

    # Inside --------------------------------------------------------------------------------------
    def _do(self, name: str, x: Array, work: Callable[[], T]) -> T:
        if self.size == 1:
            return work()
        return self._submit(name, 0 if x is None else x.nbytes, work).result()

    def _submit(self, name: str, n_bytes: int, work: Callable[[], T]) -> Future[T]:
        from concurrent.futures import Future

        future: Future[T] = Future()

        def noted() -> None:
            begin = perf_counter()
            try:
                found = work()
            except BaseException as error:
                future.set_exception(error)
                return
            self.spans.append(Span(name, n_bytes, begin, perf_counter()))
            future.set_result(found)

        self._begins.put(noted)
        if self._thread is None:
            # A daemon: who ends while others do not come to a call would wait for it for ever.
            self._thread = Thread(target=self._work, name="communication", daemon=True)
            self._thread.start()
        return future

    def _work(self) -> None:
        while (work := self._begins.get()) is not None:
            work()

    def _flat(self, x: Array) -> Array:
        return self._xp.ascontiguousarray(x).reshape(-1)

    def _gathered(self, x: Array) -> Array:
        return self.engine.gather(self._flat(x)).reshape(self.size, *x.shape)

    def _reduced(self, x: Array, how: str) -> Array:
        flat = self._flat(x)
        if flat.nbytes <= SMALL:
            return self._combined(self.engine.gather(flat), how).reshape(x.shape)
        each = -(-flat.size // self.size)
        parts = self._xp.zeros((self.size, each), flat.dtype)
        parts.reshape(-1)[: flat.size] = flat
        mine = self._combined(self.engine.exchange(parts), how)
        return self.engine.gather(mine).reshape(-1)[: flat.size].reshape(x.shape)

    def _combined(self, parts: Array, how: str) -> Array:
        """(size, n) -> (n,), by rank."""
        combine = {"product": "multiply", "min": "minimum", "max": "maximum"}.get(how, "add")
        wide = np.float32 if parts.dtype.itemsize == 2 else parts.dtype
        total = parts[0].astype(wide)
        for part in parts[1:]:
            getattr(self._xp, combine)(total, part.astype(wide, copy=False), out=total)
        if how == "avg":
            total /= self.size
        return total.astype(parts.dtype, copy=False)
