"""Floor 1: arrays and kernels, one backend per device. `get(device)` is the door to arrays,
`target_of(device)` to what runs kernels.

In: a device name. Out: a Backend, made on first use. Called by node.py when an op runs, and by
tensor.py when data enters or leaves. This file alone knows which device names exist; a further
backend of ours adds one line here and one file in arrays/, and users call `register`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ..arguments import shown
from ..errors import DeviceError
from ..lazy import lazily
from .arrays.base import Array, Backend
from .target import Cut, Memory, Program, Target

if TYPE_CHECKING:
    from .arrays.numpy_backend import NumpyBackend
else:
    __getattr__, __dir__ = lazily(__name__, {"arrays.numpy_backend": "NumpyBackend"})

_MODULES = {
    "cpu": "arrays.numpy_backend",
    "cuda": "arrays.cupy_backend",
    "meta": "arrays.meta_backend",
}
_TARGETS = {"cpu": "cpu.target", "cuda": "gpu.target"}
_ON_PAPER = {**_TARGETS, "meta": "gpu.target"}  # what is planned without arrays is a GPU's
_LOADED: dict[str, Backend] = {}
_REGISTERED: dict[str, Target | None] = {}


def canonical(device: str) -> str:
    """The device's name if it is a known one; DeviceError otherwise."""
    if not isinstance(device, str) or not (device in _MODULES or device in _REGISTERED):
        name = f'"{device}"' if isinstance(device, str) else shown(device)
        raise DeviceError(f"no device {name}: choose one of {', '.join(devices())}")
    return device


def get(device: str) -> Backend:
    """The backend of a device; DeviceError, in one line, where something it needs is missing."""
    backend = _LOADED.get(device)
    if backend is None:
        module = import_module(f"{__name__}.{_MODULES[canonical(device)]}")
        backend = _LOADED[device] = module.load()
    return backend


def register(device: str, backend: Backend, target: Target | None = None) -> None:
    """Make a device known under a name of its own: its arrays, and what runs kernels on them.

    backend: what forwards are written against, whose `device` is that name. target: without one,
    compiled functions run op by op there. A name that is registered already gets the new ones.
    DeviceError for the name of a device of ours; TypeError for what is no backend or no target.
    """
    if not isinstance(device, str) or not device.isidentifier():
        raise TypeError(f"register: a device's name is a word, not {shown(device)}")
    if device in _MODULES:
        raise DeviceError(f'register: "{device}" is a device of the library; choose another name')
    if not isinstance(backend, Backend):
        raise TypeError(
            f"register: backend must be an object of a class derived from Backend or NumpyBackend, "
            f"not {shown(backend)}"
        )
    if getattr(backend, "device", None) != device:
        raise DeviceError(
            f'register: the backend\'s attribute device must be "{device}", as its name is'
        )
    if target is not None and not isinstance(target, Target):
        raise TypeError(f"register: target must be a Target or None, not {shown(target)}")
    _LOADED[device], _REGISTERED[device] = backend, target


def forget(device: str) -> None:
    """Take a registered device away; DeviceError where it is none."""
    if device not in _REGISTERED:
        raise DeviceError(f"forget: {shown(device)} is not registered")
    del _REGISTERED[device], _LOADED[device]


def target_of(device: str, *, interpreted: bool = False) -> Target | None:
    """The Target that runs kernels on a device's arrays; None where there is none. interpreted: in
    NumPy, on any machine. NativeUnavailable where code cannot be made here."""
    if device in _REGISTERED:
        return None if interpreted else _REGISTERED[device]
    if device not in _TARGETS:
        return None
    module = import_module(f"{__name__}.{_TARGETS[device]}")
    found: Target | None = module.interpreted() if interpreted else module.host()
    return found


def planned_for(device: str) -> Target | None:
    """The Target that answers for a device, which need not be here; None where there is none."""
    if device not in _ON_PAPER:
        return _REGISTERED.get(device)
    found: Target = import_module(f"{__name__}.{_ON_PAPER[device]}").on_paper()
    return found


def has_tf32(device: str) -> bool:
    """True if a device can compute products of float32 with operands of 19 bits."""
    return get(device).tf32


def devices() -> tuple[str, ...]:
    """The names of all known devices, present or not."""
    return tuple(dict.fromkeys((*_MODULES, *_REGISTERED)))


__all__ = [
    "Array",
    "Backend",
    "Cut",
    "Memory",
    "NumpyBackend",
    "Program",
    "Target",
    "canonical",
    "devices",
    "forget",
    "get",
    "has_tf32",
    "planned_for",
    "register",
    "target_of",
]
