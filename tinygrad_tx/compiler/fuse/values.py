"""Values: the facts about nodes while they are fused.

In: a graph. Out: for each node that has been decided, where its value lies, or which unit makes it.
decide.py, read.py and cost.py only look at it; fuse.py, build.py and emit/ change it.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from math import prod
from typing import Any

from ... import ops
from ...backends.target import Target
from ...node import INPUT, REBOUND, Graph, Node
from ..schedule.records import Buffer, Call, Plan, Refusal, View
from . import limits
from .group import Group, fresh, moved
from .late import Lateness


class Values:
    """roots: the graph's ends. states: for an INPUT whose Tensor changes, the node it ends as.
    rounds: of each SCAN the plan of its round, or why there is none."""

    def __init__(
        self,
        roots: Sequence[Node],
        states: dict[Node, Node],
        target: Target,
        rounds: Mapping[Node, Plan | str],
    ) -> None:
        self.states, self.target, self.rounds = states, target, rounds
        self.graph, self.final = Graph(roots), set(roots)
        self.users = self.graph.users()
        self.lateness = Lateness(self.graph, self.users, self.final)
        self.units: list[Group | Call] = []
        self.unit_of: dict[Node, int] = {}  # of values that a unit makes
        self.places: dict[Node, View] = {}  # of values that are stored
        self.folded: dict[Node, Any] = {}  # arrays of values that depend on nothing
        self.deferred: set[Node] = set()  # cheap maps that nobody has asked to be stored
        self.inputs: dict[Node, Buffer] = {}
        self.in_place: set[Buffer] = set()  # inputs that the op which changes them writes over
        self.holds: dict[Buffer, Node] = {}  # the newest value in a buffer that was written over
        self.constants: dict[Buffer, Any] = {}
        self.packed: dict[Any, View] = {}  # operands of products, which several may share
        self.attentions: dict[Any, Any] = {}  # of each its output and statistics, for gradients
        self.refusals: list[Refusal] = []
        self.last_reader: dict[Node, int] = {}  # the newest group that reads a value
        self.columns: list[int] = []  # groups along rows that may take more
        self.expressions: dict[Any, Any] = {}  # of each use of a map's forward: expressions.py

    def ready(self, node: Node) -> int:
        """The last unit that must have run before this value is there; -1: it is from the start."""
        latest, left, seen = -1, [node], set[Node]()
        while left:
            node = left.pop()
            unit = self.unit_of.get(node)
            if unit is not None:
                latest = max(latest, unit)
            elif node not in self.folded and node.op not in (INPUT, ops.FULL) and node not in seen:
                seen.add(node)
                left += node.srcs
        return latest

    def is_made(self, node: Node) -> bool:
        """True if a value is computed, rather than a view of another one."""
        computed = node in self.folded or node in self.deferred or node in self.unit_of
        return computed or node.op is ops.FULL

    def below(self, node: Node) -> list[Node]:
        """The value, and through movements the one that lies somewhere or is computed."""
        chain = [node]
        while chain[-1] not in self.places and not self.is_made(chain[-1]):
            chain.append(chain[-1].srcs[0])
        return chain

    def layout(self, node: Node) -> tuple[View, bool]:
        """The view in which a value lies once it is stored; and whether that takes a new unit, as
        it must be copied, filled or computed first. A value that is not stored yet has a buffer
        that stands for its own."""
        *movements, made = self.below(node)
        view, new = self.places.get(made), False
        if view is None:
            view = fresh(made.dtype.name, made.shape)
            filled = made.op is ops.FULL and prod(made.shape) > limits.SMALL
            new = made in self.deferred or (filled and made not in self.folded)
        for step in reversed(movements):
            there = moved(step, view)
            new = new or there is None
            view = fresh(view.dtype, step.shape) if there is None else there
        return view, new

    def group(self, unit: int) -> Group | None:
        """A unit, if it is a row program that may take more."""
        group = self.units[unit] if unit >= 0 else None
        return group if isinstance(group, Group) and group.kind == "rows" else None

    def newest_reader(self, values: list[Node], unit: int, size: int) -> tuple[int, Group | None]:
        """The newest row program that reads one of these values, if it comes after `unit` and has
        so many elements."""
        number = max((self.last_reader.get(value, -1) for value in values), default=-1)
        group = self.group(number) if number > unit else None
        return number, group if group and group.level(size) == "element" else None

    def stored_below(self, *nodes: Node) -> list[Node]:
        """The stored values that values are views of, or those of the operands that they are made
        of if they are computed by their readers."""
        found, left, seen = list[Node](), [*nodes], set[Node]()
        while left:
            node = self.below(left.pop())[-1]
            if node not in seen:
                seen.add(node)
                if node in self.deferred:
                    left += node.srcs
                else:
                    found.append(node)
        return found

    def lies(self, node: Node, assumed: Container[Node] = ()) -> bool:
        """True if a value is stored, or will be under the assumptions so far."""
        return node in self.places or node in assumed

    def readers_of(self, node: Node) -> list[Node]:
        """The nodes that read a value, also through reshapes."""
        found: list[Node] = []
        left = self.users[node][::-1]
        while left:
            user = left.pop()
            if user.op in (ops.RESHAPE, REBOUND):
                left += self.users[user][::-1]
            else:
                found.append(user)
        return found
