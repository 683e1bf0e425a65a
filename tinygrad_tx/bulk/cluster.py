"""Workers of Dask as an executor: processes of this machine, or those of somebody's scheduler.

In: a Work, and how many workers or where the scheduler is. Out: an Executor. A worker opens the
work once, and does one chunk at a time, with as many threads as Dask has given it. Called by the
commands.

What is sent is a function by its code, not by its name, and bytes: a scheduler needs nothing of
this package, and a worker that has it not, or another version, says so.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, Queue
from threading import Lock
from time import monotonic
from typing import Any

from .. import settings
from ..backends.cpu import host
from ..backends.cpu.run.team import set_num_threads
from ..errors import UserError
from ..version import __version__
from .chunks import Chunk, Do, Result, Work
from .order import Answer, WorkerLost

_MISSING = 'workers are those of Dask, which is not installed: pip install "tinygrad_tx[dask]"'
_ADDRESS = re.compile(r"(tcp|tls)://(\[[0-9a-fA-F:]+\]|[^\s:/\[\]]+):(\d{1,5})")
# The variables that workers begin with: threads of NumPy and of the tokenizers. Those of Dask have
# malloc give back memory that the next step takes again, which costs a third of the time.
_ENVIRONMENT = "distributed.nanny.pre-spawn-environ"
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
# Dask keeps so many of the last messages, in which chunks are.
_FORGETFUL = {"distributed.admin.low-level-log-length": 2}
_ENDED = ("closed", "failed")  # states of what looks after a worker, which begins no other
_SILENT = logging.CRITICAL + 1
_CONNECT = 10.0  # seconds in which a scheduler has to answer
_LOOK = 0.5  # seconds between two looks at whether the scheduler is still there
_ALONE = 5.0  # seconds without a worker after which that is said
_COUNT = 1.0  # seconds between two counts of a scheduler's workers
_PATIENCE = 180.0  # seconds without a worker of this machine after which none is waited for


def check_address(address: str) -> str:
    """An address of a scheduler. ValueError if it is none."""
    found = _ADDRESS.fullmatch(address)
    if found is None or not 1 <= int(found[3]) <= 65535:
        raise ValueError(f"{address[:60]!r} is no address such as tcp://HOST:8786")
    return address


@contextmanager
def local(work: Work, workers: int, say: Callable[[str], None]) -> Iterator[Cluster]:
    """So many processes of this machine, which share its cores."""
    distributed = package()
    import dask

    threads = max(1, host.cores() // workers)
    environment = {_ENVIRONMENT: dict.fromkeys(_THREADS, threads)}
    with dask.config.set({**_FORGETFUL, **environment}):  # of workers that are begun later, too
        try:
            with _deaf():
                cluster = distributed.LocalCluster(
                    n_workers=workers,
                    threads_per_worker=threads,
                    processes=True,
                    dashboard_address="127.0.0.1:0",  # its usual port may be another command's
                    silence_logs=_SILENT,
                    memory_limit=0,  # of Dask's own: results are small, and gone when fetched
                    # How often a chunk is tried is said in order.py.
                    scheduler_kwargs={"allowed_failures": 0, "dashboard": False},
                )
        except (OSError, RuntimeError) as error:
            raise UserError(f"the {workers} workers cannot be started: {_brief(error)}") from error
        with _closing(cluster), _closing(distributed.Client(cluster)) as client:
            yield Cluster(client, work, _Local(cluster, workers), say)


@contextmanager
def remote(work: Work, address: str, say: Callable[[str], None]) -> Iterator[Cluster]:
    """The workers of the scheduler at an address, those that come later included."""
    distributed = package()
    import dask

    with dask.config.set(_FORGETFUL):
        try:
            client = distributed.Client(address, timeout=_CONNECT, set_as_default=False)
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            raise UserError(
                f"no Dask scheduler answers at {address} ({_brief(error)}): begin one by `dask "
                "scheduler`, and workers by `dask worker`"
            ) from error
        with _closing(client):
            yield Cluster(client, work, None, say, address)


class _Local:
    """The workers of a LocalCluster, as many as are wanted whatever becomes of them.

    Dask begins another process for one that dies, but gives up one that dies before it has begun,
    or takes long to begin.
    """

    def __init__(self, cluster: Any, count: int) -> None:
        self.count = count
        self._cluster, self._since = cluster, monotonic()

    def restore(self) -> None:
        """Begin those that were given up. UserError where none has been there for long."""
        alive = len(self._cluster.scheduler_info["workers"])
        if alive:
            self._since = monotonic()
        elif monotonic() - self._since > _PATIENCE:
            raise UserError(
                f"no worker has begun for {_PATIENCE:.0f} seconds; is there too little memory for "
                "them? Fewer workers need less"
            )
        if alive < self.count:
            self._cluster.loop.add_callback(self._forget)
            self._cluster.scale(self.count)

    def _forget(self) -> None:
        found = self._cluster.workers
        for name in [n for n, worker in found.items() if worker.status.name in _ENDED]:
            del found[name]


class Cluster:
    """Dask's workers as an Executor."""

    def __init__(
        self,
        client: Any,
        work: Work,
        workers: _Local | None,
        say: Callable[[str], None],
        address: str = "",
    ) -> None:
        """workers: None: those that the scheduler at `address` has, now."""
        self._client, self._workers, self._say = client, workers, say
        self._address = address
        self._work = pickle.dumps(work)
        self._task = _task()
        self._done: Queue[tuple[int, Any]] = Queue()
        self._at_work: dict[int, Any] = {}
        self._known, self._counted, self._looked = 0, -_COUNT, monotonic()
        self._alone: float | None = None  # since when there are no workers
        self._told = False  # of that

    @property
    def capacity(self) -> int:
        if self._workers is not None:
            return self._workers.count
        if (now := monotonic()) - self._counted >= _COUNT:
            with suppress(OSError, RuntimeError):  # a scheduler that is gone is found in next()
                self._known = len(self._client.nthreads())
            self._counted = now
        return max(1, self._known)

    def submit(self, chunk: Chunk) -> None:
        future = self._client.submit(
            self._task,
            __version__,
            self._work,
            pickle.dumps(chunk),
            bool(self._address),
            pure=False,
        )
        self._at_work[chunk.number] = future
        future.add_done_callback(lambda future: self._done.put((chunk.number, future)))

    def next(self) -> tuple[int, Answer]:
        while True:
            if monotonic() - self._looked >= _LOOK:
                self._look()
            try:
                number, future = self._done.get(timeout=_LOOK)
            except Empty:
                continue
            if self._at_work.get(number) is future:
                del self._at_work[number]
                return number, self._answer(future)

    def _answer(self, future: Any) -> Answer:
        from distributed import CancelledError, KilledWorker

        try:
            text, sums, refused = future.result()
        except KilledWorker as error:
            return WorkerLost(error.allowed_failures + 1)
        except CancelledError:
            return WorkerLost(1) if self._client.status == "running" else self._gone()
        except Exception as error:
            return error
        finally:
            future.release()
        return UserError(refused) if refused else Result(text, tuple(sums))

    def _look(self) -> None:
        """UserError if the scheduler is gone; a word if it has no workers. Workers of this machine
        are as many again as they were."""
        self._looked = monotonic()
        if self._client.status != "running":
            raise self._gone()
        if self._workers is not None:
            self._workers.restore()
        elif self.capacity and self._known:
            self._alone, self._told = None, False
        elif self._alone is None:
            self._alone = monotonic()
        elif not self._told and monotonic() - self._alone >= _ALONE:
            self._told = True
            self._say(f"{self._address} has no workers: begin one by `dask worker`")

    def _gone(self) -> UserError:
        at = f" at {self._address}" if self._address else ""
        return UserError(f"the Dask scheduler{at} is gone")


