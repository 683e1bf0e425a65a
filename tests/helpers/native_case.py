"""Native kernels on arrays: what the tests of native code share."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from tinygrad_tx.backends.cpu import jit, writers
from tinygrad_tx.backends.cpu.processor import Processor
from tinygrad_tx.backends.kernels.kinds import Kernel
from tinygrad_tx.backends.llvm import ir

CODE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)


def host() -> Processor:
    return jit.host_target()


def targets() -> list[Processor]:
    """Those whose code runs here, the best first."""
    best = host()
    names = {"avx512": ["avx2", "plain"], "avx2": ["plain"], "neon": ["plain"]}.get(best.name, [])
    return [best, *map(jit.named_target, names)]


def function(
    target: Processor, write: Callable[[ir.Module, str], None], *, libm: bool = True
) -> Callable[..., None]:
    """What `write` adds to a module under the name it is given, ready to be called with an argument
    list, a task and a scratch address. libm: as of Module."""
    module = ir.Module(libm=libm)
    write(module, "kernel")
    loaded = jit.load_object(jit.compile_object(module.text(), target), target)
    code = CODE(loaded.address("kernel"))

    def call(args: Sequence[int], task: int = 0, scratch: int = 0) -> None:
        assert loaded, "the code stays loaded as long as this function is there"
        words = np.array(args, np.int64)
        code(words.ctypes.data, task, scratch)

    return call


@cache
def compiled(kernel: Kernel, target: Processor) -> Callable[..., None]:
    return function(target, lambda module, name: writers.render(kernel, module, name, target))


def run(kernel: Kernel, args: Sequence[int], target: Processor | None = None) -> None:
    """All tasks of a call, last one first. Scratch memory begins as NaN, and must not overflow."""
    target = target or host()
    code, size = compiled(kernel, target), writers.scratch(kernel, args, target)
    memory = np.full(size + 192, 0xFF, np.uint8)
    start = -memory.ctypes.data % 64
    for task in reversed(range(kernel.tasks(args))):
        code(args, task, memory.ctypes.data + start)
    assert (memory[start + size :] == 0xFF).all(), "written beyond the scratch memory"
