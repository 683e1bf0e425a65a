"""paper: what a step costs on so many ranks, worked out rather than measured.

In: the parts of a step of one rank with its rows, the bytes of its gradients, and a Network. Out:
a Cost. Called by `tinygrad-tx plan --ranks` and benchmarks/scaling.py, which holds it to what is
measured.

The model, of which docs/distributed.md says more. A sum over n ranks goes in two phases, in each of
which a rank sends and receives (n - 1)/n of the bytes in n - 1 messages (communicator.py: the parts
to whom adds them, the sums to all). Gradients are ready one after the other while the backward pass
runs; a bucket is on its way as soon as it is whole and the bucket before it has arrived. What has
not arrived when the backward pass ends is exposed: the update waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .functional import BUCKET


class Network(NamedTuple):
    """bandwidth: bytes a second that a rank sends while it receives as many; latency: seconds of a
    message of no length; busy: the part of a core's time that a rank is kept from computing by
    what it sends and receives; reduce: bytes a second at which a rank adds what it has received."""

    name: str
    bandwidth: float
    latency: float
    busy: float = 0.0
    reduce: float = 8e9


# What such links reach in practice: TCP on an ordinary host, an adapter that writes into memory by
# itself (RDMA), and NVLink of the fourth generation between GPUs of one machine.
NETWORKS = {
    "10gbit": Network("10gbit", 1.1e9, 30e-6, busy=0.3),
    "100gbit": Network("100gbit", 11e9, 4e-6),
    "nvlink": Network("nvlink", 350e9, 8e-6, reduce=1e12),
}


class Parts(NamedTuple):
    """The seconds of a step of one rank that has its share of the rows, without what is sent."""

    forward: float
    backward: float
    update: float

    @property
    def total(self) -> float:
        return sum(self)


class Cost(NamedTuple):
    """seconds: of a step. compute: of them, what a rank computes; sent: how long gradients are on
    their way; exposed: of it, what nothing hides. bytes: that a rank sends."""

    ranks: int
    seconds: float
    compute: float
    sent: float
    exposed: float
    bytes: float


def cost(parts: Parts, gradients: int, ranks: int, network: Network, bucket: int = BUCKET) -> Cost:
    """That of a step. gradients: the bytes of all of them."""
    if ranks == 1:
        return Cost(1, parts.total, parts.total, 0.0, 0.0, 0.0)
    buckets = _buckets(gradients, bucket)
    times = [summed(size, ranks, network) for size in buckets]
    sent = sum(times)
    compute = parts.total + network.busy * sent
    end = _end(parts.backward + network.busy * sent, times)
    exposed = end - (parts.backward + network.busy * sent)
    moved = 2 * gradients * (ranks - 1) / ranks
    return Cost(ranks, compute + exposed, compute, sent, exposed, moved)


def summed(size: int, ranks: int, network: Network) -> float:
    """The seconds of a sum of so many bytes over all ranks."""
    part = size * (ranks - 1) / ranks
    phase = (ranks - 1) * network.latency + part / network.bandwidth
    return 2 * phase + part / network.reduce


def _buckets(size: int, bucket: int) -> list[int]:
    """The bytes of each bucket, the last one with what is left."""
    whole, rest = divmod(size, bucket)
    return [bucket] * whole + [rest] * bool(rest)


def _end(backward: float, times: Sequence[float]) -> float:
    """When the last bucket has arrived, counted from where the backward pass begins: bucket i is
    whole after i + 1 equal parts of it."""
    done = 0.0
    for i, seconds in enumerate(times):
        ready = backward * (i + 1) / len(times)
        done = max(done, ready) + seconds
    return max(done, backward)
