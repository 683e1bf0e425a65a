"""opaque: what a run does between programs and after them: ops called as they are, and the error of
an index that was outside.

In: a launch or a wave, and where its operands lie. Out: nothing, or what is raised. Called by
execution.py.
"""

from __future__ import annotations

from typing import Any, NoReturn

from ... import backends
from ...backends.target import Memory
from ...half import computing
from ...mistakes import explain, naming
from ...rules import as_promised
from ..schedule.records import Launch
from ..schedule.waves import indices
from .addresses import Addresses
from .segment import Segment, Words


def call(launch: Launch, addresses: Addresses, memory: Memory) -> None:
    """Call an op's forward as it is."""
    (call,) = launch.calls
    node = call.nodes[0]
    xp = backends.get(node.device)
    arrays = [addresses.array_at(view) for view in call.reads]
    try:
        with xp.no_warnings():
            out = computing(node.op, arrays, node.spec)(xp, *arrays, **node.attrs)
    except Exception as error:
        explain(error, node.op.name, "forward", node.op.forward, (xp, *arrays), node.attrs)
        raise
    if not node.op.ours:
        out = as_promised(node.op, xp, out, node.spec)
    outs: tuple[Any, ...] = out if isinstance(out, tuple) else (out,)
    for view, value in zip(call.writes, outs, strict=True):
        memory.write(addresses.array_at(view), value)


def raise_outside(segment: Segment, wave: list[Launch], args: Words) -> NoReturn:
    """An index was outside, in this wave, after which nothing has run: say which one. args: those
    of the segment in that run."""
    for launch, call in ((x, call) for x in wave for call in indices([x])):
        node, given = call.nodes[0], segment.checked_index(launch, call, args)
        given = backends.get(node.device).to_host(given)
        attrs = dict(node.attrs)
        name = attrs.get("of", "")
        if name == "update" and not 0 <= given.item() < attrs["size"]:
            raise IndexError(
                f"update: a write at position {given.item()} leaves its places: it must begin "
                f"in 0..{attrs['size'] - 1}"
            )
        with naming(node):
            node.op.forward(backends.get("cpu"), given, **attrs)
    raise IndexError("an index is outside the entries it chooses from")


def blame(segment: Segment, args: Words, low: int) -> None:
    """Raise the error of the check whose report has these low bits, if it is one of this
    segment."""
    wave = segment.blamed(args, low)
    if wave is not None:
        raise_outside(segment, wave, args)
