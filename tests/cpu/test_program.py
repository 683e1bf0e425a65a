"""The native executor: every task once, in waves, on any number of threads."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

pytest.importorskip("llvmlite")

from program_case import (
    Body,
    Words,
    compiled,
    count,
    neighbours,
    report,
    report_if,
    rest,
    use_scratch,
    words,
)

from tinygrad_tx.backends.cpu import host, jit
from tinygrad_tx.backends.cpu.run import executor, team
from tinygrad_tx.backends.cpu.run.program import Launch, Loop, Program, Wave

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def code() -> Callable[[Body], int]:
    return compiled()


@pytest.fixture(params=[1, 2, 4, 9])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = team.get_num_threads()
    team.set_num_threads(request.param)
    yield request.param
    team.set_num_threads(before)


def test_every_task_once(code: Callable[[Body], int], threads: int) -> None:
    arrays = [np.zeros(n, np.int64) for n in (1, 7, 0, 300)]
    args = words(*arrays)
    launches = tuple(Launch(((code(count), i),), len(x)) for i, x in enumerate(arrays))
    program = Program([Wave(launches), Wave(()), Wave(launches[1:])])
    for _ in range(50):
        assert program.run(args) == 3
    for x, times in zip(arrays, (50, 100, 100, 100), strict=True):
        assert (x == times).all()


def test_waves_follow_each_other(code: Callable[[Body], int], threads: int) -> None:
    """A thousand small waves, each of which reads what all tasks of the last one wrote."""
    n, rounds = 6, 500
    x, y = np.arange(n), np.zeros(n, np.int64)
    expected = x.copy()
    for _ in range(2 * rounds):
        expected = 3 * expected + np.roll(expected, -1)
    there, back = (Wave((Launch(((code(neighbours), at),), n),)) for at in (0, 3))
    program = Program([there, back] * rounds)
    assert program.run(words(x, y, n, y, x, n)) == 2 * rounds
    np.testing.assert_array_equal(x, expected)


def test_repeated_runs(code: Callable[[Body], int], threads: int) -> None:
    """Workers come to a job at any moment of it, also when it is over."""
    x = np.zeros(3, np.int64)
    program = Program([Wave((Launch(((code(count), 0),), 3),))] * 2)
    args = words(x)
    for _ in range(2000):
        program.run(args)
    assert (x == 4000).all()


def test_parts_of_a_task_follow_each_other(code: Callable[[Body], int], threads: int) -> None:
    n = 200
    x, y, z = np.arange(n), np.zeros(n, np.int64), np.zeros(n, np.int64)
    # n = 1 makes every task's neighbour the first element, which is 0 in x and in y.
    parts = ((code(neighbours), 0), (code(neighbours), 3), (code(count), 4))
    assert Program([Wave((Launch(parts, n),))]).run(words(x, y, 1, y, z, 1)) == 1
    np.testing.assert_array_equal(z, 9 * x + 1)


def test_stop(code: Callable[[Body], int], threads: int) -> None:
    x, said = np.zeros(40, np.int64), np.zeros(1, np.int64)
    args = words(said, 7, x)
    counted = Launch(((code(count), 2),), 40)
    checked = Wave((counted, Launch(((code(report), 0),), 20)), stop=0)
    program = Program([Wave((counted,)), checked, Wave((counted,)), Wave((counted,))])
    for _ in range(100):
        x[:] = said[:] = 0
        assert program.run(args) == 2
        assert said[0] == 1 and (x == 2).all()
    args[1], said[0] = -1, 0
    assert program.run(args) == 4 and (x == 6).all()


def test_timed(code: Callable[[Body], int], threads: int) -> None:
    x, said = np.zeros(4, np.int64), np.zeros(1, np.int64)
    pause = Wave((Launch(((code(rest), 0),), 4),))
    watched = Wave((Launch(((code(report), 2),), 4),), stop=2)
    program = Program([watched, pause, watched])
    last, seconds = program.run_timed(words(x, 2000, said, -1))
    assert last == len(seconds) == 3 and min(seconds) >= 0
    assert seconds[1] >= 0.002
    last, seconds = program.run_timed(words(x, 2000, said, 1))
    assert last == len(seconds) == 1


@pytest.mark.one_in(2)
def test_what_each_thread_did_is_known_of_a_timed_run(
    code: Callable[[Body], int], threads: int
) -> None:
    """Of every turn and launch all tasks are there, those of a thread one after the other; what
    finds no room is left out, and nothing is written where it must not be."""
    x = np.zeros((3, 40), np.int64)
    pause, counted = Launch(((code(rest), 1),), 4), Launch(((code(count), 0),), 40)
    empty = Launch(((code(count), 0),), 0)
    loop = Loop((Wave((counted,)), Wave((empty, counted, pause))), 3, ((0, 8 * 40),))
    program = Program([Wave((counted,)), loop])
    assert program.done() == []
    _, seconds = program.run_timed(words(x, np.zeros(4, np.int64), 2000))
    done = program.done()
    found: dict[tuple[int, int], int] = {}
    for d in done:
        found[d.wave, d.launch] = found.get((d.wave, d.launch), 0) + d.tasks
    assert found == {(0, 0): 40, (1, 0): 120, (2, 1): 120, (2, 2): 12}
    for thread in range(threads):
        mine = [d for d in done if d.thread == thread]
        assert all(d.begin <= d.end for d in mine)
        assert all(a.end <= b.begin for a, b in itertools.pairwise(mine))
    assert min(d.begin for d in done) >= 0 and max(d.end for d in done) <= sum(seconds) + 1e-6
    assert len({d.thread for d in done}) >= min(threads, 2)
    long = Program([Loop((Wave((counted,)),), 30_000, ())])
    long.run_timed(words(x, x, 2000))
    assert max(len([d for d in long.done() if d.thread == t]) for t in range(threads)) == 20_000


def test_loops(code: Callable[[Body], int], threads: int) -> None:
    """A wave of two launches on a row of x, then the wave again; rows move, and so do entries of y
    in a loop inside of it. Afterwards all is as it was."""
    x, y, z = np.zeros((5, 40), np.int64), np.zeros((5, 7), np.int64), np.zeros(30, np.int64)
    row = Wave((Launch(((code(count), 0),), 40), Launch(((code(count), 2),), 30)))
    entry = Wave((Launch(((code(count), 1),), 1),))
    outside = Wave((Launch(((code(count), 2),), 30),))
    inner = Loop((entry,), 7, ((1, 8),))
    loop = Loop((row, inner, row), 5, ((0, 8 * 40), (1, 8 * 7)))
    program = Program([outside, loop, Loop((), 3, ()), outside])
    args = words(x, y, z)
    before = args.copy()
    for number in range(1, 21):
        assert program.run(args) == 5
        assert (x == 2 * number).all() and (y == number).all() and (z == 12 * number).all()
        assert (args == before).all()
    last, seconds = program.run_timed(args)
    assert last == 5 and len(seconds) == 4


def test_a_stop_inside_a_loop(code: Callable[[Body], int], threads: int) -> None:
    """In the third round: of two waves, the second is not run in it."""
    x, said, at = np.zeros((9, 4), np.int64), np.zeros(1, np.int64), np.array([9, 9, 2, 9])
    told = Wave((Launch(((code(report_if), 0),), 4),), stop=0)
    counted = Wave((Launch(((code(count), 2),), 4),))
    program = Program([Wave(()), Loop((told, counted), 4, ((1, 8), (2, 32))), Wave(())])
    assert program.run(words(said, at, x)) == 2
    assert x.sum(1).tolist() == [4, 4, 0, 0, 0, 0, 0, 0, 0]
    last, seconds = program.run_timed(words(said, at, x))
    assert last == 2 and len(seconds) == 2


def test_threads_take_part(code: Callable[[Body], int], threads: int) -> None:
    """Tasks that sleep leave the processor to the others, however few cores there are."""
    x, seen = np.zeros(40, np.int64), set[int]()
    waves = [Wave((Launch(((code(rest), 0),), 40),))]
    program = Program(waves, scratch=64)
    for _ in range(50):  # a busy machine may give a thread nothing for as long as a run takes
        assert program.run(words(x, 2000)) == 1
        assert not (x % 64).any()
        seen |= set(x.tolist())
        if len(seen) >= threads:
            break
    assert len(seen) == threads
    assert Program(waves, scratch=64, alone=True).run(words(x, 10)) == 1
    assert len(set(x)) == 1


def test_scratch_grows(code: Callable[[Body], int], threads: int) -> None:
    x = np.zeros(64, np.int64)
    for size in (1, 1000, 10, 50_000):
        program = Program([Wave((Launch(((code(use_scratch), 0),), 64),))], scratch=8 * size)
        program.run(words(x, size))
        np.testing.assert_array_equal(x, size * np.arange(64))


def test_python_threads_take_turns(code: Callable[[Body], int], threads: int) -> None:
    arrays = [np.zeros(11, np.int64) for _ in range(3)]

    def work(x: Words) -> None:
        program, args = Program([Wave((Launch(((code(count), 0),), 11),))] * 3), words(x)
        for _ in range(100):
            program.run(args)

    callers = [Thread(target=work, args=(x,)) for x in arrays]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert all((x == 300).all() for x in arrays)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork(code: Callable[[Body], int], threads: int) -> None:
    """The child has none of the workers, and makes its own."""
    x = np.zeros(20, np.int64)
    args = words(x)
    program = Program([Wave((Launch(((code(count), 0),), 20),))] * 5)
    program.run(args)
    child = os.fork()
    if child == 0:
        for _ in range(20):
            program.run(args)
        os._exit(0 if (x == 105).all() else 1)
    assert os.waitpid(child, 0)[1] == 0
    program.run(args)
    assert (x == 10).all()


def test_idle_workers_sleep(code: Callable[[Body], int], threads: int) -> None:
    x = np.zeros(50, np.int64)
    Program([Wave((Launch(((code(count), 0),), 50),))]).run(words(x))
    cpu, wall = time.process_time(), time.perf_counter()
    time.sleep(0.2)
    assert time.process_time() - cpu < 0.2 * (time.perf_counter() - wall)


# Whole processes ---------------------------------------------------------------------------------

START = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
import numpy as np
from program_case import compiled, count, rest, words
from tinygrad_tx.backends.cpu.run import team
from tinygrad_tx.backends.cpu.run.program import Launch, Loop, Program, Wave
team.set_num_threads(4)
code = compiled()
x = np.zeros(1000, np.int64)
def program(body): return Program([Wave((Launch(((code(body), 0),), 1000),))])
"""
INTERRUPTED = """
try:
    program(rest).run(words(x, 1))
    print("ready", flush=True)
    while True:
        program(rest).run(words(x, 200))
except KeyboardInterrupt:
    assert x.all() and program(rest).run(words(x, 1)) == 1
    print("left")
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'helpers'}"}


def process(script: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", START + script]
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=ENVIRONMENT)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_interrupt() -> None:
    with process(INTERRUPTED) as running:
        assert running.stdout and running.stdout.readline() == "ready\n"
        running.send_signal(signal.SIGINT)
        assert running.communicate(timeout=60) == ("left\n", "")
    assert running.returncode == 0


def test_exit_with_workers_awake() -> None:
    """Also from a thread that is still running programs."""
    busy = "import threading\ndef work():\n while True: program(count).run(words(x))\n"
    for more in ("", busy + "threading.Thread(target=work, daemon=True).start()\n"):
        with process(more + "program(count).run(words(x))\n") as running:
            assert running.communicate(timeout=60) == ("", "")
        assert running.returncode == 0


# How many threads --------------------------------------------------------------------------------


def test_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    for bad, error in ((0, ValueError), (-2, ValueError), (2.0, TypeError), (True, TypeError)):
        with pytest.raises(error, match=r"set_num_threads: n is .*1 or more"):
            team.set_num_threads(bad)  # type: ignore[arg-type]
    monkeypatch.setattr(team, "_asked", None)
    for text, expected in (("3", 3), ("", host.cores())):
        monkeypatch.setenv("TX_NUM_THREADS", text)
        team._default.cache_clear()
        assert team.get_num_threads() == expected
    for text in ("0", "two", "-1"):
        monkeypatch.setenv("TX_NUM_THREADS", text)
        team._default.cache_clear()
        with pytest.raises(ValueError, match=f"TX_NUM_THREADS={text}"):
            team.get_num_threads()
    team._default.cache_clear()


def test_arguments_are_checked(code: Callable[[Body], int]) -> None:
    program = Program([Wave((Launch(((code(count), 0),), 1),))])
    for bad in (np.zeros(4, np.int32), np.zeros(8, np.int64)[::2]):
        with pytest.raises(TypeError, match="contiguous int64"):
            program.run(bad)  # type: ignore[arg-type]


def test_executor_for_other_processors() -> None:
    """Waiting threads pause, and their reads order what follows, there too."""
    neon = jit.named_target("neon")
    read = jit.assembly(executor.text(neon), neon)
    assert "yield" in read and "ldar" in read
