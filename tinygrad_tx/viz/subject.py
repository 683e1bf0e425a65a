"""What a picture is of: a graph, and what its inputs are called.

In: what users hand to viz.graph. Out: a `Subject`. Names are those of parameters in their modules,
of a function's arguments and, of Tensors that are computed with outside of any function, of the
variables that hold them where viz.graph is called.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

from ..arguments import shown
from ..compiler.capture.callables import name_of
from ..compiler.capture.trace import Traced, trace
from ..compiler.compiled import Compiled, Method
from ..compiler.inspect.names import input_names
from ..compiler.rewrite.cse import cse
from ..compiler.rewrite.lift.idioms import lift
from ..compiler.run.replay import Replay
from ..context import WRITTEN, Call, set_grad_enabled
from ..errors import TraceError, UserError
from ..nn.module import Module, evaluating
from ..node import Graph, Node
from ..tensor import Tensor
from ..tree import leaves
from .boxes import calls


@dataclass(frozen=True)
class Subject:
    """names: of data. arguments: the data that was handed in by name, rather than a module's own.
    name: what the whole is called.
    """

    graph: Graph
    names: Mapping[Node, str]
    arguments: frozenset[Node]
    name: str


def subject(of: Any, inputs: tuple[Any, ...], caller: FrameType) -> Subject:
    """See viz.graph. caller: whose variables name Tensors."""
    if isinstance(of, Method) and inputs:
        of, inputs = of._compiled, (of._instance, *inputs)
    if isinstance(of, Compiled) and inputs:
        of = of._f
    if isinstance(of, Module):
        if not inputs:
            raise UserError(
                f"viz.graph: a {type(of).__name__} is drawn with the inputs of a call: "
                "viz.graph(model, x)"
            )
        with evaluating(of.modules()):
            return _of_call(of, inputs, caller)
    if inputs and callable(of):
        return _of_call(of, inputs, caller)
    if inputs:
        raise TypeError(
            f"viz.graph: inputs belong to a Module or a function, not to {shown(of)}; several "
            "Tensors go into a list"
        )
    if isinstance(of, (Compiled, Method)):
        return _of_compiled(of)
    if isinstance(of, Graph):
        return _named(of, {}, caller, "")
    tensors = [of] if isinstance(of, Tensor) else of
    several = isinstance(tensors, (list, tuple)) and bool(tensors)
    if several and all(isinstance(x, Tensor) for x in tensors):
        return _named(Graph(x.node for x in tensors), {}, caller, "")
    if callable(of):
        raise TypeError(
            f"viz.graph: {shown(of)} is drawn with the inputs of a call, viz.graph(f, x), or once "
            "it is compiled and has run"
        )
    if isinstance(of, (list, tuple)) and not of:
        raise TypeError(f"viz.graph: there is nothing to draw in {of}")
    raise TypeError(
        "viz.graph draws a Tensor or a list of them, a compiled function, a Module with its "
        f"inputs, or a Graph, not {shown(of)}"
    )


def _of_compiled(of: Compiled | Method) -> Subject:
    plan = of._plan()
    graph = plan.graph
    return _recorded(plan.traced, _once(graph) if isinstance(plan, Replay) else graph)


def _of_call(f: Any, inputs: tuple[Any, ...], caller: FrameType) -> Subject:
    """A call, recorded, which changes nothing; one that asks for values runs, and what it has
    changed is put back."""
    with set_grad_enabled(True):
        try:
            traced = trace(f, inputs, {})
        except TraceError:
            return _run(f, inputs, caller)
    return _recorded(traced, _once(Graph(traced.ends)))


def _once(graph: Graph) -> Graph:
    """A graph in which nothing is computed twice: gradients are taken of a copy."""
    return Graph(cse(lift(graph.roots)))


def _recorded(traced: Traced, graph: Graph) -> Subject:
    names = input_names(traced, lambda tensor: traced.variables.get(id(tensor), ""))
    return _named(graph, names, None, traced.name.rpartition("<locals>.")[2])


def _run(f: Any, inputs: tuple[Any, ...], caller: FrameType) -> Subject:
    token = WRITTEN.set({})
    try:
        out = f(*inputs)
    finally:
        written = WRITTEN.get() or {}
        WRITTEN.reset(token)
        for tensor, before in written.values():
            tensor._point(before)
    graph = Graph(x.node for x in leaves(out) if isinstance(x, Tensor))
    return _named(graph, {}, caller, name_of(f))


# Names -------------------------------------------------------------------------------------------


def _named(graph: Graph, known: Mapping[Node, str], caller: FrameType | None, name: str) -> Subject:
    """Add the names that a graph itself tells, and those of the caller's variables."""
    names: dict[Node, str] = {}
    if caller is not None:
        names.update(_variables(caller))
    names.update(known)
    parameters = _parameters(graph)
    own: set[Node] = set()
    for node in graph:
        owner = node.owner() if node.owner is not None else None
        if id(owner) in parameters:
            names[node] = parameters[id(owner)]
            own.add(node)
        elif node not in names and not node.srcs and node.shape and _part(node):
            names[node] = _part(node)
    found = {node: names[node] for node in graph if node in names}
    arguments = frozenset(node for node in found if node not in own)
    if not name:
        shapes = ", ".join(f"{spec.shape}" for root in graph.roots[:3] for spec in root.specs)
        name = f"Tensor {shapes}" if len(graph.roots) == 1 else f"Tensors {shapes}"
    return Subject(graph, found, arguments, name)


def _variables(frame: FrameType) -> dict[Node, str]:
    found: dict[Node, str] = {}
    for variables in (frame.f_globals, frame.f_locals):
        for name, value in variables.items():
            if isinstance(value, Tensor) and not name.startswith("_"):
                found[value.node] = name
    return found


def _parameters(graph: Graph) -> dict[int, str]:
    """Names of the parameters of all modules that were called, by the id of the parameter."""
    seen: dict[int, Module] = {}
    for node in graph:
        for call in calls(node):
            module = call.module() if isinstance(call, Call) else None
            if isinstance(module, Module):
                seen.setdefault(id(module), module)
    found: dict[int, str] = {}
    for module in seen.values():  # outer ones come first
        path = module._path.partition(".")[2]
        _collect(found, path, module.named_parameters())
        _collect(found, path, module.named_buffers())
    return found


def _collect(found: dict[int, str], path: str, named: Iterable[tuple[str, Tensor]]) -> None:
    for name, value in named:
        found.setdefault(id(value), f"{path}.{name}" if path else name)


def _part(node: Node) -> str:
    """The name of a part of a module that made data, such as its padding mask."""
    scope = node.scope
    return scope.rpartition(".")[2] if isinstance(scope, Call) and scope.kind is None else ""
