"""bfloat16 through DLPack, in which NumPy has no such type: it travels as integers of 16 bits, and
the capsule's label is changed on the way.

In: an array to hand out, or an object with __dlpack__ to take in. Out: a capsule, or an array.
Called by numpy_backend.py. The layout of what a capsule holds is that of dlpack.h, version 0 and 1.
"""

from __future__ import annotations

import ctypes
from typing import Any

import ml_dtypes
import numpy as np

_UNSIGNED, _BFLOAT = 1, 4  # kDLUInt, kDLBfloat
# Bytes before the code of the element type: in a DLTensor the data's address, the device (two
# int32) and the number of dimensions; before it the version, context, deleter and flags.
_CODE = {b"dltensor": 20, b"dltensor_versioned": 32 + 20}


def exported(array: np.ndarray[Any, Any], **options: Any) -> Any:
    """The capsule of a bfloat16 array."""
    capsule = array.view(np.uint16).__dlpack__(**options)
    _code(capsule).value = _BFLOAT
    return capsule


def imported(external: Any) -> np.ndarray[Any, Any]:
    """The array over an external object's memory, whatever its element type."""
    through = _Through(external)
    array: np.ndarray[Any, Any] = np.from_dlpack(through)
    return array.view(ml_dtypes.bfloat16) if through.bfloat else array


class _Through:
    """The external object, whose bfloat16 looks like integers of 16 bits."""

    def __init__(self, external: Any) -> None:
        self._external, self.bfloat = external, False

    def __dlpack__(self, **options: Any) -> Any:
        capsule = self._external.__dlpack__(**options)
        code = _code(capsule)
        if code.value == _BFLOAT:
            self.bfloat, code.value = True, _UNSIGNED
        return capsule

    def __dlpack_device__(self) -> Any:
        return self._external.__dlpack_device__()


def _code(capsule: Any) -> ctypes.c_uint8:
    """The code of the element type inside a capsule."""
    of, at = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    of.restype, of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    at.restype, at.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    name = of(capsule)
    return ctypes.c_uint8.from_address(at(capsule, name) + _CODE[name])
