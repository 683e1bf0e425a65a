"""Reverse-mode differentiation over Nodes: tx.autograd.grad, tx.autograd.backward.

In: output nodes and their cotangents. Out: a gradient Tensor for each input node. Each op's vjp is
written on Tensors, so the gradient is itself a graph: recorded where create_graph is set (gradients
of gradients), computed and forgotten elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from . import hooks
from .arguments import shown
from .context import as_given, current_trace, grad_enabled, gradient_of, set_grad_enabled
from .dtypes import float32
from .errors import DeviceError, GradError, UserError
from .half import WIDENED
from .mistakes import explain
from .node import ITEM, LOST, RELEASED, Graph, Handle, Node, apply, cast
from .ops import ADD, COPY, FULL, RESHAPE, SUM
from .rules import Spec
from .spelling import refuse

if TYPE_CHECKING:  # tensor.py imports this file; annotations are all that is wanted back
    from .tensor import Tensor

__all__ = ["backward", "grad"]  # of tx.autograd

Slots = list["Tensor | None"]


def gradients(
    outputs: Sequence[Node],
    cotangents: Sequence[Tensor],
    inputs: Sequence[Node] | None = None,
    *,
    create_graph: bool = False,
    release: bool = False,
    whole: bool = False,
    through: bool = False,
) -> dict[Node, Tensor]:
    """Sum over outputs of cotangent * d output / d node, for each input node that is reached.

    inputs: where to stop; None means all leaves that require a gradient.
    release: forget each recorded node once it is passed.
    whole: GradError where a compiled function has left out some of the history.
    through: inputs may depend on one another; otherwise no gradient goes through one.
    """
    wanted = None if inputs is None else set(inputs)

    def inside(node: Node) -> bool:
        return node.requires_grad and (through or wanted is None or node not in wanted)

    order = [n for n in Graph(outputs, follow=inside) if n.requires_grad]
    reaches = _reaching(order, wanted)
    slots: dict[Node, Slots] = {}
    for node, cotangent in zip(outputs, cotangents, strict=True):
        if node in reaches:
            _accumulate(slots, node, 0, cotangent)
    found: dict[Node, Tensor] = {}
    hooked = hooks.used()
    with set_grad_enabled(create_graph), as_given():
        while order:  # popped, so that each node's memory goes as soon as it is passed
            node = order.pop()
            got = slots.pop(node, None)
            if got is None:
                continue
            if hooked and isinstance(node.spec, Spec):
                got = [hooks.through_hooks(node, _only(got))]
            if (wanted is None and node.op.kind == "leaf") or (
                wanted is not None and node in wanted
            ):
                found[node] = _only(got)
                if not through or reaches.isdisjoint(node.srcs):
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
    tensors: Tensor | Sequence[Tensor],
    grad_tensors: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    grad_variables: None = None,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Add the gradient of tensors to `.grad` of every leaf Tensor that they depend on, or of
    inputs: Tensor.backward for several at once.

    grad_tensors: their cotangents; of a scalar it may be None. The others: as Tensor.backward's.
    """
    refuse("backward", grad_variables=grad_variables)
    outs = _several("backward", "tensors", tensors)
    asked = None if inputs is None else _several("backward", "inputs", inputs)
    if asked is not None and not asked:
        raise GradError("backward: inputs is empty; name the Tensors that get a gradient")
    _require_grad("backward", asked or ())
    keep = create_graph if retain_graph is None else retain_graph
    cotangents = _cotangents("backward", "gradient", outs, grad_tensors)
    named = None if asked is None else {x.node: x for x in asked}
    found = gradients(
        _differentiable(tuple(x.node for x in outs), named or ()),
        cotangents,
        None if named is None else list(named),
        create_graph=create_graph,
        release=not keep,
        whole=True,
        through=named is not None,
    )
    for node, grad in found.items():
        owner = node.owner() if node.owner is not None else (named or {}).get(node)
        if owner is None:
            continue
        with set_grad_enabled(create_graph), gradient_of(node):
            if owner.grad is None:
                owner.grad = Handle.wrap(grad.node)  # its own: vjps may give one Tensor twice
            elif create_graph:
                owner.grad = owner.grad + grad
            else:  # the same Tensor goes on, as in PyTorch
                owner.grad.assign(owner.grad + grad)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradient of the sum of outputs by each of inputs, which `.grad` learns nothing of.

    inputs: Tensors that outputs were computed from, leaves or not. grad_outputs: the cotangents of
    outputs; of a scalar it may be None. retain_graph, create_graph: as Tensor.backward's.
    allow_unused: None for an input that outputs do not depend on, which is an error otherwise.
    materialize_grads: zeros for it. tx.grad(f) differentiates a function.
    """
    refuse("grad", is_grads_batched=is_grads_batched)
    if callable(outputs):
        raise TypeError("grad: outputs must be Tensors; the gradient of a function is tx.grad(f)")
    outs = _several("grad", "outputs", outputs)
    asked = _several("grad", "inputs", inputs)
    _require_grad("grad", asked)
    if materialize_grads and allow_unused is False:
        raise UserError("grad: materialize_grads=True needs allow_unused=True, or leave it out")
    keep = create_graph if retain_graph is None else retain_graph
    nodes = [x.node for x in asked]
    found = gradients(
        _differentiable(tuple(x.node for x in outs), nodes),
        _cotangents("grad", "grad_outputs", outs, grad_outputs),
        nodes,
        create_graph=create_graph,
        release=not keep,
        whole=True,
        through=True,
    )
    results: list[Tensor | None] = []
    for i, node in enumerate(nodes):
        got = found.get(node)
        if got is None and materialize_grads:
            got = _filled(Spec(node.shape, node.dtype), node.device, 0.0)
        if got is None and not allow_unused:
            raise GradError(
                f"grad: outputs do not depend on inputs[{i}], or only by a graph that an earlier "
                "gradient has released (retain_graph=True keeps it); allow_unused=True gives None"
            )
        results.append(got)
    return tuple(results)


def _several(name: str, argument: str, given: Any) -> list[Any]:
    """One Tensor or a sequence of them as a list."""
    found = [given] if isinstance(given, Handle) else given
    if not isinstance(found, (list, tuple)) or not all(isinstance(x, Handle) for x in found):
        raise TypeError(f"{name}: {argument} must be a list of Tensors or one, not {shown(given)}")
    return list(found)


def _require_grad(name: str, inputs: Sequence[Any]) -> None:
    for i, x in enumerate(inputs):
        if not x.requires_grad:
            raise GradError(f"{name}: inputs[{i}] requires no gradient")


def _cotangents(name: str, argument: str, outs: Sequence[Any], given: Any) -> list[Tensor]:
    """The cotangent of each output: as given, or 1 of a scalar."""
    many = isinstance(given, (list, tuple))
    gs = [*given] if many else [given, *[None] * (len(outs) - 1)]
    if len(gs) != len(outs) or (not many and given is not None and len(outs) > 1):
        raise GradError(f"{name}: {argument} must be as many as the {len(outs)} Tensors")
    return [_cotangent(name, argument, x.node, g) for x, g in zip(outs, gs, strict=True)]


def _cotangent(name: str, argument: str, root: Node, given: Any) -> Tensor:
    if not root.requires_grad:
        raise GradError(
            f"{name}() of a Tensor that requires no gradient: no input had requires_grad=True, "
            f"or it was computed under no_grad() or inside a compiled function (call {name}() "
            "inside it)"
        )
    if given is None:
        if root.shape != ():
            raise GradError(
                f"{name}() of a Tensor {root.shape} needs {argument}=; reduce it to a scalar with "
                ".sum() or .mean(), or pass a Tensor of its shape"
            )
        with gradient_of(root):
            return _ones(root)
    if not isinstance(given, Handle):
        raise TypeError(f"{name}(): {argument}= must be a Tensor, not {shown(given)}")
    cotangent: Tensor = given  # type: ignore[assignment]
    if cotangent.shape != root.shape or cotangent.dtype != root.dtype:
        raise GradError(
            f"{name}(): {argument}= must be {root.dtype.name} {root.shape} as the Tensor is, not "
            f"{cotangent.dtype.name} {cotangent.shape}"
        )
    if cotangent.device != root.device:
        raise DeviceError(
            f"{name}(): {argument}= is on {cotangent.device}, the Tensor on {root.device}; move "
            f'one with .to("{root.device}")'
        )
    return cotangent


def _differentiable(roots: tuple[Node, ...], inputs: Iterable[Node] = ()) -> tuple[Node, ...]:
    """The roots of the graph that gradients are taken of: while a function is traced, of one in
    which ops known whole are recognised, if no node of this one is asked for or has hooks."""
    trace = current_trace()
    if trace is None or hooks.in_trace(trace) or not all(node.is_leaf for node in inputs):
        return roots
    return trace.differentiate(roots)


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
    with gradient_of(node):
        half = any(src.dtype.itemsize == 2 for src in node.srcs)
        if half and op.kind in WIDENED and op.autocast != "half":  # products take 16 bits
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


def _shape(x: Any) -> tuple[int, ...] | None:
    return x.node.shape if isinstance(x, Handle) else None


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
        turned = sorted(grad.shape) == sorted(src.shape)
        raise GradError(
            f"{node.op.name}: the vjp gave a gradient {grad.shape} for an input {src.shape}"
            f"{': is it transposed?' if turned else ''}"
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
    with gradient_of(node):  # the sum belongs to the module whose output it is the gradient of
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
