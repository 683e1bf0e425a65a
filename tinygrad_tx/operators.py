"""A Tensor's properties and operators.

The first part of what methods.py puts together.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from . import ops
from .arguments import shown
from .autocast import computed_in
from .dtypes import DType, bool_, float32, result_type, weak_dtype
from .node import Handle

if TYPE_CHECKING:  # Tensor derives from what is here
    from .tensor import Tensor


class Operators(Handle):
    """A Tensor's properties and operators."""

    __slots__ = ()
    __array_priority__ = 1000  # NumPy leaves `array + tensor` to Tensor.__radd__
    __array_ufunc__ = None
    __hash__ = object.__hash__

    if TYPE_CHECKING:  # what Tensor adds

        def to(self, *args: Any, **named: Any) -> Tensor: ...
        def item(self) -> Any: ...

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of each axis."""
        return self.node.shape

    @property
    def dtype(self) -> DType:
        """The type of its elements."""
        return self.node.dtype

    @property
    def device(self) -> str:
        """Where its array is: "cpu", "cuda" or a registered name."""
        return self.node.device

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.node.shape)

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the size of the axis dim."""
        if dim is None:
            return self.shape
        try:
            return self.shape[dim]
        except IndexError:
            raise IndexError(f"size: dim {dim} is outside a Tensor {self.shape}") from None
        except TypeError:
            raise TypeError(f"size: dim must be an int, not {shown(dim)}") from None

    def dim(self) -> int:
        """The number of axes, as ndim."""
        return self.ndim

    def numel(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of a 0-d Tensor")
        return self.shape[0]

    # Operators ---------------------------------------------------------------------------------
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

    @computed_in("float32")
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
            if self.dtype.kind != "f":
                self = self.to(result_type([(self.dtype, self.ndim)], [weak_dtype(other)]))
            return self * self
        return _t(ops.POW(self, other))

    def __rpow__(self, other: Any) -> Tensor:
        return _t(ops.POW(other, self))

    def __neg__(self) -> Tensor:
        return _t(ops.NEG(self))

    def __abs__(self) -> Tensor:
        return _t(ops.ABS(self))

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

    def eq(self, other: Any) -> Tensor:
        """self == other, as bools."""
        return _t(ops.EQ(self, other))

    def ne(self, other: Any) -> Tensor:
        """self != other, as bools."""
        return _t(ops.NE(self, other))

    def lt(self, other: Any) -> Tensor:
        """self < other, as bools."""
        return _t(self < other)

    def le(self, other: Any) -> Tensor:
        """self <= other, as bools."""
        return _t(self <= other)

    def gt(self, other: Any) -> Tensor:
        """self > other, as bools."""
        return _t(self > other)

    def ge(self, other: Any) -> Tensor:
        """self >= other, as bools."""
        return _t(self >= other)

    def _both_bool(self, other: Any) -> bool:
        if self.node.spec[1] is not bool_:
            return False
        other_is = isinstance(other, Operators) and other.dtype is bool_
        return other_is or isinstance(other, (bool, np.bool_))


def _t(result: Any) -> Tensor:
    """An op's result, for the type checker."""
    return result  # type: ignore[no-any-return]


def _comparable(other: object) -> bool:
    """True if == compares elements; with anything else Python compares identities."""
    return isinstance(other, (Handle, np.ndarray, np.generic, bool, int, float))


def _floats(a: Any, b: Any) -> tuple[Any, Any]:
    """Operands of a true division: integers divided by integers are float32."""

    def integral(x: Any) -> bool:
        if isinstance(x, Operators):
            return not x.dtype.is_floating_point
        return np.asarray(x).dtype.kind in "biu"

    if integral(a) and integral(b):
        a, b = (x.to(float32) if isinstance(x, Operators) else x for x in (a, b))
        a, b = (np.asarray(x, np.float32) if isinstance(x, np.ndarray) else x for x in (a, b))
    return a, b
