"""Chunks given to an executor and taken back in order: a window of them is at work, so memory does
not grow with the input.

In: chunks, and an executor, which does some of them at once and gives them back as they come. Out:
chunks with their results, in order. A chunk whose worker died is done again, a few times; another
error is raised when all before it has been given out, as one process would. Called by run.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Protocol

from ..errors import UserError
from .chunks import Chunk, Do, Result

RETRIES = 3  # of a chunk
_SUSPECT = 2  # deaths after which a chunk is done alone: others may have died beside it
AHEAD = 4  # chunks for each worker: at work, or done and waiting for one before them


class WorkerLost(Exception):  # noqa: N818 - it happens to a chunk, and is gone on with
    """The worker died that had a chunk; or one after another, so many."""

    def __init__(self, deaths: int = 1) -> None:
        super().__init__(deaths)
        self.deaths = deaths


Answer = Result | BaseException


class Executor(Protocol):
    """Somebody who works on chunks."""

    @property
    def capacity(self) -> int:
        """How many it works on at once, 1 at least; it may change."""

    def submit(self, chunk: Chunk) -> None:
        """Begin with a chunk."""

    def next(self) -> tuple[int, Answer]:
        """The number of a chunk that is done, and its result, or the error that it ended with;
        waits for it. WorkerLost: it has to be submitted again."""


class Here:
    """This process as an executor."""

    capacity = 1

    def __init__(self, do: Do) -> None:
        self._do = do
        self._given: list[Chunk] = []

    def submit(self, chunk: Chunk) -> None:
        self._given.append(chunk)

    def next(self) -> tuple[int, Answer]:
        chunk = self._given.pop(0)
        try:
            return chunk.number, self._do(chunk)
        except Exception as error:
            return chunk.number, error


def in_order(
    chunks: Iterator[Chunk],
    executor: Executor,
    ahead: int = AHEAD,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[tuple[Chunk, Result]]:
    """Each chunk with its result, in order. ahead: chunks for each that the executor can work on;
    so many are read before the first of them is given out; 0: one at a time. say: is told of
    workers that died.

    Raises what reading the chunks or working on one raised, when all before it has been given out;
    UserError for a chunk whose workers died more than RETRIES times.
    """
    window = _Window(executor, ahead, say)
    failed: Exception | None = None
    more = True
    while True:
        while more and window.has_room():
            try:
                window.take(next(chunks))
            except StopIteration:
                more = False
            except Exception as error:  # of reading: what was read before it is done first
                failed, more = error, False
        if not window.taken:
            break
        if window.is_first_done():
            yield window.give()
        else:
            window.wait()
    if failed is not None:
        raise failed


class _Window:
    """The chunks that have been read and not given out. taken: by number, in order.

    A worker that dies may have had more than one chunk, of which one killed it. So a chunk whose
    workers died twice is done when no other is at work: what happens then is its own doing.
    """

    def __init__(self, executor: Executor, ahead: int, say: Callable[[str], None]) -> None:
        self._executor, self._ahead, self._say = executor, ahead, say
        self.taken: dict[int, Chunk] = {}
        self._answers: dict[int, Answer] = {}
        self._at_work: set[int] = set()
        self._suspects: list[int] = []  # that wait to be alone
        self._deaths: Counter[int] = Counter()

    def has_room(self) -> bool:
        """True if another chunk may be taken; none is wanted after one that failed."""
        capacity = self._executor.capacity
        if len(self._at_work) >= capacity or len(self.taken) >= max(1, capacity * self._ahead):
            return False
        suspected = self._suspects or any(self._deaths[n] >= _SUSPECT for n in self._at_work)
        failed = any(isinstance(answer, BaseException) for answer in self._answers.values())
        return not suspected and not failed

    def take(self, chunk: Chunk) -> None:
        self.taken[chunk.number] = chunk
        self._submit(chunk.number)

    def is_first_done(self) -> bool:
        return next(iter(self.taken)) in self._answers

    def give(self) -> tuple[Chunk, Result]:
        """The first chunk, which is done, and its result; raises the error that it ended with."""
        number = next(iter(self.taken))
        chunk, answer = self.taken.pop(number), self._answers.pop(number)
        if isinstance(answer, BaseException):
            raise answer
        return chunk, answer

    def wait(self) -> None:
        """Wait for one chunk to be done, or to be begun again."""
        number, answer = self._executor.next()
        self._at_work.remove(number)
        if isinstance(answer, WorkerLost):
            self._lost(number, answer.deaths)
        else:
            self._answers[number] = answer
        if self._suspects and not self._at_work:
            self._submit(self._suspects.pop(0))

    def _lost(self, number: int, deaths: int) -> None:
        chunk = self.taken[number]
        alone = self._deaths[number] >= _SUSPECT
        self._deaths[number] += deaths
        died = self._deaths[number]
        lines = f"lines {chunk.first:,} to {chunk.last:,}"
        if died > RETRIES and alone:
            self._answers[number] = UserError(
                f"{lines}: the workers that had them died, {died} times; is there too little "
                "memory for them? Fewer workers, and smaller chunks (--chunk), need less"
            )
            return
        self._say(f"a worker died; its {lines} are given to another one (death {died})")
        if died < _SUSPECT:
            self._submit(number)
        else:
            self._suspects.append(number)

    def _submit(self, number: int) -> None:
        self._at_work.add(number)
        self._executor.submit(self.taken[number])
