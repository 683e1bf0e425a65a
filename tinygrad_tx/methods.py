"""The methods of a Tensor that make new Tensors: PyTorch's names, one typed line each.

tensor.py adds to these what makes a Tensor a handle: its node, its gradient, assignment, and the
ways out to NumPy and Python. Methods that take a dimension call it `dim`, as PyTorch does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import backends, indexing, ops
from .dtypes import DType, as_dtype, bool_, float32
from .errors import DTypeError, ShapeError
from .node import Handle, Node, Op, axes, leaf

if TYPE_CHECKING:  # Tensor derives from what is here
    from .tensor import Tensor

Dims = int | Sequence[int] | None


class ValuesIndices(NamedTuple):
    """What max(dim), min(dim), topk and sort give."""

    values: Tensor
    indices: Tensor


class Methods(Handle):
    """Everything a Tensor can be asked to compute."""

    __slots__ = ()
    __array_priority__ = 1000  # NumPy leaves `array + tensor` to Tensor.__radd__
    __array_ufunc__ = None
    __hash__ = object.__hash__

    if TYPE_CHECKING:  # what Tensor adds

        def to(self, target: Any) -> Tensor: ...
        def item(self) -> Any: ...

    @property
    def shape(self) -> tuple[int, ...]:
        return self.node.shape

    @property
    def dtype(self) -> DType:
        return self.node.dtype

    @property
    def device(self) -> str:
        return self.node.device

    @property
    def ndim(self) -> int:
        return len(self.node.shape)

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        return self.ndim

    def numel(self) -> int:
        return math.prod(self.shape)

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of a 0-d Tensor")
        return self.shape[0]

    # Elementwise -------------------------------------------------------------------------------
    def __add__(self, other: Any) -> Tensor:
        return _t(ops.OR(self, other) if self._both_bool(other) else ops.ADD(self, other))

    def __radd__(self, other: Any) -> Tensor:
        return _t(self + other)

    def __sub__(self, other: Any) -> Tensor:
        return _t(ops.SUB(self, other))

    def __rsub__(self, other: Any) -> Tensor:
        return _t(ops.SUB(other, self))

    def __mul__(self, other: Any) -> Tensor:
        return _t(ops.AND(self, other) if self._both_bool(other) else ops.MUL(self, other))

    def __rmul__(self, other: Any) -> Tensor:
        return _t(self * other)

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
        if isinstance(other, (int, float)) and other == 2:  # the commonest power, exact and cheap
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
        return _t(ops.EQ(self, other)) if _comparable(other) else NotImplemented

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return _t(ops.NE(self, other)) if _comparable(other) else NotImplemented

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
        return _t(self**exponent)

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

    def clip(self, min: float | None = None, max: float | None = None) -> Tensor:
        """Values outside [min, max] become the nearer bound; None is no bound."""
        return _t(ops.CLIP(self, low=_bound(min), high=_bound(max)))

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
        return _t(ops.WHERE(mask, indexing.converted(value, self), self))

    def isnan(self) -> Tensor:
        return _t(ops.ISNAN(self))

    def isinf(self) -> Tensor:
        return _t(ops.ISINF(self))

    def isfinite(self) -> Tensor:
        return _t(ops.ISFINITE(self))

    def logical_not(self) -> Tensor:
        return _t(ops.NOT(self))

    # Reductions --------------------------------------------------------------------------------
    def sum(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        return _t(ops.SUM(self, axis=dim, keepdims=keepdim))

    def mean(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        if not self.dtype.is_floating_point:
            raise DTypeError(f"mean needs a floating dtype, not {self.dtype.name}: use .float()")
        if self.dtype.itemsize < 4:  # the sum may be too large for half precision
            return self.to(float32).mean(dim, keepdim).to(self.dtype)
        return self.sum(dim, keepdim) / self._count(dim)

    def var(self, dim: Dims = None, correction: int = 1, keepdim: bool = False) -> Tensor:
        """Mean squared deviation, divided by n - correction (1 as in PyTorch; 0 is biased)."""
        if self.dtype.kind == "f" and self.dtype.itemsize < 4:
            return self.to(float32).var(dim, correction, keepdim).to(self.dtype)
        centred = self - self.mean(dim, keepdim=True)
        return (centred * centred).sum(dim, keepdim) / max(self._count(dim) - correction, 0)

    def std(self, dim: Dims = None, correction: int = 1, keepdim: bool = False) -> Tensor:
        return self.var(dim, correction, keepdim).sqrt()

    def norm(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        """The Euclidean norm."""
        if self.dtype.kind == "f" and self.dtype.itemsize < 4:
            return self.to(float32).norm(dim, keepdim).to(self.dtype)
        return (self * self).sum(dim, keepdim).sqrt()

    def amax(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        return _t(ops.MAX(self, axis=dim, keepdims=keepdim))

    def amin(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        return _t(ops.MIN(self, axis=dim, keepdims=keepdim))

    def max(self, dim: Any = None, keepdim: bool = False) -> Any:
        """The largest element; with dim a pair (values, indices); with a Tensor, maximum()."""
        if isinstance(dim, Methods):
            return self.maximum(dim)
        return self.amax() if dim is None else self._pick(self.argmax(dim, True), dim, keepdim)

    def min(self, dim: Any = None, keepdim: bool = False) -> Any:
        """The smallest element; with dim a pair (values, indices); with a Tensor, minimum()."""
        if isinstance(dim, Methods):
            return self.minimum(dim)
        return self.amin() if dim is None else self._pick(self.argmin(dim, True), dim, keepdim)

    def argmax(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """The index of the first largest element, over all of them where dim is None."""
        return self._find(ops.ARGMAX, dim, keepdim)

    def argmin(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        return self._find(ops.ARGMIN, dim, keepdim)

    def logsumexp(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        return _t(ops.LOGSUMEXP(self, axis=dim, keepdims=keepdim))

    def any(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        return _t(ops.ANY(_truth(self), axis=dim, keepdims=keepdim))

    def all(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        return _t(ops.ALL(_truth(self), axis=dim, keepdims=keepdim))

    def cumsum(self, dim: int) -> Tensor:
        return _t(ops.CUMSUM(self, axis=self._axis(dim)))

    def softmax(self, dim: int) -> Tensor:
        return _t(ops.SOFTMAX(self, axis=self._axis(dim)))

    def log_softmax(self, dim: int) -> Tensor:
        return _t(ops.LOG_SOFTMAX(self, axis=self._axis(dim)))

    def _both_bool(self, other: Any) -> bool:
        if self.dtype is not bool_:
            return False
        other_is = isinstance(other, Methods) and other.dtype is bool_
        return other_is or isinstance(other, (bool, np.bool_))

    def _count(self, dim: Dims) -> int:
        return math.prod(self.shape[a] for a in axes("mean", dim, self.ndim))

    def _axis(self, dim: int) -> int:
        """dim as a non-negative int; 0 for a 0-d Tensor is an error."""
        found = axes("dim", dim, self.ndim)
        if not found:
            raise ShapeError("a 0-d Tensor has no dimension to work along; use .reshape(1)")
        return found[0]

    def _find(self, op: Op, dim: int | None, keepdim: bool) -> Tensor:
        if dim is None:
            flat = _t(op(self.reshape(-1), axis=0))
            return flat.reshape((1,) * self.ndim if keepdim else ())
        axis = self._axis(dim)
        found = _t(op(self, axis=axis))
        return found if keepdim else found.squeeze(axis)

    def _pick(self, indices: Tensor, dim: int, keepdim: bool) -> ValuesIndices:
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
        return self._again() if wanted == self.shape else _t(ops.RESHAPE(self, shape=wanted))

    view = reshape

    def contiguous(self) -> Tensor:
        """The same values: how an array lies in memory is the backend's business."""
        return self._again()

    def _again(self) -> Tensor:
        """The same values under a handle of their own: changing one leaves the other as it is."""
        node = self.node
        if node.is_leaf and node.requires_grad:  # such a node belongs to one Tensor
            return _t(ops.COPY(self))
        return _t(Handle.wrap(node))

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        if not self.ndim:
            return self.reshape(1)
        start, end = self._axis(start_dim), self._axis(end_dim)
        if start > end:
            raise ShapeError(f"flatten: axis {start} comes after axis {end}")
        middle = math.prod(self.shape[start : end + 1])
        return self.reshape(*self.shape[:start], middle, *self.shape[end + 1 :])

    def unsqueeze(self, dim: int) -> Tensor:
        (axis,) = axes("unsqueeze", dim, self.ndim + 1)
        return self.reshape(*self.shape[:axis], 1, *self.shape[axis:])

    def squeeze(self, dim: Dims = None) -> Tensor:
        """Without the given axes of size 1 (all of them by default)."""
        drop = axes("squeeze", dim, self.ndim)
        return self.reshape(tuple(n for i, n in enumerate(self.shape) if i not in drop or n != 1))

    def permute(self, *dims: Any) -> Tensor:
        order = tuple(d % self.ndim if -self.ndim <= d < self.ndim else d for d in _sizes(dims))
        return _t(ops.PERMUTE(self, order=order))

    def transpose(self, dim0: int, dim1: int) -> Tensor:
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
        if -1 in wanted[: max(skip, 0)]:
            raise ShapeError(f"expand: {wanted} of {self.shape}: -1 in a new axis keeps nothing")
        if skip >= 0:
            wanted = tuple(self.shape[i - skip] if n == -1 else n for i, n in enumerate(wanted))
        return self.broadcast_to(wanted)

    def broadcast_to(self, shape: Sequence[int]) -> Tensor:
        return _t(ops.BROADCAST(self, shape=tuple(shape)))

    def flip(self, *dims: Any) -> Tensor:
        return _t(ops.FLIP(self, axis=axes("flip", _sizes(dims), self.ndim)))

    def split(self, split_size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
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
            if sum(sizes) != total or any(n < 0 for n in sizes):
                raise ShapeError(f"split: sizes {sizes} do not make up {total}, axis {axis}")
        pieces, start = [], 0
        for size in sizes:
            pieces.append(indexing.narrow(_t(self), axis, start, size))
            start += size
        return tuple(pieces)

    def chunk(self, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
        """About equal pieces, at most `chunks` of them."""
        if chunks <= 0:
            raise ShapeError(f"chunk: {chunks} pieces; there must be at least one")
        return self.split(max(1, -(-self.shape[self._axis(dim)] // chunks)), dim)

    # Gather, scatter, order ----------------------------------------------------------------------
    def __getitem__(self, index: Any) -> Tensor:
        return indexing.read(_t(self), index)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        return _t(ops.TAKE(self, index, axis=self._axis(dim)))

    def index_add(self, dim: int, index: Tensor, source: Tensor) -> Tensor:
        """source's slices added at index along dim; duplicates add up."""
        return _t(ops.INDEX_ADD(self, index, source, axis=self._axis(dim)))

    def take_along_dim(self, indices: Tensor, dim: int) -> Tensor:
        return _t(ops.TAKE_ALONG(self, indices, axis=self._axis(dim)))

    def gather(self, dim: int, index: Tensor) -> Tensor:
        return self.take_along_dim(index, dim)

    def sort(self, dim: int = -1, descending: bool = False) -> ValuesIndices:
        """Stable: equal elements keep their order. NaN counts as the largest."""
        indices = self.argsort(dim, descending)
        return ValuesIndices(self.take_along_dim(indices, dim), indices)

    def argsort(self, dim: int = -1, descending: bool = False) -> Tensor:
        return _t(ops.ARGSORT(self, axis=self._axis(dim), descending=descending))

    def topk(self, k: int, dim: int = -1) -> ValuesIndices:
        """The k largest along dim, largest first; of equal ones the first."""
        indices = _t(ops.ARGTOPK(self, k=k, axis=self._axis(dim)))
        return ValuesIndices(self.take_along_dim(indices, dim), indices)

    def matmul(self, other: Any) -> Tensor:
        return matmul(self, other)


def matmul(a: Any, b: Any) -> Tensor:
    """Matrix product with broadcasting batches; 1-d operands are rows on the left, columns on the
    right, as in PyTorch. ShapeError naming both shapes where they do not fit."""
    a = a if isinstance(a, Methods) else _t(Handle.wrap(as_node(a, b.node)))
    b = b if isinstance(b, Methods) else _t(Handle.wrap(as_node(b, a.node)))
    row, column = a.ndim == 1, b.ndim == 1
    out = _t(ops.MATMUL(a.unsqueeze(0) if row else a, b.unsqueeze(-1) if column else b))
    if column:
        out = out.squeeze(-1)
    return out.squeeze(-1 if column else -2) if row else out


def _t(result: Any) -> Tensor:
    """An op's result, for the type checker."""
    return result  # type: ignore[no-any-return]


def _sizes(args: tuple[Any, ...]) -> tuple[int, ...]:
    """Sizes given one by one or as one sequence."""
    if len(args) == 1 and isinstance(args[0], (tuple, list)):
        args = tuple(args[0])
    return tuple(int(n) for n in args)


def _comparable(other: object) -> bool:
    """Whether == compares elements; with anything else Python compares identities."""
    return isinstance(other, (Handle, np.ndarray, np.generic, bool, int, float))


def _bound(value: Any) -> Any:
    """A limit of clip() as a Python number."""
    if isinstance(value, Methods):
        raise DTypeError("clip: a bound is a number; for Tensors use maximum() and minimum()")
    return value.item() if isinstance(value, np.generic) else value


def _truth(x: Any) -> Tensor:
    return _t(x if x.dtype == bool_ else x != 0)


def _floats(a: Any, b: Any) -> tuple[Any, Any]:
    """Operands of a true division: integers divided by integers are float32."""

    def integral(x: Any) -> bool:
        if isinstance(x, Methods):
            return not x.dtype.is_floating_point
        return np.asarray(x).dtype.kind in "biu"

    if integral(a) and integral(b):
        a, b = (x.to(float32) if isinstance(x, Methods) else x for x in (a, b))
        a, b = (np.asarray(x, np.float32) if isinstance(x, np.ndarray) else x for x in (a, b))
    return a, b


def as_node(value: Any, like: Node) -> Node:
    """A Tensor's node; anything else as data of like's dtype (arrays keep theirs)."""
    if isinstance(value, Handle):
        return value.node
    array = np.asarray(value)
    dtype = as_dtype(array.dtype) if isinstance(value, (np.ndarray, np.generic)) else like.dtype
    data = backends.get(like.device).from_host(array.astype(dtype.np))
    return leaf(data, dtype, like.device)
