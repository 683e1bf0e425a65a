"""Machine code of Kernels: compiled once, kept in this process and on disk.

In: Kernels. Out: the address of each one's function. Called by target.py for every plan, by team.py
for the executor, and by `tinygrad-tx doctor`. Code stays in the process as long as somebody holds
it, and some that was used last beyond that.

A file of the disk cache (store.py) is one module's object code. Its name is a digest of all that
the code depends on: the kernel, the target, LLVM's version and the source of everything here that
writes code.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from threading import Lock
from weakref import WeakValueDictionary

from .. import store
from ..kernels.kinds import Kernel
from ..llvm import engine, ir
from . import jit
from .processor import Processor
from .writers import render

KEPT = 128  # modules that stay loaded although nobody may use them any more

_NAME = "tx_kernel"
_LOCK = Lock()
# By repr, for 0.0 equals -0.0 and 1 equals True.
_loaded: dict[tuple[str, Processor], jit.Loaded] = {}  # the one used last stands last
# Those that are still held.
_others: WeakValueDictionary[tuple[str, Processor], jit.Loaded] = WeakValueDictionary()
_stats = {"compiled": 0, "disk_hits": 0, "memory_hits": 0, "seconds": 0.0}


class Functions(dict[Kernel, int]):
    """Addresses of kernels' functions, which are good as long as this is there: it holds the
    code."""

    def __init__(self, loaded: dict[Kernel, jit.Loaded]) -> None:
        super().__init__((kernel, code.address(_NAME)) for kernel, code in loaded.items())
        self._loaded = tuple(loaded.values())


def functions(kernels: Sequence[Kernel], target: Processor | None = None) -> Functions:
    """The address of each kernel's function on the target, by default this processor's."""
    target = target or jit.host_target()
    return Functions({k: load(repr(k), partial(_text, k, target), target) for k in kernels})


def _text(kernel: Kernel, target: Processor) -> str:
    module = ir.Module()
    render(kernel, module, _NAME, target)
    return module.text()


def load(identity: str, text: Callable[[], str], target: Processor) -> jit.Loaded:
    """The machine code of a module. identity: all that the text depends on besides the target and
    the source of this package; `text` writes it, where it is found nowhere."""
    key = identity, target
    with _LOCK:
        known = _loaded.pop(key, None) or _others.pop(key, None)
        if known is not None:
            _stats["memory_hits"] += 1
            return _keep(key, known)
        started = time.perf_counter()
        path = store.place(_digest(identity, target), "o")
        found = _from_disk(path, target) if path else None
        if found is None:
            data = jit.compile_object(text(), target)
            found = jit.load_object(data, target)
            _stats["compiled"] += 1
            if path:
                store.write(path, data)
        else:
            _stats["disk_hits"] += 1
        _stats["seconds"] += time.perf_counter() - started
        return _keep(key, found)


def kept(kernel: Kernel, target: Processor) -> bool:
    """True if a kernel's code is on disk."""
    path = store.place(_digest(repr(kernel), target), "o")
    return path is not None and path.exists()


def _keep(key: tuple[str, Processor], code: jit.Loaded) -> jit.Loaded:
    """Mark it as used last. The least recently used are freed if nobody holds them."""
    _loaded[key] = code
    while len(_loaded) > KEPT:
        oldest = next(iter(_loaded))
        _others[oldest] = _loaded.pop(oldest)
    return code


def stats() -> dict[str, float]:
    """Since the process began: kernels compiled, found on disk, found in memory, and the seconds
    that compiling and loading took."""
    with _LOCK:
        return dict(_stats)


def _digest(identity: str, target: Processor) -> str:
    known = [identity, repr(target), engine.version(), store.sources("cpu", "llvm")]
    return sha256("\0".join(known).encode()).hexdigest()


def _from_disk(path: Path, target: Processor) -> jit.Loaded | None:
    data = store.read(path)
    if data is None:
        return None
    try:
        loaded = jit.load_object(data, target)
    except RuntimeError:  # whole, but not what this process can link
        return None
    store.used(path)
    return loaded


def _renew() -> None:
    """In the child of a fork: its parent's other threads may have held the lock."""
    global _LOCK
    _LOCK = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
