"""The double's cupy.cuda: one device and one stream, and machines where something is missing.

CUPY_DOUBLE is a list, separated by commas, of what is missing: `driver`, `device`, `nvrtc`,
`cublas`; or wrong: `version=13.6.0` (of CuPy), `memory` (there is none left for arrays over 4 KiB),
`full` (there is none at all).
"""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

from . import _device
from ._device import Device as Device
from ._device import Event as Event
from ._device import MemoryPointer as MemoryPointer
from ._device import Stream as Stream
from ._device import UnownedMemory as UnownedMemory
from ._device import alloc as alloc
from ._device import get_elapsed_time as get_elapsed_time

counts = {"waits": 0, "to_host": 0, "to_device": 0, "kernels": 0}  # for tests of what a step costs


def broken(what: str, otherwise: Any = None) -> Any:
    """The value that CUPY_DOUBLE gives to `what`; where it only names it, the error of it."""
    for item in filter(None, os.environ.get("CUPY_DOUBLE", "").split(",")):
        name, _, value = item.partition("=")
        if name == what:
            if value:
                return value
            kind, message = _ERRORS[name]
            raise kind(message)
    return otherwise


def need_memory(size: int) -> None:
    broken("full")
    if size > 4096:
        broken("memory")


class CUDARuntimeError(RuntimeError):
    pass


class OutOfMemoryError(MemoryError):
    pass


_ERRORS: dict[str, tuple[type[Exception], str]] = {
    "driver": (
        CUDARuntimeError,
        "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version",
    ),
    "device": (CUDARuntimeError, "cudaErrorNoDevice: no CUDA-capable device is detected"),
    "nvrtc": (ImportError, 'Failure finding "libnvrtc.so.13": No such file: libnvrtc.so.13\nmore'),
    "cublas": (ImportError, 'Failure finding "libcublas.so.13": No such file: libcublas.so.13'),
    "memory": (OutOfMemoryError, "Out of memory allocating 8,192 bytes (allocated so far: 0)."),
    "full": (OutOfMemoryError, "Out of memory allocating 512 bytes (allocated so far: 0 bytes)."),
}


def _device_count() -> int:
    broken("driver")
    broken("device")
    return 1


def _synchronize() -> None:
    counts["waits"] += 1


def _device_properties(device: int) -> dict[str, Any]:
    name = b"double of an H200"
    return {"name": name, "totalGlobalMem": 8 << 30, "multiProcessorCount": 132}


runtime = SimpleNamespace(
    getDeviceCount=_device_count,
    getDeviceProperties=_device_properties,
    driverGetVersion=lambda: 13000,
    runtimeGetVersion=lambda: 13000,
    CUDARuntimeError=CUDARuntimeError,
)
memory = SimpleNamespace(OutOfMemoryError=OutOfMemoryError)


driver = SimpleNamespace(CUDADriverError=_device.CUDADriverError)
function = SimpleNamespace(Function=_device.Function, Module=_device.Module)


def get_current_stream(device_id: int | None = None) -> Any:
    return SimpleNamespace(synchronize=_synchronize, ptr=_device._current[-1])


def alloc_pinned_memory(size: int) -> bytearray:
    return bytearray(size)
