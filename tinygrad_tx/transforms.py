"""Functions that make of a function the one that gives its gradient: tx.grad, tx.value_and_grad.

In: a function of Tensors (or nests of them) that gives a scalar. Out: another function. autograd.py
walks the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from . import tree
from .arguments import shown
from .autograd import _differentiable, _filled, _ones, gradients
from .context import grad_enabled, set_grad_enabled
from .errors import GradError
from .node import Graph, Handle, Node, rebound
from .ops import COPY
from .rules import Spec

if TYPE_CHECKING:  # Tensors are handles here
    from .tensor import Tensor

_DIFFERENTIATING: ContextVar[bool] = ContextVar("differentiating", default=False)


def differentiating() -> bool:
    """True while a function runs whose gradient grad() or value_and_grad() takes."""
    return _DIFFERENTIATING.get()


def grad(f: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """The function that gives the gradient of a scalar-valued f by its argument(s) argnums.

    The gradient has the argument's structure: a Tensor, or a list, tuple or dict of them. Apply it
    again for higher derivatives. GradError where f's result is no scalar.
    """
    both = value_and_grad(f, argnums)
    return lambda *args, **kwargs: both(*args, **kwargs)[1]


def value_and_grad(f: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """As grad(), but the function gives (f(...), gradient).

    Both are recorded only where something outside could be differentiated by: an argument or a
    Tensor read by f that requires a gradient.
    """
    single = isinstance(argnums, int)
    numbers = [argnums] if isinstance(argnums, int) else argnums
    if not callable(f):
        raise TypeError(f"grad: f must be a function, not a {type(f).__name__}")
    if not isinstance(numbers, (list, tuple)) or any(type(n) is not int for n in numbers):
        raise TypeError(f"grad: argnums must be an int or a sequence of ints, not {shown(argnums)}")

    def run(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        for n in numbers:
            if not 0 <= n < len(args):
                raise GradError(f"grad: argnums {n}, but only {len(args)} positional arguments")
        wanted = {n: _fresh(n, args[n]) for n in numbers}
        nodes = {n: tree.map_leaves(_node_of, fresh) for n, fresh in wanted.items()}
        leaves = [node for n in numbers for node in tree.leaves(nodes[n]) if node is not None]
        outside = any(x.requires_grad for n in numbers for x in _tensors(args[n]))
        keep = grad_enabled()
        with set_grad_enabled(True):
            token = _DIFFERENTIATING.set(True)
            try:
                value = f(*(wanted.get(i, a) for i, a in enumerate(args)), **kwargs)
            finally:
                _DIFFERENTIATING.reset(token)
            if not isinstance(value, Handle) or value.node.shape != ():
                got = " ".join(repr(value).split())
                raise GradError(f"grad: the function must give a scalar Tensor, not {got}")
            keep = keep and (outside or _depends_on_more(value.node, leaves))
            found: dict[Node, Tensor] = {}
            if value.node.requires_grad:
                (root,) = _differentiable((value.node,))
                found = gradients(
                    [root], [_ones(root)], leaves, create_graph=keep, release=not keep
                )
        results = [tree.map_leaves(lambda n: _or_zeros(found, n), nodes[n]) for n in numbers]
        value = value if keep else Handle.wrap(rebound(value.node, requires_grad=False))
        return value, results[0] if single else tuple(results)

    return run


def _tensors(argument: Any) -> list[Any]:
    return [x for x in tree.leaves(argument) if isinstance(x, Handle)]


def _node_of(x: Any) -> Node | None:
    return x.node if isinstance(x, Handle) else None


def _fresh(number: int, argument: Any) -> Any:
    """The argument with each Tensor replaced by a copy to differentiate by."""

    def copy(x: Any) -> Any:
        if not isinstance(x, Handle):
            return x
        node = x.node
        if not node.dtype.is_floating_point:
            raise GradError(f"grad: an argument of dtype {node.dtype.name} has no gradient")
        if not node.requires_grad:
            node = rebound(node, requires_grad=True)
        return COPY(Handle.wrap(node))

    if not _tensors(argument):
        raise GradError(f"grad: argument {number} holds no Tensor; wrap numbers in tx.tensor(...)")
    with set_grad_enabled(True):
        return tree.map_leaves(copy, argument)


def _depends_on_more(value: Node, leaves: Sequence[Node]) -> bool:
    """True if a gradient of value could be asked for by nodes other than the leaves."""
    known = set(leaves)
    graph = Graph([value], follow=lambda node: node.requires_grad and node not in known)
    return any(node.requires_grad and node.is_leaf for node in graph)


def _or_zeros(found: dict[Node, Tensor], node: Node | None) -> Tensor | None:
    """The gradient by node; zeros where the function does not depend on it."""
    if node is None:
        return None
    got = found.get(node)
    return _filled(Spec(node.shape, node.dtype), node.device, 0.0) if got is None else got
