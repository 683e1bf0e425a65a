"""The methods of a Tensor that make new Tensors: PyTorch's names and arguments.

operators.py, elementwise.py, reductions.py and ordering.py hold the first parts; here are movement,
gathers and products.
tensor.py adds to these what makes a Tensor a handle: its node, its gradient, assignment, and the
ways out to NumPy and Python.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import backends, indexing, ops
from .arguments import explained, shown
from .dtypes import as_dtype, outside
from .elementwise import Elementwise
from .errors import DTypeError, ShapeError, UserError
from .node import Handle, Node, leaf
from .operators import _t
from .ordering import Ordering
from .reductions import Dims, Reductions
from .rules import axes, broadcast_shape, whole
from .spelling import refuse, spelled

if TYPE_CHECKING:  # Tensor derives from what is here
    from .tensor import Tensor


class Methods(Ordering):
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
        """With the axes from start_dim to end_dim, both included, as a single one."""
        if not self.ndim:
            return self.reshape(1).flatten(start_dim, end_dim)
        start, end = self._axis(start_dim), self._axis(end_dim)
        if start > end:
            raise ShapeError(f"flatten: axis {start} comes after axis {end}")
        middle = math.prod(self.shape[start : end + 1])
        return self.reshape(*self.shape[:start], middle, *self.shape[end + 1 :])

    @spelled
    def unsqueeze(self, dim: int) -> Tensor:
        """With an axis of size 1 at dim."""
        (axis,) = axes("unsqueeze", dim, self.ndim + 1)
        return self.reshape(*self.shape[:axis], 1, *self.shape[axis:])

    @spelled
    def squeeze(self, dim: Dims = None) -> Tensor:
        """Without the given axes of size 1 (all of them by default)."""
        drop = axes("squeeze", dim, self.ndim)
        return self.reshape(tuple(n for i, n in enumerate(self.shape) if i not in drop or n != 1))

    @spelled
    def permute(self, *dims: Any) -> Tensor:
        """With its axes in this order, as a view."""
        order = tuple(d % self.ndim if -self.ndim <= d < self.ndim else d for d in _sizes(dims))
        return _t(ops.PERMUTE(self, order=order))

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        """With two axes swapped, as a view."""
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
        """With the order of elements reversed along these axes."""
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

    def unbind(self, dim: int = 0) -> tuple[Tensor, ...]:
        """The slices along dim, without it."""
        axis, x = self._axis(dim), _t(self)
        parts = (indexing.narrow(x, axis, i, 1) for i in range(x.shape[axis]))
        return tuple(part.squeeze(axis) for part in parts)

    @spelled
    def repeat(self, *repeats: Any) -> Tensor:
        """The whole so many times along each dimension; more numbers than dimensions make new ones
        at the front."""
        times = _sizes(repeats)
        if len(times) < self.ndim or any(n < 0 for n in times):
            raise ShapeError(
                f"repeat: {times} of {self.shape}: give a number from 0 up for each dimension"
            )
        shape = (1,) * (len(times) - self.ndim) + self.shape
        x = self.reshape(tuple(n for size in shape for n in (1, size)))
        x = x.expand(tuple(n for pair in zip(times, shape, strict=True) for n in pair))
        return x.reshape(tuple(n * size for n, size in zip(times, shape, strict=True)))

    @spelled
    def tile(self, *dims: Any) -> Tensor:
        """As repeat(), but fewer numbers than dimensions are those of the last ones."""
        times = _sizes(dims)
        return self.repeat((1,) * (self.ndim - len(times)) + times)

    @spelled
    def repeat_interleave(
        self, repeats: int | Tensor, dim: int | None = None, *, output_size: int | None = None
    ) -> Tensor:
        """Each slice along dim so many times in a row; of all elements, flattened, without dim.

        repeats: a number, or an integer Tensor with one for each slice: then the size of the result
            depends on data, and a compiled function wants it as output_size.
        """
        if dim is None:
            return self.reshape(-1).repeat_interleave(repeats, 0, output_size=output_size)
        axis, x = self._axis(dim), _t(self)
        n = x.shape[axis]
        if isinstance(repeats, Handle):
            return indexing.repeated(x, axis, _t(repeats), output_size)
        times = whole("repeat_interleave: repeats", repeats)
        if times < 0 or output_size not in (None, n * times):
            raise ShapeError(
                f"repeat_interleave: {times} times {n} slices cannot be {output_size} slices"
            )
        x = x.unsqueeze(axis + 1)
        x = x.expand((*x.shape[: axis + 1], times, *x.shape[axis + 2 :]))
        return x.flatten(axis, axis + 1)

    @spelled
    def roll(self, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Tensor:
        """Moved by shifts along dims; what leaves at the end comes in at the front. Without dims
        the flattened elements are moved."""
        if dims is None:
            return self.reshape(-1).roll(shifts, 0).reshape(self.shape)
        pairs = [[n] if isinstance(n, int) else list(n) for n in (shifts, dims)]
        if len(pairs[0]) != len(pairs[1]):
            raise ShapeError(f"roll: {len(pairs[0])} shifts for {len(pairs[1])} dims")
        x = _t(self)
        for shift, dim in zip(*pairs, strict=True):
            axis = x._axis(dim)
            n = x.shape[axis]
            first = -whole("roll: a shift", shift) % n if n else 0
            if first:
                parts = [indexing.narrow(x, axis, first, n - first)]
                parts.append(indexing.narrow(x, axis, 0, first))
                x = _t(ops.CONCAT(*parts, axis=axis))
        return x if x is not self else self._again()

    def diagonal(self, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
        """The elements whose places along dim1 and dim2 are equal, as the last dimension; offset:
        those so many places right of them."""
        one, two = self._axis(dim1), self._axis(dim2)
        if one == two:
            raise ShapeError(f"diagonal: dim1 and dim2 are both {one}")
        x = self.permute(*(i for i in range(self.ndim) if i not in (one, two)), one, two)
        *rest, n, m = x.shape
        below, right = max(-offset, 0), max(offset, 0)
        count = max(min(n - below, m - right), 0)
        start = below * m + right if count else 0
        stop = start + (count - 1) * (m + 1) + 1 if count else 0  # just behind the last one
        ranges = (*((0, size, 1) for size in rest), (start, stop, m + 1))
        return _t(ops.SLICE(x.reshape((*rest, n * m)), ranges=ranges))

    def trace(self) -> Tensor:
        """The sum of the diagonal of a matrix."""
        if self.ndim != 2:
            raise ShapeError(f"trace: a matrix is needed, not {self.shape}")
        return self.diagonal().sum()

    # Gather, scatter ----------------------------------------------------------------------
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

    def scatter(
        self,
        dim: int,
        index: Tensor,
        src: Tensor | float | None = None,
        *,
        value: float | None = None,
        reduce: str | None = None,
    ) -> Tensor:
        """self with src, a Tensor or a number, written at index along dim; in the other dimensions
        index may be smaller, and src larger than index. Of places that come twice the last stays.
        reduce: "add" or "multiply", what is there with src."""
        from . import scattering

        if (src is None) == (value is None):
            raise UserError("scatter: give one of src and value")
        given = value if src is None else src
        if reduce is None:
            return scattering.put(_t(self), dim, index, given)
        if reduce not in ("add", "multiply"):
            raise UserError(f'scatter: reduce={shown(reduce)} is none of "add", "multiply"')
        if not isinstance(given, Handle):
            converted = indexing.converted(given, _t(self))
            given = _t(ops.FULL(shape=index.shape, value=converted, dtype=self.dtype,
                                device=self.device))  # fmt: skip
        how = {"add": "sum", "multiply": "prod"}[reduce]
        return scattering.reduce(_t(self), dim, index, _t(given), how, True)

    def scatter_add(self, dim: int, index: Tensor, src: Tensor) -> Tensor:
        """self with src added at index along dim; what goes to one place adds up."""
        from . import scattering

        return scattering.add(_t(self), dim, index, src)

    def scatter_reduce(
        self, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
    ) -> Tensor:
        """self with src reduced into index along dim: "sum", "prod", "mean" (of integers rounded
        down), "amax" or "amin". include_self: what is there takes part, too."""
        from . import scattering

        return scattering.reduce(_t(self), dim, index, src, reduce, include_self)

    # Products ------------------------------------------------------------------------------------
    def outer(self, vec2: Tensor) -> Tensor:
        """(n,) and (m,) -> (n, m): each element times each."""
        if self.ndim != 1 or vec2.ndim != 1:
            raise ShapeError(f"outer: two rows are needed, not {self.shape} and {vec2.shape}")
        return self.unsqueeze(-1) * vec2

    def matmul(self, other: Any) -> Tensor:
        """self @ other; tx.matmul says how."""
        return matmul(self, other)

    def __matmul__(self, other: Any) -> Tensor:
        return matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return matmul(other, self)

    # Comparing, drawing ------------------------------------------------------------------------
    def isclose(
        self, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
    ) -> Tensor:
        """True where |self - other| <= atol + rtol |other|; where both are NaN: equal_nan."""
        close = self == other
        gap = (self - other).abs()
        near = gap <= atol + rtol * other.abs()
        if gap.dtype.is_floating_point:
            near = near & gap.isfinite()
            if equal_nan:
                close = close | ((self != self) & (other != other))
        return close | near

    def allclose(
        self, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
    ) -> bool:
        """True if isclose() is True everywhere: a Python bool, for eager code alone."""
        return bool(self.isclose(other, rtol, atol, equal_nan).all())

    def bernoulli(self, p: Tensor | float | None = None, *, generator: None = None) -> Tensor:
        """1 with the probability that each element is (or p, where it is given), else 0."""
        from .drawing import bernoulli

        refuse("bernoulli", generator=generator)
        return bernoulli(_t(self), p)

    def multinomial(
        self, num_samples: int, replacement: bool = False, *, generator: None = None
    ) -> Tensor:
        """Indices drawn with probabilities in proportion to a row, or to each of several rows:
        (num_samples,) or (rows, num_samples). Without replacement none comes twice."""
        from .drawing import multinomial

        refuse("multinomial", generator=generator)
        return multinomial(_t(self), num_samples, replacement)


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
    (Elementwise, ("clip", "clamp", "add", "sub", "div", "round")),
    (Reductions, ("norm", "std", "var", "cumsum", "logsumexp", "amax", "amin", "any", "all")),
    (Reductions, ("softmax", "log_softmax", "prod", "cumprod")),
    (Ordering, ("sort", "argsort", "topk", "median", "quantile", "nonzero", "unique")),
    (Methods, ("chunk", "split", "take_along_dim", "gather", "index_select", "unbind", "repeat")),
    (Methods, ("tile", "repeat_interleave", "roll", "diagonal", "scatter", "scatter_add")),
    (Methods, ("scatter_reduce", "outer", "isclose", "allclose", "bernoulli", "multinomial")),
):
    for _name in _names:
        setattr(_cls, _name, explained(vars(_cls)[_name]))
