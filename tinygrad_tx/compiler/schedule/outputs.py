"""Outputs: values that outlive the run get a whole dense buffer of their own.

In and out: a Fusion. State that its last unit already writes where it lay keeps its place. A stage
of pipeline.py.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from ...backends.target import Target
from ...node import Node
from ..fuse.body import copying
from .records import Buffer, Call, Fusion, View, whole


def give_outputs_memory(fusion: Fusion, target: Target) -> Fusion:
    sources: dict[Node, list[Node]] = {}
    for source, end in fusion.graph.states.items():
        sources.setdefault(end, []).append(source)
    places, copies, taken = dict(fusion.places), list[Call](), set[Buffer]()
    for end in fusion.graph.ends:
        view = places[end]
        own = any(view.buffer is fusion.inputs.get(s) for s in sources.get(end, ()))
        if not (own and view.buffer in fusion.in_place):
            places[end] = _own(view, copies, taken)
        if fusion.graph.moving is not None:  # outside of a loop each end has an array of its own
            taken.add(places[end].buffer)
    return replace(fusion, units=(*fusion.units, *copies), places=places)


def _own(view: View, copies: list[Call], taken: set[Buffer]) -> View:
    buffer = view.buffer
    dense = view.contiguous and view.offset == 0 and buffer.size == prod(view.shape)
    if dense and buffer.kind == "value" and buffer not in taken:
        return whole(buffer, view.shape)
    made = Buffer("value", view.dtype, prod(view.shape), buffer.node)
    target = whole(made, view.shape)
    copies.append(copying(view, target))
    return target
