"""Folds: the accumulator of a reduction, how it begins, and how it takes in an element or another.

In: an Instr whose op is in REDUCTIONS, and vectors or scalars of its argument. Out: accumulators (a
State). Called by the writers of every machine; each has its own way of dealing elements into
accumulators, in the order that kernels/summation.py gives. A missing element is given as the
reduction's identity, so that it changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..kernels.instructions import Instr
from . import ir
from .elementary import like
from .ir import Builder, Value
from .scalars import cast, is_nan, maximum, minimum, register

State = tuple[Value, ...]  # one vector; the best and its position for argmax and argmin

LAST = 2**63 - 1  # the position of an element that is not there
LEVELS = 3  # of sums of blocks; the last one takes whatever comes


def start(instr: Instr, argument: str, lanes: int) -> State:
    """The accumulator before any element. argument: the dtype of the elements."""
    if _is_position(instr):
        best = Value(ir.vector(lanes, register(argument)), "")
        return _identity(instr, best), like(Value(ir.vector(lanes, "i64"), ""), LAST)
    return (_identity(instr, Value(ir.vector(lanes, register(instr.dtype)), "")),)


def step(
    b: Builder,
    instr: Instr,
    state: State,
    x: Value,
    columns: Callable[[], Value],
    mask: Value | None,
) -> State:
    """The accumulator with x taken in. columns: makes the columns of x's lanes, where they are
    needed; mask: the lanes that count."""
    if not _is_position(instr):
        x = cast(b, x, instr.dtype)
        if mask is not None:
            x = b.select(mask, x, _identity(instr, x))
        return merge(b, instr, state, (x,))
    positions = columns()
    if mask is not None:
        x = b.select(mask, x, _identity(instr, x))
        positions = b.select(mask, positions, like(positions, LAST))
    # Positions grow, so that a new element must be better to win.
    wins = _better(b, instr, x, state[0])
    return b.select(wins, x, state[0]), b.select(wins, positions, state[1])


def merge(b: Builder, instr: Instr, one: State, other: State) -> State:
    """The accumulator of two disjoint parts, in any order."""
    if _is_position(instr):
        better, worse = _better(b, instr, other[0], one[0]), _better(b, instr, one[0], other[0])
        first = b.binary("xor", b.binary("or", better, worse), like(better, True))
        first = b.binary("and", first, b.compare("slt", other[1], one[1]))
        wins = b.binary("or", better, first)
        return b.select(wins, other[0], one[0]), b.select(wins, other[1], one[1])
    (x,), (y,) = one, other
    match instr.op:
        case "max":
            return (maximum(b, x, y),)
        case "min":
            return (minimum(b, x, y),)
        case "any":
            return (b.binary("or", x, y),)
        case "all":
            return (b.binary("and", x, y),)
    return (b.add(x, y),)


def result(b: Builder, instr: Instr, state: State) -> Value:
    """The scalar of an accumulator that holds all elements."""
    if not _is_position(instr):
        return state[0]
    # Where nothing was better than the identity, every element is equal to it.
    none = b.compare("eq", state[1], like(state[1], LAST))
    return cast(b, b.select(none, like(state[1], 0), state[1]), instr.dtype)


def order_matters(instr: Instr) -> bool:
    """True if the bits of the result depend on the order of the elements: sums of floats round, and
    the larger of 0.0 and -0.0 is the later one."""
    return not _is_position(instr) and register(instr.dtype) in ("float", "double")


def goes_by_blocks(instr: Instr, state: State) -> bool:
    return instr.op == "sum" and state[0].is_float


def _is_position(instr: Instr) -> bool:
    return instr.op in ("argmax", "argmin")


def _better(b: Builder, instr: Instr, x: Value, than: Value) -> Value:
    """Further towards the extreme, and NaN furthest."""
    up = instr.op == "argmax"
    if not x.is_float:
        kinds = ("ugt", "ult") if x.element == "i1" else ("sgt", "slt")
        return b.compare(kinds[0] if up else kinds[1], x, than)
    # "or unordered": also where one of them is NaN, which is right unless `than` is.
    wins = b.compare("ugt" if up else "ult", x, than)
    settled = b.binary("xor", is_nan(b, than), like(wins, True))
    return b.binary("and", wins, settled)


def _identity(instr: Instr, x: Value) -> Value:
    """The identity of a reduction, in x's type."""
    if instr.op in ("sum", "any"):
        return like(x, 0)
    if instr.op == "all":
        return like(x, 1)
    low = instr.op in ("max", "argmax")
    if x.is_float:
        return like(x, -math.inf if low else math.inf)
    if x.element == "i1":
        return like(x, not low)
    bits = ir.width(x.element) * 8 - 1
    return like(x, -(2**bits) if low else 2**bits - 1)
