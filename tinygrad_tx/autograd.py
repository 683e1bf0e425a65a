"""Reverse-mode differentiation over Nodes, and the functional forms built on it.

In: output nodes and their cotangents. Out: a gradient Tensor for each input node. Each op's vjp is
written on Tensors, so the gradient is itself a graph: recorded where create_graph is set (gradients
of gradients), computed and forgotten elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from . import tree
from .arguments import shown
from .context import current_trace, grad_enabled, scope, set_grad_enabled
from .dtypes import float32
from .errors import DeviceError, GradError
from .half import WIDENED
from .mistakes import explain
from .node import ITEM, LOST, RELEASED, Graph, Handle, Node, apply, cast, rebound
from .ops import ADD, COPY, FULL, RESHAPE, SUM
from .rules import Spec

if TYPE_CHECKING:  # tensor.py imports this file; annotations are all that is wanted back
    from .tensor import Tensor

Slots = list["Tensor | None"]
_DIFFERENTIATING: ContextVar[bool] = ContextVar("differentiating", default=False)


def differentiating() -> bool:
    """True while a function runs whose gradient grad() or value_and_grad() takes."""
    return _DIFFERENTIATING.get()


def gradients(
    outputs: Sequence[Node],
    cotangents: Sequence[Tensor],
    inputs: Sequence[Node] | None = None,
    *,
    create_graph: bool = False,
    release: bool = False,
    whole: bool = False,
) -> dict[Node, Tensor]:
    """Sum over outputs of cotangent * d output / d node, for each input node that is reached.

    inputs: where to stop; None means all leaves that require a gradient.
    release: forget each recorded node once it is passed.
    whole: GradError where a compiled function has left out some of the history.
    """
    wanted = None if inputs is None else set(inputs)

    def inside(node: Node) -> bool:
        return node.requires_grad and not (wanted is not None and node in wanted)

    order = [n for n in Graph(outputs, follow=inside) if n.requires_grad]
    reaches = _reaching(order, wanted)
    slots: dict[Node, Slots] = {}
    for node, cotangent in zip(outputs, cotangents, strict=True):
        if node in reaches:
            _accumulate(slots, node, 0, cotangent)
    found: dict[Node, Tensor] = {}
    with set_grad_enabled(create_graph):
        while order:  # popped, so that each node's memory goes as soon as it is passed
            node = order.pop()
            got = slots.pop(node, None)
            if got is None:
                continue
            if (wanted is None and node.op.kind == "leaf") or (
                wanted is not None and node in wanted
            ):
                found[node] = _only(got)
                continue
            if node.op is RELEASED:
                raise GradError(
                    "this graph has been released by an earlier backward(); compute the loss "
                    "again, or call backward(retain_graph=True) the first time"
                )
            if whole and any(src.op is LOST for src in node.srcs):
                raise GradError(
                    "backward() reached the result of a compiled function, whose history ends "
                    "there: call backward() inside the function, or .detach() what it gives"
                )
            if node.op is ITEM:
                _accumulate(slots, node.srcs[0], node.attrs["i"], _only(got))
            else:
                for src, grad in zip(node.srcs, _vjp(node, got, reaches), strict=True):
                    if grad is not None:
                        _accumulate(slots, src, 0, grad)
            reaches.discard(node)
            if release and node.trace is None:
                node.release()
    return found


def backward(
    root: Node,
    gradient: Tensor | None,
    inputs: Sequence[Tensor] | None = None,
    *,
    create_graph: bool,
    release: bool,
) -> None:
    """Add the gradient of root to `.grad` of every leaf Tensor that it depends on, or of inputs."""
    if not root.requires_grad:
        raise GradError(
            "backward() of a Tensor that requires no gradient: no input had requires_grad=True, "
            "or it was computed under no_grad() or inside a compiled function (call backward() "
            "inside it)"
        )
    if gradient is None:
        if root.shape != ():
            raise GradError(
                f"backward() of a Tensor {root.shape} needs gradient=; reduce it to a scalar with "
                ".sum() or .mean(), or pass a Tensor of its shape"
            )
        gradient = _ones(root)
    elif not isinstance(gradient, Handle):
        raise TypeError(f"backward(): gradient= must be a Tensor, not {shown(gradient)}")
    elif gradient.shape != root.shape or gradient.dtype != root.dtype:
        raise GradError(
            f"backward(): gradient= must be {root.dtype.name} {root.shape} as the Tensor is, not "
            f"{gradient.dtype.name} {gradient.shape}"
        )
    elif gradient.device != root.device:
        raise DeviceError(
            f"backward(): gradient= is on {gradient.device}, the Tensor on {root.device}; move one "
            f'with .to("{root.device}")'
        )
    (root,) = _differentiable((root,))
    named = None if inputs is None else {x.node: x for x in inputs}
    wanted = None if named is None else list(named)
    found = gradients(
        [root], [gradient], wanted, create_graph=create_graph, release=release, whole=True
    )
    for node, grad in found.items():
        owner = node.owner() if node.owner is not None else (named or {}).get(node)
        if owner is None:
            continue
        with set_grad_enabled(create_graph):
            if owner.grad is None:
                owner.grad = Handle.wrap(grad.node)  # its own: vjps may give one Tensor twice
            elif create_graph:
                owner.grad = owner.grad + grad
            else:  # the same Tensor goes on, as in PyTorch
                owner.grad.assign(owner.grad + grad)


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


def _differentiable(roots: tuple[Node, ...]) -> tuple[Node, ...]:
    trace = current_trace()
    return roots if trace is None else trace.differentiate(roots)


def _reaching(order: Sequence[Node], wanted: set[Node] | None) -> set[Node]:
    """The nodes whose gradient leads to something wanted."""
    if wanted is None:
        return set(order)
    reaching: set[Node] = set()
    for node in order:
        if node in wanted or any(src in reaching for src in node.srcs):
            reaching.add(node)
    return reaching


def _vjp(node: Node, got: Slots, reaches: set[Node]) -> list[Tensor | None]:
    """The gradient of each input of node, summed back to its shape."""
    op, wrap = node.op, Handle.wrap
    xs = [wrap(src) for src in node.srcs]
    g: Any
    y: Any
    if isinstance(node.spec, Spec):
        g, y = _only(got), wrap(node)
    else:
        got = got + [None] * (len(node.spec) - len(got))
        g = tuple(
            _filled(spec, node.device, 0.0) if s is None else s
            for s, spec in zip(got, node.spec, strict=True)
        )
        y = tuple(wrap(apply(ITEM, (node,), {"i": i})) for i in range(len(node.spec)))
    with scope(node.scope):
        if op.kind in WIDENED and any(src.dtype.itemsize == 2 for src in node.srcs):
            g, y = _widened(g), _widened(y)
            with set_grad_enabled(True):  # a decomposition is differentiated by its inputs
                xs = [_widened(x) for x in xs]
        if op.vjp is not None:
            grads = _asked(node, "vjp", op.vjp, (g, y, *xs))
        else:
            grads = _by_decomposition(node, g, xs, reaches)
        if not isinstance(grads, (tuple, list)) or len(grads) != len(xs):
            raise GradError(
                f"{op.name}: the vjp must give a tuple with one gradient for each of its {len(xs)} "
                "inputs; None says that there is none"
            )
        return [
            _unbroadcast(node, _wanted(node, grad) if callable(grad) else grad, x, src)
            if src in reaches
            else None
            for src, x, grad in zip(node.srcs, xs, grads, strict=True)
        ]


def _widened(x: Any) -> Any:
    """A Tensor, or each of a tuple, in float32 where it is stored in 16 bits, as in forwards."""
    if isinstance(x, tuple):
        return tuple(map(_widened, x))
    return x.to(float32) if x.dtype.itemsize == 2 else x


def _asked(node: Node, role: str, function: Callable[..., Any], given: tuple[Any, ...]) -> Any:
    """The result of a function of a node's op; OpError where it cannot be called in this way."""
    try:
        return function(*given, **node.attrs)
    except Exception as error:
        explain(error, node.op.name, role, function, given, node.attrs)
        raise


