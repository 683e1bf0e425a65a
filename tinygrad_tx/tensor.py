"""Tensor: a mutable handle on a Node, with PyTorch's names.

Every operation makes a new Tensor; `assign`, `+=` and `x[i] = ...` point this handle at another
node and never touch an array that somebody else sees. Methods that take a dimension accept
PyTorch's `dim` and `keepdim`.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from contextlib import ContextDecorator
from typing import Any, NamedTuple, TypeVar
from weakref import ref

import numpy as np

from . import autograd, backends, indexing, ops
from .dtypes import DType, as_dtype, bool_, float16, float32, float64, int32, int64
from .errors import DTypeError, GradError, ShapeError, TraceError
from .node import (
    MOVE,
    Handle,
    Node,
    Op,
    apply,
    axes,
    cast,
    current_trace,
    grad_enabled,
    leaf,
    rebound,
    set_grad_enabled,
)

Dims = int | Sequence[int] | None
Self = TypeVar("Self", bound="Tensor")


class ValuesIndices(NamedTuple):
    """What max(dim), min(dim), topk and sort give."""

    values: Tensor
    indices: Tensor


class Tensor(Handle):
    """A multi-dimensional array on one device that knows how it was computed.

    Made by tx.tensor, tx.zeros, ... rather than by its constructor.
    """

    __slots__ = ("__weakref__", "_grad", "_node")
    __array_priority__ = 1000  # NumPy leaves `array + tensor` to Tensor.__radd__
    __hash__ = object.__hash__

    def __init__(self, node: Node) -> None:
        self._node = node
        self._grad: Tensor | None = None

    # The handle ------------------------------------------------------------------------------
    @property
    def node(self) -> Node:
        """The node it stands for now."""
        trace = current_trace()
        return self._node if trace is None else trace.read(self)

    def _point(self, node: Node) -> None:
        trace = current_trace()
        if trace is None:
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
        if value is not None and (value.shape != self.shape or value.device != self.device):
            raise ShapeError(
                f"grad: {value.shape} on {value.device} does not fit a Tensor {self.shape} on "
                f"{self.device}"
            )
        trace = current_trace()
        if trace is None:
            self._grad = value
        else:
            trace.write_grad(self, value)

    @property
    def shape(self) -> tuple[builtins.int, ...]:
        return self.node.shape

    @property
    def dtype(self) -> DType:
        return self.node.dtype

    @property
    def device(self) -> str:
        return self.node.device

    @property
    def ndim(self) -> builtins.int:
        return len(self.node.shape)

    @property
    def is_leaf(self) -> builtins.bool:
        """Whether it is data rather than a recorded result."""
        return self.node.is_leaf

    @property
    def requires_grad(self) -> builtins.bool:
        return self.node.requires_grad

    @requires_grad.setter
    def requires_grad(self, value: builtins.bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self: Self, value: builtins.bool = True) -> Self:
        """Ask (or no longer ask) for a gradient; only of a leaf of floating dtype."""
        node = self.node
        if node.requires_grad == value:
            return self
        if not node.is_leaf and node.requires_grad:
            raise GradError("requires_grad can be changed on leaf Tensors only; use .detach()")
        if value and not node.dtype.is_floating_point:
            raise DTypeError(f"requires_grad needs a floating dtype, not {node.dtype.name}")
        new = rebound(node, requires_grad=value)
        new.owner = ref(self)
        self._point(new)
        return self

    def size(self, dim: builtins.int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> builtins.int:
        return self.ndim

    def numel(self) -> builtins.int:
        return math.prod(self.shape)

    def __len__(self) -> builtins.int:
        if not self.ndim:
            raise TypeError("len() of a 0-d Tensor")
        return self.shape[0]

    # Leaving for NumPy and Python --------------------------------------------------------------
    def _value(self, wish: str) -> np.ndarray[Any, Any]:
        node = self.node
        if node.trace is not None:
            raise TraceError(
                f"{wish} needs a value, which a Tensor does not have while its function is traced: "
                "return the Tensor and look at it outside, or use where() instead of an if"
            )
        return backends.get(node.device).to_host(node.array)

    def numpy(self) -> np.ndarray[Any, Any]:
        """The values as a read-only NumPy array; .copy() it to change it."""
        return self._value(".numpy()")

    def item(self) -> Any:
        """The only element as a Python number."""
        if self.numel() != 1:
            raise ShapeError(f"item() of a Tensor {self.shape}: it must have one element")
        return self._value(".item()").item()

    def tolist(self) -> Any:
        return self._value(".tolist()").tolist()

    def __array__(self, dtype: Any = None, copy: builtins.bool | None = None) -> np.ndarray[Any, Any]:
        value = self._value("np.asarray()")
        if dtype is not None and value.dtype != dtype:
            return value.astype(dtype)
        return value.copy() if copy else value

    def __dlpack__(self, **options: Any) -> Any:
        self._value("__dlpack__")
        # Consumers may write: they get memory of their own.
        return self.node.array.copy().__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        self._value("__dlpack__")
        return self.node.array.__dlpack_device__()

    def __bool__(self) -> builtins.bool:
        if self.numel() != 1:
            raise ShapeError(
                f"the truth of a Tensor {self.shape} is ambiguous: use .any() or .all()"
            )
        return bool(self._value("bool()").reshape(())[()])

    def __float__(self) -> builtins.float:
        return float(self.item())

    def __int__(self) -> builtins.int:
        return int(self.item())

    def __index__(self) -> builtins.int:
        if self.dtype.kind != "i" or self.ndim:
            raise TypeError("only a 0-d integer Tensor can be an index")
        return int(self.item())

    def __repr__(self) -> str:
        node = self.node
        if node.trace is not None:
            text = f"<traced, shape={node.shape}>"
        else:
            value = backends.get(node.device).to_host(node.array)
            text = np.array2string(value, separator=", ", prefix="tensor(")
        notes = [text]
        if node.dtype not in (float32, int64, bool_):
            notes.append(f"dtype={node.dtype!r}")
        if node.device != "cpu":
            notes.append(f'device="{node.device}"')
        if node.requires_grad:
            notes.append("requires_grad=True" if node.is_leaf else f"op={node.op.name}")
        return f"tensor({', '.join(notes)})"

    # Autograd ----------------------------------------------------------------------------------
    def backward(
        self,
        gradient: Tensor | None = None,
        create_graph: builtins.bool = False,
        retain_graph: builtins.bool | None = None,
    ) -> None:
        """Add d self / d leaf to `.grad` of every leaf Tensor that requires one.

        gradient: the cotangent, of self's shape; may be left out for a scalar.
        create_graph: record the gradients too, so that they can be differentiated.
        retain_graph: keep the graph for another backward(); as create_graph by default.
        """
        keep = create_graph if retain_graph is None else retain_graph
        autograd.backward(self.node, gradient, create_graph=create_graph, release=not keep)

    def detach(self) -> Tensor:
        """The same values, without history."""
        node = self.node
        if not node.requires_grad:
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
        node = _as_node(other, old)
        if node.device != old.device:
            node = _moved(node, old.device)
        node = cast(node, old.dtype)
        if node.shape != old.shape:
            node = apply(ops.BROADCAST, (node,), {"shape": old.shape})
        if old.is_leaf and old.requires_grad:
            node = rebound(node, requires_grad=True)
            node.owner = ref(self)
        elif node.requires_grad and not grad_enabled():
            node = rebound(node, requires_grad=False)
        elif node.requires_grad and node.is_leaf:  # such a leaf belongs to one Tensor
            node = apply(ops.COPY, (node,), {})
        self._point(node)
        return self

    # Dtype and device --------------------------------------------------------------------------
    def to(self, target: str | DType | Any) -> Tensor:
        """On another device ("cpu", "cuda") or in another dtype."""
        node = self.node
        if isinstance(target, str) and target in backends.devices():
            return self if node.device == target else Tensor(_moved(node, target))
        dtype = as_dtype(target)
        return self if node.dtype == dtype else Tensor(cast(node, dtype))

    def float(self) -> Tensor:
        return self.to(float32)

    def double(self) -> Tensor:
        return self.to(float64)

    def half(self) -> Tensor:
        return self.to(float16)

    def long(self) -> Tensor:
        return self.to(int64)

    def int(self) -> Tensor:
        return self.to(int32)

    def bool(self) -> Tensor:
        return self.to(bool_)

    def clone(self) -> Tensor:
        return _t(ops.COPY(self))

    def contiguous(self) -> Tensor:
        """Itself: how an array lies in memory is the backend's business."""
        return self

    # Elementwise -------------------------------------------------------------------------------
    def __add__(self, other: Any) -> Tensor:
        return _t(ops.OR(self, other) if _bools(self, other) else ops.ADD(self, other))

    def __radd__(self, other: Any) -> Tensor:
        return _t(ops.ADD(other, self))

    def __sub__(self, other: Any) -> Tensor:
        return _t(ops.SUB(self, other))

    def __rsub__(self, other: Any) -> Tensor:
        return _t(ops.SUB(other, self))

    def __mul__(self, other: Any) -> Tensor:
        return _t(ops.AND(self, other) if _bools(self, other) else ops.MUL(self, other))

    def __rmul__(self, other: Any) -> Tensor:
        return _t(ops.MUL(other, self))

    def __truediv__(self, other: Any) -> Tensor:
        return _t(ops.DIV(*_floats(self, other)))

    def __rtruediv__(self, other: Any) -> Tensor:
        return _t(ops.DIV(*_floats(other, self)))

    def __floordiv__(self, other: Any) -> Tensor:
        return _t(ops.FLOOR_DIV(self, other))

    def __rfloordiv__(self, other: Any) -> Tensor:
        return _t(ops.FLOOR_DIV(other, self))

    def __mod__(self, other: Any) -> Tensor:
        return _t(ops.REMAINDER(self, other))

    def __rmod__(self, other: Any) -> Tensor:
        return _t(ops.REMAINDER(other, self))

    def __pow__(self, other: Any) -> Tensor:
        if other == 2 and isinstance(other, (int, float)):  # the commonest power, exact and cheap
            return self * self
        return _t(ops.POW(self, other))

    def __rpow__(self, other: Any) -> Tensor:
        return _t(ops.POW(other, self))

    def __neg__(self) -> Tensor:
        return _t(ops.NEG(self))

    def __abs__(self) -> Tensor:
        return _t(ops.ABS(self))

    def __matmul__(self, other: Any) -> Tensor:
        return matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return matmul(other, self)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return _t(ops.EQ(self, other))

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return _t(ops.NE(self, other))

    def __lt__(self, other: Any) -> Tensor:
        return _t(ops.LT(self, other))

    def __le__(self, other: Any) -> Tensor:
        return _t(ops.LE(self, other))

    def __gt__(self, other: Any) -> Tensor:
        return _t(ops.GT(self, other))

    def __ge__(self, other: Any) -> Tensor:
        return _t(ops.GE(self, other))

    def __and__(self, other: Any) -> Tensor:
        return _t(ops.AND(self, other))

    def __rand__(self, other: Any) -> Tensor:
        return _t(ops.AND(other, self))

    def __or__(self, other: Any) -> Tensor:
        return _t(ops.OR(self, other))

    def __ror__(self, other: Any) -> Tensor:
        return _t(ops.OR(other, self))

    def __xor__(self, other: Any) -> Tensor:
        return _t(ops.XOR(self, other))

    def __rxor__(self, other: Any) -> Tensor:
        return _t(ops.XOR(other, self))

    def __invert__(self) -> Tensor:
        return _t(ops.NOT(self))

    def __iadd__(self: Self, other: Any) -> Self:
        return self.assign(self + other)

    def __isub__(self: Self, other: Any) -> Self:
        return self.assign(self - other)

    def __imul__(self: Self, other: Any) -> Self:
        return self.assign(self * other)

    def __itruediv__(self: Self, other: Any) -> Self:
        return self.assign(self / other)

    def exp(self) -> Tensor:
        return _t(ops.EXP(self))

    def log(self) -> Tensor:
        return _t(ops.LOG(self))

    def log1p(self) -> Tensor:
        return _t(ops.LOG1P(self))

    def expm1(self) -> Tensor:
        return _t(ops.EXPM1(self))

    def sqrt(self) -> Tensor:
        return _t(ops.SQRT(self))

    def rsqrt(self) -> Tensor:
        return _t(ops.RSQRT(self))

    def square(self) -> Tensor:
        return self * self

    def reciprocal(self) -> Tensor:
        return 1 / self

    def pow(self, exponent: Any) -> Tensor:
        return self**exponent

    def sin(self) -> Tensor:
        return _t(ops.SIN(self))

    def cos(self) -> Tensor:
        return _t(ops.COS(self))

    def tanh(self) -> Tensor:
        return _t(ops.TANH(self))

    def sigmoid(self) -> Tensor:
        return _t(ops.SIGMOID(self))

    def erf(self) -> Tensor:
        return _t(ops.ERF(self))

    def relu(self) -> Tensor:
        return _t(ops.RELU(self))

    def abs(self) -> Tensor:
        return _t(ops.ABS(self))

    def sign(self) -> Tensor:
        return _t(ops.SIGN(self))

    def floor(self) -> Tensor:
        return _t(ops.FLOOR(self))

    def clip(self, min: builtins.float | None = None, max: builtins.float | None = None) -> Tensor:
        """Values outside [min, max] become the nearer bound; None is no bound."""
        return _t(ops.CLIP(self, low=min, high=max))

    clamp = clip

    def minimum(self, other: Any) -> Tensor:
        return _t(ops.MINIMUM(self, other))

    def maximum(self, other: Any) -> Tensor:
        return _t(ops.MAXIMUM(self, other))

    def where(self, condition: Any, other: Any) -> Tensor:
        """self where condition is True, other elsewhere."""
        return _t(ops.WHERE(condition, self, other))

    def masked_fill(self, mask: Any, value: Any) -> Tensor:
        """value where mask is True, self elsewhere."""
        return _t(ops.WHERE(mask, value, self)).to(self.dtype)

    def isnan(self) -> Tensor:
        return _t(ops.ISNAN(self))

    def isinf(self) -> Tensor:
        return _t(ops.ISINF(self))

    def isfinite(self) -> Tensor:
        return _t(ops.ISFINITE(self))

    def logical_not(self) -> Tensor:
        return _t(ops.NOT(self))

    # Reductions --------------------------------------------------------------------------------
    def sum(self, dim: Dims = None, keepdim: builtins.bool = False) -> Tensor:
        return _t(ops.SUM(self, axis=dim, keepdims=keepdim))

    def mean(self, dim: Dims = None, keepdim: builtins.bool = False) -> Tensor:
        if not self.dtype.is_floating_point:
            raise DTypeError(f"mean needs a floating dtype, not {self.dtype.name}: use .float()")
        return self.sum(dim, keepdim) / self._count(dim)

    def var(self, dim: Dims = None, correction: builtins.int = 1, keepdim: builtins.bool = False) -> Tensor:
        """Mean squared deviation, divided by n - correction (1 as in PyTorch; 0 is biased)."""
        centred = self - self.mean(dim, keepdim=True)
        left = self._count(dim) - correction
        return (centred * centred).sum(dim, keepdim) / (left if left > 0 else math.nan)

    def std(self, dim: Dims = None, correction: builtins.int = 1, keepdim: builtins.bool = False) -> Tensor:
        return self.var(dim, correction, keepdim).sqrt()

    def norm(self, dim: Dims = None, keepdim: builtins.bool = False) -> Tensor:
        """The Euclidean norm."""
        return (self * self).sum(dim, keepdim).sqrt()

    def amax(self, dim: Dims = None, keepdim: builtins.bool = False) -> Tensor:
        return _t(ops.MAX(self, axis=dim, keepdims=keepdim))

    def amin(self, dim: Dims = None, keepdim: builtins.bool = False) -> Tensor:
        return _t(ops.MIN(self, axis=dim, keepdims=keepdim))

    def max(self, dim: Any = None, keepdim: builtins.bool = False) -> Any:
        """The largest element; with dim a pair (values, indices); with a Tensor, maximum()."""
        if isinstance(dim, Tensor):
            return self.maximum(dim)
        return self.amax() if dim is None else self._pick(self.argmax(dim, True), dim, keepdim)

    def min(self, dim: Any = None, keepdim: builtins.bool = False) -> Any:
        """The smallest element; with dim a pair (values, indices); with a Tensor, minimum()."""
        if isinstance(dim, Tensor):
            return self.minimum(dim)
        return self.amin() if dim is None else self._pick(self.argmin(dim, True), dim, keepdim)

    def argmax(self, dim: builtins.int | None = None, keepdim: builtins.bool = False) -> Tensor:
        """The index of the first largest element, over all of them where dim is None."""
        return self._find(ops.ARGMAX, dim, keepdim)

    def argmin(self, dim: builtins.int | None = None, keepdim: builtins.bool = False) -> Tensor:
        return self._find(ops.ARGMIN, dim, keepdim)

    def logsumexp(self, dim: Dims = None, keepdim: builtins.bool = False) -> Tensor:
        return _t(ops.LOGSUMEXP(self, axis=dim, keepdims=keepdim))

    def any(self, dim: Dims = None, keepdim: builtins.bool = False) -> Tensor:
        return _t(ops.ANY(_truth(self), axis=dim, keepdims=keepdim))

    def all(self, dim: Dims = None, keepdim: builtins.bool = False) -> Tensor:
        return _t(ops.ALL(_truth(self), axis=dim, keepdims=keepdim))

    def cumsum(self, dim: builtins.int) -> Tensor:
        return _t(ops.CUMSUM(self, axis=self._axis(dim)))

    def softmax(self, dim: builtins.int) -> Tensor:
        return _t(ops.SOFTMAX(self, axis=self._axis(dim)))

    def log_softmax(self, dim: builtins.int) -> Tensor:
        return _t(ops.LOG_SOFTMAX(self, axis=self._axis(dim)))

    def _count(self, dim: Dims) -> builtins.int:
        return math.prod(self.shape[a] for a in axes("mean", dim, self.ndim))

    def _axis(self, dim: builtins.int) -> builtins.int:
        """dim as a non-negative int; 0 for a 0-d Tensor is an error."""
        found = axes("dim", dim, self.ndim)
        if not found:
            raise ShapeError("a 0-d Tensor has no dimension to work along; use .reshape(1)")
        return found[0]

    def _find(self, op: Op, dim: builtins.int | None, keepdim: builtins.bool) -> Tensor:
        if dim is None:
            flat = _t(op(self.reshape(-1), axis=0))
            return flat.reshape((1,) * self.ndim if keepdim else ())
        axis = self._axis(dim)
        found = _t(op(self, axis=axis))
        return found if keepdim else found.squeeze(axis)

    def _pick(self, indices: Tensor, dim: builtins.int, keepdim: builtins.bool) -> ValuesIndices:
        values = self.take_along_dim(indices, dim)
        if keepdim:
            return ValuesIndices(values, indices)
        return ValuesIndices(values.squeeze(dim), indices.squeeze(dim))

    # Movement ----------------------------------------------------------------------------------
    def reshape(self, *shape: Any) -> Tensor:
        """The same elements, row-major, in another shape; one size may be -1."""
        wanted = _sizes(shape)
        if -1 in wanted:
            rest = math.prod(n for n in wanted if n != -1)
            if wanted.count(-1) > 1 or rest == 0 or self.numel() % rest:
                raise ShapeError(f"reshape: {self.shape} cannot become {wanted}")
            wanted = tuple(self.numel() // rest if n == -1 else n for n in wanted)
        return self if wanted == self.shape else _t(ops.RESHAPE(self, shape=wanted))

    view = reshape

    def flatten(self, start_dim: builtins.int = 0, end_dim: builtins.int = -1) -> Tensor:
        if not self.ndim:
            return self.reshape(1)
        start, end = self._axis(start_dim), self._axis(end_dim)
        return self.reshape(*self.shape[:start], -1, *self.shape[end + 1 :])

    def unsqueeze(self, dim: builtins.int) -> Tensor:
        (axis,) = axes("unsqueeze", dim, self.ndim + 1)
        return self.reshape(*self.shape[:axis], 1, *self.shape[axis:])

    def squeeze(self, dim: Dims = None) -> Tensor:
        """Without the given axes of size 1 (all of them by default)."""
        drop = axes("squeeze", dim, self.ndim)
        return self.reshape(tuple(n for i, n in enumerate(self.shape) if i not in drop or n != 1))

    def permute(self, *dims: Any) -> Tensor:
        order = tuple(d % self.ndim if -self.ndim <= d < self.ndim else d for d in _sizes(dims))
        return _t(ops.PERMUTE(self, order=order))

    def transpose(self, dim0: builtins.int, dim1: builtins.int) -> Tensor:
        order = list(range(self.ndim))
        a, b = self._axis(dim0), self._axis(dim1)
        order[a], order[b] = b, a
        return self.permute(*order)

    @property
    def T(self) -> Tensor:  # noqa: N802
        """All axes reversed."""
        return self.permute(*reversed(range(self.ndim)))

    @property
    def mT(self) -> Tensor:  # noqa: N802
        """The last two axes exchanged."""
        return self.transpose(-2, -1)

    def expand(self, *shape: Any) -> Tensor:
        """Broadcast to a shape; -1 keeps a size."""
        wanted = _sizes(shape)
        skip = len(wanted) - self.ndim
        if skip >= 0:
            wanted = tuple(self.shape[i - skip] if n == -1 else n for i, n in enumerate(wanted))
        return self.broadcast_to(wanted)

    def broadcast_to(self, shape: Sequence[builtins.int]) -> Tensor:
        return _t(ops.BROADCAST(self, shape=tuple(shape)))

    def flip(self, *dims: Any) -> Tensor:
        return _t(ops.FLIP(self, axis=axes("flip", _sizes(dims), self.ndim)))

    def split(self, split_size: builtins.int | Sequence[builtins.int], dim: builtins.int = 0) -> tuple[Tensor, ...]:
        """Pieces of split_size along dim (the last may be smaller), or of the given sizes."""
        axis = self._axis(dim)
        total = self.shape[axis]
        if isinstance(split_size, int):
            if split_size <= 0:
                raise ShapeError(f"split: a size of {split_size} must be positive")
            starts = range(0, max(total, 1), split_size)
            sizes = [min(split_size, total - s) for s in starts]
        else:
            sizes = list(split_size)
            if sum(sizes) != total:
                raise ShapeError(f"split: sizes {sizes} do not add up to {total}, axis {axis}")
        pieces, start = [], 0
        for size in sizes:
            pieces.append(indexing.narrow(self, axis, start, size))
            start += size
        return tuple(pieces)

    def chunk(self, chunks: builtins.int, dim: builtins.int = 0) -> tuple[Tensor, ...]:
        return self.split(-(-self.shape[self._axis(dim)] // chunks), dim)

    # Gather, scatter, order ----------------------------------------------------------------------
    def __getitem__(self, index: Any) -> Tensor:
        return indexing.read(self, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        if self.is_leaf and self.requires_grad and grad_enabled():
            raise GradError(
                "a leaf Tensor that requires a gradient is changed in place: "
                "do it inside `with tx.no_grad():`"
            )
        self.assign(indexing.write(self, index, value))

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def index_select(self, dim: builtins.int, index: Tensor) -> Tensor:
        return _t(ops.TAKE(self, index, axis=self._axis(dim)))

    def index_add(self, dim: builtins.int, index: Tensor, source: Tensor) -> Tensor:
        """source's slices added at index along dim; duplicates add up."""
        return _t(ops.INDEX_ADD(self, index, source, axis=self._axis(dim)))

    def take_along_dim(self, indices: Tensor, dim: builtins.int) -> Tensor:
        return _t(ops.TAKE_ALONG(self, indices, axis=self._axis(dim)))

    def gather(self, dim: builtins.int, index: Tensor) -> Tensor:
        return self.take_along_dim(index, dim)

    def sort(self, dim: builtins.int = -1, descending: builtins.bool = False) -> ValuesIndices:
        """Stable: equal elements keep their order. NaN counts as the largest."""
        indices = self.argsort(dim, descending)
        return ValuesIndices(self.take_along_dim(indices, dim), indices)

    def argsort(self, dim: builtins.int = -1, descending: builtins.bool = False) -> Tensor:
        return _t(ops.ARGSORT(self, axis=self._axis(dim), descending=descending))

    def topk(self, k: builtins.int, dim: builtins.int = -1) -> ValuesIndices:
        """The k largest along dim, largest first; of equal ones the first."""
        indices = _t(ops.ARGTOPK(self, k=k, axis=self._axis(dim)))
        return ValuesIndices(self.take_along_dim(indices, dim), indices)

    def matmul(self, other: Any) -> Tensor:
        return matmul(self, other)


Handle.wrap = Tensor


def matmul(a: Any, b: Any) -> Tensor:
    """Matrix product with broadcasting batches; 1-d operands are rows on the left, columns on the
    right, as in PyTorch. ShapeError naming both shapes where they do not fit."""
    a = a if isinstance(a, Tensor) else _t(ops.COPY(Tensor(_as_node(a, b.node))))
    b = b if isinstance(b, Tensor) else _t(ops.COPY(Tensor(_as_node(b, a.node))))
    row, column = a.ndim == 1, b.ndim == 1
    out = _t(ops.MATMUL(a.unsqueeze(0) if row else a, b.unsqueeze(-1) if column else b))
    if column:
        out = out.squeeze(-1)
    return out.squeeze(-1 if column else -2) if row else out


class no_grad(ContextDecorator):  # noqa: N801
    """Nothing inside (a `with` block, or a decorated function) is recorded for gradients."""

    def __enter__(self) -> None:
        self._inner = set_grad_enabled(False)
        self._inner.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._inner.__exit__(*error)

    def _recreate_cm(self) -> no_grad:
        return no_grad()  # a decorated function may call itself


def _t(result: Any) -> Tensor:
    """An op's result, for the type checker."""
    return result  # type: ignore[no-any-return]


def _sizes(args: tuple[Any, ...]) -> tuple[int, ...]:
    """Sizes given one by one or as one sequence."""
    if len(args) == 1 and isinstance(args[0], (tuple, list)):
        args = tuple(args[0])
    return tuple(int(n) for n in args)


def _bools(*operands: Any) -> bool:
    return all(
        o.dtype == bool_ if isinstance(o, Tensor) else isinstance(o, (bool, np.bool_))
        for o in operands
    )


def _truth(x: Tensor) -> Tensor:
    return x if x.dtype == bool_ else x != 0


def _floats(a: Any, b: Any) -> tuple[Any, Any]:
    """Operands of a true division: integers divided by integers are float32."""

    def integral(x: Any) -> bool:
        if isinstance(x, Tensor):
            return not x.dtype.is_floating_point
        return np.asarray(x).dtype.kind in "biu"

    if integral(a) and integral(b):
        a, b = (x.float() if isinstance(x, Tensor) else x for x in (a, b))
        a, b = (np.asarray(x, np.float32) if isinstance(x, np.ndarray) else x for x in (a, b))
    return a, b


def _as_node(value: Any, like: Node) -> Node:
    """A Tensor's node; anything else as data of like's dtype (arrays keep theirs)."""
    if isinstance(value, Handle):
        return value.node
    array = np.asarray(value)
    dtype = as_dtype(array.dtype) if isinstance(value, (np.ndarray, np.generic)) else like.dtype
    data = backends.get(like.device).from_host(array.astype(dtype.np))
    return leaf(data, dtype, like.device)


def _moved(node: Node, device: str) -> Node:
    return apply(MOVE, (node,), {"target": device})

