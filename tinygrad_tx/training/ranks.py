"""ranks: a step of training on several ranks on paper.

In: a step of any number of rows (an Outlook), what its launches take, a Network. Out: a Share for
each number of ranks. Called by `tinygrad-tx plan --ranks` and benchmarks/scaling.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ..compiler.inspect.estimate import Work
from ..distributed.paper import Cost, Network, cost
from .outlook import Outlook


class Share(NamedTuple):
    """rows: of a batch, at the rank that has most; idle: ranks that have none; tokens: of the whole
    step; peak: bytes of memory of that rank."""

    cost: Cost
    rows: int
    idle: int
    tokens: int
    peak: int

    @property
    def rate(self) -> float:
        """Tokens a second, of all ranks."""
        return self.tokens / self.cost.seconds


class Timing(NamedTuple):
    """What a machine takes: for one time of a launch, and for a step in all. apart: whether it is
    not the processor that serves the network."""

    launch: Callable[[Work], float]
    step: Callable[[Outlook], float]
    apart: bool = False


def shares(
    planned: Callable[[int], Outlook],
    rows: int,
    ranks: Sequence[int],
    network: Network,
    timing: Timing,
    *,
    weak: bool = False,
) -> Iterator[Share]:
    """A step of `rows` rows on each number of ranks. planned: a step of so many rows. weak: each
    rank has so many rows; otherwise they share them."""
    network = network._replace(busy=0.0) if timing.apart else network
    known: dict[int, Outlook] = {}
    for n in ranks:
        most = rows if weak else -(-rows // n)
        if most not in known:
            known[most] = planned(most)
        found = known[most]
        parts = found.phases(timing.launch, timing.step(found))
        gradients = found.memory.weights
        total = rows * n if weak else rows
        yield Share(
            cost(parts, gradients, n, network),
            most,
            max(n - total, 0),
            total * found.length * found.accumulate,
            found.memory.peak + (gradients if n > 1 else 0),
        )
