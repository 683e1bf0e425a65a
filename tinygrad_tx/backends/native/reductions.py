"""Reductions of a row in vector lanes.

In: an Instr whose op is in REDUCTIONS, and vectors of its argument. Out: vectors that hold what has
been reduced so far (a State), in the end one scalar. Called by rows.py and columns.py.

Lanes and accumulators are combined in a fixed order. A missing element is given as the reduction's
identity, so that it changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..kernel import Instr
from . import ir
from .expressions import cast, is_nan, maximum, minimum, register
from .ir import Builder, Value
from .math_ir import like

State = tuple[Value, ...]  # one vector; the best and its position for argmax and argmin

_LAST = 2**63 - 1  # the position of an element that is not there


def start(instr: Instr, argument: str, lanes: int) -> State:
    """Nothing reduced yet. argument: the dtype of what is to be reduced."""
    if _is_position(instr):
        best = Value(ir.vector(lanes, register(argument)), "")
        return _identity(instr, best), like(Value(ir.vector(lanes, "i64"), ""), _LAST)
    return (_identity(instr, Value(ir.vector(lanes, register(instr.dtype)), "")),)


def step(
    b: Builder,
    instr: Instr,
    state: State,
    x: Value,
    columns: Callable[[], Value],
    mask: Value | None,
) -> State:
    """x added to what was reduced. columns: makes the columns of x's lanes, where they are needed;
    mask: the lanes that count."""
    if not _is_position(instr):
        x = cast(b, x, instr.dtype)
        if mask is not None:
            x = b.select(mask, x, _identity(instr, x))
        return merge(b, instr, state, (x,))
    positions = columns()
    if mask is not None:
        x = b.select(mask, x, _identity(instr, x))
        positions = b.select(mask, positions, like(positions, _LAST))
    # Positions grow, so that a new element must be better to win.
    wins = _better(b, instr, x, state[0])
    return b.select(wins, x, state[0]), b.select(wins, positions, state[1])


def merge(b: Builder, instr: Instr, one: State, other: State) -> State:
    """Two disjoint parts, in any order."""
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


def finish(b: Builder, instr: Instr, states: list[State]) -> Value:
    """The scalar: accumulators that are opposite each other first, then halves of lanes."""
    while len(states) > 1:
        half = len(states) // 2
        states = [merge(b, instr, states[i], states[i + half]) for i in range(half)]
    (state,) = states
    while (lanes := state[0].lanes) > 1:
        low, high = range(lanes // 2), range(lanes // 2, lanes)
        state = merge(b, instr, _part(b, state, low), _part(b, state, high))
    if not _is_position(instr):
        return state[0]
    # Where nothing was better than the identity, every element is equal to it.
    none = b.compare("eq", state[1], like(state[1], _LAST))
    return cast(b, b.select(none, like(state[1], 0), state[1]), instr.dtype)


def _part(b: Builder, state: State, lanes: range) -> State:
    if len(lanes) == 1:
        return tuple(b.lane(x, lanes[0]) for x in state)
    return tuple(b.shuffle(x, x, lanes) for x in state)


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
    """What changes nothing, in x's type."""
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
