"""The ways of a Tensor's values to NumPy, Python and other libraries, or to another dtype.

In: a handle whose node has an array; while a function is traced it has none, and each way out says
what to do instead. The base of Tensor.
"""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any

import numpy as np

from . import backends, ops
from .dtypes import DType, bfloat16, bool_, float16, float32, float64, int32, int64
from .errors import ShapeError, TraceError
from .methods import Methods
from .operators import _comparable, _t
from .spelling import refuse

if TYPE_CHECKING:
    from .tensor import Tensor


class Values(Methods):
    __slots__ = ()

    def _value(self, wish: str) -> np.ndarray[Any, Any]:
        node = self.node
        if node.array is None:
            raise TraceError(
                f"{wish} needs a value, which a Tensor does not have while its function is traced: "
                "return the Tensor and look at it outside, or use where() instead of an if"
            )
        return backends.get(node.device).to_host(node.array)

    def numpy(self, *, force: builtins.bool = False) -> np.ndarray[Any, Any]:
        """The values as a read-only NumPy array; .copy() it to change it. From any device, and of
        a Tensor that requires a gradient too, as PyTorch does with force=True."""
        return self._value(".numpy()")

    def item(self) -> Any:
        """The only element as a Python number."""
        if self.numel() != 1:
            raise ShapeError(f"item() of a Tensor {self.shape}: it must have one element")
        return self._value(".item()").item()

    def tolist(self) -> Any:
        """Its elements as nested lists of Python numbers; a number, if it is 0-d."""
        return self._value(".tolist()").tolist()

    def __array__(
        self, dtype: Any = None, copy: builtins.bool | None = None
    ) -> np.ndarray[Any, Any]:
        value = self._value("np.asarray()")
        if dtype is not None and value.dtype != dtype:
            if copy is False:
                raise ValueError(f"a Tensor of {value.dtype} is no array of {dtype} without a copy")
            return value.astype(dtype)
        return value.copy() if copy else value

    def __dlpack__(self, **options: Any) -> Any:
        self._value("__dlpack__")
        # Consumers may write: they get memory of their own.
        array = self.node.array.copy()
        return backends.get(self.device).to_dlpack(array, **options)

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

    def __contains__(self, value: Any) -> builtins.bool:
        return _comparable(value) and bool((self == value).any())

    def __format__(self, spec: str) -> str:
        """A single number by the format spec, as in f"{loss:.3f}"; otherwise the repr."""
        return format(self.item(), spec) if spec and not self.ndim else repr(self)

    # As another dtype --------------------------------------------------------------------------
    def float(self, memory_format: None = None) -> Tensor:
        """In float32."""
        return self._as_format("float", float32, memory_format)

    def double(self, memory_format: None = None) -> Tensor:
        """In float64."""
        return self._as_format("double", float64, memory_format)

    def half(self, memory_format: None = None) -> Tensor:
        """In float16."""
        return self._as_format("half", float16, memory_format)

    def bfloat16(self, memory_format: None = None) -> Tensor:
        """In bfloat16."""
        return self._as_format("bfloat16", bfloat16, memory_format)

    def long(self, memory_format: None = None) -> Tensor:
        """In int64; fractions are cut off."""
        return self._as_format("long", int64, memory_format)

    def int(self, memory_format: None = None) -> Tensor:
        """In int32; fractions are cut off."""
        return self._as_format("int", int32, memory_format)

    def bool(self, memory_format: None = None) -> Tensor:
        """In bools: True where it is not 0."""
        return self._as_format("bool", bool_, memory_format)

    def _as_format(self, name: str, dtype: DType, memory_format: None) -> Tensor:
        refuse(name, memory_format=memory_format)
        return _t(self)._to(dtype)

    def clone(self, *, memory_format: None = None) -> Tensor:
        """A copy through which gradients flow."""
        refuse("clone", memory_format=memory_format)
        return _t(ops.COPY(self))
