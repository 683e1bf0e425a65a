"""Orders of a Tensor's elements, and what is read off them: sort, topk, median, quantile, unique,
searchsorted, ...

The fourth part of what methods.py puts together. What gives a shape that depends on data (nonzero,
unique) is for eager code: a compiled function is told what to do instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import backends, indexing, ops
from .arguments import explain_functions, shown
from .dtypes import as_dtype, int32, promote, weak_dtype
from .errors import DTypeError, ShapeError, TraceError, UserError
from .node import Handle, leaf
from .operators import _t
from .reductions import Reductions, ValuesIndices
from .spelling import refuse, spelled

if TYPE_CHECKING:  # Tensor derives from what is here
    from .tensor import Tensor

_BETWEEN = ("linear", "lower", "higher", "midpoint", "nearest")


class Ordering(Reductions):
    """What depends on the order of the elements along a dimension."""

    __slots__ = ()

    if TYPE_CHECKING:  # what Tensor adds

        def _value(self, wish: str) -> np.ndarray[Any, Any]: ...

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

    @spelled
    def median(self, dim: int | None = None, keepdim: bool = False) -> Any:
        """The middle element, of an even number the lower one; NaN where there is a NaN. With dim
        a pair (values, indices): of equal elements the first in order."""
        if dim is None:
            if not self.numel() and self.dtype.is_floating_point:
                return _t(self).sum() + float("nan")
            return self.reshape(-1).median(0).values
        if not self.ndim:
            return ValuesIndices(*self._as_row("median", dim))
        axis, x = self._axis(dim), _t(self)
        n = x.shape[axis]
        if not n:
            raise ShapeError(f"median: axis {axis} of {x.shape} is empty: no entry to take")
        order = x.argsort(axis)
        indices = indexing.narrow(order, axis, (n - 1) // 2, 1)
        if x.dtype.is_floating_point:  # NaN counts as the largest
            last = indexing.narrow(order, axis, n - 1, 1)
            indices = last.where(x.isnan().any(axis, keepdim=True), indices)
        return x._pick(indices, axis, keepdim)

    @spelled
    def quantile(
        self,
        q: float | Tensor,
        dim: int | None = None,
        keepdim: bool = False,
        *,
        interpolation: str = "linear",
    ) -> Tensor:
        """The value below which the share q of the elements lies, between 0 and 1; a row of shares
        makes a first dimension. NaN where there is a NaN.

        interpolation: between the two elements nearest to the place q (n - 1): "linear", "lower",
            "higher", "midpoint" or "nearest" (halves to the even place).
        """
        if interpolation not in _BETWEEN:
            known = ", ".join(_BETWEEN)
            raise UserError(f"quantile: interpolation={interpolation!r} is none of {known}")
        x = _t(self)
        if not x.dtype.is_floating_point:
            raise DTypeError(f"quantile needs a floating dtype, not {x.dtype.name}: use .float()")
        if dim is None or not x.ndim:
            found = x.reshape(-1)._quantiles(q, 0, interpolation)
            ones = (1,) * x.ndim if keepdim else ()
            return found.reshape((*found.shape, *ones))
        axis = x._axis(dim)
        found = x._quantiles(q, axis, interpolation)
        if not keepdim:
            return found
        return found.unsqueeze(axis + found.ndim - x.ndim + 1)

    def _quantiles(self, q: Any, axis: int, interpolation: str) -> Tensor:
        """(shares, the other dimensions), or these alone where q has no dimension."""
        x = _t(self).transpose(axis, -1)
        n = x.shape[-1]
        if not n:
            raise ShapeError(f"quantile: axis {axis} of {self.shape} is empty: no entry to take")
        shares = _shares(q, x)
        place = shares.reshape(-1) * (n - 1)  # (Q,)
        if interpolation == "nearest":
            place = place.round()
        below = place.ceil() if interpolation == "higher" else place.floor()
        rows = x.sort(-1).values
        low = rows.index_select(-1, below.long())
        if interpolation in ("linear", "midpoint"):
            high = rows.index_select(-1, place.ceil().long())
            share = place - below if interpolation == "linear" else (place > below) * 0.5
            gap = (high - low).where(high != low, 0)  # also of infinities
            low = low + share.to(x.dtype) * gap
        low = low.where(~x.isnan().any(-1, keepdim=True), float("nan"))
        found = low.transpose(axis, -1)  # (..., Q, ...) with Q in the place of axis
        order = (axis, *(i for i in range(found.ndim) if i != axis))
        found = found.permute(*order)
        return found if shares.ndim else found.squeeze(0)

    def nonzero(self, as_tuple: bool = False) -> Any:
        """The places of the elements that are not 0, row-major: int64 (places, dimensions), or
        with as_tuple one Tensor for each dimension, as an index. Eager only."""
        _require_value("nonzero", self, "use where(), or x[mask] = value, with the mask itself")
        value = self._value("nonzero")
        if not as_tuple:
            return _from_host(np.argwhere(value), self)
        return tuple(_from_host(p, self) for p in np.nonzero(np.atleast_1d(value)))

    @spelled
    def unique(
        self,
        sorted: bool = True,
        return_inverse: bool = False,
        return_counts: bool = False,
        dim: int | None = None,
    ) -> Any:
        """The distinct elements, or slices along dim, always sorted; each NaN is one. Eager only.

        return_inverse: also where in them each element is. return_counts: also how often.
        """
        _require_value("unique", self, "use sort(), and compare neighbours")
        axis = None if dim is None else self._axis(dim)
        value, inverse, counts = np.unique(
            self._value("unique"),
            return_inverse=True,
            return_counts=True,
            axis=axis,
            equal_nan=False,
        )
        inverse = inverse.reshape(self.shape if axis is None else -1)
        asked = (True, return_inverse, return_counts)
        parts = [_from_host(a, self) for a, yes in zip((value, inverse, counts), asked, strict=True)
                 if yes]  # fmt: skip
        return tuple(parts) if len(parts) > 1 else parts[0]


def searchsorted(
    sorted_sequence: Tensor,
    input: Tensor | float,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    out: None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """Where each value of input would stand in the sorted last dimension of sorted_sequence: the
    number of its elements that are less, or with right (side="right") not greater.

    sorted_sequence: (n,), for values of any shape, or (..., n) for values (..., m).
    sorter: the order that sorts sorted_sequence, as argsort() gives it.
    """
    refuse("searchsorted", out=out)
    if side not in (None, "left", "right"):
        raise UserError(f'searchsorted: side must be "left" or "right", not {shown(side)}')
    if side == "left" and right:
        raise UserError('searchsorted: side="left" and right=True exclude each other')
    if sorter is not None:
        sorted_sequence = sorted_sequence.take_along_dim(sorter, -1)
    values: Any = input
    if not isinstance(values, Handle):
        dtype = promote(sorted_sequence.dtype, weak_dtype(values))
        values = _from_host(np.asarray(values, dtype.np), sorted_sequence)
    common = promote(sorted_sequence.dtype, values.dtype)
    found = _t(
        ops.SEARCHSORTED(
            sorted_sequence.to(common), values.to(common), right=right or side == "right"
        )
    )
    return found.to(int32) if out_int32 else found


def bucketize(
    input: Tensor | float,
    boundaries: Tensor,
    *,
    out_int32: bool = False,
    right: bool = False,
    out: None = None,
) -> Tensor:
    """The number of the bucket of each value: how many of the sorted boundaries (n,) are less, or
    with right not greater."""
    refuse("bucketize", out=out)
    if boundaries.ndim != 1:
        raise ShapeError(f"bucketize: boundaries must be a row, not {boundaries.shape}")
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)


def _shares(q: Any, x: Tensor) -> Tensor:
    """The shares of quantile() in x's dtype, 0-d or a row."""
    if isinstance(q, Handle):
        shares = _t(q)
        if shares.ndim > 1 or shares.dtype != x.dtype:
            raise ShapeError(
                f"quantile: q must be a number or a row of {x.dtype.name}, not "
                f"{shares.dtype.name} {shares.shape}"
            )
    else:
        if not isinstance(q, (int, float, np.number)) or isinstance(q, bool):
            raise DTypeError(f"quantile: q must be a number or a Tensor, not {shown(q)}")
        shares = _from_host(np.asarray(q, x.dtype.np), x)
    if shares.node.has_values:
        value = shares._value("quantile")
        if not ((value >= 0) & (value <= 1)).all():
            raise UserError("quantile: q must be between 0 and 1")
    return shares


def _require_value(name: str, x: Handle, instead: str) -> None:
    if x.node.array is None:
        raise TraceError(
            f"{name}: the shape of the result depends on data, which a compiled function does not "
            f"know: call it outside of tx.compile, or {instead}"
        )


def _from_host(array: np.ndarray[Any, Any], like: Any) -> Tensor:
    """A Tensor on the device of another."""
    data = backends.get(like.device).from_host(array)
    return _t(Handle.wrap(leaf(data, as_dtype(array.dtype), like.device)))


explain_functions(globals())
