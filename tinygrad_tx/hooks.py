"""Hooks on gradients: what Tensor.register_hook registers, and autograd calls at each node; and
what the hooks of modules, which nn/calls.py has, share with them.

A leaf's hooks belong to its Tensor, whatever node that points to; those of a result to its node, so
they live as long as its graph does.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from .arguments import shown
from .context import current_trace, guarded
from .errors import GradError, TraceError
from .node import Handle, Node

if TYPE_CHECKING:  # Tensor.register_hook calls what is here
    from .tensor import Tensor

Hooks = dict[int, Any]  # by their numbers; of Tensors: functions


class _Registry:
    """hooks: the numbers of all that were registered outside of traces. A compiled function is
    traced again after one comes, and goes back to the plan that it had when it goes. used: False
    until there is a first one on a gradient, so that nobody else pays for them."""

    hooks: tuple[int, ...] = ()
    used = False


_NUMBERS = count(1)
_ON_NODES: WeakKeyDictionary[Node, Hooks] = WeakKeyDictionary()


class RemovableHandle:
    """A registered hook: remove() takes it away, as does the end of a `with` block."""

    def __init__(self, number: int, hooks: Hooks) -> None:
        self.id, self._hooks = number, hooks

    def remove(self) -> None:
        self._hooks.pop(self.id, None)
        _Registry.hooks = tuple(n for n in _Registry.hooks if n != self.id)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *error: Any) -> None:
        self.remove()


def register(x: Tensor, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    node = x.node
    if not callable(hook):
        raise TypeError(f"register_hook: hook must be a function, not {shown(hook)}")
    if not node.requires_grad:
        raise GradError("register_hook of a Tensor that requires no gradient")
    outside = node.owner is not None or node.trace is None
    if outside and current_trace() is not None:
        raise TraceError(
            "register_hook of a Tensor from outside of the compiled function: register it before "
            "the function is called"
        )
    if node.owner is not None:
        if getattr(x, "_hooks", None) is None:
            x._hooks = {}
        hooks = x._hooks
    else:
        hooks = _ON_NODES.setdefault(node, {})
    _Registry.used = True
    return added(hooks, hook, noted=outside)


def added(hooks: Hooks, hook: Any, noted: bool = True, first: bool = False) -> RemovableHandle:
    """The hook among the others, at their end or as the first. noted: compiled functions see it."""
    number = next(_NUMBERS)
    others = dict(hooks) if first else {}
    if first:
        hooks.clear()
    hooks[number] = hook
    hooks.update(others)
    if noted:
        _Registry.hooks += (number,)
    return RemovableHandle(number, hooks)


def watch() -> None:
    """Note in a trace that hooks are looked at."""
    guarded(_Registry, "hooks")


def used() -> bool:
    """True if hooks on gradients may be there; noted as a guard of a trace."""
    watch()
    return _Registry.used


def in_trace(trace: Any) -> bool:
    """True if a result of a trace has hooks: then its nodes must stay what they are."""
    return any(node.trace is trace for node in _ON_NODES)


def through_hooks(node: Node, grad: Tensor) -> Tensor:
    """The gradient by a node, as its hooks leave it."""
    owner = None if node.owner is None else node.owner()
    hooks = _ON_NODES.get(node) if owner is None else getattr(owner, "_hooks", None)
    for hook in list(hooks.values()) if hooks else ():
        given = hook(grad)
        if given is None:
            continue
        if not isinstance(given, Handle) or given.node.spec != grad.node.spec:
            what = (
                f"{given.node.dtype.name} {given.node.shape}"
                if isinstance(given, Handle)
                else shown(given)
            )
            raise GradError(
                f"a hook must give None or a gradient of {grad.dtype.name} {grad.shape}, not {what}"
            )
        grad = given  # type: ignore[assignment]
    return grad


def hand_on(node: Node, new: Node) -> None:
    """The hooks of a node, to the one that takes its place."""
    if _Registry.used and node in _ON_NODES:
        _ON_NODES[new] = _ON_NODES[node]
