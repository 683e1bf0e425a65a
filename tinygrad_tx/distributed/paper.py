"""paper: what a step costs on so many ranks, worked out rather than measured.

In: what a rank does in a step, in its order (Events), and a Network. Out: a Cost. Called by
training/ranks.py for `tinygrad-tx plan --ranks`, and by benchmarks/scaling.py, which holds it to
what is measured. docs/distributed.md says more.

A rank computes, and gives messages to its communicator, which sends one at a time, in their order.
What has not arrived where the step waits for it is exposed. A sum over n ranks goes in two phases
(communicator.py): each rank sends every other one its part of the array, and what it has added up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from math import ceil, log2
from typing import NamedTuple

from .communicator import SMALL

COMPUTE = "compute"
_PAUSE, _SLACK = 20e-6, 55e-6  # by which mpi.py's pauses grow; what a sleep takes beside


class Network(NamedTuple):
    """bandwidth: bytes a second that a host sends while it receives as many; latency: seconds of a
    message of no length. busy: the part of a core's time that a message takes while it is sent;
    reduce: bytes a second at which a rank adds what it has received. look: seconds at most between
    two looks at what has come (mpi.py); 0 where whoever waits is woken. within: between the ranks
    of a host, of which there are `per_host`, and share the host's bandwidth."""

    name: str
    bandwidth: float
    latency: float
    busy: float = 0.0
    reduce: float = 8e9
    look: float = 0.0
    per_host: int = 1
    within: Network | None = None


# What such links reach in practice: TCP between ordinary hosts, an adapter that writes into memory
# by itself (RDMA), and NVLink of the fourth generation between GPUs of one machine.
NETWORKS = {
    "10gbit": Network("10gbit", 1.1e9, 30e-6, busy=0.3, look=500e-6),
    "100gbit": Network("100gbit", 11e9, 4e-6, look=500e-6),
    "nvlink": Network("nvlink", 350e9, 8e-6),
}


class Event(NamedTuple):
    """What a rank does next. what: COMPUTE, so many seconds; or the name of a collective op
    (ops/collective.py), and the bytes of what this rank gives to it."""

    what: str
    amount: float


class Cost(NamedTuple):
    """seconds: of a step. compute: of them, what a rank computes, and what sending keeps it from;
    sent: how long messages are on their way; exposed: what nothing hides of it. bytes: that a rank
    sends; given: that it has its communicator reduce or gather."""

    ranks: int
    seconds: float
    compute: float
    sent: float
    exposed: float
    bytes: float
    given: float


def cost(events: Iterable[Event], ranks: int, network: Network) -> Cost:
    """That of a step of one of so many ranks."""
    link = _Link(network)
    moved = given = sent = 0.0
    for what, amount in events:
        if what == COMPUTE:
            link.compute(amount)
        elif what == "finish_reduce":
            link.wait_for_first()
        elif ranks > 1:
            seconds, size = message(what, amount, ranks, network)
            link.send(seconds)
            moved, given, sent = moved + size, given + amount, sent + seconds
            if not what.startswith("start_"):
                link.wait_for_all()
    return Cost(ranks, link.now, link.now - link.exposed, sent, link.exposed, moved, given)


class _Link:
    """A rank's time: it computes while the messages that it has begun are sent, first come first
    served. They share a core: whoever sends gets what it needs, up to a half."""

    def __init__(self, network: Network) -> None:
        self.now = self.exposed = 0.0
        self._sending: deque[float] = deque()  # the seconds that messages have before them
        self._awaited: deque[int] = deque()  # how many of them go before a wait ends
        self._begun = self._done = 0
        self._speed = min(1.0, 0.5 / network.busy) if network.busy else 1.0
        self._left = 1 - network.busy * self._speed

    def send(self, seconds: float) -> None:
        self._sending.append(seconds)
        self._begun += 1
        self._awaited.append(self._begun)

    def compute(self, seconds: float) -> None:
        while self._sending:
            passed = min(seconds / self._left, self._sending[0] / self._speed)
            self.now += passed
            seconds -= passed * self._left
            self._sending[0] -= passed * self._speed
            if self._sending[0] > 1e-12:
                return
            self._arrived()
        self.now += max(seconds, 0.0)

    def wait_for_first(self) -> None:
        """Until the message has come that was begun first of those that nobody has waited for."""
        if self._awaited:
            self._wait(self._awaited.popleft())

    def wait_for_all(self) -> None:
        self._wait(self._awaited.pop())

    def _wait(self, number: int) -> None:
        while self._done < number:
            self.now += self._sending[0]
            self.exposed += self._sending[0]
            self._arrived()

    def _arrived(self) -> None:
        self._sending.popleft()
        self._done += 1


def message(what: str, given: float, ranks: int, network: Network) -> tuple[float, float]:
    """The seconds of a collective op, and the bytes that a rank sends for it. given: the bytes that
    it gives."""
    others = ranks - 1
    match what.removeprefix("start_"):
        case "all_reduce" | "to_rank" if given <= SMALL:
            seconds = phase(given * ranks, ranks, network) + given * others / network.reduce
            return seconds, given * others
        case "all_reduce" | "to_rank":
            part = given * others / ranks
            return 2 * phase(given, ranks, network) + part / network.reduce, 2 * part
        case "reduce_scatter":
            part = given * others / ranks
            return phase(given, ranks, network) + part / network.reduce, part
        case "all_gather":
            return phase(given * ranks, ranks, network), given * others
        case _:  # a broadcast, along a tree
            each = network.latency + given / network.bandwidth
            return ceil(log2(ranks)) * each, given
    raise AssertionError(what)


def phase(size: float, ranks: int, network: Network) -> float:
    """The seconds in which every rank sends all others their part of so many bytes, each message
    after the one before."""
    part, near = size / ranks, min(network.per_host, ranks)
    inner = network.within or network
    far = ranks - near
    waits = far * network.latency + (near - 1) * inner.latency
    moves = max(part * far * near / network.bandwidth, part * (near - 1) / inner.bandwidth)
    if not network.look or not far:
        return waits + moves
    return _seen(far, (waits + moves) / far, network.look)


def _seen(messages: int, each: float, longest: float) -> float:
    """When the last of some messages is seen, of which each is sent when somebody has seen the one
    before. The pauses between two looks grow, up to the longest one."""
    now = pause = 0.0
    for _ in range(messages):
        due = now + each
        while now < due:
            pause = min(pause + _PAUSE, longest)
            now += pause + _SLACK
    return now
