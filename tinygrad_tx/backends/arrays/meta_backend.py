"""The backend of device "meta": shapes and dtypes without values, as PyTorch's device of that name.

No forward runs there: a result is what its op's rule promises (node.execute), as an array without
memory, whose strides are 0. So a model of any size can be built, trained and traced in no time;
only to read a value is an error. Constants are numbers as on the CPU, for the compiler's sake.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from ...dtypes import DType
from ...errors import DeviceError
from .base import Array, Backend
from .numpy_backend import NumpyBackend


def load() -> Backend:
    return MetaBackend()


class MetaBackend(NumpyBackend):
    device = "meta"
    computes = False
    tf32 = True

    def full(self, shape: tuple[int, ...], value: float, dtype: DType) -> Array:
        return np.broadcast_to(dtype.scalar(value), shape)

    def from_host(self, array: np.ndarray[Any, Any]) -> Array:
        return np.broadcast_to(np.zeros((), array.dtype), array.shape)

    def to_host(self, array: Array) -> NoReturn:
        raise DeviceError(
            f"a Tensor {array.shape} on meta has a shape and a dtype, but no values to read: make "
            'it on another device, such as "cpu"'
        )

    def to_dlpack(self, array: Array, **options: Any) -> NoReturn:
        self.to_host(array)

    def from_dlpack(self, external: Any) -> NoReturn:
        raise DeviceError('from_dlpack: nothing lies on meta: use .to("meta")')
