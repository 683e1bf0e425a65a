"""The native code that runs programs: how threads share out tasks, meet and sleep.

In: a target. Out: the text of one module with four functions, which team.py calls:

    void tx_open(board)                    before any other
    i64  tx_run(board, job, args, times)   run a job; the number of waves completed
    void tx_work(board, index)             a worker's life, until tx_close
    void tx_close(board)                   send all workers home

All that threads share lies in two arrays of int64, the team's *board* and the program's *job*.

A job is a list of turns. A turn is one run of a wave: a wave inside a loop has many. Before the
next turn the words that the loop moves grow, by whoever ends the turn, while nobody runs a task.
A wave is a list of launches, a launch a number of tasks. Each launch's tasks
are cut into as many *shares* as there are threads, and a share's are handed out one by one through
a counter. A thread takes from its own share of every launch first, then from the others': kernels
that follow each other cut the same rows alike, so a thread mostly finds in its core's cache what
it has written there itself. A thread that finds none left adds the number that it did to `done`;
whoever completes the sum decides whether the run goes on, and says so in `state`. All others wait
for that word: there is no barrier to come to. So a thread may come late, or never: it walks past
waves that are finished, and the caller alone can finish any job.

A worker counts itself into `active` before it looks at the board's job, and out after it has left
it. The caller takes the job off the board, then waits until nobody is active: then the arrays may
be freed. Both sides write one word and then read the other's, so those accesses are seq_cst. The
same holds for `generation` and `parked` when a worker goes to sleep.

A job that asks for times may have a log for each thread as well: which tasks it did, from when to
when. Nobody else writes there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ...llvm.ir import Builder, Module, Value, integer
from ..processor import Processor
from . import windows

# Words of the board. What different threads write often stands on different cache lines.
GENERATION, JOB = 0, 1  # counts the jobs put up; the job, or 0
ACTIVE = 8  # workers that may be looking at the job
PARKED, QUIT = 16, 17  # workers asleep, or about to be; 1: workers shall go home
MUTEX, CONDITION = 24, 32  # of the operating system, 64 bytes each: more than any has
PATIENCE, CLOCK = 40, 41  # nanoseconds that a worker watches before it sleeps; clock_gettime's id
SIZE = 42  # threads of the team
SCRATCH = 48  # from here on each thread's scratch memory; the first is the caller's

# Words of a job. COUNT: of turns; SHARED: 1 where workers take part
WAVES, COUNT, LAUNCHES, PARTS, COUNTERS, SHARED, ARGS, TIMES, JOB_CLOCK = range(9)
# How many launches in all turns; for each share and each of them, the tasks handed out; shares in
# this run; turns; moves
LAUNCH_COUNT, HANDED, SHARES, TURNS, MOVES = 9, 10, 11, 12, 13
# How many threads have a log in this run, and where these lie; entries of one, the last of which
# takes all that finds no room
LOG_THREADS, LOGS, LOG_ROOM = 14, 15, 16
JOB_WORDS = 17
MAX_SHARES = 8  # more threads than that share them
# One turn: its wave; the number of its first launch among those of all turns; its first move and
# the one after its last
TURN_WORDS = 4
MOVE_WORDS = 2  # one move: a word of the arguments, how much it grows
# One wave: tasks; the word of the arguments with its report's address (or -1); its first launch and
# the one after its last
WAVE_WORDS = 4
# One launch: tasks, its first part and the one after its last
LAUNCH_WORDS = 3
PART_WORDS = 2  # one part: address of a function, the word of the arguments where its own begin
# One log: how many entries there are, then the entries: the launch among those of all turns, tasks,
# the time before them and after (seconds, nanoseconds)
LOG_HEAD, ENTRY_WORDS = 8, 6
# Counters of one turn, on a cache line of their own
COUNTER_WORDS = 8
DONE, STATE = 0, 1
GO_ON, STOP = 1, 2  # state; 0 before

CLOCK_ID = getattr(time, "CLOCK_MONOTONIC", 0)  # Windows has one clock, and asks for no name
SPINS = 2000  # looks at a word before a waiting thread offers its core to others
GLANCES = 256  # looks before a watching worker reads the clock


def text(target: Processor) -> str:
    module = Module()
    _walk(module, target)
    _run(module, target)
    _work(module, target)
    _open(module)
    _close(module)
    if windows.is_windows(target):
        windows.add_posix(module)
    return module.text()


def _walk(module: Module, target: Processor) -> None:
    """i64 tx_walk(job, scratch, index): take part in a job; the number of turns until its end."""
    params = [("ptr", "job"), ("ptr", "scratch"), ("i64", "index")]
    f = module.function("tx_walk", params, "i64", internal=True)
    job, scratch, index = f.params
    waves, counters = _pointer(f, job, WAVES), _pointer(f, job, COUNTERS)
    args, count, shares = _pointer(f, job, ARGS), _word(f, job, COUNT), _word(f, job, SHARES)
    turns = _pointer(f, job, TURNS)
    logged = f.compare("slt", index, _word(f, job, LOG_THREADS))
    number, mine, state = (f.alloca("i64", 8) for _ in range(3))
    f.store(integer(0), number)
    with f.forever() as leave:
        t = f.load("i64", number)
        leave(f.compare("sge", t, count))
        turn = f.at(turns, f.mul(t, integer(TURN_WORDS)), "i64")
        record = f.at(waves, f.mul(_word(f, turn, 0), integer(WAVE_WORDS)), "i64")
        counter = f.at(counters, f.mul(t, integer(COUNTER_WORDS)), "i64")
        done, said = (_at(f, counter, word) for word in (DONE, STATE))
        f.store(f.atomic_load(said, "acquire"), state)
        with f.when(f.compare("eq", f.load("i64", state), integer(0))):
            f.store(integer(0), mine)
            # The first launch of the wave, and how much higher its number among all turns' is.
            first = _word(f, record, 2)
            ahead = f.sub(_word(f, turn, 1), first)
            with f.loop(integer(0), shares, integer(1)) as offset:
                share = f.binary("urem", f.add(index, offset.i), shares)
                with f.loop(first, _word(f, record, 3), integer(1)) as launch:
                    with f.when(logged):
                        _, entry = _entry(f, job, index)
                        f.call("clock_gettime", "i32", _clock(f, job, JOB_CLOCK), _at(f, entry, 2))
                    did = _take(f, job, args, scratch, share, launch.i, ahead)
                    f.store(f.add(f.load("i64", mine), did), mine)
                    with f.when(f.binary("and", logged, f.compare("sgt", did, integer(0)))):
                        _log(f, job, index, f.add(launch.i, ahead), did)
            did = f.load("i64", mine)
            with f.when(f.compare("sgt", did, integer(0))):
                sum = f.add(f.atomic_add(done, did, "acq_rel"), did)
                with f.when(f.compare("eq", sum, _word(f, record, 0))):
                    _finish(f, job, turn, record, args, t, said)
            with _waiting(f, target) as over:
                f.store(f.atomic_load(said, "acquire"), state)
                over(f.compare("ne", f.load("i64", state), integer(0)))
        f.store(f.add(t, integer(1)), number)
        leave(f.compare("eq", f.load("i64", state), integer(STOP)))
    f.end(f.load("i64", number))


def _take(
    f: Builder, job: Value, args: Value, scratch: Value, share: Value, launch: Value, ahead: Value
) -> Value:
    """Do the remaining tasks of a share of a launch, one by one; the number of them. ahead: from
    the launch's number to that among the launches of all turns."""
    entry = f.at(_pointer(f, job, LAUNCHES), f.mul(launch, integer(LAUNCH_WORDS)), "i64")
    tasks, shares = _word(f, entry, 0), _word(f, job, SHARES)
    first = f.binary("sdiv", f.mul(tasks, share), shares)
    after = f.binary("sdiv", f.mul(tasks, f.add(share, integer(1))), shares)
    number = f.index(f.add(launch, ahead), (share, _word(f, job, LAUNCH_COUNT)))
    handed = f.at(_pointer(f, job, HANDED), number, "i64")
    did = f.alloca("i64", 8)
    f.store(integer(0), did)
    with f.forever() as none_left:
        task = f.add(first, f.atomic_add(handed, integer(1), "monotonic"))
        none_left(f.compare("sge", task, after))
        with f.loop(_word(f, entry, 1), _word(f, entry, 2), integer(1)) as part:
            place = f.at(_pointer(f, job, PARTS), f.mul(part.i, integer(PART_WORDS)), "i64")
            its_args = f.at(args, _word(f, place, 1), "i64")
            f.do(
                f"call void {_pointer(f, place, 0).name}"
                f"(ptr {its_args.name}, i64 {task.name}, ptr {scratch.name})"
            )
        f.store(f.add(f.load("i64", did), integer(1)), did)
    return f.load("i64", did)


