"""What a recorded call knows by name: its inputs ("src", "batch[0]", "gradient of weight"), and the
modules that were called in it.

In: a Traced. Out: names by node, modules by path. Called by describe.py and viz/subject.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...context import Call
from ...node import Graph, Node
from ...state import KEEPERS
from ...tensor import Tensor
from ..capture.trace import Argument, Captured, Source, Traced

Modules = dict[str, Callable[[], Any]]


def input_names(traced: Traced, captured: Callable[[Tensor], str]) -> dict[Node, str]:
    """A name for each input that has one. captured: names Tensors that the function has reached by
    itself; "" for one without a name."""

    def name(source: Source) -> str:
        match source:
            case Captured(tensor):
                return captured(tensor)
            case Argument(i):
                return traced.arguments[i]
        of = name(source.source)
        return f"gradient of {of}" if of else ""

    named = {i.placeholder: name(i.source) for i in traced.inputs}
    return {node: found for node, found in named.items() if found}


def kept() -> dict[int, tuple[str, Tensor | None]]:
    """What optimizers and the like keep from step to step, by the ids of the Tensors: what it is,
    and the parameter that it is of."""
    found: dict[int, tuple[str, Tensor | None]] = {}
    for keeper in [*KEEPERS]:
        for name, tensor in keeper._state().items():
            found.setdefault(id(tensor), (f"{type(keeper).__name__}: {name}", None))
        remembered = zip(
            getattr(keeper, "parameters", ()), getattr(keeper, "moments", ()), strict=False
        )
        for parameter, moments in remembered:
            for name, tensor in moments.items():
                found[id(tensor)] = name, parameter
    return found


def modules_of(graph: Graph) -> Modules:
    """What gives each module that nodes belong to, and those around it, by path; as long as they
    are there."""
    found: Modules = {}
    for scope in {node.scope for node in graph}:
        call: str = scope
        while isinstance(call, Call):
            if call.kind is not None:
                found.setdefault(str(call), call.module)
            call = call.outer
    return found