def _wanted(node: Node, grad: Callable[[], Any]) -> Any:
    """A gradient that was given as a function."""
    try:
        return grad()
    except Exception as error:
        explain(error, node.op.name, "vjp (a gradient given as a function)", grad)
        raise


def _by_decomposition(node: Node, g: Any, xs: list[Tensor], reaches: set[Node]) -> list[Any]:
    create_graph = grad_enabled()
    if node.op.decompose is None:
        raise GradError(
            f"{node.op.name} has no gradient: give its Op a vjp= or a decompose=, or detach() what "
            "goes into it"
        )
    # Copies, for an input may be computed from another one: each is a place to stop at.
    leaves: list[Node] = []
    with set_grad_enabled(True):
        for i, src in enumerate(node.srcs):
            if src in reaches:
                xs[i] = COPY(xs[i])
                leaves.append(xs[i].node)
        out = _asked(node, "decompose", node.op.decompose, tuple(xs))
    outs, gs = (out, g) if isinstance(g, tuple) else ((out,), (g,))
    shapes = [c.shape for c in gs]
    if not isinstance(outs, tuple) or [_shape(o) for o in outs] != shapes:
        raise GradError(
            f"{node.op.name}: its decompose must give Tensors {shapes}, as its forward does"
        )
    pairs = [(o.node, c) for o, c in zip(outs, gs, strict=True) if o.node.requires_grad]
    found = gradients(
        [o for o, _ in pairs], [c for _, c in pairs], leaves, create_graph=create_graph
    )
    return [found.get(x.node) for x in xs]


