"""PTX of ours on the CPU: a kernel that the driver is given as PTX is run by the simulator.

The PTX itself is not run: its function's name leads to the kernel and the form that it was made of,
and the simulator's code is made of these by the same writer. ptxas looks at the PTX
(tests/gpu/test_ptx.py).
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import traceback
from collections.abc import Callable, Hashable
from typing import Any

from simulator.machine import Code, Machine, code

from tinygrad_tx.backends.gpu import library
from tinygrad_tx.backends.kernels.kinds import Kernel
from tinygrad_tx.backends.reports import CLEAN

_ENTRY = re.compile(r"\.entry (\w+)\(")
_LOAD = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p)
_FIND = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p)
_LAUNCH = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_uint64, ctypes.c_uint64
)
_KEPT: list[Any] = []  # callbacks, which the driver holds
_made: dict[str, tuple[Kernel, Hashable, int]] = {}  # by the name of the function
_modules: list[str] = []  # the name of each module's function
_functions: list[Code] = []
_machine = Machine(int(os.environ.get("CPU_CUDA_ORDER", "0")))


def callbacks() -> tuple[Any, Any, Any]:
    """What driver.cpp calls."""
    made = library.ptx

    def noted(kernel: Kernel, form: Hashable, threads: int, architecture: str) -> str:
        _made[library.name(kernel, form, threads)] = kernel, form, threads
        return made(kernel, form, threads, architecture)

    library.ptx = noted  # type: ignore[assignment]
    if not _KEPT:
        _KEPT.extend((_LOAD(_guarded(_load)), _FIND(_guarded(_find)), _LAUNCH(_guarded(_launch))))
    return tuple(_KEPT)


def _guarded(f: Callable[..., int]) -> Callable[..., int]:
    def call(*args: Any) -> int:
        try:
            return f(*args)
        except Exception:
            traceback.print_exc(file=sys.stderr)
            return -1

    return call


def _load(text: bytes) -> int:
    found = _ENTRY.search(text.decode())
    if found is None or found[1] not in _made:
        return -1
    _modules.append(found[1])
    return len(_modules) - 1


def _find(module: int, name: bytes) -> int:
    if name.decode() != _modules[module]:
        return -1
    _functions.append(code(*_made[_modules[module]]))
    return len(_functions) - 1


def _launch(function: int, blocks: int, threads: int, words: int, report: int) -> int:
    found = _functions[function]
    assert threads == found.threads, f"{threads} threads, not {found.threads}"
    if ctypes.c_int64.from_address(report).value == CLEAN:
        _machine.launch(found, blocks, words)
    return 0
