"""Programs: kernels' calls in waves, run by one native call.

In: addresses of kernels' functions (library.py), where their arguments stand in one array of int64,
and which of them may run at the same time. Out: a Program, to be run again and again with such an
array. Called by target.py for each native segment of a plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import executor as ex
from .team import Words, lines, run


@dataclass(frozen=True)
class Launch:
    """Calls of kernels that go together: task t does task t of each part, one after the other.

    parts: (address of the function, word of the arguments where its own begin). So an epilogue
    rides on the rows that a matmul's task has just made.
    """

    parts: tuple[tuple[int, int], ...]
    tasks: int


@dataclass(frozen=True)
class Wave:
    """Launches that do not depend on each other: their tasks run in any order, on any thread. The
    next wave begins when all are done.

    stop: the word of the arguments that holds the address of an int64; where that is not 0 after
    the wave, the run ends there. -1: it never does.
    """

    launches: tuple[Launch, ...]
    stop: int = -1


class Program:
    """Waves, as the records that the executor reads.

    scratch: bytes that each thread needs at most. alone: the caller runs it without the team, as
    is right where there is less to do than waking somebody takes. A program in which nothing can
    run at the same time is run alone in any case.
    """

    def __init__(self, waves: Sequence[Wave], scratch: int = 0, alone: bool = False) -> None:
        self._scratch = scratch
        wave_rows: list[tuple[int, ...]] = []
        launch_rows: list[tuple[int, ...]] = []
        part_rows: list[tuple[int, ...]] = []
        for wave in waves:
            first, total = len(launch_rows), 0
            # A wave of nothing gets one task without parts: the executor knows no empty waves.
            for launch in [at for at in wave.launches if at.tasks > 0] or [Launch((), 1)]:
                begin = len(part_rows)
                part_rows += launch.parts
                launch_rows.append((launch.tasks, begin, len(part_rows)))
                total += launch.tasks
            wave_rows.append((total, wave.stop, first, len(launch_rows)))
        self._count = len(wave_rows)
        shared = not alone and any(total > 1 for total, *_ in wave_rows)
        self._records = [_table(rows) for rows in (wave_rows, launch_rows, part_rows)]
        self._counters = lines(self._count * ex.COUNTER_WORDS)
        self._handed = lines(len(launch_rows) * ex.MAX_SHARES)
        self._job = lines(ex.JOB_WORDS)
        self._job[ex.LAUNCH_COUNT] = len(launch_rows)
        for word, array in zip(
            (ex.WAVES, ex.LAUNCHES, ex.PARTS, ex.COUNTERS, ex.HANDED),
            (*self._records, self._counters, self._handed),
            strict=True,
        ):
            self._job[word] = array.ctypes.data
        self._job[ex.COUNT], self._job[ex.SHARED] = self._count, shared
        self._job[ex.JOB_CLOCK] = ex.CLOCK_ID
        self._address: int = self._job.ctypes.data
        self._args: tuple[Words, int] | None = None  # those of the last run, and where they lie

    def run(self, args: Words) -> int:
        """Run it; the number of waves that were completed: all, or as many as until one's stop."""
        return run(self._address, self._place(args), None, self._scratch)

    def run_timed(self, args: Words) -> list[float]:
        """Run it; the seconds that each completed wave took."""
        times = np.zeros((self._count + 1, 2), np.int64)
        done = run(self._address, self._place(args), times, self._scratch)
        seconds, rest = np.diff(times[: done + 1], axis=0).T
        return [float(s) for s in seconds + rest * 1e-9]

    def _place(self, args: Words) -> int:
        """The address of the arguments, which are mostly those of the last run."""
        if self._args is None or self._args[0] is not args:
            if args.dtype != np.int64 or not args.flags.c_contiguous:
                raise TypeError(f"a program's arguments are contiguous int64, not {args.dtype}")
            self._args = args, args.ctypes.data
        return self._args[1]


def _table(rows: list[tuple[int, ...]]) -> Words:
    return np.array(rows, np.int64).reshape(-1)
