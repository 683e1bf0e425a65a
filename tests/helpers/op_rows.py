"""Rows of the op table made by the family: what every elementwise op and reduction is tried with.

Called by op_maps.py and op_table.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from op_case import INTS, SPECIAL, Bad, OpCase, bools, ints, normal


def unary(name: str, reference: Callable[..., Any], draw: Any = normal, **row: Any) -> list[OpCase]:
    """An elementwise op of one input: odd sizes, 0-d, empty, and the special values."""
    attrs = row.get("attrs", {})
    bad = row.pop("bad", (Bad((ints(0, 3, 2),), TypeError, f"{name} needs a floating dtype"),))
    rows = [OpCase(name, (draw(3, 7),), reference, **row, bad=bad)]
    rows += [OpCase(name, (draw(*shape),), reference, **row) for shape in ((), (0, 4), (2, 1, 5))]
    row = {"result": row.get("result", "same"), "attrs": attrs}
    rows.append(OpCase(name, (SPECIAL,), reference, label="special", grad=False, **row))
    return rows


def binary(
    name: str, reference: Callable[..., Any], draws: Any = (normal, normal), **row: Any
) -> list[OpCase]:
    """An elementwise op of two inputs: equal shapes, broadcasting both ways, 0-d, empty."""
    left, right = draws
    bad = row.pop("bad", ())
    bad = (*bad, Bad((left(2, 3), right(4)), ValueError, rf"{name}: shapes \(2, 3\) and \(4,\)"))
    rows = [OpCase(name, (left(3, 5), right(3, 5)), reference, **row, bad=bad)]
    shapes = (((2, 1, 5), (3, 1)), ((4,), ()), ((), (2, 3)), ((0, 3), (1, 3)), ((1, 1), (1, 5)))
    return rows + [OpCase(name, (left(*a), right(*b)), reference, **row) for a, b in shapes]


def whole(name: str, reference: Callable[..., Any], *draws: Any, **row: Any) -> list[OpCase]:
    """An elementwise op on integers."""
    inputs = tuple(draw(3, 4) for draw in draws)
    row = {"dtypes": INTS, "grad": False, "label": "integers", **row}
    return [OpCase(name, inputs, reference, **row)]


def reduction(
    name: str, reference: Callable[..., Any], draw: Any = normal, empty: bool = True, **row: Any
) -> list[OpCase]:
    """A reduction: over one axis, some, all, none (0-d), empty ones; axes kept or not."""
    bad = (
        *row.pop("bad", ()),
        Bad((draw(2, 3),), ValueError, f"{name}: axis 2 is outside", {"axis": 2}),
        Bad((draw(2, 3),), ValueError, f"{name}: axis .* twice", {"axis": (0, -2)}),
    )
    plans: list[tuple[tuple[int, ...], dict[str, Any]]] = [
        ((3, 5), {"axis": None}),
        ((3, 5), {"axis": -1, "keepdims": True}),
        ((2, 3, 4), {"axis": (0, 2)}),
        ((), {"axis": None}),
        ((), {"axis": -1}),
        ((0, 3), {"axis": 1}),
    ]
    if empty:
        plans.append(((0, 3), {"axis": 0}))
    return [
        OpCase(name, (draw(*shape),), reference, attrs, bad=bad if not i else (), **row,
               label=f"{list(shape)}-{attrs['axis']}".replace(" ", ""))
        for i, (shape, attrs) in enumerate(plans)
    ]  # fmt: skip


def float_only(name: str) -> Bad:
    return Bad((ints(0, 3, 2), ints(0, 3, 2)), TypeError, f"{name} needs a floating dtype")


def no_bools(name: str, n: int = 2) -> Bad:
    return Bad((bools(2),) * n, TypeError, f"{name} needs numbers, not bool")
