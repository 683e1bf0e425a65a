"""Expressions: a map's forward made of instructions, or the reason against, tried once for each
use.

In: Values and a node. Out: an Expression. Called by decide.py, build.py and fuse.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...node import Node
from ..keys import itself, key
from .symbolic import Program
from .values import Values


@dataclass
class Expression:
    """refused: why it makes no sense for single elements; empty where it does. size: of its
    instructions. told: True if its author has been warned."""

    refused: str
    size: int
    told: bool = False


def expression(values: Values, node: Node) -> Expression:
    """The Expression of a map's forward on operands of these dtypes."""
    dtypes = tuple([src.dtype.name for src in node.srcs])
    use = node.op, dtypes, key(node.attrs, itself) if node.attrs else None
    found: Expression | None = values.expressions.get(use)
    if found is None:
        promised = None if node.op.ours else node.dtype.name
        refused, size = Program.tried(node.op.forward, dtypes, dict(node.attrs), promised)
        found = values.expressions[use] = Expression(refused, size)
    return found


def size_of(values: Values, node: Node) -> int:
    """The instructions of a node in a group, without its operands."""
    return expression(values, node).size if node.op.kind == "map" else 1
