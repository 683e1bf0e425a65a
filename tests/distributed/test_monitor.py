"""The monitor of a job by itself: ranks are sockets of this process."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tinygrad_tx.distributed import heartbeat
from tinygrad_tx.distributed.monitor import BEAT, BYE, END, SAID, Monitor, interval
from tinygrad_tx.errors import UserError

LONG = 60.0  # a limit that nobody comes to


class Rank:
    """A connection to a monitor."""

    def __init__(self, monitor: Monitor, number: int, secret: str | None = None) -> None:
        port, known, *_ = monitor.address.split(" ")
        self.socket = socket.create_connection(("127.0.0.1", int(port)), timeout=10)
        self.say(f"hello {secret or known} {number} host{number}\n".encode())

    def say(self, message: bytes) -> None:
        self.socket.sendall(message)

    def heard(self, wanted: bytes) -> bool:
        """Whether a message comes before the end of the connection."""
        got = b""
        while wanted not in got:
            more = self.socket.recv(100)
            if not more:
                return False
            got += more
        return True

    def end(self) -> None:
        self.socket.close()


@contextmanager
def watching(size: int, limit: float = LONG) -> Iterator[tuple[Monitor, list[str]]]:
    """A monitor, and the lines that it says; it has ended of itself at the end."""
    said: list[str] = []
    monitor = Monitor(size, limit, said.append)
    thread = threading.Thread(target=monitor.watch)
    thread.start()
    try:
        yield monitor, said
        thread.join(20)
        assert not thread.is_alive()
    finally:
        monitor.close()
        thread.join()


def ranks(monitor: Monitor, size: int) -> list[Rank]:
    found = [Rank(monitor, number) for number in range(size)]
    assert all(rank.heard(BEAT) for rank in found)
    return found


def test_a_connection_that_ends() -> None:
    with watching(3) as (monitor, said):
        first, second, third = ranks(monitor, 3)
        first.say(b"note step 7 is saved\n")
        first.say(BEAT)
        time.sleep(0.2)  # the note is there before the end of the other
        second.end()
        assert first.heard(END) and third.heard(END)
        first.end()
        third.end()
    assert said == ["rank 1 of 3, on host1, has ended; the job ends; step 7 is saved"]
    assert monitor.died == said[0]


def test_silence() -> None:
    with watching(2, 1.0) as (monitor, said):
        first, second = ranks(monitor, 2)
        while not said:
            first.say(BEAT)
            time.sleep(0.05)
        assert first.heard(END)
        first.end()
        second.end()
    assert said == ["rank 1 of 2, on host1, has not answered for 1 s; the job ends"]


def test_a_rank_that_does_not_come() -> None:
    with watching(2, 1.0) as (monitor, said):
        (first,) = ranks(monitor, 1)
        while not said:
            first.say(BEAT)
            time.sleep(0.05)
        first.end()
    assert said == ["rank 1 of 2 has not answered for 1 s; the job ends"]


def test_an_end_in_order_and_an_error_that_was_told() -> None:
    with watching(2) as (monitor, said):
        for rank in ranks(monitor, 2):
            rank.say(BYE)
            rank.end()
    assert not said and not monitor.died and not monitor.told
    with watching(2) as (monitor, said):
        first, second = ranks(monitor, 2)
        second.say(SAID)
        assert first.heard(END)
        first.end()
        second.end()
    assert not said and monitor.told


def test_a_process_that_does_not_come_to_its_end() -> None:
    with watching(2, 1.0) as (monitor, said):
        first, second = ranks(monitor, 2)
        first.say(BYE)
        second.say(BYE)
        second.end()
        while not said:
            time.sleep(0.05)
        first.end()
    assert said == ["rank 0 of 2, on host0, has not answered for 1 s; the job ends"]


def test_strangers() -> None:
    with watching(1) as (monitor, said):
        other = Rank(monitor, 0, "x" * 32)
        assert not other.heard(BEAT)
        nonsense = Rank(monitor, 0, "ü")
        nonsense.end()
        (first,) = ranks(monitor, 1)
        first.say(BYE)
        first.end()
    assert not said


def test_an_end_is_found_in_time() -> None:
    """Beats come often enough for the default to keep what is promised: 30 seconds."""
    limit = heartbeat.limit()
    assert limit + 2 * interval(limit) + 2 * 5.0 < 30


@pytest.mark.parametrize("text", ["x", "-1", "0.5", "nan"])
def test_the_limit(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("TX_RANK_TIMEOUT", "0")
    assert heartbeat.limit() == 0
    monkeypatch.setenv("TX_RANK_TIMEOUT", text)
    with pytest.raises(UserError, match="TX_RANK_TIMEOUT is"):
        heartbeat.limit()