def _entry(f: Builder, job: Value, index: Value) -> tuple[Value, Value]:
    """A thread's log, and the next entry in it."""
    size = f.index(integer(LOG_HEAD), (_word(f, job, LOG_ROOM), integer(ENTRY_WORDS)))
    log = f.at(_pointer(f, job, LOGS), f.mul(index, size), "i64")
    used = f.mul(_word(f, log, 0), integer(ENTRY_WORDS))
    return log, f.at(log, f.add(used, integer(LOG_HEAD)), "i64")


def _log(f: Builder, job: Value, index: Value, launch: Value, did: Value) -> None:
    """End the entry that has been begun."""
    log, entry = _entry(f, job, index)
    f.store(launch, entry)
    f.store(did, _at(f, entry, 1))
    f.call("clock_gettime", "i32", _clock(f, job, JOB_CLOCK), _at(f, entry, 4))
    last = f.sub(_word(f, job, LOG_ROOM), integer(1))
    f.store(f.smin(f.add(_word(f, log, 0), integer(1)), last), log)


def _finish(
    f: Builder, job: Value, turn: Value, record: Value, args: Value, number: Value, said: Value
) -> None:
    """The end of a turn, by the thread that completed it, before the others may go on."""
    verdict = f.alloca("i64", 8)
    f.store(integer(GO_ON), verdict)
    stop = _word(f, record, 1)
    with f.when(f.compare("sge", stop, integer(0))):
        report = _pointer(f, f.at(args, stop, "i64"), 0)
        with f.when(f.compare("ne", f.load("i64", report), integer(0))):
            f.store(integer(STOP), verdict)
    with f.when(f.compare("eq", f.load("i64", verdict), integer(GO_ON))):
        moves = _pointer(f, job, MOVES)
        with f.loop(_word(f, turn, 2), _word(f, turn, 3), integer(1)) as at:
            move = f.at(moves, f.mul(at.i, integer(MOVE_WORDS)), "i64")
            place = f.at(args, _word(f, move, 0), "i64")
            f.store(f.add(f.load("i64", place), _word(f, move, 1)), place)
    _stamp(f, job, f.add(number, integer(1)))
    f.atomic_store(f.load("i64", verdict), said, "release")


