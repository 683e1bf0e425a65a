"""The methods of a Tensor that make new Tensors: PyTorch's names and arguments.

elementwise.py and reductions.py hold the first two parts; here are movement, gathers and products.
tensor.py adds to these what makes a Tensor a handle: its node, its gradient, assignment, and the
ways out to NumPy and Python.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import backends, indexing, ops
from .arguments import explained
from .dtypes import as_dtype, outside
from .elementwise import Elementwise, _t
from .errors import DTypeError, ShapeError
from .node import Handle, Node, leaf
from .reductions import Dims, Reductions, ValuesIndices
from .rules import axes, broadcast_shape, whole
from .spelling import refuse, spelled

if TYPE_CHECKING:  # Tensor derives from what is here
    from .tensor import Tensor


class Methods(Reductions):
    """Everything a Tensor can be asked to compute."""

    __slots__ = ()

    # Movement ----------------------------------------------------------------------------------
    @spelled
    def reshape(self, *shape: Any) -> Tensor:
        """The same elements, row-major, in another shape; one size may be -1."""
        wanted = _sizes(shape)
        if -1 in wanted:
            rest = math.prod(n for n in wanted if n != -1)
            if wanted.count(-1) > 1 or rest == 0 or self.numel() % rest:
                raise ShapeError(f"reshape: {self.shape} cannot become {wanted}")
            wanted = tuple(self.numel() // rest if n == -1 else n for n in wanted)
        return self._again() if wanted == self.shape else _t(ops.RESHAPE(self, shape=wanted))

    @spelled
    def view(self, *size: Any) -> Tensor:
        """As reshape()."""
        return self.reshape(*size)

    def contiguous(self, memory_format: Any = None) -> Tensor:
        """The same values: how an array lies in memory is the backend's business."""
        refuse("contiguous", memory_format=memory_format)
        return self._again()

    def _again(self) -> Tensor:
        """The same values under a handle of their own: changing one leaves the other as it is."""
        node = self.node
        if node.is_leaf and node.requires_grad:  # such a node belongs to one Tensor
            return _t(ops.COPY(self))
        return _t(Handle.wrap(node))

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        if not self.ndim:
            return self.reshape(1).flatten(start_dim, end_dim)
        start, end = self._axis(start_dim), self._axis(end_dim)
        if start > end:
            raise ShapeError(f"flatten: axis {start} comes after axis {end}")
        middle = math.prod(self.shape[start : end + 1])
        return self.reshape(*self.shape[:start], middle, *self.shape[end + 1 :])

    @spelled
    def unsqueeze(self, dim: int) -> Tensor:
        (axis,) = axes("unsqueeze", dim, self.ndim + 1)
        return self.reshape(*self.shape[:axis], 1, *self.shape[axis:])

    @spelled
    def squeeze(self, dim: Dims = None) -> Tensor:
        """Without the given axes of size 1 (all of them by default)."""
        drop = axes("squeeze", dim, self.ndim)
        return self.reshape(tuple(n for i, n in enumerate(self.shape) if i not in drop or n != 1))

    @spelled
    def permute(self, *dims: Any) -> Tensor:
        order = tuple(d % self.ndim if -self.ndim <= d < self.ndim else d for d in _sizes(dims))
        return _t(ops.PERMUTE(self, order=order))

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        if not self.ndim:
            axes("transpose", (dim0, dim1), 0)
            return self._again()
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

    @spelled
    def expand(self, *size: Any) -> Tensor:
        """Broadcast to a shape; -1 keeps a size."""
        wanted = _sizes(size)
        skip = len(wanted) - self.ndim
        if -1 in wanted[: max(skip, 0)]:
            raise ShapeError(f"expand: {wanted} of {self.shape}: -1 in a new axis keeps nothing")
        if skip >= 0:
            wanted = tuple(self.shape[i - skip] if n == -1 else n for i, n in enumerate(wanted))
        return _t(ops.BROADCAST(self, shape=wanted))

    @spelled
    def broadcast_to(self, *size: Any) -> Tensor:
        """As expand()."""
        return self.expand(*size)

    @spelled
    def flip(self, *dims: Any) -> Tensor:
        return _t(ops.FLIP(self, axis=axes("flip", _sizes(dims), self.ndim)))

    @spelled
    def split(self, split_size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
        """Pieces of split_size along dim (the last may be smaller), or of the given sizes."""
        axis = self._axis(dim)
        total = self.shape[axis]
        if not isinstance(split_size, (list, tuple)):
            split_size = whole("split: a size", split_size)
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

    @spelled
    def chunk(self, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
        """About equal pieces, at most `chunks` of them."""
        if whole("chunk: chunks", chunks) <= 0:
            raise ShapeError(f"chunk: {chunks} pieces; there must be at least one")
        size = self.shape[self._axis(dim)]
        if not size:  # as many pieces of nothing as are asked for
            return self.split([0] * chunks, dim)
        return self.split(-(-size // chunks), dim)

    # Gather, scatter, order ----------------------------------------------------------------------
    def __getitem__(self, index: Any) -> Tensor:
        return indexing.read(_t(self), index)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    @spelled
    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """The slices at index (n,) along dim; one where index is 0-d."""
        if index.ndim > 1:
            raise ShapeError(f"index_select: index must have one dimension, not {index.shape}")
        return _t(ops.TAKE(self, index.reshape(-1), axis=self._axis(dim)))

    @spelled
    def index_add(self, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
        """alpha * source's slices added at index along dim; duplicates add up."""
        source = source if alpha == 1 else source * alpha
        return _t(ops.INDEX_ADD(self, index, source, axis=self._axis(dim)))

    @spelled
    def take_along_dim(self, indices: Tensor, dim: int | None = None) -> Tensor:
        """The elements at indices along dim, the other dimensions broadcast; of all, flattened,
        where dim is None."""
        if dim is None:
            return self.reshape(-1).take_along_dim(indices.reshape(-1), 0)
        axis = self._axis(dim)
        x = _t(self)
        if x.shape != indices.shape and x.ndim == indices.ndim:
            rest = [(*t.shape[:axis], 1, *t.shape[axis + 1 :]) for t in (x, indices)]
            wide = broadcast_shape("take_along_dim", *rest)
            x, indices = (
                t if t.shape == shape else t.expand(shape)
                for t in (x, indices)
                for shape in [(*wide[:axis], t.shape[axis], *wide[axis + 1 :])]
            )
        return _t(ops.TAKE_ALONG(x, indices, axis=axis))

    @spelled
    def gather(self, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
        """The elements at index along dim; in the other dimensions index may be smaller."""
        refuse("gather", sparse_grad=sparse_grad)
        axis = self._axis(dim)
        x = _t(self)
        if index.ndim == x.ndim:
            for other, n in enumerate(index.shape):
                if other != axis and n < x.shape[other]:
                    x = indexing.narrow(x, other, 0, n)
        return _t(ops.TAKE_ALONG(x, index, axis=axis))

    @spelled
    def sort(
        self, dim: int = -1, descending: bool = False, *, stable: bool | None = None
    ) -> ValuesIndices:
        """Always stable: equal elements keep their order. NaN counts as the largest."""
        if not self.ndim:
            return ValuesIndices(*self._as_row("sort", dim, descending))
        indices = self.argsort(dim, descending)
        return ValuesIndices(self.take_along_dim(indices, dim), indices)

    @spelled
    def argsort(self, dim: int = -1, descending: bool = False, *, stable: bool = False) -> Tensor:
        """The order that sort() brings the elements into: always a stable one."""
        if not self.ndim:
            return _t(self._as_row("argsort", dim, descending))
        return _t(ops.ARGSORT(self, axis=self._axis(dim), descending=descending))

    @spelled
    def topk(
        self, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
    ) -> ValuesIndices:
        """The k largest (or smallest) along dim, always in order; of equal ones the first."""
        if not self.ndim:
            return ValuesIndices(*self._as_row("topk", k, dim, largest))
        axis = self._axis(dim)
        if largest:
            indices = _t(ops.ARGTOPK(self, k=k, axis=axis))
        else:
            if not 0 <= k <= self.shape[axis]:
                raise ShapeError(f"topk: k = {k} does not fit axis {axis} of {self.shape}")
            indices = indexing.narrow(self.argsort(axis), axis, 0, k)
        return ValuesIndices(self.take_along_dim(indices, dim), indices)

    def matmul(self, other: Any) -> Tensor:
        return matmul(self, other)

    def __matmul__(self, other: Any) -> Tensor:
        return matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return matmul(other, self)


def matmul(input: Any, other: Any, *, out: None = None) -> Tensor:
    """Matrix product with broadcasting batches; 1-d operands are rows on the left, columns on the
    right, as in PyTorch. ShapeError naming both shapes where they do not fit."""
    refuse("matmul", out=out)
    if not isinstance(input, Methods) and not isinstance(other, Methods):
        raise DTypeError("matmul: at least one input must be a Tensor: wrap it in tx.tensor(...)")
    a = input if isinstance(input, Methods) else _t(Handle.wrap(as_node(input, other.node)))
    b = other if isinstance(other, Methods) else _t(Handle.wrap(as_node(other, a.node)))
    row, column = a.ndim == 1, b.ndim == 1
    y = _t(ops.MATMUL(a.unsqueeze(0) if row else a, b.unsqueeze(-1) if column else b))
    if column:
        y = y.squeeze(-1)
    return y.squeeze(-1 if column else -2) if row else y


def _sizes(args: tuple[Any, ...]) -> tuple[int, ...]:
    """Sizes or dimensions given one by one or as one sequence."""
    if len(args) == 1 and isinstance(args[0], (tuple, list)):
        args = tuple(args[0])
    if any(type(n) is not int for n in args):
        args = tuple(whole("a size or dimension", n) for n in args)
    return args


def as_node(value: Any, like: Node) -> Node:
    """A Tensor's node; anything else as data of like's dtype (arrays keep theirs)."""
    if isinstance(value, Handle):
        return value.node
    try:
        array = np.asarray(value)
    except ValueError:
        raise ShapeError("nested lists of unequal length are no Tensor: pad them first") from None
    dtype = as_dtype(array.dtype) if isinstance(value, (np.ndarray, np.generic)) else like.dtype
    data = backends.get(like.device).from_host(outside(array, dtype))
    return leaf(data, dtype, like.device)


# Methods that eager code does not live on; their arguments are looked at where they fail.
for _cls, _names in (
    (Elementwise, ("clip", "clamp")),
    (Reductions, ("norm", "std", "var", "cumsum", "logsumexp", "amax", "amin", "any", "all")),
    (Reductions, ("softmax", "log_softmax")),
    (Methods, ("chunk", "split", "topk", "take_along_dim", "gather", "index_select")),
    (Methods, ("sort", "argsort")),
):
    for _name in _names:
        setattr(_cls, _name, explained(vars(_cls)[_name]))
