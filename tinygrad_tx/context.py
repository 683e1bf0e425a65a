"""Context of running code: the trace, whether gradients are recorded, module and source line.

Context variables, so that each thread has its own. node.apply reads them: it computes, or records
where a trace is current. compiler/capture/trace.py is the Trace; tensor.py asks it for a Tensor's
node, nn/module.py says which module is running.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from .places import Place

if TYPE_CHECKING:  # node.py imports this file
    from .node import Node


class Trace(Protocol):
    """The recorder that stands in for computing while a function is traced; see
    compiler/capture/trace.py.

    A Tensor's node and gradient are asked of the trace, so nothing outside of it changes before
    the trace is done.
    """

    def read(self, handle: Any) -> Node:
        """The node of a Tensor; one made before the trace becomes an input."""

    def write(self, handle: Any, node: Node) -> None:
        """Point a Tensor at another node."""

    def read_grad(self, handle: Any) -> Any:
        """A Tensor's `.grad`."""

    def write_grad(self, handle: Any, grad: Any) -> None:
        """Set a Tensor's `.grad`."""

    def guard(self, owner: Any, attribute: str, value: Any) -> None:
        """The function read a Python attribute: trace again when it changes."""

    def differentiate(self, roots: tuple[Node, ...]) -> tuple[Node, ...]:
        """The graph of which gradients are taken: a compiler may lift it first."""
        return roots


class Call(str):
    """One call of a module, or of a part of one that has a name of its own: the path of its nodes.

    module: gives the module, as long as there is one. kind: its class; None of a part. outer: the
    call inside which it was made; "" of the outermost.
    """

    __slots__ = ("kind", "module", "outer")
    kind: type | None
    module: Callable[[], Any]
    outer: str


class Of(int):
    """The place in the program of a node whose gradient is computed. op: the name of its op; at:
    the user's line that made it."""

    op: str = ""
    at: Place = ""


TRACE: ContextVar[Trace | None] = ContextVar("trace", default=None)
GRAD: ContextVar[bool] = ContextVar("grad", default=True)
PRECISION: ContextVar[str] = ContextVar("precision", default="fp32")  # autocast.py lists them
SCOPE: ContextVar[str] = ContextVar("scope", default="")
LINE: ContextVar[Place] = ContextVar("line", default="")  # of what traced nodes stand for
# While gradients are computed: the place in the program of the node that they are the gradient of.
GRADIENT_OF: ContextVar[int | None] = ContextVar("gradient_of", default=None)
# By id, each Tensor that is pointed at another node while eager code runs, and its node before.
WRITTEN: ContextVar[dict[int, tuple[Any, Node]] | None] = ContextVar("written", default=None)


def current_trace() -> Trace | None:
    return TRACE.get()


def grad_enabled() -> bool:
    """True if what is computed now is recorded for gradients."""
    return GRAD.get()


@contextmanager
def tracing(trace: Trace | None) -> Iterator[None]:
    """Make `trace` the current one (None: compute eagerly)."""
    token = TRACE.set(trace)
    try:
        yield
    finally:
        TRACE.reset(token)


@contextmanager
def set_grad_enabled(enabled: bool) -> Iterator[None]:
    """Record, or do not record, what gradients need."""
    token = GRAD.set(enabled)
    try:
        yield
    finally:
        GRAD.reset(token)


@contextmanager
def set_precision(precision: str) -> Iterator[None]:
    """Ops called inside take their operands as autocast(precision) says; "fp32": as they are."""
    token = PRECISION.set(precision)
    try:
        yield
    finally:
        PRECISION.reset(token)


@contextmanager
def as_given() -> Iterator[None]:
    """Ops called inside take their operands as they are: those of gradients and plans, whose casts
    have been made."""
    token = PRECISION.set("fp32")
    try:
        yield
    finally:
        PRECISION.reset(token)


@contextmanager
def scope(name: str) -> Iterator[None]:
    """Nodes made inside belong to the module path `name`; a Call keeps them apart from other calls
    of the module."""
    token = SCOPE.set(name)
    try:
        yield
    finally:
        SCOPE.reset(token)


@contextmanager
def part(name: str) -> Iterator[None]:
    """Nodes made inside belong to a part of the current module, such as its "padding mask"."""
    outer = SCOPE.get()
    call = Call(f"{outer}.{name}" if outer else name)
    call.kind, call.module, call.outer = None, _nothing, outer
    with scope(call):
        yield


def _nothing() -> None:
    return None


@contextmanager
def gradient_of(node: Node) -> Iterator[None]:
    """Nodes made inside are a gradient of this one, and belong to its module."""
    place = Of(node.place)
    place.op, place.at = node.op.name, node.at
    within, of = SCOPE.set(node.scope), GRADIENT_OF.set(place)
    try:
        yield
    finally:
        GRADIENT_OF.reset(of)
        SCOPE.reset(within)


def guarded(owner: Any, attribute: str) -> Any:
    """A Python attribute that a traced function may read, noted as a guard of the trace."""
    value = getattr(owner, attribute)
    trace = TRACE.get()
    if trace is not None:
        trace.guard(owner, attribute, value)
    return value
