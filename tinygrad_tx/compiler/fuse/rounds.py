"""Rounds: the part of a loop's outputs that a plan of one round is to compute, and where.

In: a SCAN node and its readers. Out: an Outline. Called by pipeline.py, which plans the round, and
by emit/loop.py, which puts its buffers into the arrays outside.

A carry is written over in each round; but where its values of all rounds are wanted as well (a y or
a value kept for the gradient), they are entries of one array, its *history*: a round reads one and
writes the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...node import ITEM, Node


@dataclass(frozen=True)
class Outline:
    """carry: for each input that is carried, what it becomes. history: those of them (by number)
    that have one. rows: the outputs of each round that are wanted: their number, and the value."""

    inputs: tuple[Node, ...]
    carry: tuple[tuple[Node, Node], ...]
    history: frozenset[int]
    rows: dict[int, Node]

    @property
    def results(self) -> tuple[Node, ...]:
        """The values that a round writes to arrays outside."""
        written = [self.carry[i][1] for i in sorted(self.history)]
        ins = {self.carry[i][0] for i in self.history}
        return (*written, *(n for n in self.rows.values() if n not in ins))

    @property
    def states(self) -> dict[Node, Node]:
        """The inputs that a round writes over, and with what."""
        return {p: out for i, (p, out) in enumerate(self.carry) if i not in self.history}


def outline(scan: Node, users: Sequence[Node]) -> Outline:
    """users: the nodes that read the SCAN's outputs."""
    traced, keep = scan.attrs["round"], scan.attrs["keep"]
    n = len(traced.carry)
    wanted = {user.attrs["i"] for user in users if user.op is ITEM}
    outs = (*traced.outs, *keep)
    rows = {i: outs[i] for i in sorted(wanted) if i >= n}
    carry = tuple(zip(traced.carry, traced.outs, strict=False))
    values = set(rows.values())
    history = frozenset(i for i, pair in enumerate(carry) if not values.isdisjoint(pair))
    return Outline(traced.inputs, carry, history, rows)
