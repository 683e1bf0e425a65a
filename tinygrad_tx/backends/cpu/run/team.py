"""The threads that run programs: how many, where they live, when they sleep.

In: a job's array (program.py makes it). Out: the job, run. One team serves the whole process: the
calling thread and some workers, which are Python threads that enter native code once (ctypes
releases the interpreter's lock) and stay there: they watch for the next job for a while, then sleep
until there is one. executor.py says how they meet. Called by program.py; the package's users call
set_num_threads and get_num_threads.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import re
from contextlib import suppress
from functools import cache
from threading import RLock, Thread
from typing import Any

import numpy as np
import numpy.typing as npt

from .... import settings
from ....arguments import shown
from ....errors import NativeUnavailable, UserError
from .. import host, jit, library
from . import executor

Words = npt.NDArray[np.int64]

_PATIENCE = 500_000  # nanoseconds that a worker watches: longer than Python takes between two steps
_LINE = 64
_MOST = 1024  # threads: each has scratch memory of its own

_LOCK = RLock()  # one job at a time; also guards the two below
_team: Team | None = None
_asked: int | None = None
_sharing = 1  # processes that have the same cores


def set_num_threads(n: int) -> None:
    """Compiled functions run on n threads from now on, the caller's included. Results do not depend
    on it. Without a call of this it is the environment variable TX_NUM_THREADS, or else the number
    of cores that this process may use."""
    global _asked
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"set_num_threads: n is {shown(n)}; it must be a whole number of 1 or more")
    if not 1 <= n <= _MOST:
        raise ValueError(f"set_num_threads: n is {n}; it must be 1 or more, up to {_MOST}")
    with _LOCK:
        _asked = n


def get_num_threads() -> int:
    """The number of threads that compiled functions run on."""
    if _asked is not None:
        return _asked
    if _sharing == 1 or settings.get("TX_NUM_THREADS"):
        return _default()
    return max(1, _default() // _sharing)


def share_cores(processes: int) -> None:
    """So many processes have the same cores: without a call of set_num_threads, and without the
    environment variable, each takes its share of them."""
    global _sharing
    _sharing = processes


@cache
def _default() -> int:
    text = settings.get("TX_NUM_THREADS")
    if not text:
        return min(host.cores(), _MOST)
    if not re.fullmatch("[0-9]{1,6}", text) or not 1 <= int(text) <= _MOST:
        raise UserError(f"TX_NUM_THREADS={text}: it must be a whole number from 1 to {_MOST}")
    return int(text)


def check_environment() -> None:
    """UserError where a variable that native code goes by says what cannot be. For programs that
    rather know before they begin."""
    get_num_threads()
    with suppress(NativeUnavailable):
        jit.host_target()


def run(job: int, args: int, times: Words | None, scratch: int) -> int:
    """Run a job whose tasks need so many bytes of scratch; the number of waves it completed. job,
    args: addresses of arrays."""
    global _team
    with _LOCK:
        if _team is None or _team.size != get_num_threads():
            if _team is not None:
                _team.close()
            _team = Team(get_num_threads())
        _team.provide(scratch)
        stamps = 0 if times is None else times.ctypes.data
        return _team.run(job, args, stamps)


class Team:
    """The workers of a process, and the scratch memory of each thread."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._code = code()
        self._board = lines(executor.SCRATCH + size)
        self._board[executor.PATIENCE] = _PATIENCE
        self._board[executor.SIZE] = size
        self._board[executor.CLOCK] = executor.CLOCK_ID
        self._address = self._board.ctypes.data
        self._scratch: list[Words] = []
        self._provided = -1
        self._code.open(self._address)
        self._workers: list[Thread] = []
        try:
            for i in range(1, size):
                worker = Thread(target=self._work, args=(i,), daemon=True)
                worker.start()
                self._workers.append(worker)
        except RuntimeError:
            # No more threads to be had, as in an interpreter that ends. Fewer can do the work.
            pass

    def _work(self, index: int) -> None:
        """A worker's life. Its hold on `self` keeps the board, whatever becomes of the caller."""
        self._code.work(self._address, index)

    def provide(self, size: int) -> None:
        """Every thread has at least that much scratch memory. No job may be running."""
        if size > self._provided:
            self._scratch = [lines(-(-size // 8)) for _ in range(self.size)]
            for i, memory in enumerate(self._scratch):
                self._board[executor.SCRATCH + i] = memory.ctypes.data
            self._provided = size

    def run(self, job: int, args: int, times: int) -> int:
        """One native call, from putting the job up until every worker has left it. So there is no
        moment at which an exception (Ctrl-C) could leave it half done."""
        return int(self._code.run(self._address, job, args, times))

    def close(self) -> None:
        """Send the workers home, and wait until they are gone."""
        self._code.close(self._address)
        for worker in self._workers:
            worker.join()


class Code:
    """The functions of executor.py in this process."""

    def __init__(self, loaded: jit.Loaded) -> None:
        def function(name: str, returns: Any, *params: Any) -> Any:
            return ctypes.CFUNCTYPE(returns, *params)(loaded.address(name))

        self._loaded = loaded  # it keeps the code where it is
        pointer, word = ctypes.c_void_p, ctypes.c_int64
        self.open = function("tx_open", None, pointer)
        self.run = function("tx_run", word, pointer, pointer, pointer, pointer)
        self.work = function("tx_work", None, pointer, word)
        self.close = function("tx_close", None, pointer)


@cache
def code() -> Code:
    target = jit.host_target()
    return Code(library.load("executor", lambda: executor.text(target), target))


def lines(words: int) -> Words:
    """An array of zeros that begins on a cache line and shares its last one with nobody."""
    size = -(-words * 8 // _LINE) * _LINE
    raw = np.zeros(size + _LINE, np.uint8)
    start = -raw.ctypes.data % _LINE
    return raw[start : start + size].view(np.int64)


def _close() -> None:
    """The team's end with the interpreter, before that takes away the memory and code that threads
    use."""
    global _team, _asked
    # Never released: other threads stop here. This one may still run programs, without workers.
    _LOCK.acquire()
    if _team is not None:
        _team.close()
    _team, _asked = None, 1


def _forget() -> None:
    """In the child of a fork, which has none of its parent's threads, and maybe a locked lock."""
    global _team, _LOCK
    _team, _LOCK = None, RLock()


atexit.register(_close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
