"""trace: a call of a Python function, recorded as a graph.

In: a function and its arguments. Out: a `Traced`: the input Tensors and how to find them again, the
nodes that results and changed state come from, and the guards under which the recording holds.
Called by compiled.py.

No state is declared. A Tensor made before the trace and touched in it becomes an input; what the
function does to it is kept beside it and applied after a run, so a trace that fails leaves nothing
behind, and other threads see nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import ref

from ... import tree
from ...context import Trace, as_given, tracing
from ...errors import TraceError
from ...node import INPUT, Node
from ...tensor import Tensor
from ..rewrite.lift.idioms import lift
from .callables import argument_names, check_returned, name_of, variables

# Sources: how an input is found when the recording runs -----------------------------------------


class Captured(NamedTuple):
    """A Tensor that the function reached by itself: the same one at every call."""

    tensor: Tensor

    def find(self, args: list[Any]) -> Tensor | None:
        return self.tensor

    def __str__(self) -> str:
        return f"a captured Tensor {self.tensor._node.shape}"


class Argument(NamedTuple):
    """The i-th leaf of the call's arguments."""

    i: int

    def find(self, args: list[Any]) -> Tensor | None:
        return args[self.i]  # type: ignore[no-any-return]

    def __str__(self) -> str:
        return f"argument {self.i}"


class GradOf(NamedTuple):
    """The `.grad` of another input."""

    source: Source

    def find(self, args: list[Any]) -> Tensor | None:
        tensor = self.source.find(args)
        return None if tensor is None else tensor._grad

    def __str__(self) -> str:
        return f"the gradient of {self.source}"


Source = Captured | Argument | GradOf


class Signature(NamedTuple):
    """The properties of an input that a recording is specialised to."""

    shape: tuple[int, ...]
    dtype: str
    device: str
    requires_grad: bool
    has_grad: bool


def signature(tensor: Tensor) -> Signature:
    node = tensor._node
    has_grad = tensor._grad is not None
    return Signature(node.shape, node.dtype.name, node.device, node.requires_grad, has_grad)


# A trace -----------------------------------------------------------------------------------------

_UNREAD = object()


@dataclass(eq=False)
class Input:
    """One Tensor from outside: its Source, and its value so far inside the function."""

    source: Source
    original: Tensor | None
    placeholder: Node
    node: Node
    signature: Signature
    grad: Any = _UNREAD  # None, or the Tensor that stands for .grad inside the trace

    @property
    def changed(self) -> bool:
        return self.node is not self.placeholder


class RetraceByIdentity(BaseException):
    """Argument i is also captured in another way: trace again with its identity as a guard."""

    def __init__(self, i: int) -> None:
        self.i = i


@dataclass(eq=False)
class Traced:
    """A recorded call."""

    name: str  # of the function
    arguments: tuple[str, ...]  # what the leaves of its arguments are called
    variables: dict[int, str]  # and the Tensors that its variables hold, by id
    inputs: list[Input]
    results: Any  # the returned structure, its Tensors inside
    grads: list[tuple[Input, Any]]  # the .grad that an input ends with, where it was set
    guards: list[tuple[Any, str, Any]]
    by_handle: dict[int, Input]
    identities: dict[int, Tensor]  # arguments bound by identity
    grad_aliases: list[tuple[Source, Tensor]]  # gradients that are also reached in another way

    @property
    def changed(self) -> list[Input]:
        return [i for i in self.inputs if i.changed]

    @property
    def made(self) -> dict[int, Tensor]:
        """The Tensors made inside that outlive the call, by id: results and gradients."""
        found = [*tree.leaves(self.results), *(grad for _, grad in self.grads)]
        tensors = [t for t in found if isinstance(t, Tensor)]
        return {id(t): t for t in tensors if id(t) not in self.by_handle}

    @property
    def ends(self) -> list[Node]:
        """The nodes whose values outlive the call: of Tensors made, and of Tensors changed."""
        return [t._node for t in self.made.values()] + [i.node for i in self.changed]


