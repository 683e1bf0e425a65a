"""Strides: the elements of a buffer that a view names.

In: shapes and strides, in elements. Out: those of a view that copies nothing, or None where no
strides can say it. Called by records.py and by what makes kernel arguments of views.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

Shape = tuple[int, ...]


def dense(shape: Shape) -> Shape:
    """The strides of a row-major array."""
    return tuple(prod(shape[i + 1 :]) for i in range(len(shape)))


def same_places(shape: Shape, a: Shape, b: Shape) -> bool:
    """True if two strides are equivalent: those of axes of size 1 do not count."""
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
