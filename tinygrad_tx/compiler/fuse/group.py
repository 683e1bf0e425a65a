"""Groups: nodes that share a kernel, a row program or a reduction along rows.

In: decisions. Out: steps and stores, of which body.py makes loads, instructions and stores. A
group's domain is rows x columns. A value inside it belongs to a place of the domain ("element": as
many elements as the domain, in the same row-major order), or to a whole row ("row": as many as
there are rows). Shapes do not matter beyond that, so a reshape inside a group costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

from ... import ops
from ...node import Node
from ..schedule.layout import Shape, dense
from ..schedule.records import Buffer, View
from . import limits


class Const(NamedTuple):
    """A number."""

    value: Any
    dtype: str


class Inside(NamedTuple):
    """A value of the group itself."""

    node: Node


class Column(NamedTuple):
    """The number of the column."""

    dtype: str


class Load(NamedTuple):
    """A value that will be stored, and the view of it over the domain; shared: whether others that
    read the same value may join. The view's buffer may stand for the value's own."""

    node: Node
    view: View
    shared: bool


class Fetch(NamedTuple):
    """A Load whose value has been stored: its view over the domain."""

    view: View


class Gather(NamedTuple):
    """The row of a view (entries, columns) that an operand names."""

    view: View
    row: Read


class Again(NamedTuple):
    """A map computed once more."""

    node: Node
    operands: tuple[Read, ...]


Read = Const | Inside | Column | Load | Fetch | Gather | Again


class Step(NamedTuple):
    """A node that a group computes, and the Reads of the node's operands."""

    node: Node
    operands: tuple[Read, ...]


@dataclass(eq=False)
class Group:
    """kind: "rows", or "columns" for reductions along the rows. members: the level of each value
    that others of the group may read. size: its instructions, about."""

    kind: str
    outer: Shape
    columns: int
    members: dict[Node, str] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    stores: list[tuple[Node, View]] = field(default_factory=list)
    size: int = 0
    known: set[Any] = field(default_factory=set)  # numbers and values that it reads

    @property
    def rows(self) -> int:
        return prod(self.outer)

    def level(self, size: int) -> str | None:
        """The level of values of so many elements; None where they do not fit in."""
        if size == self.rows * self.columns:
            return "element"
        return "row" if size == self.rows else None

    def fit(self, view: View, level: str) -> View | None:
        """A view with as many elements as its level has, over the domain; None where no strides say
        it."""
        return view.reshape((*self.outer, self.columns if level == "element" else 1))

    def spread(self, view: View, level: str) -> View | None:
        """A view as it is read: fit(), one for a row repeated along the columns."""
        fitted = self.fit(view, level)
        if fitted is None or level == "element":
            return fitted
        shape, strides = (*self.outer, self.columns), (*fitted.strides[:-1], 0)
        return View(fitted.buffer, shape, strides, fitted.offset)

    @property
    def chunk(self) -> int:
        """Rows of one chunk of a reduction along rows: by shape alone."""
        return max(limits.CHUNK_ROWS, -(-self.rows // limits.CHUNKS))

    @property
    def chunks(self) -> int:
        return -(-self.rows // self.chunk)


def fresh(dtype: str, shape: Shape, node: Node | None = None) -> View:
    """A new dense buffer for a value."""
    return View(Buffer("value", dtype, prod(shape), node), shape, dense(shape))


def moved(node: Node, src: View) -> View | None:
    """The view that a movement op makes; None where strides cannot say it."""
    op, attrs = node.op, node.attrs
    if op in (ops.RESHAPE, ops.BROADCAST):
        how = src.reshape if op is ops.RESHAPE else src.broadcast
        return how(attrs["shape"])
    if op is ops.PERMUTE:
        return src.permute(attrs["order"])
    if op is ops.SLICE:
        return src.slice(attrs["ranges"])
    if op is ops.FLIP:
        return src.flip(attrs["axis"])
    if op is ops.WINDOWS:
        return src.windows(**attrs)
    return src  # REBOUND
