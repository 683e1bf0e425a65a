"""PTX of ours on the CPU: a kernel that a driver is given as PTX is run by the simulator.

No PTX is made: the name of its function leads to the kernel and the form, and the simulator's code
is made of these by the same writer. ptxas looks at the PTX (tests/gpu/test_ptx.py). Called by the
stand-ins for a driver: cupy_on_cpu and the double.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import traceback
from collections.abc import Callable, Hashable
from typing import Any

from tinygrad_tx.backends.gpu import library
from tinygrad_tx.backends.kernels.kinds import Kernel
from tinygrad_tx.backends.reports import CLEAN

from .machine import Code, Machine, code

_ENTRY = re.compile(r"\.entry (\w+)\(")
_LOAD = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p)
_FIND = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p)
_LAUNCH = ctypes.CFUNCTYPE(*(ctypes.c_int,) * 5, ctypes.c_uint64, ctypes.c_uint64)
_made: dict[str, tuple[Kernel, Hashable, int]] = {}  # by the name of the function
_modules: list[str] = []  # the name of each module's function
_functions: list[Code] = []
_machine = Machine(int(os.environ.get("CPU_CUDA_ORDER", "0")))


def _noted(kernel: Kernel, form: Hashable, threads: int, architecture: str) -> str:
    """In place of PTX as much of it as is looked at."""
    name = library.name(kernel, form, threads)
    _made[name] = kernel, form, threads
    return f".visible .entry {name}("


library.ptx = _noted  # type: ignore[assignment]


def load(text: bytes) -> int:
    """The number of a module; -1 where it is none of ours."""
    found = _ENTRY.search(text.decode())
    if found is None or found[1] not in _made:
        return -1
    _modules.append(found[1])
    return len(_modules) - 1


def find(module: int, name: bytes) -> int:
    """The number of a module's function; -1 where it has no such one."""
    if name.decode() != _modules[module]:
        return -1
    _functions.append(code(*_made[_modules[module]]))
    return len(_functions) - 1


def launch(function: int, blocks: int, calls: int, threads: int, words: int, report: int) -> int:
    """0 when it has run."""
    found = _functions[function]
    assert threads == found.threads, f"{threads} threads, not {found.threads}"
    if ctypes.c_int64.from_address(report).value == CLEAN:
        _machine.launch(found, blocks, words, calls)
    return 0


def callbacks() -> tuple[Any, Any, Any]:
    """These functions for a driver in C, which must not outlive them."""
    return _LOAD(_guarded(load)), _FIND(_guarded(find)), _LAUNCH(_guarded(launch))


def _guarded(f: Callable[..., int]) -> Callable[..., int]:
    """An error is told, and is -1."""

    def call(*args: Any) -> int:
        try:
            return f(*args)
        except Exception:
            traceback.print_exc(file=sys.stderr)
            return -1

    return call
