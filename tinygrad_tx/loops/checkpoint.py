"""checkpoint: a call whose inner values are computed again in the backward pass.

In: a function on Tensors. Out: the same function. Where code runs eagerly its call becomes one node
on what it has read, whose gradient runs the function once more; while a function is traced, a loop
of one round (record.py).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .. import tree
from ..arguments import shown
from ..autograd import gradients
from ..context import (
    PRECISION,
    WRITTEN,
    current_trace,
    grad_enabled,
    set_grad_enabled,
    set_precision,
)
from ..errors import GradError
from ..node import ITEM, Graph, Node, Op, apply, now
from ..rules import Spec
from ..tensor import Tensor
from .record import record_call


def checkpoint(f: Callable[..., Any]) -> Callable[..., Any]:
    """tx.checkpoint(f)(*args) is f(*args), whose inner values are not kept for the backward pass
    but computed again there, with the same random numbers (Chen et al. 2016, "Training deep nets
    with sublinear memory cost").

    f: a function or Module of Tensors, run a second time by backward(): it must do the same then.
    What it changes (running statistics) is changed once. Gradients flow to its arguments and to
    what it captures. GradError where a Tensor that f captures and that requires a gradient was
    changed between the two; others must not be.
    """
    check_function("checkpoint", f)
    return computed_again(f)


def computed_again(f: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(f, updated=())
    def run(*args: Any, **kwargs: Any) -> Any:
        if not grad_enabled():
            return f(*args, **kwargs)
        if current_trace() is not None:
            return record_call(f, args, kwargs)
        return _kept_by_its_ends(f, args, kwargs)

    return run


def check_function(name: str, f: Any) -> None:
    if not callable(f):
        raise TypeError(f"{name}: f must be a function, not {shown(f)}")


# Eager code -----------------------------------------------------------------------------------


def _no_forward(xp: Any, *arrays: Any, **attrs: Any) -> Any:
    raise GradError("checkpoint is made by its function")


def _again(g: Any, y: Any, *xs: Any, run: Callable[[], tuple[list[Node], list[Node]]]) -> Any:
    """The gradient of each source: f runs once more, and is differentiated."""
    with set_grad_enabled(True):
        outs, srcs = run()
    if [x.node for x in xs] != srcs:
        raise GradError(
            "checkpoint: a Tensor that f reads was changed between its call and backward(); pass "
            "it to f as an argument, or call backward() before the change"
        )
    found = gradients(outs, g, srcs, create_graph=grad_enabled())
    return [found.get(src) for src in srcs]


CHECKPOINT = Op(
    "checkpoint", kind="loop", forward=_no_forward, rule=lambda op, *xs, **attrs: (), vjp=_again
)


def _kept_by_its_ends(f: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """f(*args, **kwargs), recorded as one node on what it has read."""
    given = [x.node if isinstance(x, Tensor) else None for x in tree.leaves((args, kwargs))]
    precision = PRECISION.get()
    with _watching() as before:
        results, outs, srcs = _recorded(f, args, kwargs)
    if not outs:
        return results

    def run() -> tuple[list[Node], list[Node]]:
        fresh = (
            x if node is None else _handle(x, node)
            for x, node in zip(tree.leaves((args, kwargs)), given, strict=True)
        )
        inner_args, inner_kwargs = tree.replace_leaves((args, kwargs), fresh)
        with _as_it_was(before), set_precision(precision):
            _, outs, srcs = _recorded(f, inner_args, inner_kwargs)
        return outs, srcs

    spec = tuple(Spec(out.shape, out.dtype) for out in outs)
    arrays = tuple(out.array for out in outs)
    node = Node(
        CHECKPOINT,
        tuple(srcs),
        {"run": run},
        spec,
        outs[0].device,
        array=arrays,
        requires_grad=True,
    )
    parts = {out: apply(ITEM, (node,), {"i": i}) for i, out in enumerate(outs)}

    def part(x: Any) -> Any:
        return Tensor(parts[x.node]) if isinstance(x, Tensor) and x.node in parts else x

    return tree.map_leaves(part, results)


Written = dict[int, tuple[Tensor, Node]]


@contextmanager
def _watching() -> Iterator[Written]:
    """Notes the Tensors from outside that f changes (running statistics, the counter of random
    streams), each with its node before."""
    outer, before = WRITTEN.get(), Written()
    token = WRITTEN.set(before)
    try:
        yield before
    finally:
        WRITTEN.reset(token)
        if outer is not None:
            for key, found in before.items():
                outer.setdefault(key, found)


@contextmanager
def _as_it_was(before: Written) -> Iterator[None]:
    """Inside, these Tensors are what they were; afterwards again what they are now."""
    now = [(tensor, tensor._node) for tensor, _ in before.values()]
    for tensor, node in before.values():
        tensor._node = node
    token = WRITTEN.set(None)
    try:
        yield
    finally:
        WRITTEN.reset(token)
        for tensor, node in now:
            tensor._node = node


def _handle(like: Tensor, node: Node) -> Tensor:
    """A Tensor of like's class on the node that it had."""
    made: Tensor = like.__class__.__new__(like.__class__)
    made._node, made._grad = node, None
    return made


def _recorded(f: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Any, list[Node], list[Node]]:
    """The results of a call, its nodes among them that require a gradient, and the nodes from
    before the call that these depend on."""
    start = now()
    results = f(*args, **kwargs)
    ends = [x.node for x in tree.leaves(results) if isinstance(x, Tensor)]
    outs = [n for n in dict.fromkeys(ends) if n.requires_grad and n.place >= start]

    def inside(node: Node) -> bool:
        return node.place >= start and node.requires_grad

    found = Graph(outs, follow=inside)
    return results, outs, [n for n in found if n.requires_grad and n.place < start]
