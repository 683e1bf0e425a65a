"""The reductions of a Tensor, and what runs along one dimension: PyTorch's names and arguments.

The third part of what methods.py puts together. `dim` may be spelled `axis`, `keepdim` `keepdims`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import ops
from .autocast import computed_in
from .dtypes import as_dtype, float32
from .elementwise import Elementwise, _truth
from .errors import DTypeError, ShapeError, UserError
from .op import Op
from .operators import _t
from .rules import axes, whole
from .spelling import spelled

if TYPE_CHECKING:  # Tensor derives from what is here
    from .tensor import Tensor

Dims = int | Sequence[int] | None


class ValuesIndices(NamedTuple):
    """The result of max(dim), min(dim), topk and sort."""

    values: Tensor
    indices: Tensor


class Reductions(Elementwise):
    """Sums, means, norms and extremes; `dim` is an int, a sequence of them, or None (or, as in
    PyTorch, empty) for all dimensions. dtype: the input is converted to it first."""

    __slots__ = ()

    if TYPE_CHECKING:  # what methods.py adds

        def reshape(self, *shape: Any) -> Tensor: ...
        def transpose(self, dim0: int, dim1: int) -> Tensor: ...
        def squeeze(self, dim: Dims = None) -> Tensor: ...
        def take_along_dim(self, indices: Tensor, dim: int | None = None) -> Tensor: ...

    @spelled
    def sum(self, dim: Dims = None, keepdim: bool = False, dtype: Any = None) -> Tensor:
        """The sum; of ints and bools in int64, where no dtype is given."""
        y = _t(ops.SUM(self._as(dtype), axis=_all(dim), keepdims=keepdim))
        return y if dtype is None else y.to(as_dtype(dtype))

    @spelled
    def mean(self, dim: Dims = None, keepdim: bool = False, dtype: Any = None) -> Tensor:
        """The mean over dim (all axes by default), in dtype if one is given; of floats alone."""
        if dtype is not None:
            return self._as(dtype).mean(dim, keepdim)
        if not self.dtype.is_floating_point:
            raise DTypeError(f"mean needs a floating dtype, not {self.dtype.name}: use .float()")
        if self.dtype.itemsize < 4:  # the sum may be too large for half precision
            return self.to(float32).mean(dim, keepdim).to(self.dtype)
        return self.sum(dim, keepdim) / self._count(dim)

    @spelled
    def var(
        self,
        dim: Dims | bool = None,
        unbiased: bool = True,
        keepdim: bool = False,
        *,
        correction: float | None = None,
    ) -> Tensor:
        """Mean squared deviation: the squares are divided by n - correction, which is 1, or 0 where
        unbiased=False. A bool in the first place is `unbiased`, as in PyTorch: x.var(False)."""
        over, less = _deviation("var", dim, unbiased, correction)
        if self.dtype.kind == "f" and self.dtype.itemsize < 4:
            return self.to(float32).var(over, keepdim=keepdim, correction=less).to(self.dtype)
        centred = self - self.mean(over, keepdim=True)
        return (centred * centred).sum(over, keepdim) / max(self._count(over) - less, 0)

    @spelled
    def std(
        self,
        dim: Dims | bool = None,
        unbiased: bool = True,
        keepdim: bool = False,
        *,
        correction: float | None = None,
    ) -> Tensor:
        """The root of var(). Its gradient where it is 0 is 0."""
        over, less = _deviation("std", dim, unbiased, correction)
        if self.dtype.kind == "f" and self.dtype.itemsize < 4:  # the variance may be too large
            return self.to(float32).std(over, keepdim=keepdim, correction=less).to(self.dtype)
        return _root(self.var(over, keepdim=keepdim, correction=less))

    @spelled
    @computed_in("float32")
    def norm(
        self, p: Any = "fro", dim: Dims = None, keepdim: bool = False, dtype: Any = None
    ) -> Tensor:
        """(sum |x|^p)^(1/p), by default with p = 2 ("fro"): the Euclidean norm. p = inf is the
        largest |x|, -inf the smallest, 0 how many are not 0. The gradient at 0 is 0."""
        if dtype is not None:
            return self._as(dtype).norm(p, dim, keepdim)
        power = _power(p)
        if not self.dtype.is_floating_point:
            raise DTypeError(f"norm needs a floating dtype, not {self.dtype.name}: use .float()")
        if self.dtype.itemsize < 4:
            return self.to(float32).norm(power, dim, keepdim).to(self.dtype)
        if power == 2:
            return _root((self * self).sum(dim, keepdim))
        if power == 0:
            return (self != 0).to(self.dtype).sum(dim, keepdim)
        size = self.abs()
        if power == 1:
            return size.sum(dim, keepdim)
        if math.isinf(power):
            return size.amax(dim, keepdim) if power > 0 else size.amin(dim, keepdim)
        if power < 1:  # the derivative of |x|^p at 0 is infinite
            zero = size == 0
            powers = (size.where(~zero, 1.0) ** power).where(~zero, 0.0 if power > 0 else math.inf)
        else:
            powers = size**power
        return _root(powers.sum(dim, keepdim), power)

    @spelled
    def amax(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        """The largest element over dim (all axes by default). Equal ones share the gradient."""
        return _t(ops.MAX(self, axis=_all(dim), keepdims=keepdim))

    @spelled
    def amin(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        """The smallest element over dim (all axes by default). Equal ones share the gradient."""
        return _t(ops.MIN(self, axis=_all(dim), keepdims=keepdim))

    @spelled
    def max(self, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
        """The largest element; with dim a pair (values, indices); with a Tensor, maximum()."""
        if isinstance(dim, Elementwise) or other is not None:
            return self.maximum(_other("max", dim, other))
        return self.amax() if dim is None else self._pick(self.argmax(dim, True), dim, keepdim)

    @spelled
    def min(self, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
        """The smallest element; with dim a pair (values, indices); with a Tensor, minimum()."""
        if isinstance(dim, Elementwise) or other is not None:
            return self.minimum(_other("min", dim, other))
        return self.amin() if dim is None else self._pick(self.argmin(dim, True), dim, keepdim)

    @spelled
    def argmax(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """The index of the first largest element, over all of them where dim is None."""
        return self._find(ops.ARGMAX, dim, keepdim)

    @spelled
    def argmin(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """The index of the first smallest element, over all of them where dim is None."""
        return self._find(ops.ARGMIN, dim, keepdim)

    @spelled
    def logsumexp(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        """log(sum(exp(x))), without the overflow; -inf where there is no x."""
        if 0 in self.shape:
            return self.exp().sum(dim, keepdim).log()
        return _t(ops.LOGSUMEXP(self, axis=_all(dim), keepdims=keepdim))

    @spelled
    def any(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        """True if any element is not 0. An empty dim reduces nothing, as in PyTorch."""
        return _t(ops.ANY(_truth(self), axis=dim, keepdims=keepdim))

    @spelled
    def all(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        """True if no element is 0. An empty dim reduces nothing, as in PyTorch."""
        return _t(ops.ALL(_truth(self), axis=dim, keepdims=keepdim))

    @spelled
    def cumsum(self, dim: int, dtype: Any = None) -> Tensor:
        """Sums of the elements up to each; of ints and bools in int64, where no dtype is given."""
        if not self.ndim:
            return _t(self._as_row("cumsum", dim, dtype))
        y = _t(ops.CUMSUM(self._as(dtype), axis=self._axis(dim)))
        return y if dtype is None else y.to(as_dtype(dtype))

    @spelled
    def prod(self, dim: int | None = None, keepdim: bool = False, dtype: Any = None) -> Tensor:
        """The product; of ints and bools in int64, where no dtype is given."""
        y = _t(ops.PROD(self._as(dtype), axis=dim, keepdims=keepdim))
        return y if dtype is None else y.to(as_dtype(dtype))

    @spelled
    def cumprod(self, dim: int, dtype: Any = None) -> Tensor:
        """Products of the elements up to each; of ints and bools in int64, as prod()."""
        if not self.ndim:
            return _t(self._as_row("cumprod", dim, dtype))
        y = _t(ops.CUMPROD(self._as(dtype), axis=self._axis(dim)))
        return y if dtype is None else y.to(as_dtype(dtype))

    @spelled
    def softmax(self, dim: int, dtype: Any = None) -> Tensor:
        """exp(x) divided by its sum along dim; NaN where all of x is -inf."""
        if not self.ndim:
            return _t(self._as_row("softmax", dim, dtype))
        axis = self._axis(dim)
        if 0 in self.shape:  # nothing to compute, as exp() does it
            return self._as(dtype).exp()
        return _t(ops.SOFTMAX(self._as(dtype), axis=axis))

    @spelled
    def log_softmax(self, dim: int, dtype: Any = None) -> Tensor:
        """log(softmax(x)), without the overflow."""
        if not self.ndim:
            return _t(self._as_row("log_softmax", dim, dtype))
        axis = self._axis(dim)
        if 0 in self.shape:  # nothing to compute, as exp() does it
            return self._as(dtype).exp()
        return _t(ops.LOG_SOFTMAX(self._as(dtype), axis=axis))

    def _as(self, dtype: Any) -> Tensor:
        return _t(self) if dtype is None else self.to(as_dtype(dtype))

    def _count(self, dim: Dims) -> int:
        return math.prod(self.shape[a] for a in axes("mean", _all(dim), self.ndim))

    def _axis(self, dim: int) -> int:
        """dim as a non-negative int; an error where it is no int, and for a 0-d Tensor."""
        found = axes("dim", whole("dim", dim), self.ndim)
        if not found:
            raise ShapeError("a 0-d Tensor has no dimension to work along; use .reshape(1)")
        return found[0]

    def _as_row(self, method: str, *args: Any) -> Any:
        """The result of a method along one dimension for a 0-d Tensor: that for a row of one, as in
        PyTorch."""
        out = getattr(self.reshape(1), method)(*args)
        if isinstance(out, ValuesIndices):
            return ValuesIndices(*(y.reshape(()) for y in out))
        return out.reshape(())

    def _find(self, op: Op, dim: int | None, keepdim: bool) -> Tensor:
        if dim is None:
            flat = _t(op(self.reshape(-1), axis=0))
            return flat.reshape((1,) * self.ndim if keepdim else ())
        if not self.ndim:
            return _t(self._as_row("argmax" if op is ops.ARGMAX else "argmin", dim))
        axis = self._axis(dim)
        found = _t(op(self, axis=axis))
        return found if keepdim else found.squeeze(axis)

    def _pick(self, indices: Tensor, dim: int, keepdim: bool) -> ValuesIndices:
        if not self.ndim:
            return ValuesIndices(_t(self).clone(), indices)
        values = self.take_along_dim(indices, dim)
        if keepdim:
            return ValuesIndices(values, indices)
        return ValuesIndices(values.squeeze(dim), indices.squeeze(dim))


def _all(dim: Dims) -> Dims:
    """PyTorch's reductions take an empty dim for all dimensions."""
    return None if isinstance(dim, (tuple, list)) and not dim else dim


