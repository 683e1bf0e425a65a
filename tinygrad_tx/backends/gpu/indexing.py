"""Numbers of rows and columns in 32 bits: divisions by extents take a GPU four times as long in 64.

In: words of a call, rows. Out: Values. Addresses are computed in 64 bits. What is too large to be
counted so has no kernel (require_counted in choice.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from ..llvm import ir
from ..llvm.ir import Builder, Value
from .thread import Thread


def i32(value: int) -> Value:
    return ir.integer(value, "i32")


def number(t: Thread, word: int) -> Value:
    """A word that is an extent, as an i32."""
    return t.b.convert("trunc", t.words.number(word), "i32")


def wide(b: Builder, x: Value) -> Value:
    return b.convert("zext", x, "i64")


def decode(b: Builder, row: Value, extents: Sequence[Value]) -> list[Value]:
    """The index (i64) along each outer axis of a row (i32) that is counted over all of them."""
    index: list[Value] = []
    for extent in reversed(extents[1:]):
        quotient = b.binary("udiv", row, extent)
        index.append(wide(b, b.sub(row, b.mul(quotient, extent))))
        row = quotient
    return [wide(b, row), *reversed(index)] if extents else []
