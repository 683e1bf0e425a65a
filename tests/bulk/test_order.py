"""Chunks at work in a window: given out in order, whatever order they are done in, whichever
workers die, however much there is of them."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tinygrad_tx.bulk import Chunk, Here, Result, WorkerLost, chunked, in_order
from tinygrad_tx.bulk.order import AHEAD, RETRIES, Answer
from tinygrad_tx.errors import UserError


def upper(chunk: Chunk) -> Result:
    return Result("".join(f"{row.upper()}\n" for row in chunk.rows), (len(chunk.rows),))


class Shuffled:
    """An executor that answers in any order. deaths: how often the worker of a chunk dies."""

    def __init__(self, capacity: int, deaths: dict[int, int] | None = None, seed: int = 0) -> None:
        self.capacity, self._deaths = capacity, dict(deaths or {})
        self._random = random.Random(seed)
        self._given: list[Chunk] = []
        self.submitted: list[int] = []

    def submit(self, chunk: Chunk) -> None:
        self._given.append(chunk)
        self.submitted.append(chunk.number)
        assert len(self._given) <= self.capacity

    def next(self) -> tuple[int, Answer]:
        chunk = self._given.pop(self._random.randrange(len(self._given)))
        if self._deaths.get(chunk.number, 0):
            self._deaths[chunk.number] -= 1
            return chunk.number, WorkerLost()
        if "poison" in chunk.rows:
            return chunk.number, UserError(f"line {chunk.first + chunk.rows.index('poison')}: bad")
        return chunk.number, upper(chunk)


def lines(n: int) -> Iterator[str]:
    return (f"line {i}" for i in range(1, n + 1))


def done(rows: Iterator[str], executor: Shuffled | Here, size: int = 3) -> str:
    return "".join(result.text for _, result in in_order(chunked(rows, size), executor))


@pytest.mark.parametrize("count", [0, 1, 3, 100])
def test_results_come_in_order(count: int) -> None:
    expected = "".join(f"LINE {i}\n" for i in range(1, count + 1))
    assert done(lines(count), Here(upper)) == expected
    for seed in range(5):
        assert done(lines(count), Shuffled(4, seed=seed)) == expected


def test_chunks_know_their_lines() -> None:
    rows = iter(["a", "", " \t", "b", "c", "d", "e"])
    found = list(chunked(rows, 3))
    assert [(c.number, c.first, c.last, c.full) for c in found] == [
        (0, 1, 3, 0),
        (1, 4, 6, 1),
        (2, 7, 7, 4),
    ]
    after = list(chunked(iter("xyz"), 2, first=found[1]._replace(rows=[])))
    assert [(c.number, c.first, c.full) for c in after] == [(1, 4, 1), (2, 6, 3)]


def test_a_chunk_of_long_lines_is_shorter() -> None:
    """Memory is bounded by characters, too; where chunks end hangs on their own lines alone."""
    rows = ["a" * 600_000] * 9
    found = list(chunked(iter(rows), 8192))
    assert [(c.first, len(c.rows)) for c in found] == [(1, 4), (5, 4), (9, 1)]
    pairs = list(chunked(zip(rows, rows, strict=True), 3))
    assert [(c.first, c.last) for c in pairs] == [(1, 3), (4, 6), (7, 9)]
    after = list(chunked(iter(rows[4:]), 8192, first=found[1]._replace(rows=[])))
    assert [(c.number, c.first, c.last) for c in after] == [(1, 5, 8), (2, 9, 9)]


def test_chunks_of_dead_workers_are_done_again() -> None:
    said: list[str] = []
    executor = Shuffled(3, {0: 1, 5: RETRIES})
    found = in_order(chunked(lines(30), 2), executor, say=said.append)
    assert "".join(result.text for _, result in found) == done(lines(30), Here(upper))
    assert executor.submitted.count(0) == 2 and executor.submitted.count(5) == RETRIES + 1
    assert len(said) == 1 + RETRIES
    assert "a worker died; its lines 11 to 12 are given to another one (death 2)" in said


def test_a_chunk_that_kills_its_workers_is_named_when_all_before_it_is_written() -> None:
    found = in_order(chunked(lines(30), 2), Shuffled(3, {5: 99}))
    got = []
    with pytest.raises(
        UserError, match=r"^lines 11 to 12: the workers that had them died, 4 times"
    ):
        got.extend(result.text for _, result in found)
    assert len(got) == 5


def test_an_error_comes_when_all_before_it_is_written() -> None:
    for executor in (Here(upper), *(Shuffled(3, seed=seed) for seed in range(4))):
        if isinstance(executor, Here):
            executor = Here(poisoned)
        rows = ["poison" if i in (14, 20) else f"{i}" for i in range(30)]
        got = []
        with pytest.raises(UserError, match=r"^line 15: bad$"):
            for chunk, _ in in_order(chunked(iter(rows), 3), executor):
                got.append(chunk.number)
        assert got == [0, 1, 2, 3]


def poisoned(chunk: Chunk) -> Result:
    if "poison" in chunk.rows:
        raise UserError(f"line {chunk.first + chunk.rows.index('poison')}: bad")
    return upper(chunk)


def test_an_error_of_reading_comes_when_all_before_it_is_written() -> None:
    def rows() -> Iterator[str]:
        yield from lines(10)
        raise UserError("line 11: not valid UTF-8")

    for seed in range(4):
        got = []
        with pytest.raises(UserError, match="line 11"):
            for chunk, _ in in_order(chunked(rows(), 3), Shuffled(4, seed=seed)):
                got.append(chunk.number)
        assert got == [0, 1, 2]


def test_no_more_is_read_than_the_window_holds() -> None:
    """However large the input is, so many chunks are in memory; the first one takes longest."""
    read = given = 0
    most = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "a"

    class LateFirst(Shuffled):
        def next(self) -> tuple[int, Answer]:
            nonlocal most
            most = max(most, read - given)
            late = min(self._given)
            if len(self.submitted) < self.capacity * AHEAD and len(self._given) > 1:
                self._given.remove(late)
                found = super().next()
                self._given.append(late)
                return found
            return super().next()

    for chunk, _ in in_order(chunked(endless(), 5), LateFirst(3)):
        given += len(chunk.rows)
        if chunk.number == 200:
            break
    assert 5 * 3 < most <= 5 * 3 * AHEAD


def test_workers_that_come_later_are_given_work() -> None:
    executor = Shuffled(1)
    found = in_order(chunked(lines(40), 1), executor)
    next(found)
    executor.capacity = 4
    next(found)
    assert len(executor.submitted) - 2 >= 3
    assert len(list(found)) == 38


def test_one_at_a_time() -> None:
    """At a terminal: a line is answered before the next one is asked for."""
    asked: list[str] = []

    def typed() -> Iterator[str]:
        for line in lines(5):
            asked.append(line)
            yield line

    answered = in_order(chunked(typed(), 1), Shuffled(3), ahead=0)
    for i, (_, result) in enumerate(answered, 1):
        assert result.text == f"LINE {i}\n" and len(asked) == i


def test_workers_that_died_one_after_another() -> None:
    """A scheduler may have tried a chunk several times before it says so."""

    class Tried(Shuffled):
        def next(self) -> tuple[int, Answer]:
            number, answer = super().next()
            return number, WorkerLost(4) if isinstance(answer, WorkerLost) else answer

    assert len(list(in_order(chunked(lines(9), 2), Tried(3, {2: 1})))) == 5, "it may be innocent"
    with pytest.raises(UserError, match=r"^lines 5 to 6: .* died, 8 times"):
        list(in_order(chunked(lines(9), 2), Tried(3, {2: 2})))


def test_a_chunk_is_not_blamed_for_another_one() -> None:
    """A worker that dies may have had several, of which one killed it."""

    class Shared(Shuffled):
        """One worker, which is given all."""

        def __init__(self, capacity: int, seed: int) -> None:
            super().__init__(capacity, seed=seed)
            self.dead: list[int] = []

        def next(self) -> tuple[int, Answer]:
            if not self.dead and any(chunk.number == 5 for chunk in self._given):
                self.dead = [chunk.number for chunk in self._given]
                self._random.shuffle(self.dead)
            if self.dead:
                number = self.dead.pop()
                self._given = [chunk for chunk in self._given if chunk.number != number]
                return number, WorkerLost()
            return super().next()

    for seed in range(5):
        got = []
        with pytest.raises(UserError, match=r"^lines 11 to 12: the workers .* died, 4 times"):
            for chunk, _ in in_order(chunked(lines(40), 2), Shared(3, seed=seed)):
                got.append(chunk.number)
        assert got == [0, 1, 2, 3, 4]