def _other(name: str, dim: Any, other: Any) -> Any:
    """The Tensor that max or min is given to compare with, by place or as other=."""
    if dim is not None and other is not None:
        raise UserError(f"{name}: dim and other are given, which exclude each other")
    return dim if other is None else other


def _deviation(
    name: str, dim: Dims | bool, unbiased: bool, correction: float | None
) -> tuple[Dims, float]:
    """The dimensions and the correction that the arguments of var and std mean."""
    if isinstance(dim, bool):
        if unbiased is not True or correction is not None:
            raise UserError(f"{name}: unbiased is given twice; write {name}(unbiased={dim})")
        return None, int(dim)
    if unbiased not in (True, False):  # 0 and 1 mean the same as unbiased and as correction
        raise UserError(
            f"{name}: unbiased is True or False, not {unbiased!r}; did you mean "
            f"correction={unbiased!r}?"
        )
    if correction is None:
        return dim, int(unbiased)
    if not unbiased:
        raise UserError(f"{name}: give unbiased or correction, not both")
    return dim, correction


def _power(p: Any) -> float:
    if p is None or (isinstance(p, str) and p == "fro"):
        return 2.0
    if isinstance(p, (bool, np.bool_)) or not isinstance(p, (int, float, np.number)):
        raise UserError(f'norm: p={p!r} is not supported; it must be a number or "fro"')
    return float(p)


def _root(x: Tensor, power: float = 2.0) -> Tensor:
    """x^(1/power), whose derivative at 0 counts as 0: a norm at its corner, as in PyTorch."""
    zero = x == 0
    inside = x.where(~zero, 1.0)
    root = inside.sqrt() if power == 2 else inside ** (1 / power)
    return root.where(~zero, 0.0 if power > 0 else math.inf)
