"""host_loops: loops that draw random numbers, as loops of the device alone.

In: nodes of a recorded call. Out: the same values, of loops that read nothing of the host but
numbers before their first round. Called by host_part.py. Streams are counted on the host, and a
loop carries the count: the device counts along, and the host knows without it where the count ends,
for each round takes equally many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...dtypes import int64
from ...loops.record import SCAN
from ...loops.round import Round
from ...node import CONST, ITEM, MOVE, REBOUND, Graph, Node
from ...ops import ADD, COPY
from ...rules import Spec

HOST = "cpu"
NUMBER = Spec((), int64)  # of random streams


class _MixedError(Exception):
    """A loop that needs the host in its rounds."""


def on_the_device(ends: Sequence[Node]) -> dict[Node, Node]:
    """For each of some nodes the one in its place; itself where there is no such loop, or one that
    cannot be the device's alone."""
    same = {node: node for node in ends}
    graph = Graph(ends)
    if not any(node.op is SCAN and _device(node) for node in graph):
        return same
    try:
        outside = _Outside(graph)
        return {node: outside.done[node] for node in ends}
    except _MixedError:
        return same


def _device(scan: Node) -> str:
    """The device of a loop that has something of the host as well; "" where it is of one alone."""
    round = scan.attrs["round"]
    found = {node.device for node in (*scan.srcs, *round.outs, *scan.attrs["keep"])}
    if len(found) != 2 or HOST not in found:
        return ""
    device: str = min(found - {HOST})
    return device


class _Outside:
    """done: the node in the place of each one of a graph. rows: those of what loops give of the
    host's numbers in each round, which other loops may read."""

    def __init__(self, graph: Graph) -> None:
        self.done: dict[Node, Node] = {}
        self._rows: dict[Node, Node] = {}
        self._moved: dict[Node, str] = {}  # loops of two devices, and the one that is left
        self._rounds: dict[tuple[Round, str], _Inside] = {}
        for node in graph:
            device = _device(node) if node.op is SCAN else ""
            loop = node.srcs[0] if node.op is ITEM else None
            if device:
                self._moved[node] = device
                self.done[node] = self._scan(node, device)
            elif loop is not None and loop in self._moved:
                self._item(node, loop, self._moved[loop])
            else:
                if not self.done.keys() >= set(node.srcs):
                    raise _MixedError
                srcs = tuple([self.done[src] for src in node.srcs])
                self.done[node] = node if srcs == node.srcs else node.with_srcs(srcs)

    def _scan(self, node: Node, device: str) -> Node:
        round, keep = node.attrs["round"], node.attrs["keep"]
        if (round, device) not in self._rounds:
            self._rounds[round, device] = _Inside(device)
        inside = self._rounds[round, device]
        attrs = {**node.attrs, "round": inside.round(round), "keep": inside.all(keep)}
        srcs = tuple([self._given(src, device) for src in node.srcs])
        return _like(node, srcs, attrs, device)

    def _given(self, src: Node, device: str) -> Node:
        """A source of a loop, on the device."""
        if src.device == device:
            return self.done[src]
        if src in self._rows:
            return self._rows[src]
        if src.spec != NUMBER:
            raise _MixedError
        return _like(self.done[src], (self.done[src],), {"target": device}, device, MOVE)

    def _item(self, node: Node, loop: Node, device: str) -> None:
        """An output of a loop that has become the device's."""
        made = _like(node, (self.done[loop],), {"i": node.attrs["i"]}, device)
        if node.device == device:
            self.done[node] = made
            return
        if node.spec != NUMBER:
            self._rows[node] = made
            return
        added, first = _of_loop(loop, node.attrs["i"])
        attrs = {"value": added, "dtype": int64, "device": HOST}
        number = Node(CONST, (), attrs, NUMBER, HOST, trace=node.trace)
        self.done[node] = _like(node, (self.done[first], number), {}, HOST, ADD)


class _Inside:
    """Nodes of rounds, on a device."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._done: dict[Node, Node] = {}
        self._made: dict[Round, Round] = {}

    def all(self, nodes: Sequence[Node]) -> tuple[Node, ...]:
        for node in Graph(nodes, follow=lambda node: node not in self._done):
            if node not in self._done:
                self._done[node] = self._moved(node)
        return tuple([self._done[node] for node in nodes])

    def round(self, round: Round) -> Round:
        if round not in self._made:
            consts, carry, xs = map(self.all, (round.consts, round.carry, round.xs))
            outs = self.all(round.outs)
            self._made[round] = replace(round, consts=consts, carry=carry, xs=xs, outs=outs)
        return self._made[round]

    def _moved(self, node: Node) -> Node:
        srcs, device = tuple([self._done[src] for src in node.srcs]), self._device
        if node.op is MOVE and node.attrs["target"] == device:
            return srcs[0]
        if node.device not in (HOST, device) or node.op is MOVE or node.op.kind == "opaque":
            raise _MixedError
        attrs: Mapping[str, Any] = node.attrs
        if node.op is SCAN:
            attrs = {**attrs, "round": self.round(attrs["round"]), "keep": self.all(attrs["keep"])}
        elif "target" in attrs:
            attrs = {name: value for name, value in attrs.items() if name != "target"}
        if node.device == device and srcs == node.srcs and attrs is node.attrs:
            return node
        if node.op is CONST:
            attrs = {**attrs, "device": device}
        number = node.op is SCAN or (node.array is None and node.dtype is int64)
        if node.device == HOST and not number:
            raise _MixedError
        made = _like(node, srcs, attrs, device)
        made.owner = node.owner
        return made


def _like(
    node: Node, srcs: tuple[Node, ...], attrs: Mapping[str, Any], device: str, op: Any = None
) -> Node:
    """A node in the place of another one."""
    asks = node.requires_grad
    made = Node(
        op or node.op, srcs, dict(attrs), node.spec, device, requires_grad=asks, trace=node.trace
    )
    return made.put_at(node)


def _growth(out: Node, carry: Node) -> int:
    """What a round adds to a number that it carries."""
    total = 0
    while out is not carry:
        numbers = [src for src in out.srcs if src.op is CONST]
        rest = [src for src in out.srcs if src.op is not CONST]
        if len(rest) == 1 and out.op in (ADD, COPY, REBOUND):
            total += sum(src.attrs["value"] for src in numbers)
            (out,) = rest
        elif out.op is ITEM and rest[0].op is SCAN:
            added, out = _of_loop(rest[0], out.attrs["i"])
            total += added
        else:
            raise _MixedError
    return total


def _of_loop(scan: Node, i: int) -> tuple[int, Node]:
    """What a loop adds in all to the number that is its output i, and to what."""
    round = scan.attrs["round"]
    if i >= len(round.carry):
        raise _MixedError
    added = _growth(round.outs[i], round.carry[i]) * scan.attrs["length"]
    return added, scan.srcs[len(round.consts) + i]
