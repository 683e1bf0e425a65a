"""PTX of kernels: made once for each form, kept on disk.

In: a kernel, its form, an architecture. Out: PTX, in which the function has the name that `name`
gives. Called by what loads it.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache
from hashlib import sha256

from .. import store
from ..kernels.arguments import word_count
from ..kernels.kinds import Kernel
from ..llvm import engine, ir
from . import writers
from .ptx import Ptx, compile_ptx


def name(kernel: Kernel, form: Hashable, threads: int) -> str:
    """The name of the function of a kernel in one form."""
    return "tx_" + sha256(repr((kernel, form, threads)).encode()).hexdigest()[:24]


def source(kernel: Kernel, form: Hashable, threads: int) -> str:
    """The LLVM IR that PTX is made of."""
    module, each = ir.Module(libm=False), word_count(kernel)
    writers.write(kernel, form, Ptx(module, name(kernel, form, threads), threads, each))
    return module.text()


@lru_cache(maxsize=4096)
def ptx(kernel: Kernel, form: Hashable, threads: int, architecture: str) -> str:
    """The PTX of a kernel in one form."""
    known = [name(kernel, form, threads), architecture, engine.version()]
    digest = sha256("\0".join([*known, store.sources("gpu", "llvm")]).encode()).hexdigest()
    path = store.place(digest, "ptx")
    kept = store.read(path) if path else None
    if path and kept is not None:
        store.used(path)
        return kept.decode()
    made = compile_ptx(source(kernel, form, threads), architecture)
    if path:
        store.write(path, made.encode())
    return made
