"""What the inputs of a recorded call are called: "src", "batch[0]", "gradient of weight".

In: a Traced. Out: names by node. Called by viz/subject.py.
"""

from __future__ import annotations

from ...node import Graph, Node
from ..capture.trace import Captured, GradOf, Source, Traced


def input_names(traced: Traced, graph: Graph) -> dict[Node, str]:
    """A name for each input in the graph that has one; captured Tensors have theirs elsewhere."""
    inside = set(graph)
    named = {i.placeholder: _name(i.source, traced.arguments) for i in traced.inputs}
    return {node: name for node, name in named.items() if name and node in inside}


def _name(source: Source, arguments: tuple[str, ...]) -> str:
    if isinstance(source, Captured):
        return ""
    if isinstance(source, GradOf):
        of = _name(source.source, arguments)
        return f"gradient of {of}" if of else ""
    return arguments[source.i]
