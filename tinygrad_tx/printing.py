"""Tensors as text, in PyTorch's form: four digits, columns that are aligned, long dimensions by
their ends.

In: a node. Out: what repr() shows. Called by Tensor alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import backends
from .dtypes import bool_, float32, int64
from .node import Node

_DIGITS = 4
_LINE = 80  # characters of a line
_MANY = 1000  # elements; of more, long dimensions show their ends
_EDGE = 3  # elements at each end
_INDENT = len("tensor(")


def shown(node: Node) -> str:
    """A node as its Tensor shows itself: values, or the shape where there are none to be seen, and
    what is not the default about it."""
    if node.array is None:
        return _noted(f"tensor(<traced, shape={node.shape}>", _notes(node, (float32, int64, bool_)))
    if not node.has_values:
        notes = _notes(node, (float32, int64, bool_), size=True)
        return _noted("tensor(...", notes)
    if 0 in node.shape:
        return _noted("tensor([]", _notes(node, (float32,), size=node.ndim != 1))
    value = backends.get(node.device).to_host(node.array)
    if node.dtype.is_half:
        value = value.astype(np.float32)
    return _noted(f"tensor({_values(value)}", _notes(node, (float32, int64, bool_)))


def _notes(node: Node, known: Sequence[Any], size: bool = False) -> list[str]:
    """What is said behind the values. known: dtypes that the values tell by themselves."""
    notes = []
    if node.device != backends.devices()[0]:
        notes.append(f"device='{node.device}'")
    if size:
        notes.append(f"size={node.shape}")
    if node.dtype not in known:
        notes.append(f"dtype={node.dtype!r}")
    if node.requires_grad:
        notes.append("requires_grad=True" if node.is_leaf else f"op={node.op.name}")
    return notes


def _noted(text: str, notes: Sequence[str]) -> str:
    """The text with its notes, those that a line has no room for on the next."""
    used = len(text) - text.rfind("\n") + 1
    for note in notes:
        fits = used + len(note) + 2 <= _LINE
        text += f", {note}" if fits else f",\n{' ' * _INDENT}{note}"
        used = used + len(note) + 2 if fits else _INDENT + len(note)
    return text + ")"


def _values(value: np.ndarray[Any, Any]) -> str:
    short = value.size > _MANY
    ends = value
    if short:  # what is left out has no say in the form
        for axis, length in enumerate(value.shape):
            if length > 2 * _EDGE:
                ends = ends.take([*range(_EDGE), *range(length - _EDGE, length)], axis)
    form, width = _form(ends)
    if not value.ndim:
        return form(value.item())
    return _nested(value, form, width, _INDENT, short)


def _nested(
    value: np.ndarray[Any, Any],
    form: Callable[[Any], str],
    width: int,
    indent: int,
    short: bool,
) -> str:
    """An array in brackets. indent: characters before the first one."""

    def inner(part: np.ndarray[Any, Any]) -> list[str]:
        if value.ndim == 1:
            return [form(x) for x in part.tolist()]
        return [_nested(x, form, width, indent + 1, short) for x in part]

    if short and len(value) > 2 * _EDGE:
        gap = " ..." if value.ndim == 1 else "..."
        parts = [*inner(value[:_EDGE]), gap, *inner(value[-_EDGE:])]
    else:
        parts = inner(value)
    margin = " " * (indent + 1)
    if value.ndim > 1:
        return "[" + ("," + "\n" * (value.ndim - 1) + margin).join(parts) + "]"
    each = max(1, (_LINE - indent) // (width + 2))
    lines = [", ".join(parts[i : i + each]) for i in range(0, len(parts), each)]
    return "[" + f",\n{margin}".join(lines) + "]"


def _form(value: np.ndarray[Any, Any]) -> tuple[Callable[[Any], str], int]:
    """How all elements of an array are written, as wide as the widest, and that width.

    Floats are whole numbers with a point if all of them are; of 4 digits and an exponent if some
    are large, small, or 1000 times as large as others; of 4 decimals otherwise."""
    if value.dtype.kind != "f":
        width = max(len(str(x)) for x in value.ravel().tolist())
        return (lambda x: str(x).rjust(width)), width
    numbers = value[np.isfinite(value) & (value != 0)].astype(np.float64)
    if not numbers.size:
        return _whole, 1
    least, most = np.abs(numbers).min(), np.abs(numbers).max()
    written: Callable[[Any], str]
    if most / least > 1000 or most > 1e8 or least < 1e-4:
        written = f"{{:.{_DIGITS}e}}".format
    elif (numbers == np.ceil(numbers)).all():
        written = _whole
    else:
        written = f"{{:.{_DIGITS}f}}".format
    width = max(len(written(x)) for x in numbers.tolist())
    return (lambda x: written(x).rjust(width)), width


def _whole(x: float) -> str:
    return f"{x:.0f}." if math.isfinite(x) else str(x)
