"""Tensor: a mutable handle on a Node, with PyTorch's names.

Every operation makes a new Tensor; `assign`, `+=` and `x[i] = ...` point this handle at another
node and never touch an array that somebody else sees. Methods that take a dimension accept
PyTorch's `dim` and `keepdim`.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from contextlib import ContextDecorator
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import ref

import numpy as np

from . import autograd, backends, hooks, indexing, ops, printing
from .arguments import explained, shown
from .context import TRACE, WRITTEN, current_trace, grad_enabled, set_grad_enabled
from .dtypes import (
    DType,
    as_dtype,
    promote,
)
from .errors import DTypeError, GradError, ShapeError
from .hooks import RemovableHandle
from .mistakes import missing_from
from .node import LOST, MOVE, Handle, Node, apply, cast, leaf, rebound
from .rules import broadcast_shape
from .spelling import refuse
from .values import Values

Self = TypeVar("Self", bound="Tensor")


class Tensor(Values):
    """A multi-dimensional array on one device that knows how it was computed.

    Made by tx.tensor, tx.zeros, ... rather than by its constructor."""

    __slots__ = ("__weakref__", "_grad", "_hooks", "_node")
    _hooks: hooks.Hooks  # of a leaf; set by the first one

    def __init__(self, node: Node) -> None:
        if node.__class__ is not Node:
            raise TypeError(f"a Tensor is made by tx.tensor(...), not of a {type(node).__name__}")
        self._node = node
        self._grad: Tensor | None = None

    if not TYPE_CHECKING:  # it would let type checkers take any name

        def __getattr__(self, name: str) -> Any:
            raise missing_from(self, type(self).__name__, name)

    # The handle ------------------------------------------------------------------------------
    @property
    def node(self) -> Node:
        """The node it stands for now."""
        trace = TRACE.get()
        return self._node if trace is None else trace.read(self)

    def _point(self, node: Node) -> None:
        trace = current_trace()
        if trace is None:
            written = WRITTEN.get()
            if written is not None:
                written.setdefault(id(self), (self, self._node))
            self._node = node
        else:
            trace.write(self, node)

    @property
    def grad(self) -> Tensor | None:
        """The gradient that backward() has accumulated, None before."""
        trace = current_trace()
        if trace is None:
            return self._grad
        grad: Tensor | None = trace.read_grad(self)
        return grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise TypeError(f"grad must be a Tensor or None, not {shown(value)}")
            given, own = ((t.dtype.name, t.shape, t.device) for t in (value, self))
            if given != own:
                raise ShapeError(
                    "grad: {} {} on {} does not fit a Tensor of {} {} on {}".format(*given, *own)
                )
        trace = current_trace()
        if trace is None:
            self._grad = value
        else:
            trace.write_grad(self, value)

    @property
    def is_leaf(self) -> builtins.bool:
        """True if it is data rather than a recorded result."""
        return self.node.is_leaf

    @property
    def requires_grad(self) -> builtins.bool:
        """True if gradients are wanted for it, or flow through it."""
        return self.node.requires_grad

    @requires_grad.setter
    def requires_grad(self, value: builtins.bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self: Self, requires_grad: builtins.bool = True) -> Self:
        """Ask (or no longer ask) for a gradient; only of a leaf of floating dtype."""
        node = self.node
        if node.requires_grad == requires_grad:
            return self
        if not node.is_leaf and node.requires_grad:
            raise GradError("requires_grad can be changed on leaf Tensors only; use .detach()")
        if requires_grad and not node.dtype.is_floating_point:
            raise DTypeError(f"requires_grad needs a floating dtype, not {node.dtype.name}")
        new = rebound(node, requires_grad=requires_grad)
        new.owner = ref(self)
        self._point(new)
        return self

    def __reduce__(self) -> Any:
        """For copy.copy, copy.deepcopy and pickle: values, requires_grad and grad; no history."""
        if not self.is_leaf:
            raise GradError(
                "a Tensor computed from others that require a gradient cannot be copied or pickled "
                "with its history: .detach() it first"
            )
        state = (self.dtype.name, self.device, self.requires_grad, self.grad)
        node = self.node
        if node.array is not None and not node.has_values:
            return _restored, (type(self), np.zeros((), node.dtype.np), *state, node.shape)
        return _restored, (type(self), self._value("a copy").copy(), *state)

    def __repr__(self) -> str:
        return printing.shown(self.node)

    # Autograd ----------------------------------------------------------------------------------
    def backward(
        self,
        gradient: Tensor | None = None,
        retain_graph: builtins.bool | None = None,
        create_graph: builtins.bool = False,
        inputs: Tensor | Sequence[Tensor] | None = None,
    ) -> None:
        """Add d self / d leaf to `.grad` of every leaf Tensor that requires one.

        gradient: the cotangent, of self's shape; may be left out for a scalar.
        retain_graph: keep the graph for another backward(); as create_graph by default.
        create_graph: record the gradients too, so that they can be differentiated.
        inputs: the Tensors that get a gradient; all leaves by default.
        """
        autograd.backward(self, gradient, retain_graph, create_graph, inputs=inputs)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
        """Have hook(grad) called whenever the gradient by this Tensor is computed; what it gives,
        if not None, goes on in its place. In a compiled function it is traced."""
        return hooks.register(self, hook)

    def detach(self) -> Tensor:
        """The same values, without history."""
        node = self.node
        if not node.requires_grad and node.op is not LOST:
            return Tensor(node)
        return Tensor(rebound(node, requires_grad=False))

    def assign(self: Self, other: Any) -> Self:
        """Point this Tensor at other's values (broadcast to its shape, in its dtype).

        A leaf that requires a gradient goes on doing so; assign to it under no_grad().
        """
        old = self.node
        if old.is_leaf and old.requires_grad and grad_enabled():
            raise GradError(
                "a leaf Tensor that requires a gradient is changed in place: "
                "do it inside `with tx.no_grad():`"
            )
        node = other.node if isinstance(other, Handle) else indexing.leaf_like(other, self)
        if node.device != old.device:
            node = _moved(node, old.device)
        node = cast(node, old.dtype)
        if node.shape != old.shape:
            if broadcast_shape("assign", node.shape, old.shape) != old.shape:
                raise ShapeError(f"assign: a value {node.shape} does not fit a Tensor {old.shape}")
            node = apply(ops.BROADCAST, (node,), {"shape": old.shape})
        if old.is_leaf and old.requires_grad:
            node = rebound(node, requires_grad=True)
            node.owner = ref(self)
        elif (node.requires_grad or node.op is LOST) and not grad_enabled():
            node = rebound(node, requires_grad=False)
        elif node.requires_grad and node.is_leaf:  # such a leaf belongs to one Tensor
            node = apply(ops.COPY, (node,), {})
        self._point(node)
        return self

    # Dtype and device --------------------------------------------------------------------------
    def to(
        self,
        *args: Any,
        device: str | None = None,
        dtype: Any = None,
        non_blocking: builtins.bool = False,
        copy: builtins.bool = False,
        memory_format: None = None,
    ) -> Tensor:
        """On another device ("cpu", "cuda"), in another dtype, or both: x.to(dtype), x.to(device),
        x.to(device, dtype), x.to(other) for another Tensor's. copy: a copy even where nothing
        changes. non_blocking, which may follow in the same place as PyTorch's, changes nothing."""
        refuse("to", memory_format=memory_format)
        targets, copies = _without_flags(args) if len(args) > 1 else (list(args), False)
        copy = copy or copies
        if len(targets) > 2 or (not targets and device is None and dtype is None):
            given = ", ".join(type(x).__name__ for x in args) or "nothing"
            raise TypeError(f"to() takes a device, a dtype, both or a Tensor, not {given}")
        if targets == [None]:
            return self._to(None)
        x = self
        for target in (*targets, device, dtype):
            if isinstance(target, Tensor):
                x = x._to(target.device)._to(target.dtype)
            elif target is not None:
                x = x._to(target)
        return x.clone() if copy and x is self else x

    def _to(self, target: Any) -> Tensor:
        node = self.node
        if not isinstance(target, DType):
            target = placed(target)
        if isinstance(target, str):
            return self if node.device == target else Tensor(_moved(node, target))
        return self if node.dtype == target else Tensor(cast(node, target))

    # In place: the handle is pointed elsewhere -----------------------------------------------
    def __iadd__(self: Self, other: Any) -> Self:
        return self._become(self + other)

    def __isub__(self: Self, other: Any) -> Self:
        return self._become(self - other)

    def __imul__(self: Self, other: Any) -> Self:
        return self._become(self * other)

    def __itruediv__(self: Self, other: Any) -> Self:
        return self._become(self / other)

    def __ifloordiv__(self: Self, other: Any) -> Self:
        return self._become(self // other)

    def __imod__(self: Self, other: Any) -> Self:
        return self._become(self % other)

    def __ipow__(self: Self, other: Any) -> Self:
        return self._become(self**other)

    def __iand__(self: Self, other: Any) -> Self:
        return self._become(self & other)

    def __ior__(self: Self, other: Any) -> Self:
        return self._become(self | other)

    def __ixor__(self: Self, other: Any) -> Self:
        return self._become(self ^ other)

    def _become(self: Self, result: Tensor) -> Self:
        """assign(), but it keeps neither a larger shape nor a higher kind of number quiet."""
        if promote(self.dtype, result.dtype).kind != self.dtype.kind:
            raise DTypeError(
                f"a Tensor of {self.dtype.name} cannot hold this result of {result.dtype.name} in "
                "place: write x = x + y instead of x += y"
            )
        return self.assign(result)

    def __setitem__(self, index: Any, value: Any) -> None:
        self.assign(indexing.write(self, index, value))


Handle.wrap = Tensor
Tensor.backward = explained(Tensor.backward)  # type: ignore[method-assign]


class no_grad(ContextDecorator):  # noqa: N801
    """Nothing inside (a `with` block, or a decorated function) is recorded for gradients."""

    def __enter__(self) -> None:
        self._inner = set_grad_enabled(False)
        self._inner.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._inner.__exit__(*error)

    def _recreate_cm(self) -> no_grad:
        return no_grad()  # a decorated function may call itself


def _restored(
    cls: type[Tensor],
    value: np.ndarray[Any, Any],
    dtype: str,
    device: str,
    requires_grad: builtins.bool,
    grad: Tensor | None,
    shape: tuple[builtins.int, ...] | None = None,
) -> Tensor:
    """A copied or unpickled Tensor, made of its parts. shape: of one that has no values."""
    out = cls.__new__(cls)
    value = value if shape is None else np.broadcast_to(value, shape)
    Tensor.__init__(out, leaf(backends.get(device).from_host(value), as_dtype(dtype), device))
    out.requires_grad = requires_grad
    out.grad = grad
    return out


def _without_flags(args: Sequence[Any]) -> tuple[list[Any], bool]:
    """The arguments of to() without PyTorch's non_blocking and copy at their end, and copy."""
    targets = list(args)
    if len(targets) < 2 or not isinstance(targets[-1], bool):
        return targets, False
    last = targets.pop()
    if not isinstance(targets[-1], bool):
        return targets, False
    targets.pop()
    return targets, last


def placed(target: Any) -> str | DType:
    """The argument of to() as a device or a dtype; DTypeError where it is neither."""
    if isinstance(target, str) and target in backends.devices():
        return target
    try:
        return as_dtype(target)
    except DTypeError:
        known = ", ".join(backends.devices())
        raise DTypeError(f"to({shown(target)}): neither a device ({known}) nor a dtype") from None


def _moved(node: Node, device: str) -> Node:
    return apply(MOVE, (node,), {"target": device})
