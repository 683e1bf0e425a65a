"""Decisions: what becomes of a node, as decide.py finds it and TX_DEBUG=3 prints it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from ...node import Node
from ..schedule.layout import Shape
from ..schedule.records import Refusal
from .group import Group, Read


@dataclass(frozen=True, eq=False)
class Given:
    """An input: it lies where the run is told."""

    def __str__(self) -> str:
        return "given"


@dataclass(frozen=True, eq=False)
class Folded:
    """A value that depends on nothing: computed with the plan."""

    array: Any

    def __str__(self) -> str:
        return "folded"


@dataclass(frozen=True, eq=False)
class Viewed:
    """A movement, or one number everywhere: read through strides."""

    def __str__(self) -> str:
        return "viewed"


@dataclass(frozen=True, eq=False)
class Deferred:
    """A cheap map: computed by whatever reads it, so many instructions once more. declined: why not
    in the group that makes its latest operand."""

    cost: int
    declined: Declined | None = None

    def __str__(self) -> str:
        return f"deferred (cost {self.cost})" + (f" ({self.declined})" if self.declined else "")


class Declined(NamedTuple):
    """Why a node is not in a group: unit, its number; operand, what it cannot get at, if that is
    the reason."""

    unit: int
    reason: str
    operand: Node | None = None

    def __str__(self) -> str:
        if self.operand is None:
            return f"not in unit {self.unit}: {self.reason}"
        shape = "x".join(map(str, self.operand.shape)) or "()"
        return f"not in unit {self.unit}: {self.operand.op.name} {shape} {self.reason}"


def unfitting(unit: int, group: Group) -> Declined:
    """A group has another domain than a node."""
    return Declined(unit, f"its {group.rows} rows of {group.columns} columns do not fit")


@dataclass(frozen=True, eq=False)
class Joins:
    """A map or reduction in a group that is there. declined: why not in another one before it."""

    unit: int
    level: str
    operands: tuple[Read, ...]
    declined: Declined | None = None

    def __str__(self) -> str:
        return f"joins unit {self.unit} ({self.level})" + (
            f" ({self.declined})" if self.declined else ""
        )


@dataclass(frozen=True, eq=False)
class Begins:
    """A map or reduction in a group of its own. declined: why not in the one that makes its latest
    operand."""

    kind: str
    outer: Shape
    columns: int
    level: str = "element"
    reduces: bool = False
    declined: Declined | None = None

    @classmethod
    def map(cls, node: Node, declined: Declined | None = None) -> Begins:
        """The group of a map: over its own shape."""
        fitting = [n for n in node.shape if n != 1]
        columns = fitting[-1] if fitting else 1
        return cls("rows", tuple(fitting[:-1]), columns, declined=declined)

    def __str__(self) -> str:
        why = f" ({self.declined})" if self.declined else ""
        return f"begins a group of {self.kind}, {list(self.outer)} x {self.columns}{why}"


@dataclass(frozen=True, eq=False)
class Emits:
    """A kernel of its own kind."""

    kernel: str

    def __str__(self) -> str:
        return f"emits {self.kernel}"


@dataclass(frozen=True, eq=False)
class Opaque:
    """No kernel: the op's forward is called as it is. untraceable: why a map's forward has no
    scalar expression, where that is the reason."""

    refused: Refusal
    untraceable: str = ""

    def __str__(self) -> str:
        return f"opaque: {self.refused.reason}"


Decision = Given | Folded | Viewed | Deferred | Joins | Begins | Emits | Opaque