def _task() -> Callable[[str, bytes, bytes, bool], tuple[str, tuple[float, ...], str]]:
    """The function that workers run: text, sums, and why there are none. It stands in a function,
    so that Dask sends its code, and it gives what any Python knows."""

    def task(
        version: str, work: bytes, chunk: bytes, far: bool
    ) -> tuple[str, tuple[float, ...], str]:
        from importlib import import_module
        from platform import node

        own = f"the worker on {node()}"
        try:
            there = import_module("tinygrad_tx.version").__version__
        except ImportError:
            return "", (), f"{own} has no tinygrad_tx: install version {version} there"
        if there != version:
            return "", (), f"{own} has tinygrad_tx {there}, and here it is {version}"
        text, sums = import_module("tinygrad_tx.bulk.cluster").perform(
            work, chunk, own if far else ""
        )
        return text, sums, ""

    return task


# In a worker -------------------------------------------------------------------------------------


class _Opened:
    """The work that this process has opened last."""

    lock = Lock()  # one chunk at a time: it has all threads of the worker
    work: bytes = b""
    do: Do | None = None


def perform(work: bytes, chunk: bytes, own: str) -> Result:
    """Do a chunk, both as pickled; the work is opened if it is another one than before. own: what
    this worker is called in errors, empty on the machine of the command."""
    from distributed import get_worker

    threads = get_worker().state.nthreads
    with _Opened.lock:
        if not settings.get("TX_NUM_THREADS"):
            set_num_threads(threads)
        os.environ.setdefault("RAYON_NUM_THREADS", str(threads))  # of the tokenizers
        if _Opened.do is None or _Opened.work != work:
            _Opened.do = None  # another model goes before this one comes
            try:
                _Opened.do = pickle.loads(work).open()
            except UserError as error:
                raise UserError(f"{own}: {error}" if own else str(error)) from error
            _Opened.work = work
        return _Opened.do(pickle.loads(chunk))


# Dask --------------------------------------------------------------------------------------------


def package() -> Any:
    """The module, which writes nothing of its own to standard error from now on."""
    try:
        import distributed
    except ImportError:
        raise UserError(_MISSING) from None
    for name in ("distributed", "tornado", "asyncio", *logging.root.manager.loggerDict):
        if name.split(".")[0] in ("distributed", "tornado", "asyncio"):
            logging.getLogger(name).setLevel(_SILENT)
    warnings.filterwarnings("ignore", module="distributed")
    return distributed


@contextmanager
def _deaf() -> Iterator[None]:
    """Threads that are begun inside, and the processes that these begin, do not hear Ctrl-C: it is
    the command's, which ends its workers."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # its beginning lets Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _closing(thing: Any) -> Iterator[Any]:
    """Closed in the end, whatever state it is in."""
    try:
        yield thing
    finally:
        with suppress(Exception):
            thing.close(timeout=5)


def _brief(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
