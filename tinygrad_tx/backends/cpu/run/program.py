"""Programs: kernels' calls in waves, run by one native call.

In: addresses of kernels' functions (library.py), where their arguments stand in one array of int64,
which of them may run at the same time, and which form a loop. Out: a Program, to be run again and
again with such an array. Called by target.py for each native segment of a plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...target import Done
from . import executor as ex
from .team import Words, get_num_threads, lines, run

_LOGGED = 20_000  # entries of a thread's log at most


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


@dataclass(frozen=True)
class Loop:
    """Waves that run `rounds` times. moves: (word of the arguments, how many bytes it grows from
    round to round); after the last round it is what it was."""

    waves: tuple[Wave | Loop, ...]
    rounds: int
    moves: tuple[tuple[int, int], ...]


Moves = tuple[tuple[int, int], ...]
Turn = tuple[int, Moves]  # the number of a wave, and what moves after it


class Program:
    """Waves, as the records that the executor reads.

    scratch: bytes that each thread needs at most. alone: the caller runs it without the team, as
    is right where there is less to do than waking somebody takes. A program in which nothing can
    run at the same time is run alone in any case.
    """

    def __init__(self, waves: Sequence[Wave | Loop], scratch: int = 0, alone: bool = False) -> None:
        self._scratch = scratch
        self._wave_rows: list[tuple[int, ...]] = []
        self._launch_rows: list[tuple[int, ...]] = []
        self._part_rows: list[tuple[int, ...]] = []
        self._number_of: list[int] = []  # of each launch that there is a record of, in its wave
        entries = [self._turns(entry) for entry in waves]
        turns = [turn for entry in entries for turn in entry]
        self._wave_of = [wave for wave, _ in turns]
        self._ends = np.cumsum([len(entry) for entry in entries], dtype=np.int64)
        turn_rows, move_rows, launches = self._numbered(turns)
        self._first_launch = [row[1] for row in turn_rows]  # of each turn, among those of all
        self._count = len(turns)
        shared = not alone and any(total > 1 for total, *_ in self._wave_rows)
        tables = (self._wave_rows, self._launch_rows, self._part_rows, turn_rows, move_rows)
        self._records = [_table(rows) for rows in tables]
        self._counters = lines(self._count * ex.COUNTER_WORDS)
        self._handed = lines(launches * ex.MAX_SHARES)
        self._job = lines(ex.JOB_WORDS)
        self._job[ex.LAUNCH_COUNT] = launches
        for word, array in zip(
            (ex.WAVES, ex.LAUNCHES, ex.PARTS, ex.TURNS, ex.MOVES, ex.COUNTERS, ex.HANDED),
            (*self._records, self._counters, self._handed),
            strict=True,
        ):
            self._job[word] = array.ctypes.data
        self._job[ex.COUNT], self._job[ex.SHARED] = self._count, shared
        self._job[ex.JOB_CLOCK] = ex.CLOCK_ID
        self._address: int = self._job.ctypes.data
        self._logs, self._began = np.zeros((0, ex.LOG_HEAD), np.int64), np.zeros(2, np.int64)
        self._args: tuple[Words, int] | None = None  # those of the last run, and where they lie

    def _turns(self, entry: Wave | Loop) -> list[Turn]:
        """The turns of a wave or a loop. A wave's record is made here, once."""
        if isinstance(entry, Wave):
            return [(self._record(entry), ())]
        once = [turn for inner in entry.waves for turn in self._turns(inner)]
        if not once:
            return []
        back = tuple((word, -step * (entry.rounds - 1)) for word, step in entry.moves)
        *rest, (last, inner_moves) = once
        between = [*rest, (last, (*inner_moves, *entry.moves))]
        return [*between * (entry.rounds - 1), *rest, (last, (*inner_moves, *back))]

    def _record(self, wave: Wave) -> int:
        """The number of a wave's record."""
        first, total = len(self._launch_rows), 0
        # A wave of nothing gets one task without parts: the executor knows no empty waves.
        given = [(i, at) for i, at in enumerate(wave.launches) if at.tasks > 0]
        for number, launch in given or [(0, Launch((), 1))]:
            self._number_of.append(number)
            begin = len(self._part_rows)
            self._part_rows += launch.parts
            self._launch_rows.append((launch.tasks, begin, len(self._part_rows)))
            total += launch.tasks
        self._wave_rows.append((total, wave.stop, first, len(self._launch_rows)))
        return len(self._wave_rows) - 1

    def _numbered(
        self, turns: Sequence[Turn]
    ) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]], int]:
        """The records of turns and of moves, and the number of launches in all turns."""
        turn_rows: list[tuple[int, ...]] = []
        move_rows: list[tuple[int, ...]] = []
        places: dict[Moves, int] = {}
        launches = 0
        for wave, moves in turns:
            if moves not in places:
                places[moves] = len(move_rows)
                move_rows += moves
            start = places[moves]
            turn_rows.append((wave, launches, start, start + len(moves)))
            _, _, first, end = self._wave_rows[wave]
            launches += end - first
        return turn_rows, move_rows, launches

    def run(self, args: Words) -> int:
        """Run it; the wave, counted from 1, after whose turn the run ended: the last, or one whose
        stop ended it."""
        done = run(self._address, self._place(args), None, self._scratch)
        return self._wave_of[done - 1] + 1 if done < self._count else len(self._wave_rows)

    def notes(self) -> list[str]:
        return []

    def blamed(self, args: Words, low: int) -> int:
        """Nothing: a run has ended with the wave that a stop has ended it after."""
        return 0

    def run_timed(self, args: Words) -> tuple[int, list[float]]:
        """As run(), and the seconds that each completed wave or loop took."""
        times = np.zeros((self._count + 1, 2), np.int64)
        threads = get_num_threads()
        entries = int(self._job[ex.LAUNCH_COUNT]) * min(threads, ex.MAX_SHARES)  # the most
        room = min(entries, _LOGGED) + 1
        self._logs = np.zeros((threads, ex.LOG_HEAD + room * ex.ENTRY_WORDS), np.int64)
        self._job[[ex.LOG_THREADS, ex.LOGS, ex.LOG_ROOM]] = threads, self._logs.ctypes.data, room
        try:
            done = run(self._address, self._place(args), times, self._scratch)
        finally:
            self._job[ex.LOG_THREADS] = 0
        self._began = times[0]
        wave = self._wave_of[done - 1] + 1 if done < self._count else len(self._wave_rows)
        ends = np.minimum(self._ends[: np.searchsorted(self._ends, done) + 1], done)
        seconds, rest = np.diff(times[[0, *ends]], axis=0).T
        return wave, [float(s) for s in seconds + rest * 1e-9]

    def done(self) -> list[Done]:
        """The log of the last timed run."""
        found: list[Done] = []
        for thread, log in enumerate(self._logs):
            entries = log[ex.LOG_HEAD :].reshape(-1, ex.ENTRY_WORDS)[: log[0]]
            turns = np.searchsorted(self._first_launch, entries[:, 0], side="right") - 1
            begins, ends = (
                (entries[:, i : i + 2] - self._began) @ np.array([1, 1e-9]) for i in (2, 4)
            )
            for turn, entry, begin, end in zip(
                turns.tolist(), entries.tolist(), begins.tolist(), ends.tolist(), strict=True
            ):
                wave = self._wave_of[turn]
                record = self._wave_rows[wave][2] + entry[0] - self._first_launch[turn]
                number = self._number_of[record]
                found.append(Done(thread, wave, number, entry[1], begin, end))
        return found

    def _place(self, args: Words) -> int:
        """The address of the arguments, which are mostly those of the last run."""
        if self._args is None or self._args[0] is not args:
            if args.dtype != np.int64 or not args.flags.c_contiguous:
                raise TypeError(f"a program's arguments are contiguous int64, not {args.dtype}")
            self._args = args, args.ctypes.data
        return self._args[1]


def _table(rows: list[tuple[int, ...]]) -> Words:
    return np.array(rows, np.int64).reshape(-1)
