"""host_part: the few values of a call that are computed on the host though the call is another
device's.

In: the nodes that a recorded call ends as. Out: the same nodes without those of the host, and at
each run the values that the device reads of it. Called by compiled.py and execution.py. Random
streams are counted on the host (random.py), whichever device draws: a plan of a device gets their
numbers as it gets its inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...dtypes import int64
from ...node import INPUT, MOVE, Graph, Node
from ...procedure import Procedure
from ...rules import Spec

HOST = "cpu"


def device_of(graph: Graph) -> str:
    """The device that a graph is computed on; "" where it is not one alone, with nothing of the
    host but numbers of random streams."""
    devices = {node.device for node in graph}
    if len(devices) == 1:
        return devices.pop()
    others = devices - {HOST}
    if len(others) != 1:
        return ""
    (device,) = others
    for node in graph:
        apart = [src for src in node.srcs if src.device != node.device]
        reads = node.op.kind == "random" or node.op is MOVE
        if apart and not (reads and node.device == device):
            return ""
        if node.device == HOST and not _is_number(node):
            return ""
    return device


def _is_number(node: Node) -> bool:
    return node.spec == Spec((), int64)


class HostPart:
    """ends: the nodes that the call ends as. inputs: its placeholders, in their order.

    given: for each node of the host that the device reads, an INPUT of the device in its place."""

    def __init__(self, ends: Sequence[Node], inputs: Sequence[Node], device: str) -> None:
        graph = Graph(ends)
        self.device, self._memo = device, dict[Node, Node]()
        self.ends = [node for node in dict.fromkeys(ends) if node.device == HOST != device]
        self.given: dict[Node, Node] = {}
        for node in graph:
            for src in node.srcs if node.device == device != HOST else ():
                if src.device == HOST and src not in self.given:
                    made = Node(INPUT, (), {}, src.spec, device, trace=src.trace)
                    self.given[src] = made
        self._numbers = [i for i, x in enumerate(inputs) if x.device == HOST != device]
        wanted = dict.fromkeys((*self.ends, *self.given))
        self._procedure = Procedure(list(wanted), [inputs[i] for i in self._numbers])
        self._wanted = list(wanted)

    def without(self, nodes: Sequence[Node]) -> list[Node]:
        """Nodes of the device as they are computed there: with its INPUTs for the host's values."""
        done = self._memo
        if self.given:
            for node in Graph(nodes, follow=lambda n: n.device == self.device):
                if node in self.given:
                    done[node] = self.given[node]
                elif node.op is MOVE and node.srcs[0] in self.given:
                    done[node] = self.given[node.srcs[0]]
                elif node not in done:
                    srcs = tuple([done[src] for src in node.srcs])
                    done[node] = node if srcs == node.srcs else node.with_srcs(srcs)
        return [done.get(node, node) for node in nodes]

    def run(self, arrays: Sequence[Any]) -> dict[Node, Any]:
        """The values of `ends`, and of what the device reads. arrays: of all inputs."""
        if not self._wanted:
            return {}
        values = self._procedure.run([arrays[i] for i in self._numbers])
        return dict(zip(self._wanted, values, strict=True))

    @property
    def inputs(self) -> list[int]:
        """The numbers of the inputs that it reads."""
        return self._numbers

    def numbers(self, values: dict[Node, Any]) -> np.ndarray[Any, Any]:
        """What the device reads, as one array, in the order of `given`."""
        return np.array([int(values[node]) for node in self.given], np.int64)
