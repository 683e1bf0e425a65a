"""The machine that simulated threads run on: blocks one after the other, in any order, and so the
threads of a block, as far as they do not wait for each other.

In: the code of kernels, arguments in memory. Out: that memory, written. Shared memory begins as NaN
and ends at a page that may not be touched. Threads that wait at different places, or that end while
others wait for them, are a DivergenceError.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Hashable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from tinygrad_tx.backends.cpu import jit
from tinygrad_tx.backends.gpu import writers
from tinygrad_tx.backends.gpu.thread import SHARED, WARP
from tinygrad_tx.backends.kernels.arguments import word_count
from tinygrad_tx.backends.kernels.kinds import Kernel
from tinygrad_tx.backends.llvm import engine, ir
from tinygrad_tx.backends.llvm.ir import Builder, Value

from .guarded import Block
from .tensor_core import WIDTH
from .thread import BARRIER, Simulated

MOST_THREADS = 1024
_RUN = ctypes.CFUNCTYPE(
    ctypes.c_int64,
    *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32),
    *(ctypes.c_void_p,) * 7,
    ctypes.c_int32,
)


class DivergenceError(RuntimeError):
    """Threads that must come to the same place have come to different ones."""


class BadCopyError(RuntimeError):
    """An asynchronous copy between addresses that have not the alignment of its size, one too many
    at once, or one that its thread has not waited for in the end."""


class Code(NamedTuple):
    name: str
    address: int
    threads: int
    shared: int
    keeps: Any  # what the code lives by
    words: int = 0  # of a call


def compiled(text: str, waits: bool) -> jit.Loaded:
    """Machine code of a module. waits: True if it holds coroutines, which LLVM must split."""
    target, llvm = jit.host_target(), engine.binding()
    machine = llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=0, reloc="pic", codemodel="small"
    )
    module = engine.parse(f'target triple = "{target.triple}"\n{text}', machine)
    if waits:
        options = llvm.create_pipeline_tuning_options(speed_level=0)
        passes = llvm.create_pass_builder(machine, options)
        passes.getModulePassManager().run(module, passes)
    return jit.load_object(bytes(machine.emit_object(module)), target)


def text(kernel: Kernel, form: Hashable, threads: int) -> str:
    """The module of a kernel in one form."""
    module = ir.Module(libm=False)
    writers.write(kernel, form, Simulated(module, "kernel", threads))
    return module.text()


@cache
def code(kernel: Kernel, form: Hashable, threads: int) -> Code:
    """The code of a kernel in one form."""
    found = made(lambda t: writers.write(kernel, form, t), threads)
    return found._replace(words=word_count(kernel))


def made(
    write: Callable[[Simulated], None], threads: int, thread: type[Simulated] = Simulated
) -> Code:
    """What `write` writes for one thread. thread: how threads are simulated."""
    module = ir.Module(libm=False)
    t = thread(module, "kernel", threads)
    write(t)
    loaded = compiled(module.text(), t.waits > 0)
    return Code("kernel", loaded.address("kernel"), threads, t.used, loaded)


class Machine:
    """seed: of the order in which blocks and threads run."""

    def __init__(self, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        self._shared = Block(SHARED)
        self._slots = np.empty((2, MOST_THREADS, WIDTH), np.uint32)
        self._places = np.zeros(MOST_THREADS, np.int32)
        self._fault = np.zeros(1, np.int32)
        self._handles = np.zeros(MOST_THREADS, np.int64)

    def launch(self, code: Code, blocks: int, words: int, calls: int = 1) -> None:
        """Run all blocks of calls whose arguments lie one after the other from an address on."""
        for call in range(calls):
            self._launch(code, blocks, words + 8 * code.words * call)

    def _launch(self, code: Code, blocks: int, words: int) -> None:
        warps = self._random.permutation(code.threads // WARP)[:, None]
        lanes = self._random.permuted(np.tile(np.arange(WARP), (len(warps), 1)), axis=1)
        threads = (warps * WARP + lanes).astype(np.int32).ravel()
        turns = self._random.permutation(blocks).astype(np.int32)
        self._slots.fill(0xFFFFFFFF)
        shared = self._shared.end - -(-code.shared // 16) * 16
        status = _run()(
            code.address,
            words,
            blocks,
            turns.ctypes.data,
            threads.ctypes.data,
            shared,
            self._slots.ctypes.data,
            self._places.ctypes.data,
            self._handles.ctypes.data,
            self._fault.ctypes.data,
            code.threads | -(-code.shared // 16) << 12,
        )
        if status:
            block, places = status - 1, set(self._places[: code.threads].tolist())
            raise DivergenceError(
                f"block {block}: threads wait at different places: {sorted(places)}"
            )
        if self._fault[0]:
            raise BadCopyError("a copy of global to shared memory")


# The loop over threads ---------------------------------------------------------------------------


@cache
def _run() -> Any:
    module = ir.Module()
    _write(module)
    loaded = compiled(module.text() + _RESUME, waits=True)
    function = _RUN(loaded.address("run"))
    function.keeps = loaded
    return function


_RESUME = """
declare void @llvm.coro.resume(ptr)
"""


def _write(module: ir.Module) -> None:
    """`i64 @run(...)`: 0, or 1 + the block in which threads have diverged."""
    memory = ("turns", "order", "shared", "slots", "places", "handles", "fault")
    params = [
        *(("ptr", "start"), ("ptr", "words"), ("i32", "blocks")),
        *(("ptr", name) for name in memory),
        ("i32", "sizes"),
    ]
    b = module.function("run", params, "i64")
    start, words, blocks, turns, order, shared, slots, places, handles, fault, sizes = b.params
    zero, one, warp = (ir.integer(n, "i32") for n in (0, 1, WARP))
    threads = b.binary("and", sizes, ir.integer(4095, "i32"))
    bytes_shared = b.mul(b.binary("lshr", sizes, ir.integer(12, "i32")), ir.integer(16, "i32"))
    failed, begun = b.alloca("i64", 8), b.alloca("i32", 4)
    b.store(ir.integer(0), failed)

    def thread_at(i: Value) -> Value:
        return b.load("i32", b.at(order, i, "i32"))

    def place_of(i: Value) -> Value:
        return b.load("i32", b.at(places, thread_at(i), "i32"))

    def resume(i: Value) -> None:
        handle = b.load("ptr", b.at(handles, thread_at(i), "i64"))
        b.do(f"call void @llvm.coro.resume(ptr {handle.name})")

    def begin(i: Value, block: Value) -> None:
        thread = thread_at(i)
        handle = b.emit(
            "ptr",
            f"call ptr {start.name}(ptr {words.name}, i32 {thread.name}, i32 {block.name}, "
            f"i32 {blocks.name}, ptr {shared.name}, ptr {slots.name}, ptr {places.name}, "
            f"ptr {fault.name})",
        )
        b.store(handle, b.at(handles, thread, "i64"))

    with b.loop(zero, blocks, one) as turn:
        block = b.load("i32", b.at(turns, turn.i, "i32"))
        size = b.convert("zext", bytes_shared, "i64")
        b.call("llvm.memset.p0.i64", "void", shared, ir.integer(-1, "i8"), size, ir.boolean(False))
        b.store(zero, begun)
        with b.forever() as leave:
            # A warp goes until it waits for others before the next one does anything.
            with b.loop(zero, threads, warp) as each:
                stop = b.add(each.i, warp)
                new = b.compare("eq", b.load("i32", begun), zero)
                with b.when(new), b.loop(each.i, stop, one) as mine:
                    begin(mine.i, block)
                old = b.compare("ne", b.load("i32", begun), zero)
                with b.when(old), b.loop(each.i, stop, one) as mine:
                    resume(mine.i)
                _go_together(b, each.i, place_of, resume, failed, block)
            b.store(one, begun)
            # All warps are at a barrier, or at their ends.
            here = place_of(zero)
            _compare(b, zero, threads, here, place_of, failed, block)
            leave(b.compare("ne", b.load("i64", failed), ir.integer(0)))
            leave(b.compare("eq", here, zero))
        with b.loop(zero, threads, one) as each:
            b.call("free", "void", b.load("ptr", b.at(handles, thread_at(each.i), "i64")))
        stop = b.compare("ne", b.load("i64", failed), ir.integer(0))
        go = b.fresh("fine")
        b.do(f"br i1 {stop.name}, label %stop, label %{go}")
        b.label(go)
    b.do("br label %stop")
    b.label("stop")
    b.end(b.load("i64", failed))


def _go_together(
    b: Builder, first: Value, place_of: Any, resume: Any, failed: Value, block: Value
) -> None:
    """Resume the threads of a warp until they are at a barrier or at their ends."""
    one = ir.integer(1, "i32")
    stop = b.add(first, ir.integer(WARP, "i32"))
    with b.forever() as leave:
        here = place_of(first)
        kind = b.binary("and", here, one)
        _compare(b, first, stop, here, place_of, failed, block)
        leave(b.compare("eq", kind, ir.integer(BARRIER, "i32")))
        leave(b.compare("ne", b.load("i64", failed), ir.integer(0)))
        with b.loop(first, stop, one) as each:
            resume(each.i)


def _compare(
    b: Builder, first: Value, stop: Value, here: Value, place_of: Any, failed: Value, block: Value
) -> None:
    """Note the block where not all of some threads are at one place."""
    with b.loop(first, stop, ir.integer(1, "i32")) as each:
        other = b.compare("ne", place_of(each.i), here)
        with b.when(other):
            b.store(b.add(b.convert("zext", block, "i64"), ir.integer(1)), failed)