def _stamp(f: Builder, job: Value, number: Value) -> None:
    """Write the time as the number-th of a job that asks for times: seconds, nanoseconds."""
    with f.when(f.compare("ne", _word(f, job, TIMES), integer(0))):
        place = f.at(_pointer(f, job, TIMES), f.mul(number, integer(2)), "i64")
        f.call("clock_gettime", "i32", _clock(f, job, JOB_CLOCK), place)


def _run(module: Module, target: Processor) -> None:
    params = [("ptr", "board"), ("ptr", "job"), ("ptr", "args"), ("ptr", "times")]
    f = module.function("tx_run", params, "i64")
    board, job, args, times = f.params
    for pointer, word in ((args, ARGS), (times, TIMES)):
        f.store(pointer, _at(f, job, word))
    shared = f.compare("ne", _word(f, job, SHARED), integer(0))
    threads = f.select(shared, _word(f, board, SIZE), integer(1))
    shares = f.smin(threads, integer(MAX_SHARES))
    f.store(shares, _at(f, job, SHARES))
    waves = f.mul(_word(f, job, COUNT), integer(COUNTER_WORDS))
    launches = f.mul(_word(f, job, LAUNCH_COUNT), shares)
    for words, array in ((waves, COUNTERS), (launches, HANDED)):
        with f.loop(integer(0), words, integer(1)) as at:
            f.store(integer(0), f.at(_pointer(f, job, array), at.i, "i64"))
    _stamp(f, job, integer(0))
    with f.when(shared):
        address = f.emit("i64", f"ptrtoint ptr {job.name} to i64")
        f.atomic_store(address, _at(f, board, JOB), "seq_cst")
        f.atomic_add(_at(f, board, GENERATION), integer(1), "seq_cst")
        asleep = f.atomic_load(_at(f, board, PARKED), "seq_cst")
        with f.when(f.compare("ne", asleep, integer(0))):
            _wake(f, board)
    done = f.call("tx_walk", "i64", job, _pointer(f, board, SCRATCH), integer(0))
    with f.when(shared):
        f.atomic_store(integer(0), _at(f, board, JOB), "seq_cst")
        with _waiting(f, target) as over:
            active = f.atomic_load(_at(f, board, ACTIVE), "seq_cst")
            over(f.compare("eq", active, integer(0)))
    f.end(done)