class Tracer(Trace):
    """The trace of one call."""

    def __init__(self, args: list[Any], identities: dict[int, Tensor]) -> None:
        self.inputs: list[Input] = []
        self.by_handle: dict[int, Input] = {}  # id of the Tensor inside the trace
        self.guards: dict[tuple[int, str], tuple[Any, str, Any]] = {}
        self.identities = identities
        # Tensors that the function sees through a stand-in: id of the original -> argument number.
        self.outside: dict[int, int] = {}
        self.gradients: dict[int, tuple[GradOf, Tensor]] = {}  # id of the original -> its stand-in
        self.grad_aliases: list[tuple[Source, Tensor]] = []
        self.stand_ins: list[Any] = []  # the arguments as the function sees them
        self.kept: list[Tensor] = []
        first: dict[int, Tensor] = {}
        for i, arg in enumerate(args):
            if not isinstance(arg, Tensor) or i in identities:
                self.stand_ins.append(arg)
            else:
                if id(arg) not in first:
                    first[id(arg)] = self._stand_in(Argument(i), arg)
                    self.outside[id(arg)] = i
                self.stand_ins.append(first[id(arg)])

    # The methods of context.Trace
    def read(self, handle: Tensor) -> Node:
        found = self.by_handle.get(id(handle))
        if found is not None:
            return found.node
        if handle._node.trace is self:
            return handle._node
        return self._capture(handle).node

    def write(self, handle: Tensor, node: Node) -> None:
        found = self.by_handle.get(id(handle))
        if found is not None:
            found.node = node
        elif handle._node.trace is self:
            handle._node = node
        else:
            self._capture(handle).node = node

    def read_grad(self, handle: Tensor) -> Tensor | None:
        found = self._input(handle)
        if found is None:
            return handle._grad
        if found.grad is _UNREAD:
            assert found.original is not None
            grad = found.original._grad
            found.grad = None if grad is None else self._gradient(GradOf(found.source), grad)
        return found.grad  # type: ignore[no-any-return]

    def write_grad(self, handle: Tensor, grad: Tensor | None) -> None:
        found = self._input(handle)
        if found is None:
            handle._grad = grad
            return
        assert found.original is not None
        if not found.original._node.is_leaf:
            raise TraceError(
                f"backward() inside a compiled function reached {found.source}, which was computed "
                "outside of it: compute it inside, or .detach() it"
            )
        found.grad = grad

    def guard(self, owner: Any, attribute: str, value: Any) -> None:
        # The first value counts, which a call comes with: the function itself may set another one.
        self.guards.setdefault((id(owner), attribute), (owner, attribute, value))

    def differentiate(self, roots: tuple[Node, ...]) -> tuple[Node, ...]:
        """Gradients are taken of the lifted graph. Tensors made before keep the old one: `cse`
        makes one of what both compute."""
        with as_given():
            return lift(roots, differentiable=True)

    # Inputs
    def _gradient(self, source: GradOf, grad: Tensor) -> Tensor:
        """The stand-in of a gradient inside the trace: one Tensor, in however many ways it is
        reached."""
        if id(grad) in self.outside:
            raise RetraceByIdentity(self.outside[id(grad)])
        if id(grad) in self.by_handle:  # captured by itself
            self.grad_aliases.append((source, grad))
            return grad
        if id(grad) in self.gradients:
            self._pin(grad)
            self.grad_aliases.append((source, grad))
        else:
            self.gradients[id(grad)] = source, self._stand_in(source, grad)
        return self.gradients[id(grad)][1]

    def _pin(self, grad: Tensor) -> Input:
        """Bind a gradient that is also reached in another way by its identity from now on."""
        source, inside = self.gradients[id(grad)]
        self.grad_aliases.append((source, grad))
        return self.by_handle[id(inside)]

    def _input(self, handle: Tensor) -> Input | None:
        """The input that a Tensor is; None where it was made inside the trace."""
        found = self.by_handle.get(id(handle))
        if found is None and handle._node.trace is not self:
            found = self._capture(handle)
        return found

    def _capture(self, tensor: Tensor) -> Input:
        if tensor._node.array is None:
            raise TraceError(
                "a Tensor made inside a compiled function is used after its trace; return it from "
                "the function instead"
            )
        if id(tensor) in self.outside:
            raise RetraceByIdentity(self.outside[id(tensor)])
        if id(tensor) in self.gradients:
            found = self.by_handle[id(tensor)] = self._pin(tensor)
            return found
        return self._add(Captured(tensor), tensor, tensor)

    def _stand_in(self, source: Source, original: Tensor) -> Tensor:
        """A Tensor of the original's class that the function sees in its place."""
        inside: Tensor = original.__class__.__new__(original.__class__)
        inside._node, inside._grad = original._node, None
        self._add(source, original, inside)
        return inside

    def _add(self, source: Source, original: Tensor, handle: Tensor) -> Input:
        node = original._node
        placeholder = Node(
            INPUT,
            (),
            {},
            node.spec,
            node.device,
            requires_grad=node.requires_grad,
            trace=self,
            at="",
        )
        placeholder.owner = ref(handle)
        found = Input(source, original, placeholder, placeholder, signature(original))
        self.by_handle[id(handle)] = found
        self.inputs.append(found)
        # ids are compared: everything that has one here is kept alive with the trace
        self.kept.append(handle)
        return found


def trace(f: Callable[..., Any], args: Any, kwargs: Any) -> Traced:
    """Record f(*args, **kwargs). Raises what f raises, and TraceError where f asks for a value."""
    flat = list(tree.leaves((args, kwargs)))
    identities: dict[int, Tensor] = {}
    while True:
        tracer = Tracer(flat, identities)
        inner_args, inner_kwargs = tree.replace_leaves((args, kwargs), tracer.stand_ins)
        try:
            with tracing(tracer):
                results = f(*inner_args, **inner_kwargs)
                for returned in tree.leaves(results):
                    if isinstance(returned, Tensor):
                        tracer.read(returned)  # one that was only passed on is an input too
                    else:
                        check_returned(name_of(f), returned)
        except RetraceByIdentity as again:
            identities[again.i] = flat[again.i]
            continue
        break
    grads = [(i, i.grad) for i in tracer.inputs if _grad_changed(i, tracer.by_handle)]
    for found in tracer.inputs:
        if not isinstance(found.source, Captured):
            found.original = None  # the recording shall not keep a call's arguments alive
    return Traced(
        name_of(f),
        argument_names(f, args, kwargs),
        variables(f),
        tracer.inputs,
        results,
        grads,
        list(tracer.guards.values()),
        tracer.by_handle,
        identities,
        tracer.grad_aliases,
    )


def _grad_changed(found: Input, by_handle: dict[int, Input]) -> bool:
    """True if an input's .grad is no longer the Tensor, or the None, that it was."""
    if found.grad is _UNREAD:
        return False
    if found.grad is None:
        return found.signature.has_grad
    assert found.original is not None
    stands_for = by_handle.get(id(found.grad))
    return stands_for is None or stands_for.original is not found.original._grad
