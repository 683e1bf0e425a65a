"""scan: a function over the first axis of Tensors, with a carry.

In: a function on Tensors. Out: what a Python loop over it would give: where code runs eagerly, that
loop; while a function is traced, one node (record.py), which a plan runs as a loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import tree
from ..arguments import shown
from ..context import current_trace
from ..creation import stack, tensor
from ..errors import ShapeError
from ..rules import whole
from ..tensor import Tensor
from .checkpoint import check_function, computed_again
from .record import checked, device_of, record, structure

Step = Callable[[Any, Any], tuple[Any, Any]]


def scan(
    f: Step,
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
    checkpoint: bool = False,
) -> tuple[Any, Any]:
    """f over the first axis of xs with a carry, as JAX's lax.scan: (last carry, stacked ys).

        carry, ys = init, []
        for x in xs:
            carry, y = f(carry, x)
            ys.append(y)
        return carry, stack(ys)

    f: (carry, x) -> (carry, y). init: the first carry; f gives it back in the same structure,
    shapes and dtypes. init, xs and y are Tensors or nests of tuples, lists and dicts of them; None
    stays None in any place. xs: Tensors of one first size, the number of rounds; None needs
    `length`. reverse: from the last x to the first; each y lies where its x does. checkpoint: only
    carries are kept for the backward pass, which computes the rest of a round again.

    Gradients flow to init, to xs and to what f captures, to any order. In a compiled function f is
    traced once, whatever the number of rounds, and the rounds run without Python between them.
    Raises ShapeError for lengths that differ and for a carry that changes shape or dtype.
    """
    check_function("scan", f)
    device = device_of((init, xs))
    init = tree.map_leaves(lambda value: _as_carry(value, device), init)
    rounds = _rounds(xs, length)
    if current_trace() is not None or not rounds:
        return record(f, init, xs, rounds, reverse=bool(reverse), again=bool(checkpoint))
    step = computed_again(f) if checkpoint else f
    carry = tree.map_leaves(lambda x: None if x is None else Tensor(x.node), init)
    ys = [None] * rounds
    for i in range(rounds)[:: -1 if reverse else 1]:
        carry, ys[i] = checked(step(carry, _entry(xs, i)), init, device)
    nests = list(dict.fromkeys(map(structure, ys)))
    if len(nests) > 1:
        raise ShapeError(f"scan: y was {nests[0]} in one round, {nests[1]} in another")
    flat = [list(tree.leaves(y)) for y in ys]
    return carry, tree.replace_leaves(ys[0], map(_stacked, zip(*flat, strict=True)))


def _entry(xs: Any, i: int) -> Any:
    return tree.map_leaves(lambda x: None if x is None else x[i], xs)


def _as_carry(value: Any, device: str | None) -> Any:
    """A leaf of a carry: Python and NumPy numbers become Tensors."""
    if value is None or isinstance(value, Tensor):
        return value
    if isinstance(value, (bool, int, float, np.ndarray, np.generic)):
        return tensor(value, device=device)
    raise TypeError(f"scan: init holds {shown(value)}; a carry is made of Tensors and numbers")


def _rounds(xs: Any, length: int | None) -> int:
    """The number of rounds, on which xs and length must agree."""
    sizes: list[tuple[int, ...]] = []
    for x in tree.leaves(xs):
        if x is None:
            continue
        if not isinstance(x, Tensor):
            raise TypeError(f"scan: xs holds {shown(x)}; it is made of Tensors")
        if not x.shape:
            raise ShapeError("scan: xs holds a 0-d Tensor, which has no first axis to go over")
        sizes.append(x.shape)
    if length is not None:
        length = whole("scan: length", length)
        if length < 0:
            raise ShapeError(f"scan: length is {length}; it must be 0 or more")
    elif not sizes:
        raise ShapeError("scan: without xs it needs length=, the number of rounds")
    rounds = sizes[0][0] if length is None else length
    for shape in sizes:
        if shape[0] != rounds:
            other = f"length is {length}" if length is not None else f"xs has {sizes[0]}"
            raise ShapeError(f"scan: {other}, and xs has {shape}: first axes must be equal")
    return rounds


def _stacked(values: tuple[Any, ...]) -> Any:
    """The ys of all rounds in one place of the nest."""
    if all(value is None for value in values):
        return None
    shapes = dict.fromkeys((v.shape, v.dtype.name) for v in values)
    if len(shapes) > 1:
        (a, b), (c, d) = list(shapes)[:2]
        raise ShapeError(f"scan: y was {b} {a} in one round, {d} {c} in another")
    return stack(values)
