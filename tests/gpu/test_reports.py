"""Reports: an index that was outside, where threads share a device, and where a run ends in its
midst. On the simulator, whose host is told no earlier than it waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Event, Thread
from typing import Any, NoReturn

import numpy as np
import pytest

pytest.importorskip("llvmlite")
from simulator.device import NAME, SimulatedReports, install

import tinygrad_tx as tx
from tinygrad_tx.backends.reports import CLEAN, SHIFT, Reports
from tinygrad_tx.compiler.compiled import Compiled

OUTSIDE = "take: index 9 is outside the 4 entries"


@pytest.fixture(autouse=True)
def late(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    install()
    monkeypatch.setattr(SimulatedReports, "_arrived", lambda self: False)
    yield
    tx.set_default_device("cpu")


def ids(*values: int) -> tx.Tensor:
    return tx.tensor(list(values), device=NAME)


def own_op(forward: Callable[..., Any]) -> tx.Op:
    return tx.Op("of one's own", kind="opaque", forward=forward, rule=lambda op, x: x.spec)


def stepping(between: Callable[[tx.Tensor], tx.Tensor]) -> tuple[Compiled, tx.Tensor]:
    """A step, and the state that it adds to: behind what is called between two programs."""
    table, state = tx.ones(4, 2, device=NAME), tx.zeros(2000, device=NAME)

    @tx.compile
    def step(i: tx.Tensor) -> tx.Tensor:
        found = between(table[i].sum())
        state.assign(state + found)
        return found

    return step, state


def in_thread(f: Callable[[], Any]) -> list[Any]:
    """What a function gives or raises in another thread."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(f())
        except Exception as error:
            found.append(error)

    thread = Thread(target=run)
    thread.start()
    thread.join()
    return found


def test_a_thread_that_waits_in_the_midst_of_anothers_run_hears_when_it_is_whole() -> None:
    waiting, heard, threads = Event(), list[Any](), list[Thread]()
    other = tx.ones(2, device=NAME)

    def wait() -> None:
        waiting.set()
        try:
            heard.append(other.tolist())
        except IndexError as error:
            heard.append(str(error))

    def forward(xp: Any, x: Any) -> Any:
        if watch:
            threads.append(Thread(target=wait))
            threads[-1].start()
            waiting.wait()
            threads[-1].join(0.1)
        return x * 1

    watch = False
    step, state = stepping(own_op(forward))
    assert step(ids(1)).item() == 2
    watch = True
    lost = step(ids(9))
    for thread in threads:
        thread.join()
    assert len(threads) == 1 and len(heard) == 1 and OUTSIDE in heard[0]
    with pytest.raises(IndexError, match=OUTSIDE):
        lost.item()
    assert set(state.tolist()) == {2.0}
    watch = False
    assert step(ids(0)).item() == 2 and state[7].item() == 4


def test_each_thread_whose_runs_were_lost_is_told_once() -> None:
    step, state = stepping(lambda x: x)
    other, mine = stepping(lambda x: x)
    idle = tx.ones(1, device=NAME)
    step(ids(1))
    step(ids(9))
    step(ids(1))
    (error,) = in_thread(lambda: (other(ids(1)), mine.numpy()))
    assert isinstance(error, IndexError) and OUTSIDE in str(error)
    assert in_thread(lambda: idle.item()) == [1.0]
    with pytest.raises(IndexError, match=OUTSIDE):  # at the next call
        step(ids(1))
    assert set(state.tolist()) == {2.0} and set(mine.tolist()) == {0.0}
    assert step(ids(1)).item() == other(ids(1)).item() == 2


class BrokenError(Exception):
    pass


@pytest.mark.parametrize("behind", [False, True])
def test_an_op_that_raises_behind_an_index_outside(behind: bool) -> None:
    """The index is why, as where nothing goes on behind it. behind: a run that nobody has heard
    of."""

    def forward(xp: Any, x: Any) -> Any:
        if breaks:
            raise BrokenError
        return x * 1

    breaks = False
    step, state = stepping(own_op(forward))
    step(ids(1))
    if not behind:
        state.numpy()
    breaks = True
    with pytest.raises(IndexError, match=OUTSIDE):
        step(ids(9))
    with pytest.raises(BrokenError):
        step(ids(1))
    breaks = False
    assert step(ids(2)).item() == 2 and set(state.tolist()) == {4.0}


def test_an_op_that_waits_behind_an_index_outside() -> None:
    step, state = stepping(own_op(lambda xp, x: xp.asarray(np.array(xp.to_host(x)))))
    step(ids(1)).item()
    lost = step(ids(9))
    with pytest.raises(IndexError, match=OUTSIDE):
        lost.item()
    assert set(state.tolist()) == {2.0} and step(ids(1)).item() == 2


# Copies of a report that are on their way ---------------------------------------------------------


class Copied(Reports):
    """A report that the host sees as it was when it was last copied, at the next wait."""

    address = 0

    def __init__(self) -> None:
        super().__init__()
        self.report = self.there = self.way = CLEAN

    def _begin(self, number: int) -> None:
        """Nobody looks at it."""

    def _ask(self) -> None:
        self.way = self.report

    def _arrived(self) -> bool:
        return False

    def _await(self) -> None:
        """It never arrives."""

    def _heard(self) -> int:
        return self.there

    def _wait(self) -> None:
        self.there = self.way

    def _clear(self) -> None:
        self.report = CLEAN


def test_an_answer_is_of_the_runs_that_were_asked_for() -> None:
    """Another run fails between what a thread asks and what it is answered."""
    reports, undone = Copied(), list[int]()

    def blame(low: int) -> NoReturn:
        raise IndexError(f"at {low}")

    def give(fails: bool) -> None:
        with reports.run(True, blame) as run:
            run.undo = lambda: undone.append(run.number)
            if fails:
                reports.report = run.number << SHIFT | 5

    give(False)
    asked = reports.ask()
    reports._wait()
    give(True)
    reports.answer(asked)
    assert undone == []
    give(False)
    with pytest.raises(IndexError, match="at 5"):
        reports.hear()
    assert undone == [3, 2]
    give(False)
    reports.hear()
    assert undone == [3, 2]
