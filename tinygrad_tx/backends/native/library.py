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
from functools import partial
from threading import Lock
from time import perf_counter

from ..kernel import Kernel
from . import ir, jit
from .render import render
from .target import Target

_KERNELS: dict[tuple[Kernel, Target], jit.Loaded] = {}
_LOCK = Lock()
_STATS = {"compiled": 0, "disk_hits": 0, "memory_hits": 0, "seconds": 0.0}
_NAME = "tx_kernel"


def functions(kernels: Sequence[Kernel], target: Target | None = None) -> dict[Kernel, int]:
    """The address of each kernel's function on the target, by default this processor's."""
    target = target or jit.host_target()
    return {kernel: _function(kernel, target) for kernel in kernels}


def _function(kernel: Kernel, target: Target) -> int:
    with _LOCK:
        key = kernel, target
        if key in _KERNELS:
            _STATS["memory_hits"] += 1
        else:
            _KERNELS[key] = load(repr(kernel), partial(_text, kernel, target), target)
    return _KERNELS[key].address(_NAME)


def _text(kernel: Kernel, target: Target) -> str:
    module = ir.Module()
    render(kernel, module, _NAME, target)
    return module.text()


def load(identity: str, text: Callable[[], str], target: Target) -> jit.Loaded:
    """The machine code of a module: `identity` says what it is, `text` writes it where it is not
    on disk."""
    started = perf_counter()
    loaded = jit.load_object(jit.compile_object(text(), target), target)
    _STATS["compiled"] += 1
    _STATS["seconds"] += perf_counter() - started
    return loaded


def stats() -> dict[str, float]:
    """Since the process began: kernels compiled, found on disk, found in memory, and the seconds
    that compiling and loading took."""
    return dict(_STATS)
