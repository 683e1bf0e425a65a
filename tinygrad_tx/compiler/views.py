"""Where values lie: buffers, and strided views of them.

In: a view and what a movement op does. Out: the view of its result, or None where no strides can
say it (then the values are copied). Called by fuse.py and plan.py. Strides and offsets count
elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

from ..backends.kernel import Kernel, Opaque
from ..dtypes import ALL
from ..node import Node

Shape = tuple[int, ...]


@dataclass(eq=False)
class Buffer:
    """Memory that a plan knows. kind: "arena" (lives for a while during a run), "input" (a Tensor
    from outside; `state` where its new value is written over the old one), "result" (made anew at
    each run), "constant" (made with the plan) or "kept" (the plan's own, from run to run)."""

    kind: str
    dtype: str
    size: int  # elements
    node: Node | None = None
    number: int = -1  # its place in the plan's table of addresses
    state: bool = False
    parts: bool = False  # several units write it, each a part that no other one touches

    @property
    def bytes(self) -> int:
        return self.size * itemsize(self.dtype)


def itemsize(dtype: str) -> int:
    """Bytes of an element in memory."""
    return ALL[dtype].itemsize


@dataclass(frozen=True, eq=False)
class View:
    """Elements of a buffer at offset + sum(index * stride)."""

    buffer: Buffer
    shape: Shape
    strides: Shape
    offset: int = 0

    @property
    def dtype(self) -> str:
        return self.buffer.dtype

    @property
    def contiguous(self) -> bool:
        return same_places(self.shape, self.strides, dense(self.shape))

    def same(self, other: View) -> bool:
        """Whether both name the same elements in the same order."""
        return (
            self.buffer is other.buffer
            and self.offset == other.offset
            and self.shape == other.shape
            and same_places(self.shape, self.strides, other.strides)
        )

    # Movement -----------------------------------------------------------------------------------
    def reshape(self, shape: Shape) -> View | None:
        if shape == self.shape:
            return self
        strides = reshaped(self.shape, self.strides, shape)
        return None if strides is None else View(self.buffer, shape, strides, self.offset)

    def permute(self, order: Sequence[int]) -> View:
        shape, strides = (tuple(x[i] for i in order) for x in (self.shape, self.strides))
        return View(self.buffer, shape, strides, self.offset)

    def broadcast(self, shape: Shape) -> View:
        extra = len(shape) - len(self.shape)
        strides = (0,) * extra + tuple(
            0 if n == 1 and m != 1 else s
            for n, m, s in zip(self.shape, shape[extra:], self.strides, strict=True)
        )
        return View(self.buffer, shape, strides, self.offset)

    def slice(self, ranges: Sequence[tuple[int, int, int]]) -> View:
        shape = tuple(len(range(*r)) for r in ranges)
        strides = tuple(s * r[2] for s, r in zip(self.strides, ranges, strict=True))
        offset = sum(s * r[0] for s, r, n in zip(self.strides, ranges, shape, strict=True) if n)
        return View(self.buffer, shape, strides, self.offset + offset)

    def flip(self, axes: Sequence[int]) -> View:
        last = [(n - 1) * s for n, s in zip(self.shape, self.strides, strict=True)]
        strides = tuple(-s if i in axes else s for i, s in enumerate(self.strides))
        return View(self.buffer, self.shape, strides, self.offset + sum(last[i] for i in axes))


def dense(shape: Shape) -> Shape:
    """The strides of a row-major array."""
    return tuple(prod(shape[i + 1 :]) for i in range(len(shape)))


def whole(buffer: Buffer, shape: Shape) -> View:
    return View(buffer, shape, dense(shape))


def same_places(shape: Shape, a: Shape, b: Shape) -> bool:
    """Whether two strides say the same: those of axes of size 1 do not count."""
    return all(n == 1 or x == y for n, x, y in zip(shape, a, b, strict=True))


def reshaped(shape: Shape, strides: Shape, new: Shape) -> Shape | None:
    """The strides of a reshape that copies nothing; None where there are none."""
    merged: list[tuple[int, int]] = []  # axes that lie as one, joined
    for n, s in zip(shape, strides, strict=True):
        if n != 1 and merged and merged[-1][1] == n * s:
            merged[-1] = (merged[-1][0] * n, s)
        elif n != 1:
            merged.append((n, s))
    out: list[int] = []
    i = 0
    for n in new:
        if n == 1:
            out.append(0)
            continue
        if i == len(merged) or merged[i][0] % n:
            return None
        size, stride = merged[i]
        out.append(stride * (size // n))
        merged[i] = (size // n, stride)
        i += size == n
    return tuple(out) if i == len(merged) else None


def collapse(extents: Sequence[int], strides: Sequence[Shape]) -> tuple[Shape, list[Shape]]:
    """The fewest axes that walk the same places in the same order: axes of size 1 go, neighbours
    that lie as one for every operand are joined. strides: of each operand, as long as extents."""
    shape: list[int] = []
    kept: list[list[int]] = [[] for _ in strides]
    for i, n in enumerate(extents):
        if n == 1:
            continue
        joins = shape and all(k[-1] == s[i] * n for k, s in zip(kept, strides, strict=True))
        if joins:
            shape[-1] *= n
            for k, s in zip(kept, strides, strict=True):
                k[-1] = s[i]
        else:
            shape.append(n)
            for k, s in zip(kept, strides, strict=True):
                k.append(s[i])
    return tuple(shape), [tuple(k) for k in kept]


@dataclass(eq=False)
class Call:
    """A Kernel with its arguments: whole numbers, and addresses as (buffer, offset in elements).

    reads, writes: the views that it touches. nodes: what it computes, for explain().
    """

    kernel: Kernel
    args: list[int | tuple[Buffer, int]]
    reads: list[View]
    writes: list[View]
    nodes: list[Node] = field(default_factory=list)


@dataclass(eq=False)
class Launch:
    """Calls whose tasks run one after the other: a product and the row program on its rows.

    waits: buffers that others must have read before it runs, so that its own can take their place.
    """

    calls: list[Call]
    waits: tuple[Buffer, ...] = ()

    @property
    def reads(self) -> list[View]:
        return [v for call in self.calls for v in call.reads]

    @property
    def writes(self) -> list[View]:
        return [v for call in self.calls for v in call.writes]

    @property
    def opaque(self) -> bool:
        return isinstance(self.calls[0].kernel, Opaque)
