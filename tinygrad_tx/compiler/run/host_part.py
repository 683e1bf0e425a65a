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

from ...node import INPUT, MOVE, Graph, Node
from ...procedure import Procedure
from .host_loops import HOST, NUMBER, on_the_device


def device_of(graph: Graph) -> str:
    """The device that a graph is computed on; "" where it is not one alone, with nothing of the
    host but numbers of random streams."""
    graph = Graph(on_the_device(graph.roots).values())
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
        if node.device == HOST and node.spec != NUMBER:
            return ""
    return device


class HostPart:
    """ends: the nodes that the call ends as. inputs: its placeholders, in their order.

    given: for each node of the host that the device reads, an INPUT of the device in its place."""

    def __init__(self, ends: Sequence[Node], inputs: Sequence[Node], device: str) -> None:
        self._places = on_the_device(ends)
        graph = Graph(self._places.values())
        self.device, self._memo = device, dict[Node, Node]()
        self.ends = [node for node in dict.fromkeys(ends) if node.device == HOST != device]
        self.given: dict[Node, Node] = {}
        for node in graph:
            for src in node.srcs if node.device == device != HOST else ():
                if src.device == HOST and src not in self.given:
                    made = Node(INPUT, (), {}, src.spec, device, trace=src.trace, at="")
                    self.given[src] = made
        self._numbers = [i for i, x in enumerate(inputs) if x.device == HOST != device]
        # By the node that is asked for, the one that is computed.
        self._wanted = {n: self._places[n] for n in self.ends} | {n: n for n in self.given}
        given = [inputs[i] for i in self._numbers]
        self._procedure = Procedure(list(self._wanted.values()), given)

    def without(self, nodes: Sequence[Node]) -> list[Node]:
        """Ends of the device as they are computed there: with its INPUTs for the host's values."""
        done, nodes = self._memo, [self._places[node] for node in nodes]
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
