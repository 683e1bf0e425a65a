"""ranks: a step of training on several ranks on paper.

In: a step of any number of rows on any number of ranks (an Outlook), what its launches take, a
Network. Out: a Share for each number of ranks. Called by `tinygrad-tx plan --ranks` and
benchmarks/scaling.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ..compiler.inspect.estimate import Work
from ..distributed.paper import Cost, Network, cost
from .outlook import Outlook


class Share(NamedTuple):
    """rows: of a batch, at the rank that has most; idle: ranks that have none; tokens: of the whole
    step; peak: bytes of memory of that rank; messages: that it sends in a step."""

    cost: Cost
    rows: int
    idle: int
    tokens: int
    peak: float
    messages: int

    @property
    def rate(self) -> float:
        """Tokens a second, of all ranks."""
        return self.tokens / self.cost.seconds


class Timing(NamedTuple):
    """What a machine takes: for one time of a launch, and for a step in all. adds: bytes a second
    at which it adds what has come, if that goes to it by itself (a GPU, by NCCL); None where the
    processor that computes serves the network, too."""

    launch: Callable[[Work], float]
    step: Callable[[Outlook], float]
    adds: float | None = None


def shares(
    planned: Callable[[int, int], Outlook],
    rows: int,
    ranks: Sequence[int],
    network: Network,
    timing: Timing,
    *,
    weak: bool = False,
    sharded: bool = False,
) -> Iterator[Share]:
    """A step of `rows` rows on each number of ranks. planned: a step in which each of so many ranks
    has so many rows. weak: each rank has `rows`; otherwise they share them. sharded: whether what a
    rank computes depends on how many there are, if there are several."""
    if timing.adds is not None:
        network = network._replace(busy=0.0, look=0.0, reduce=timing.adds)
    known: dict[tuple[int, int], Outlook] = {}
    for n in ranks:
        most = rows if weak else -(-rows // n)
        key = most, n if sharded else min(n, 2)
        if key not in known:
            known[key] = planned(*key)
        found = known[key]
        c = cost(found.events(timing.launch, timing.step(found)), n, network)
        total = rows * n if weak else rows
        yield Share(
            c,
            most,
            max(n - total, 0),
            total * found.length * found.accumulate,
            found.memory.peak + c.given,  # what is on its way is a copy
            sum(w.times for w in found.works if w.given and w.ops != "finish_reduce"),
        )