def _tensors(argument: Any) -> list[Any]:
    return [x for x in tree.leaves(argument) if isinstance(x, Handle)]


def _shape(x: Any) -> tuple[int, ...] | None:
    return x.node.shape if isinstance(x, Handle) else None


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


def _unbroadcast(node: Node, grad: Tensor | None, x: Tensor, src: Node) -> Tensor | None:
    """grad summed over the axes along which node stretched src, which the vjp saw as x."""
    if grad is None:
        return None
    if not isinstance(grad, Handle) or grad.dtype != x.dtype:
        kind = grad.dtype.name if isinstance(grad, Handle) else type(grad).__name__
        raise GradError(
            f"{node.op.name}: the vjp gave a gradient of type {kind} for a Tensor of "
            f"{x.dtype.name}; write it with Tensor operations"
        )
    if grad.shape == src.shape:
        return _narrowed(grad, src)
    extra = len(grad.shape) - len(src.shape)
    pairs = zip(grad.shape[extra:], src.shape, strict=True)
    if extra < 0 or any(m not in (1, n) for n, m in pairs):
        raise GradError(
            f"{node.op.name}: the vjp gave a gradient {grad.shape} for an input {src.shape}"
        )
    stretched = tuple(
        i for i, n in enumerate(grad.shape) if i < extra or (src.shape[i - extra] == 1 and n != 1)
    )
    total = SUM(grad, axis=stretched, keepdims=True)
    return _narrowed(RESHAPE(total, shape=src.shape), src)


def _narrowed(grad: Tensor, src: Node) -> Tensor:
    out: Tensor = Handle.wrap(cast(grad.node, src.dtype))
    return out


def _accumulate(slots: dict[Node, Slots], node: Node, i: int, grad: Tensor) -> None:
    got = slots.setdefault(node, [])
    got.extend([None] * (i + 1 - len(got)))
    old = got[i]
    with scope(node.scope):  # the sum belongs to the module whose output it is the gradient of
        got[i] = grad if old is None else ADD(old, grad)


def _only(got: Slots) -> Tensor:
    assert len(got) == 1 and got[0] is not None
    return got[0]


def _filled(spec: Spec, device: str, value: float) -> Tensor:
    attrs = {"shape": spec.shape, "value": value, "dtype": spec.dtype, "device": device}
    out: Tensor = FULL(**attrs)
    return out


def _ones(node: Node) -> Tensor:
    return _filled(Spec(node.shape, node.dtype), node.device, 1.0)
