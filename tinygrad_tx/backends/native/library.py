"""Machine code of Kernels: compiled once, kept in this process and on disk.

In: Kernels. Out: the address of each one's function. Called by compiler/ for every plan, and by
program.py, whose executor is code of the same kind.

A file of the cache is one kernel's object code. Its name is a digest of all that the code depends
on: the kernel, the target, LLVM's version and the text of the files that write code. It begins with
a digest of its content, so that a damaged file is known and made again. Code is run from there: so
the directory must belong to the user and be closed to all others, or it is not used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from time import perf_counter

from ..kernel import Kernel
from . import ir, jit
from .render import render
from .target import Target

_LOADED: dict[tuple[str, Target], tuple[jit.Loaded, int]] = {}
_KERNELS: dict[tuple[Kernel, Target], int] = {}
_LOCK = Lock()
_STATS = {"compiled": 0, "disk_hits": 0, "memory_hits": 0, "seconds": 0.0}
_NAME = "tx_kernel"


def functions(kernels: Sequence[Kernel], target: Target | None = None) -> dict[Kernel, int]:
    """The address of each kernel's function on the target, by default this processor's."""
    target = target or jit.host_target()
    with _LOCK:
        for kernel in kernels:
            key = kernel, target
            if key in _KERNELS:
                _STATS["memory_hits"] += 1
            else:
                _KERNELS[key] = _address(repr(kernel), _text(kernel, target), target)
    return {kernel: _KERNELS[kernel, target] for kernel in kernels}


def _text(kernel: Kernel, target: Target) -> Callable[[], str]:
    def text() -> str:
        module = ir.Module()
        render(kernel, module, _NAME, target)
        return module.text()

    return text


def _address(identity: str, text: Callable[[], str], target: Target) -> int:
    started = perf_counter()
    loaded = jit.load_object(jit.compile_object(text(), target), target)
    address = loaded.address(_NAME)
    _LOADED[identity, target] = loaded, address
    _STATS["compiled"] += 1
    _STATS["seconds"] += perf_counter() - started
    return address


def stats() -> dict[str, float]:
    """Since the process began: kernels compiled, found on disk, found in memory, and the seconds
    that compiling and loading took."""
    return dict(_STATS)