def _work(module: Module, target: Processor) -> None:
    f = module.function("tx_work", [("ptr", "board"), ("i64", "index")])
    board, index = f.params
    scratch = _at(f, board, SCRATCH)
    generation, parked = _at(f, board, GENERATION), _at(f, board, PARKED)
    active = _at(f, board, ACTIVE)
    seen = f.alloca("i64", 8)
    f.store(integer(0), seen)
    with f.forever() as leave:
        _watch(f, target, board, f.load("i64", seen))
        last = f.load("i64", seen)
        with f.when(f.compare("eq", f.atomic_load(generation, "acquire"), last)):
            f.atomic_add(parked, integer(1), "seq_cst")
            f.call("pthread_mutex_lock", "i32", _at(f, board, MUTEX))
            with f.forever() as awake:
                now = f.atomic_load(generation, "seq_cst")
                awake(f.compare("ne", now, last))
                f.call("pthread_cond_wait", "i32", _at(f, board, CONDITION), _at(f, board, MUTEX))
            f.call("pthread_mutex_unlock", "i32", _at(f, board, MUTEX))
            f.atomic_add(parked, integer(-1), "seq_cst")
        f.store(f.atomic_load(generation, "acquire"), seen)
        leave(f.compare("ne", f.atomic_load(_at(f, board, QUIT), "acquire"), integer(0)))
        f.atomic_add(active, integer(1), "seq_cst")
        address = f.atomic_load(_at(f, board, JOB), "seq_cst")
        with f.when(f.compare("ne", address, integer(0))):
            job = f.emit("ptr", f"inttoptr i64 {address.name} to ptr")
            own = f.load("ptr", f.at(scratch, index, "i64"))
            f.call("tx_walk", "i64", job, own, index)
        f.atomic_add(active, integer(-1), "seq_cst")
    f.end()


def _watch(f: Builder, target: Processor, board: Value, seen: Value) -> None:
    """Until there is a new generation, or the team's patience is over."""
    begin, now = f.alloca("[2 x i64]", 8), f.alloca("[2 x i64]", 8)
    looks = f.alloca("i64", 8)
    clock = _clock(f, board, CLOCK)
    f.store(integer(0), looks)
    f.call("clock_gettime", "i32", clock, begin)
    with f.forever() as leave:
        generation = f.atomic_load(_at(f, board, GENERATION), "acquire")
        leave(f.compare("ne", generation, seen))
        _pause(f, target)
        count = f.add(f.load("i64", looks), integer(1))
        f.store(count, looks)
        with f.when(f.compare("eq", f.binary("urem", count, integer(GLANCES)), integer(0))):
            f.call("sched_yield", "i32")
            f.call("clock_gettime", "i32", clock, now)
            seconds, rest = (f.sub(_word(f, now, i), _word(f, begin, i)) for i in (0, 1))
            waited = f.add(f.mul(seconds, integer(10**9)), rest)
            leave(f.compare("sgt", waited, _word(f, board, PATIENCE)))


def _open(module: Module) -> None:
    f = module.function("tx_open", [("ptr", "board")])
    for name, word in (("mutex", MUTEX), ("cond", CONDITION)):
        f.call(f"pthread_{name}_init", "i32", _at(f, f.params[0], word), Value("ptr", "null"))
    f.end()


def _close(module: Module) -> None:
    f = module.function("tx_close", [("ptr", "board")])
    (board,) = f.params
    f.atomic_store(integer(1), _at(f, board, QUIT), "release")
    f.atomic_add(_at(f, board, GENERATION), integer(1), "seq_cst")
    _wake(f, board)
    f.end()


def _wake(f: Builder, board: Value) -> None:
    """All workers that sleep. One that is about to holds the mutex until it does, or sees the new
    generation."""
    mutex = _at(f, board, MUTEX)
    f.call("pthread_mutex_lock", "i32", mutex)
    f.call("pthread_cond_broadcast", "i32", _at(f, board, CONDITION))
    f.call("pthread_mutex_unlock", "i32", mutex)


@contextmanager
def _waiting(f: Builder, target: Processor) -> Iterator[Callable[[Value], None]]:
    """A loop that waits for another thread: it pauses, and gives its core away after a while, for
    that thread may have none."""
    looks = f.alloca("i64", 8)
    f.store(integer(0), looks)
    with f.forever() as leave:
        yield leave
        _pause(f, target)
        count = f.add(f.load("i64", looks), integer(1))
        f.store(count, looks)
        with f.when(f.compare("sgt", count, integer(SPINS))):
            f.call("sched_yield", "i32")


def _pause(f: Builder, target: Processor) -> None:
    if target.triple.startswith("x86_64"):
        f.call("llvm.x86.sse2.pause", "void")
    else:  # YIELD does nothing on most of them; this takes about as long as the other's pause
        f.call("llvm.aarch64.isb", "void", integer(15, "i32"))


def _at(f: Builder, base: Value, word: int) -> Value:
    return f.at(base, integer(word), "i64")


def _word(f: Builder, base: Value, word: int) -> Value:
    return f.load("i64", _at(f, base, word))


def _pointer(f: Builder, base: Value, word: int) -> Value:
    return f.load("ptr", _at(f, base, word))


def _clock(f: Builder, base: Value, word: int) -> Value:
    return f.convert("trunc", _word(f, base, word), "i32")
