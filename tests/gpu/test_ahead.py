"""Reports of indices by a device that is behind the host: what is asked, awaited and taken back."""

from __future__ import annotations

from typing import NoReturn

import pytest

from tinygrad_tx.backends.reports import AHEAD, CLEAN, SHIFT, Reports


class Device(Reports):
    """A device that ends a run only when it is told to. queue: the numbers of runs that it has been
    given, and "ask" where the report is to be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: list[int | str] = []
        self.outside: set[int] = set()
        self.sent, self.asked_for = [CLEAN], 0
        self.report, self.ended, self.drained = CLEAN, 0, 0

    address = 0

    def end(self, count: int = 1) -> None:
        """It does so much of what it has been given."""
        for _ in range(min(count, len(self.queue))):
            given = self.queue.pop(0)
            if given == "ask":
                self.sent.append(self.report)
            elif isinstance(given, int):
                self.ended += 1
                if given in self.outside and self.report == CLEAN:
                    self.report = given << SHIFT

    def give(self, checks: bool = True) -> int:
        """A run; the number that it has."""
        with self.run(checks, blame) as run:
            self.queue.append(run.number)
            run.undo = lambda: undone.append(run.number)
        return run.number

    def _begin(self, number: int) -> None:
        pass

    def _ask(self) -> None:
        self.queue.append("ask")
        self.asked_for += 1

    def _arrived(self) -> bool:
        return len(self.sent) > self.asked_for

    def _await(self) -> None:
        while not self._arrived():
            self.end()

    def _heard(self) -> int:
        assert self._arrived()
        return self.sent[-1]

    def _wait(self) -> None:
        self.drained += 1
        self.end(len(self.queue))

    def _clear(self) -> None:
        self.report = CLEAN


undone: list[int] = []


def blame(low: int) -> NoReturn:
    raise IndexError("outside")


@pytest.fixture
def device() -> Device:
    undone.clear()
    return Device()


def test_a_host_that_is_ahead_waits_for_older_runs_alone(device: Device) -> None:
    """However long it is ahead, the device has many runs still to do."""
    for number in range(1, 20 * AHEAD):
        device.give()
        assert len(device._runs) <= 2 * AHEAD
        assert len([x for x in device.queue if x != "ask"]) >= min(number, AHEAD - 2)
    assert device.ended and not device.drained


def test_one_report_is_on_its_way_at_a_time(device: Device) -> None:
    for _ in range(10):
        device.give()
    assert device.asked_for == 1
    device.end(3)
    device.give()
    assert device.asked_for == 2


def test_a_device_that_keeps_up_is_never_waited_for(device: Device) -> None:
    for _ in range(3 * AHEAD):
        device.give()
        device.end(2)
    assert not device.drained and len(device._runs) <= 1


@pytest.mark.parametrize("behind", [0, 1, 5, 2 * AHEAD + 3])
def test_what_was_outside_is_raised_and_later_runs_are_taken_back(
    device: Device, behind: int
) -> None:
    """By the next call that finds it known, or by a wait, in whatever run it was."""
    for _ in range(2):
        device.give()
    device.outside = {3}
    with pytest.raises(IndexError):
        for _ in range(1 + behind):
            device.give()
        device.hear()
    assert undone == list(range(max(undone), 2, -1))
    assert not device._runs and device.report == CLEAN
    device.give()
    device.hear()


def test_runs_that_check_nothing_are_kept_only_behind_one_that_does(device: Device) -> None:
    device.give(checks=False)
    assert not device._runs and not device.asked_for
    checked = device.give()
    free = [device.give(checks=False) for _ in range(3)]
    assert [run.number for run in device._runs] == [checked, *free]
    device.outside = {checked}
    with pytest.raises(IndexError):
        device.hear()
    assert undone == [*free[::-1], checked]
