"""Ranks without a launcher: copies of this process, made by fork, that share some memory. For
tests, and to try a program out: `local.run(4, f)`.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import pickle
import traceback
from collections.abc import Callable
from threading import BrokenBarrierError
from typing import Any, TypeVar

import numpy as np

from ..errors import UserError
from . import world
from .communicator import Communicator
from .engine import Array, Engine

T = TypeVar("T")
_ROOM = 1 << 18  # bytes that a rank can show the others at once
_PATIENCE = 60.0  # seconds that a rank waits for another


class Local(Engine):
    """A rank among some processes that were forked with the same memory and barrier."""

    name = "local"

    def __init__(self, rank: int, size: int, shared: mmap.mmap, barrier: Any) -> None:
        self.rank, self.size, self._barrier = rank, size, barrier
        self._shown = np.frombuffer(shared, np.uint8).reshape(size, _ROOM)

    def exchange(self, x: Array) -> Array:
        return self.gather(x)[:, self.rank].copy()

    def gather(self, x: Array) -> Array:
        given = x.reshape(-1).view(np.uint8)
        out = np.empty((self.size, given.size), np.uint8)
        for at in range(0, given.size, _ROOM):
            part = given[at : at + _ROOM]
            self._shown[self.rank, : part.size] = part
            self.barrier()
            out[:, at : at + part.size] = self._shown[:, : part.size]
            self.barrier()
        return out.view(x.dtype).reshape(self.size, *x.shape)

    def broadcast(self, x: Array, source: int) -> Array:
        return self.gather(x)[source].copy()

    def barrier(self) -> None:
        try:
            self._barrier.wait(_PATIENCE)
        except BrokenBarrierError:
            raise UserError("another rank has ended, or does not come") from None

    def neighbours(self) -> int:
        return self.size


def run(size: int, function: Callable[[], T]) -> list[T]:
    """What a function gives on each of some ranks, which are processes of their own. UserError with
    the traceback of the first that fails."""
    try:
        context = multiprocessing.get_context("fork")
    except ValueError:
        raise UserError("ranks without a launcher need fork, which this system has not") from None
    shared, barrier = mmap.mmap(-1, size * _ROOM), context.Barrier(size)
    pipes = [context.Pipe(duplex=False) for _ in range(size)]

    def rank(number: int) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads have not come along
        world.enter(Communicator(Local(number, size, shared, barrier)))
        try:
            found = pickle.dumps((True, function()))
        except BaseException:
            barrier.abort()
            found = pickle.dumps((False, traceback.format_exc()))
        pipes[number][1].send_bytes(found)

    processes = [context.Process(target=rank, args=(i,), daemon=True) for i in range(size)]
    for process in processes:
        process.start()
    for _, end in pipes:
        end.close()
    results: list[Any] = []
    for number, (begin, _) in enumerate(pipes):
        try:
            results.append(pickle.loads(begin.recv_bytes()))
        except EOFError:
            results.append((False, f"rank {number} has ended without a word"))
    for process in processes:
        process.join(_PATIENCE)
        process.kill()
    wrong = [text for fine, text in results if not fine]
    if wrong:  # those that only say that another one has ended come last
        raise UserError(min(wrong, key=lambda text: "another rank has ended" in text))
    return [found for _, found in results]
